"""Datasets are counted as one only if they are recordings of one embodiment with equal Spaces."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.statistics.statistics import statistics
from schemas.errors import UsageError
from schemas.store.dataset import open_dataset
from tests.pipelines.counted import LENGTHS, check, episodes, joined, make_counted


def test_recordings_of_one_embodiment_are_counted_as_one_in_any_order(tmp_path: Path) -> None:
    data = [open_dataset(make_counted(tmp_path / str(seed), seed=seed).out) for seed in (0, 50)]
    before = [(dataset.path / "meta/stats.json").read_bytes() for dataset in data]
    found = statistics(*data)
    check(found, "action", np.concatenate([joined(episodes(dataset)) for dataset in data]))
    assert found.to_json() == statistics(*data[::-1]).to_json()
    assert found.name == "toy_arm"
    assert [(member.episodes, member.steps) for member in found.members] == [(len(LENGTHS), sum(LENGTHS))] * 2
    assert [
        (dataset.path / "meta/stats.json").read_bytes() for dataset in data
    ] == before  # the statistics of each dataset alone


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
    data = [open_dataset(make_counted(tmp_path / str(i), seed=i, replace=replace if i else None).out) for i in range(2)]
    with pytest.raises(UsageError, match=f"cannot be counted as one: {said}"):
        statistics(*data)


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        ({"control_hz = 10\n": ""}, "the control_hz is not known"),
        ({'robot      = "toy"': 'robot      = "unknown"'}, "the robot is not known"),
        (
            {'["x", "y", "z"], unit = "m", mode = "delta"': '["x", "y", "z"], unit = "m", mode = "unknown"'},
            "action: the mode of x, the mode of y, the mode of z is not known",
        ),
        ({'gripper = "open_is_1"': 'gripper = "unknown"'}, "action: gripper is not known, so it may differ"),
    ],
)
def test_what_is_unknown_is_not_merged(tmp_path: Path, replace: dict[str, str], said: str) -> None:
    data = [open_dataset(make_counted(tmp_path / str(i), seed=i, replace=replace).out) for i in range(2)]
    with pytest.raises(UsageError, match=said):
        statistics(*data)


def test_a_dataset_is_not_counted_twice(tmp_path: Path) -> None:
    toy = make_counted(tmp_path)
    shutil.copytree(toy.out, tmp_path / "copy")
    with pytest.raises(UsageError, match="named twice"):
        statistics(open_dataset(toy.out), open_dataset(tmp_path / "copy"))
