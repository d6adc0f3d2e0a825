"""CSV files with and without a line of names, and with other characters between their cells."""

import io
from pathlib import Path

import numpy as np
import pytest

from pipelines.readers.files import tables
from pipelines.readers.files.lazy_field import LazyField
from schemas.errors import SourceError
from tests.pipelines.readers.reading import Opener, Reading

reading = Reading(Opener("folder"))


def fields(content: str, *, header: bool | None = None) -> dict[str, LazyField]:
    return tables.table_fields(content.encode(), "t.csv", header=header)


@pytest.mark.parametrize(
    "first",
    [
        "0.0,0.1,0.2",
        "0,1,2",
        "-1,2e-3,.5",
        ",0.1,0.2",
        "0.0,,0.2",
        '"0.0","0.1","0.2"',
        " 1 , 2 , 3 ",
        "0.5,pick,1",
        "1,pick,2",
        "0.0;0.1;0.2",
        "0.0\t0.1\t0.2",
        "0.0 0.1 0.2",
        "0,1;0,2;0,3",
        "1;2;3",
        "nan,inf,1",
    ],
)
def test_a_first_line_of_numbers_is_refused_and_names_the_key(first: str) -> None:
    lines = f"{first}\n{first}\n"
    with pytest.raises(SourceError, match=r"the first line holds numbers .*source\.header = false") as caught:
        fields(lines)
    assert caught.value.reason == "bad_table"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", "   "])
@pytest.mark.parametrize("style", ["%.18e", "%g"])
def test_without_a_header_every_row_is_read_as_one_vector(delimiter: str, style: str) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4))
    rows[0] = [0, 1, 2, 3]
    out = io.StringIO()
    np.savetxt(out, rows, delimiter=delimiter, fmt=style)
    column = fields(out.getvalue(), header=False)["values"]
    assert (column.count, column.leaf.field.shape) == (3, (4,))
    assert np.allclose(column.read(3), rows, rtol=1e-5)


def test_one_column_without_a_name_and_a_column_of_texts_are_read_too() -> None:
    with pytest.raises(SourceError, match="holds numbers"):
        fields("0.5\n1.5\n")
    assert fields("0.5\n1.5\n", header=False)["values_0"].read(2).tolist() == [0.5, 1.5]
    mixed = fields("0.5,pick,1\n1.5,place,2\n", header=False)
    assert {path: len(column.read(2)) for path, column in mixed.items()} == dict.fromkeys(
        ["values_0", "values_1", "values_2"], 2
    )


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        ("t,0,1\n0.1,0.2,0.3\n", {"t", "0", "1"}),
        (",0,1\n0,0.5,0.6\n1,0.7,0.8\n", {"index", "0", "1"}),
        ("a;b\n1;2\n", {"a", "b"}),
        ("a\tb, in m\n1\t2\n", {"a", "b, in m"}),
        ("a b\n1 2\n", {"a", "b"}),
        ("the pose\n1\n", {"the pose"}),
        ('"a;b",c\n1,2\n', {"a;b", "c"}),
    ],
)
def test_names_that_hold_a_number_or_another_delimiter_stay_names(content: str, paths: set[str]) -> None:
    assert fields(content).keys() == paths


def test_names_that_are_numbers_are_declared() -> None:
    assert {path: column.read(1).tolist() for path, column in fields("0.5,1.5\n3,4\n", header=True).items()} == {
        "0.5": [3.0],
        "1.5": [4.0],
    }


def test_a_folder_of_tables_without_headers_is_refused_and_then_read_whole(tmp_path: Path) -> None:
    rows = "0.0,0.1,0.2\n0.1,0.2,0.3\n0.2,0.3,0.4\n"
    for number in range(2):
        (tmp_path / f"ep_{number}").mkdir()
        (tmp_path / f"ep_{number}/steps.csv").write_text(rows)
    with pytest.raises(SourceError, match=r"source\.header = false"):
        reading.read(tmp_path)
    found = reading.episodes(tmp_path, episodes="ep_*", header=False)
    assert [np.asarray(e.steps["steps.values"]).tolist() for e in found] == [
        [[0.0, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.3, 0.4]]
    ] * 2
