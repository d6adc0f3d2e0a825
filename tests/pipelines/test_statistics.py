"""Statistics of a converted dataset are numpy's on the episodes that `open_dataset` gives."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import numbers
from pipelines.kept import read_kept
from pipelines.numbers import Selection, parts_of, vectors
from pipelines.records import Engine
from pipelines.statistics import statistics
from schemas.errors import StatsError, UsageError, ViewError
from schemas.source import Array
from schemas.store import Dataset, open_dataset
from stats.record import Statistics
from stats.summary import QUANTILES
from tests.pipelines.toy import Toy, columns, files, make_toy, write_source

LENGTHS = (3, 40, 200, 7, 1, 90)
RAW_VIEW = """
[views.torque]
action = ["raw.observation.torque", "action[0]", "action[3:]"]

[views.torque.space.parts]
torque  = { kind = "joint", dims = ["t0", "t1", "x"], unit = "1", mode = "absolute" }
gripper = { kind = "gripper", dims = ["gripper"], unit = "1", mode = "absolute" }

[views.nothing]
before = ["drop_first(1000)"]
"""


def make(folder: Path, *, replace: dict[str, str] | None = None, seed: int = 0, extra: str = RAW_VIEW) -> Toy:
    toy = make_toy(folder, [columns(seed + i, steps=n) for i, n in enumerate(LENGTHS)], splits={"train": 4, "val": 2})
    text = toy.spec.read_text()
    for old, new in (replace or {}).items():
        assert old in text
        text = text.replace(old, new)
    toy.spec.write_text(text + extra)
    assert toy.convert().code == 0
    return toy


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("statistics")).out)


def check(found: Statistics, vector: str, x: Array) -> None:
    """Compare with numpy, bit for bit where a figure is no sum."""
    wide, summary = x.astype(np.float64), found.vectors[vector]
    for name, q in QUANTILES.items():
        assert np.array_equal(getattr(summary, name), np.quantile(wide, q, axis=0)), name
    assert np.array_equal(summary.min, wide.min(axis=0))
    assert np.array_equal(summary.max, wide.max(axis=0))
    assert summary.count == len(x)
    np.testing.assert_allclose(summary.mean, wide.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(summary.std, wide.std(axis=0), rtol=1e-12, atol=1e-15)


def episodes(dataset: Dataset, kept: Callable[[Any], bool] = lambda _: True, view: str | None = None) -> list[Any]:
    return [episode for i in range(len(dataset)) if kept(episode := dataset.episode(i, view))]


def joined(found: list[Any], name: str = "action") -> Array:
    return np.concatenate([getattr(episode, name) for episode in found])


SELECTIONS: list[tuple[Selection, Callable[[Any], bool]]] = [
    (Selection(), lambda _: True),
    (Selection(split="val"), lambda episode: episode.split == "val"),
    (Selection(filters="length>=7 and length<100"), lambda episode: 7 <= len(episode) < 100),
    (Selection(split="train", filters="not length == 200"), lambda e: e.split == "train" and len(e) != 200),
    (Selection(filters="instructions contains 'task 2'"), lambda episode: episode.instruction == "task 2 ☂"),
]


@pytest.mark.parametrize(("selection", "kept"), SELECTIONS)
def test_stored_vectors_of_a_selection_are_counted(
    dataset: Dataset, selection: Selection, kept: Callable[[Any], bool]
) -> None:
    found, chosen = statistics(dataset, selection=selection, recompute=True), episodes(dataset, kept)
    check(found, "action", joined(chosen))
    check(found, "state", joined(chosen, "state"))
    assert (found.episodes, found.steps) == (len(chosen), sum(map(len, chosen)))


@pytest.mark.parametrize("view", ["late", "torque"])
def test_a_view_is_counted_at_the_steps_that_it_keeps(dataset: Dataset, view: str) -> None:
    found, shown = statistics(dataset, selection=Selection(view=view), recompute=True), episodes(dataset, view=view)
    check(found, "action", joined(shown))
    check(found, "state", joined(shown, "state"))
    assert found.steps == sum(map(len, shown))
    assert found.members[0].view_digest == dataset.view(view).digest
    assert found.vectors["action"].space == dataset.view(view).space


def test_the_numbers_are_read_a_few_episodes_at_a_time(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statistics(dataset, recompute=True)
    monkeypatch.setattr(numbers, "ROWS", 50)
    (part, _) = parts_of(dataset, Selection())
    assert len(list(vectors(part, Selection()))) > 2
    assert statistics(dataset, recompute=True).to_json() == whole.to_json()
    (sparse, _) = parts_of(dataset, Selection(filters="length < 8"))  # with 240 steps in between that are left out
    assert [len(found["action"]) for found in vectors(sparse, Selection())] == [3, 7]


def test_only_the_columns_that_a_view_reads_are_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = numbers._arrays

    def spy(data: Dataset, table: Any) -> dict[str, Array]:
        read.extend(table.column_names)
        return inner(data, table)

    monkeypatch.setattr(numbers, "_arrays", spy)
    for selection, wanted in (
        (Selection(), {"action", "observation.state"}),
        (Selection(view="torque"), {"action", "observation.state", "raw.observation.torque"}),
    ):
        read.clear()
        list(vectors(parts_of(dataset, selection)[0], selection))
        assert set(read) == wanted


# Chunks


def chunks(found: list[Any], size: int) -> tuple[Array, Array]:
    """Cut the actions of each episode into all chunks of `size`; also relative to the state at their first step."""
    actions, relative = [], []
    for episode in found:
        for t in range(len(episode) - size + 1):
            chunk = episode.action[t : t + size].copy()
            actions.append(chunk.ravel())
            moved = chunk.copy()
            moved[:, :3] -= episode.state[t]
            relative.append(moved.ravel())
    return np.array(actions), np.array(relative)


def test_chunks_never_cross_the_end_of_an_episode(dataset: Dataset) -> None:
    found = statistics(dataset, selection=Selection(chunk=4), recompute=True)
    expected, _ = chunks(episodes(dataset), 4)
    summary = found.vectors["action_chunk"]
    assert summary.count == len(expected) == sum(max(0, n - 3) for n in LENGTHS)
    assert np.array_equal(summary.q99, np.quantile(expected.astype(np.float64), 0.99, axis=0).reshape(4, 4))
    assert np.array_equal(summary.min, expected.min(axis=0).reshape(4, 4))
    assert "action_relative" not in found.vectors  # its actions are changes already


def test_absolute_dimensions_of_a_chunk_are_also_counted_relative_to_the_state(tmp_path: Path) -> None:
    absolute = {
        'dims = ["x", "y", "z"], unit = "m", mode = "delta"': 'dims = ["x", "y", "z"], unit = "m", mode = "absolute"'
    }
    dataset = open_dataset(make(tmp_path, replace=absolute, extra="").out)
    summary = statistics(dataset, selection=Selection(chunk=5)).vectors["action_relative"]
    _, expected = chunks(episodes(dataset), 5)
    assert np.array_equal(summary.q10, np.quantile(expected.astype(np.float64), 0.1, axis=0).reshape(5, 4))
    assert [dim.mode for dim in summary.space.dims] == ["delta", "delta", "delta", "absolute"]
    assert summary.mask.tolist() == [True, True, True, False]


# What cannot be counted


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(split="tset"), r"no split 'tset'. \(known: train, val\)"),
        (Selection(filters="lenght > 2"), "no column 'lenght'; did you mean 'length'?"),
        (Selection(filters="length > 2000"), "no episode meets 'length > 2000'"),
        (Selection(filters="length >"), "expected a number"),
        (Selection(chunk=500), "no episode has 500 steps"),
        (Selection(view="nothing"), "view 'nothing' masks them all"),
    ],
)
def test_a_selection_of_nothing_is_refused_with_the_reason(dataset: Dataset, selection: Selection, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        statistics(dataset, selection=selection)


def test_a_view_that_is_not_there_is_named(dataset: Dataset) -> None:
    with pytest.raises(ViewError, match=r"no view 'lat'; did you mean 'late'?"):
        statistics(dataset, selection=Selection(view="lat"))


def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    torque = np.array([[1, np.nan]] * 3)
    toy = make_toy(tmp_path, [columns(0), columns(1, torque=torque)])
    toy.spec.write_text(toy.spec.read_text() + RAW_VIEW)
    toy.convert()
    with pytest.raises(UsageError, match=r"data/train-00000-of-00001.parquet: action is not finite everywhere"):
        statistics(open_dataset(toy.out), selection=Selection(view="torque"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    toy = make(tmp_path)
    (toy.out / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"train-00000-of-00001.parquet: cannot be read"):
        statistics(open_dataset(toy.out))


# What is kept


def test_they_are_kept_and_found_again(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path).out)
    first = statistics(dataset, selection=Selection(view="late"))
    before = (dataset.path / "meta/stats.json").stat().st_mtime_ns
    again = statistics(open_dataset(dataset.path), selection=Selection(view="late"))
    assert again.to_json() == first.to_json()
    assert (dataset.path / "meta/stats.json").stat().st_mtime_ns == before


def test_the_file_is_the_same_in_whatever_order_they_were_asked_for(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path).out)
    asked = [Selection(), Selection(view="late"), Selection(split="val", filters="length > 2"), Selection(chunk=2)]
    written = []
    for order in (asked, asked[::-1]):
        for selection in order:
            statistics(dataset, selection=selection)
        written.append((dataset.path / "meta/stats.json").read_bytes())
        (dataset.path / "meta/stats.json").unlink()
    assert written[0] == written[1]
    assert len(json.loads(written[0])["statistics"]) == 4


def test_conditions_that_are_spelled_differently_are_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path).out)
    for text in ("length>=7", "length  >= 7", "(length >= 7)"):
        statistics(dataset, selection=Selection(filters=text))
    assert [found.filters for found in read_kept(dataset)] == ["length >= 7"]


def test_those_of_an_earlier_content_are_not_used_and_go(tmp_path: Path) -> None:
    toy = make(tmp_path)
    old = statistics(open_dataset(toy.out))
    path = toy.out / "meta/stats.json"
    stale = path.read_bytes()
    toy.spec.write_text(toy.spec.read_text().replace("control_hz = 10", "control_hz = 20"))
    assert toy.convert("--overwrite").code == 0
    assert not path.exists()
    path.write_bytes(stale)
    assert toy.verify().code == 1
    assert "meta/stats.json" in toy.verify().err
    new = statistics(open_dataset(toy.out))
    assert new.members[0].manifest != old.members[0].manifest
    assert len(read_kept(open_dataset(toy.out))) == 1
    assert toy.verify().code == 0


def test_a_damaged_file_of_statistics_is_found(tmp_path: Path) -> None:
    toy = make(tmp_path)
    statistics(open_dataset(toy.out))
    path = toy.out / "meta/stats.json"
    for damage in ("{", "[]", path.read_text().replace('"steps": 341', '"steps": 342')):
        path.write_text(damage)
        with pytest.raises(StatsError, match=r"meta/stats.json: .*(cannot be read|does not have the digest)"):
            statistics(open_dataset(toy.out))
        assert toy.verify().code == 1


def test_a_dataset_that_cannot_be_written_has_statistics_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # a folder's mode does not stop root
    assert statistics(open_dataset(toy.out)).steps == sum(LENGTHS)
    assert not (toy.out / "meta/stats.json").exists()


def test_a_dataset_that_is_replaced_in_the_same_process_is_counted_anew(tmp_path: Path) -> None:
    toy = make(tmp_path)
    statistics(open_dataset(toy.out))
    write_source(toy.source, [columns(90, steps=50)])
    assert toy.convert("--overwrite").code == 0
    dataset = open_dataset(toy.out)
    check(statistics(dataset), "action", dataset.episode(0).action)


# Several datasets


def test_recordings_of_one_embodiment_are_counted_as_one_in_any_order(tmp_path: Path) -> None:
    data = [open_dataset(make(tmp_path / str(seed), seed=seed).out) for seed in (0, 50)]
    found = statistics(*data)
    check(found, "action", np.concatenate([joined(episodes(dataset)) for dataset in data]))
    assert found.to_json() == statistics(*data[::-1]).to_json()
    assert found.name == "toy_arm"
    assert [(member.episodes, member.steps) for member in found.members] == [(len(LENGTHS), sum(LENGTHS))] * 2
    assert not (data[0].path / "meta/stats.json").exists()


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({'robot      = "toy"': 'robot      = "other"'}, "robot is toy and other"),
        ({'controller = "eef_delta"': 'controller = "joint"'}, "controller is eef_delta and joint"),
        ({"control_hz = 10": "control_hz = 5"}, "control_hz is 10.0 and 5.0"),
        ({'origin  = "commanded"': 'origin  = "achieved"'}, "action: origin commanded for achieved"),
        (
            {'["x", "y", "z"], unit = "m", mode = "delta"': '["x", "y", "z"], unit = "controller", mode = "delta"'},
            r"action: x \[m",
        ),
        ({'frame  = "base"': 'frame  = "world"'}, "state: frame base for world"),
    ],
)
def test_what_differs_is_not_merged_and_said(tmp_path: Path, replace: dict[str, str], said: str) -> None:
    data = [open_dataset(make(tmp_path / str(i), seed=i, replace=replace if i else None).out) for i in range(2)]
    with pytest.raises(UsageError, match=f"cannot be counted as one: {said}"):
        statistics(*data)


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({"control_hz = 10\n": ""}, "its control_hz is not known"),
        ({'gripper = "open_is_1"': 'gripper = "unknown"'}, "action: gripper is not known, so it may differ"),
    ],
)
def test_what_is_unknown_is_not_merged(tmp_path: Path, replace: dict[str, str], said: str) -> None:
    data = [open_dataset(make(tmp_path / str(i), seed=i, replace=replace).out) for i in range(2)]
    with pytest.raises(UsageError, match=said):
        statistics(*data)


def test_a_dataset_is_not_counted_twice(tmp_path: Path) -> None:
    toy = make(tmp_path)
    shutil.copytree(toy.out, tmp_path / "copy")
    with pytest.raises(UsageError, match="named twice"):
        statistics(open_dataset(toy.out), open_dataset(tmp_path / "copy"))


# Engines


@pytest.mark.slow
def test_two_processes_find_the_same_bits(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path).out)
    one = statistics(dataset, recompute=True)
    before = files(dataset.path)
    two = statistics(dataset, engine=Engine(workers=2), recompute=True)
    assert two.to_json() == one.to_json()
    assert files(dataset.path) == before


def test_a_runner_that_is_named_finds_the_same_bits_and_leaves_nothing(tmp_path: Path) -> None:
    """Its results come back through a folder in the dataset, which other machines see too."""
    dataset = open_dataset(make(tmp_path).out)
    one = statistics(dataset)
    before = files(dataset.path)
    assert statistics(dataset, engine=Engine(runner="FnApiRunner"), recompute=True).to_json() == one.to_json()
    assert files(dataset.path) == before


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path).out)
    before = set(files(dataset.path))
    statistics(dataset)
    assert set(files(dataset.path)) - before == {"meta/stats.json"}
