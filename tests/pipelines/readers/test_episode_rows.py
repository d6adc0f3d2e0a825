"""The rows of a table are divided into episodes, or refused with what is wrong; a guess says what it saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.episode_rows import RowColumn, Table, divide, guess
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError


def column(values: Sequence[Any], *, block: int = 3) -> RowColumn:
    """Make a column that is read in blocks of some rows."""
    array = np.array(values, object) if values and isinstance(values[0], str) else np.array(values)
    blocks = [array[first : first + block] for first in range(0, len(array), block)]
    return RowColumn(array.shape, array.dtype.kind, lambda: blocks)


def make_table(**columns: Sequence[Any]) -> Table:
    return {name: column(values) for name, values in columns.items()}


def ends(table: Table, **key: Any) -> list[int]:
    return divide(table, FolderSource(format="folder", episodes="*", **key)).ends.tolist()


def refused(table: Table, **key: Any) -> str:
    with pytest.raises(SourceError) as caught:
        ends(table, **key)
    return caught.value.message


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    block=st.integers(1, 5),
    stem=st.sampled_from(["take ", ""]),
)
def test_each_key_finds_the_episodes_whatever_the_blocks(lengths: list[int], block: int, stem: str) -> None:
    expected = np.cumsum(lengths).tolist()
    names = [f"{stem}{i}" if stem else 10 - i for i in range(len(lengths))]
    rows = np.arange(expected[-1])
    table = {
        "id": column([name for name, count in zip(names, lengths, strict=True) for _ in range(count)], block=block),
        "odd": column(np.isin(rows + 1, expected[::2]).tolist(), block=block),
        "even": column(np.isin(rows + 1, expected[1::2]).astype(int).tolist(), block=block),
        "ends": column(expected, block=block),
    }
    assert ends(table, episode_column="id") == expected
    assert ends(table, episode_flags=["odd", "even"]) == expected
    assert ends(table, episode_ends="ends") == expected


def test_rows_after_the_last_end_belong_to_no_episode() -> None:
    rows = divide(make_table(done=[0, 1, 0, 0]), FolderSource(format="folder", episodes="*", episode_flags=("done",)))
    assert [rows.bounds(number) for number in range(len(rows))] == [(0, 2)]
    assert "2 steps come after the end of the last episode" in str(rows.rest())


def test_wrong_keys_are_refused_with_the_row() -> None:
    table = make_table(
        id=[1.0, 1.0, 2.0, 1.0],
        nan=[1.0, float("nan"), 2.0, 2.0],
        half=[0, 0.5, 1, 1],
        ends=[3, 2],
        far=[2, 9],
        few=[1],
    )
    assert "the id 1.0 comes back at row 3" in refused(table, episode_column="id")
    assert "row 1 has no id" in refused(table, episode_column="nan")
    assert "row 1 is 0.5; expected true or false" in refused(table, episode_flags=["half"])
    assert "episode 1 ends at row 2, before it starts at 3" in refused(table, episode_ends="ends")
    assert "ends at row 9, but there are only 4 rows" in refused(table, episode_ends="far")
    assert "half has 4, few has 1 rows" in refused(table, episode_flags=["half", "few"])
    assert "there is no column 'idd'; did you mean 'id'?" in refused(table, episode_column="idd")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"terminals": [0, 1, 0, 0], "timeouts": [0, 0, 0, 1]}, {"episode_flags": ("terminals", "timeouts")}),
        ({"data.dones": [False, True, False, True]}, {"episode_flags": ("data.dones",)}),
        ({"next.done": [0.0, 1.0, 0.0, 0.0]}, {"episode_flags": ("next.done",)}),
        ({"is_first": [1, 0, 1, 0], "is_last": [0, 1, 0, 1]}, {"episode_flags": ("is_last",)}),
        ({"episode_index": [0, 0, 1, 1], "done": [0, 1, 0, 1]}, {"episode_column": "episode_index"}),
        ({"Traj-ID": ["a", "a", "b"]}, {"episode_column": "Traj-ID"}),
        ({"trajId": [3.0, 3.0, 9.0]}, {"episode_column": "trajId"}),
        ({"demo": [0, 0, 0, 1]}, {"episode_column": "demo"}),
        ({"meta.episode_ends": [2, 4], "x": [1, 2, 3, 4]}, {"episode_ends": "meta.episode_ends"}),
        ({"ends": [4], "x": [1, 2, 3, 4]}, {"episode_ends": "ends"}),
        ({"episode_data_index_to": [1, 4], "x": [1, 2, 3, 4]}, {"episode_ends": "episode_data_index_to"}),
        ({"seq_num": [0, 0, 1, 1]}, None),  # the counter of messages
        ({"done": [0, 0, 0, 1]}, None),  # true at the last row alone
        ({"done": [0, 0, 1, 1]}, None),  # stays true, as success does
        ({"terminals": [0, 0, 0, 0]}, None),
        ({"episode_index": [7, 7, 7, 7]}, None),
        ({"episode_id": [0, 1, 2, 3]}, None),  # numbers the rows
        ({"success": [0, 1, 0, 1], "run": [0, 0, 1, 1], "x": [0, 1, 0, 0]}, None),
        ({"is_first": [1, 0, 0, 0]}, None),
    ],
)
def test_names_and_values_suggest_a_key(columns: dict[str, Any], expected: dict[str, Any] | None) -> None:
    key = guess(make_table(**columns))
    assert (key and key.keys) == expected


def test_a_table_that_no_key_can_divide_is_refused() -> None:
    with pytest.raises(SourceError, match="the id 0 comes back at row 2"):
        guess(make_table(episode=[0, 1, 0, 0]))
    with pytest.raises(SourceError, match="ends one row before the last"):
        guess(make_table(episode_ends=[1, 3], x=[1, 2, 3, 4]))
    with pytest.raises(SourceError, match="is_first marks the first rows of 2 episodes"):
        guess(make_table(is_first=[1, 0, 1, 0]))
