"""Success labels: from the source, through the dataset and an export, and back."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oxe_tools import open_dataset
from pipelines.convert.binding import outcome_of
from pipelines.convert.convert import convert
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import verify
from schemas.errors import SpecError
from tests.pipelines.toy import oxe
from tests.schemas.makers import TOY, load, publish

DECLARED = 'success = "episode_metadata.success"\n' + TOY
ENDS = ["success", "failure", "success"]


def text(success: str) -> str:
    return f"success = {success}\n{TOY}"


@pytest.mark.parametrize(
    ("success", "ends"),
    [
        ('"episode_metadata.success"', ENDS),
        ('{ key = "episode_metadata.file_path", equals = "/lab/1" }', ["failure", "success", "failure"]),
        ('{ key = "reward", at_least = 100 }', ["failure"] * 3),
        ('{ key = "is_first", step = "any" }', ["success"] * 3),
        ('{ key = "is_first" }', ["failure", "failure", "success"]),  # the third episode has one step
    ],
)
def test_the_outcome_is_what_the_declared_field_says(tmp_path: Path, success: str, ends: list[str]) -> None:
    dataset = open_dataset(publish(tmp_path, text=text(success), lengths=(3, 4, 1)))
    assert [episode.outcome for episode in dataset] == ends
    assert verify(dataset, source=str(tmp_path / "source")).first == []
    assert pq.read_table(dataset.path / "meta/episodes.parquet")["outcome"].to_pylist() == ends
    assert dataset.columns.origins["outcome"] in success


def test_without_a_declaration_it_is_unknown(tmp_path: Path) -> None:
    dataset = open_dataset(publish(tmp_path))
    assert [episode.outcome for episode in dataset] == ["unknown"] * 3
    assert dataset.columns.origins["outcome"] is None


def test_a_field_that_is_not_there_or_never_meets_the_condition_is_refused(tmp_path: Path) -> None:
    for success, why in (
        ('"episode_metadata.sucess"', r"success: the source has no 'episode_metadata.sucess'; did you mean"),
        ('"points"', r"success: 'points' contains sequences of numbers of float32 \[3\]; expected one value"),
        ('{ key = "reward", equals = "done" }', "success: 'reward' contains numbers, its condition is for texts"),
        ('{ key = "note", at_least = 1 }', "success: 'note' contains texts, its condition is for numbers"),
    ):
        with pytest.raises(SpecError, match=why):
            publish(tmp_path / success[-9:-2], text=text(success))


def test_a_value_that_is_neither_quarantines_its_episode(tmp_path: Path) -> None:
    publish(tmp_path, text=text('"episode_metadata.weight"'))
    dataset = open_dataset(tmp_path / "out")  # weights are 0, 0.1 and 0.2
    assert dataset.manifest["balance"]["quarantined"] == {"bad_success": 2}
    detail = pq.read_table(dataset.path / "meta/quarantine.parquet")["detail"][0].as_py()
    assert detail.startswith("success: 'episode_metadata.weight' is 0.1")
    assert detail.endswith('success, as { key = "episode_metadata.weight", at_least = TODO }')


def test_a_label_that_an_episode_does_not_have_is_unknown() -> None:
    spec = load(text('"label"'))
    assert [outcome_of(spec, {}, about) for about in ({}, {"label": None}, {"label": 1})] == ["unknown"] * 2 + [
        "success"
    ]


def test_statistics_count_the_episodes_of_an_outcome(tmp_path: Path) -> None:
    out = publish(tmp_path, text=DECLARED)
    found = statistics(open_dataset(out), selection=Selection(filters='outcome == "success"'))
    assert (found.episodes, found.steps) == (2, 8)
    done = oxe("stats", out, "--filter", 'outcome == "failure"', "--json")
    assert json.loads(done.out)["episodes"] == 1


@pytest.mark.parametrize("view", [None, "openvla"])
def test_an_export_brings_the_outcome_back(tmp_path: Path, view: str | None) -> None:
    first = open_dataset(publish(tmp_path, text=DECLARED))
    more = ["--view", view] if view else []
    assert oxe("export", "rlds", first.path, "--out", tmp_path / "rlds/1.0.0", *more).code == 0
    done = oxe("convert", tmp_path / "rlds/1.0.0", "--out", tmp_path / "back")
    assert done.code == 0, done.err
    back = open_dataset(tmp_path / "back")
    assert [episode.outcome for episode in back] == ENDS
    assert back.episode(0).metadata.keys() == first.episode(0).metadata.keys()
    if not view:
        assert [e.content_hash() for e in back] == [e.content_hash() for e in first]


def test_a_changed_outcome_is_found(tmp_path: Path) -> None:
    out = publish(tmp_path, text=DECLARED)
    path = out / "meta/episodes.parquet"
    table = pq.read_table(path)
    forged = table.set_column(table.schema.get_field_index("outcome"), "outcome", pa.array(["success"] * 3))
    pq.write_table(forged, path)
    found = verify(open_dataset(out), source=str(tmp_path / "source"))
    assert "episode toy-000001: outcome is 'success', the source has 'failure'" in found.first


def test_a_source_whose_labels_changed_is_found(tmp_path: Path) -> None:
    out = publish(tmp_path, text=DECLARED)
    other = load(text('{ key = "episode_metadata.file_path", equals = "/lab/1" }'))
    convert(other, tmp_path / "other", source=str(tmp_path / "source"))
    one, two = open_dataset(out), open_dataset(tmp_path / "other")
    assert [a.content_hash() == b.content_hash() for a, b in zip(one, two, strict=True)] == [False] * 3
