"""Statistics of a converted dataset equal numpy's on the episodes that `open_dataset` returns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.beam.combine import combine
from pipelines.beam.engine import Engine
from pipelines.convert.convert import convert
from pipelines.statistics import numbers
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from schemas.declarations import catalog
from schemas.errors import UsageError, ViewError
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.counted import RAW_VIEW, check, episodes, joined, make_counted
from tests.pipelines.toy import columns, files, make_toy, write_source


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_counted(tmp_path_factory.mktemp("statistics")).out)


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


def test_a_dataset_that_is_replaced_in_the_same_process_is_counted_anew(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    statistics(open_dataset(toy.out))
    write_source(toy.source, [columns(90, steps=50)])
    assert toy.convert("--overwrite").code == 0
    dataset = open_dataset(toy.out)
    check(statistics(dataset), "action", dataset.episode(0).action)


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
    with pytest.raises(
        UsageError, match=r"data/train-00000-of-00001.parquet: action contains values that are not finite"
    ):
        statistics(open_dataset(toy.out), selection=Selection(view="torque"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    (toy.out / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"train-00000-of-00001.parquet: cannot be read"):
        statistics(open_dataset(toy.out), recompute=True)


# Engines


@pytest.mark.slow
def test_two_processes_find_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine(Engine(workers=2), tmp_path, monkeypatch)


def test_a_runner_that_is_named_finds_the_same_bits_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results are returned through a folder in the dataset, which other machines can reach."""
    check_engine(Engine(runner="FnApiRunner"), tmp_path, monkeypatch)


def check_engine(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(make_counted(folder).out)
    one = statistics(dataset)
    before = files(dataset.path)
    engines = many_parts(monkeypatch)
    assert statistics(dataset, engine=engine, recompute=True).to_json() == one.to_json()
    assert files(dataset.path) == before
    assert len(set(engines)) == 1  # several workers, the same for every pass
    assert not engines[0].is_this_process


def many_parts(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Make each data file one part, as if all were large; returns the engines that count them."""
    engines = list[Engine]()

    def watched(*args: Any, engine: Engine, **more: Any) -> Any:
        engines.append(engine)
        return combine(*args, engine=engine, **more)

    monkeypatch.setattr(numbers, "ROWS", 1)
    monkeypatch.setattr("pipelines.statistics.statistics.combine", watched)
    return engines


@pytest.mark.slow
def test_the_workers_of_a_conversion_count_its_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(tmp_path, splits={"a": 1, "b": 1, "c": 1})
    spec, engine = catalog.dataset(str(toy.spec)), Engine(workers=2)
    convert(spec, tmp_path / "here", source=str(toy.source))
    engines = many_parts(monkeypatch)
    convert(spec, tmp_path / "workers", source=str(toy.source), engine=engine)
    assert {replace(used, cluster=None) for used in engines} == {engine}
    assert len({used.cluster for used in engines} - {None}) == 1
    here, there = ((tmp_path / out / "meta/stats.json").read_bytes() for out in ("here", "workers"))
    assert here == there


def test_a_single_part_is_counted_here_on_any_engine(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    nowhere = Engine(runner="NoSuchRunner")
    assert statistics(dataset, engine=nowhere, recompute=True).to_json() == statistics(dataset).to_json()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    dataset = open_dataset(make_counted(tmp_path).out)
    before = set(files(dataset.path))
    statistics(dataset, selection=Selection(view="late"))
    assert set(files(dataset.path)) == before
