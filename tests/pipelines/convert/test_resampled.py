"""A view with a lower rate: the same in memory, materialized, in statistics, and in an export."""

import json
from pathlib import Path

import numpy as np
import pytest

from oxe_tools import open_dataset, standardize
from pipelines.convert.convert import convert
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SpecError, UsageError
from schemas.source import Field
from tests.pipelines.toy import oxe
from tests.schemas.makers import TOY, load, publish, toy_fields, toy_values, write_source

SLOW = TOY + "\n[views.slow]\ncontrol_hz = 2\n"
LENGTHS = (5, 13, 1)


def test_what_is_materialized_is_what_the_view_gives(tmp_path: Path) -> None:
    dataset = open_dataset(publish(tmp_path, lengths=LENGTHS, text=SLOW, materialize=("slow",)))
    assert verify(dataset, source=str(tmp_path / "source")).first == []
    viewed = [dataset.episode(i, view="slow") for i in range(3)]
    assert [(len(episode), episode.control_hz) for episode in viewed] == [(2, 2), (6, 2), (1, 2)]
    assert all(episode.control_hz == 5 for episode in dataset)


def test_in_memory_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(SLOW)
    dataset = open_dataset(publish(tmp_path, lengths=(13,), text=SLOW))
    values = toy_values(13, seed=0)
    names = ("action", "observation.state", "reward", "is_terminal")
    ours = standardize(str(tmp_path / "toy.toml"), {name: values[name] for name in names}, view="slow")
    stored = dataset.episode(0, view="slow")
    assert ours.control_hz == 2
    for name in ("action", "state", "timestamp", "reward", "is_terminal", "is_last"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(stored, name))


def test_its_statistics_are_of_its_own_steps(tmp_path: Path) -> None:
    dataset = open_dataset(publish(tmp_path, lengths=LENGTHS, text=SLOW))
    found = statistics(dataset, selection=Selection(view="slow"))
    actions = np.concatenate([dataset.episode(i, view="slow").action for i in range(3)])
    assert (found.steps, found.control_hz) == (9, 2)
    np.testing.assert_allclose(found.vectors["action"].mean, actions.mean(axis=0, dtype=np.float64), atol=1e-7)
    assert statistics(dataset).control_hz == 5
    assert json.loads(oxe("stats", dataset.path, "--view", "slow", "--json").out)["steps"] == 9


def test_datasets_of_different_rates_are_counted_as_one_in_a_view_of_one_rate(tmp_path: Path) -> None:
    fast = SLOW.replace("control_hz = 5", "control_hz = 10")
    one = open_dataset(publish(tmp_path / "one", lengths=LENGTHS, text=SLOW))
    two = open_dataset(publish(tmp_path / "two", lengths=(9,), text=fast))
    assert statistics(one, two, selection=Selection(view="slow")).steps == 11
    with pytest.raises(UsageError, match=r"control_hz is 5\.0 and 10\.0"):
        statistics(one, two, selection=Selection())


def test_an_export_has_its_rate_and_steps(tmp_path: Path) -> None:
    first = open_dataset(publish(tmp_path, lengths=LENGTHS, text=SLOW))
    rlds = tmp_path / "rlds/1.0.0"
    assert oxe("export", "rlds", first.path, "--view", "slow", "--out", rlds).code == 0
    assert catalog.dataset(str(rlds)).control_hz == 2
    assert oxe("convert", rlds, "--out", tmp_path / "back").code == 0
    assert oxe("verify", tmp_path / "back").code == 0
    back = open_dataset(tmp_path / "back")
    for i in range(3):
        viewed, stored = first.episode(i, view="slow"), back.episode(i)
        assert stored.control_hz == viewed.control_hz
        assert stored.images == viewed.images
        for name in ("action", "state", "timestamp", "reward", "is_terminal", "is_last"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(viewed, name))


def test_recorded_times_are_the_clock_where_the_rate_is_not_declared(tmp_path: Path) -> None:
    text = SLOW.replace("control_hz = 5\n", 'timestamp = "clock"\n')
    clock = Field(path="clock", kind="number", dtype="float64")
    times = 1.7e9 + np.array([0, 0.21, 0.4, 0.62, 0.8, 1.0])
    source = write_source(tmp_path / "source", [*toy_fields(), clock], [{**toy_values(6, seed=0), "clock": times}])
    convert(load(text), tmp_path / "out", source=str(source))
    dataset = open_dataset(tmp_path / "out")
    viewed = dataset.episode(0, view="slow")
    assert (viewed.control_hz, viewed.timestamp.tolist()) == (2, times[[0, 2, 5]].tolist())  # type: ignore[union-attr]
    assert statistics(dataset, selection=Selection(view="slow")).steps == 3


def test_a_view_that_cannot_be_is_refused_before_the_first_episode(tmp_path: Path) -> None:
    text = SLOW + 'space = { frame = "unknown" }\n'
    with pytest.raises(SpecError, match=r"toy: views.slow: toy has no view 'slow' at 2 Hz: its changes are in frame"):
        publish(tmp_path, text=text)


def test_statistics_of_another_rate_are_not_used_by_mistake(tmp_path: Path) -> None:
    one = open_dataset(publish(tmp_path / "one", lengths=LENGTHS, text=SLOW))
    two = open_dataset(publish(tmp_path / "two", lengths=LENGTHS, text=SLOW.replace("= 2\n", "= 2.5\n")))
    digests = [statistics(d, selection=Selection(view="slow")).members[0].view_digest for d in (one, two)]
    assert digests[0] != digests[1]
