"""Seconds beside a frame: checks, and windows that never leave an episode."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.deltas import frame_rate, offsets, window
from finetune.data.step_table import StepTable
from schemas.errors import UsageError
from schemas.source import Array


def make_table(*episodes: Any, step: Array | None = None) -> StepTable:
    """Make the table of episodes with these timestamps."""
    lengths = [len(episode) for episode in episodes]
    steps = np.concatenate([np.arange(n) for n in lengths]) if step is None else step
    columns = {"timestamp": np.concatenate(episodes).astype(np.float64), "frame_index": steps}
    return StepTable(
        columns=columns,
        tasks=(),
        bounds=np.cumsum([0, *lengths]),
        episode=np.arange(len(episodes)) + 10,
        files=(),
        row=np.zeros(len(episodes), np.int64),
        first=np.zeros(len(episodes), np.int64),
    )


def refusal(table: StepTable, deltas: Any, *, fps: float | None = 10, tolerance_s: float = 1e-4) -> str:
    with pytest.raises(UsageError) as error:
        offsets(deltas, table, fps=fps, tolerance_s=tolerance_s)
    return str(error.value)


BEAT = make_table(np.arange(5) / 10, np.arange(3) / 10 + 7)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    offset=st.lists(st.integers(-9, 9), min_size=1, max_size=6),
)
def test_a_window_holds_the_frames_of_its_episode_and_pads_the_rest(lengths: list[int], offset: list[int]) -> None:
    frames = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    bounds = np.cumsum([0, *lengths])
    for row, (episode, step) in enumerate(frames):
        rows, is_pad = window(row, np.array(offset), start=int(bounds[episode]), end=int(bounds[episode + 1]))
        for i, by in enumerate(offset):
            assert is_pad[i] == ((episode, step + by) not in frames)
            assert frames[rows[i]] == (episode, min(max(step + by, 0), lengths[episode] - 1))


@given(st.lists(st.integers(-50, 50), min_size=1), st.sampled_from([1.0, 3.0, 5.0, 10.0, 29.97, 1000.0]))
def test_a_multiple_of_the_period_counts_frames(frames: list[int], fps: float) -> None:
    table = make_table(np.arange(4) / fps)
    found = offsets({"action": [n / fps for n in frames]}, table, fps=fps, tolerance_s=1e-4)
    assert found["action"].tolist() == frames


def test_what_lies_between_two_frames_is_refused() -> None:
    message = "delta_timestamps['action']: 0.14 s is not a multiple of 1/fps = 0.1 s within tolerance_s 0.0001; "
    assert refusal(BEAT, {"action": [0, 0.1, 0.14]}) == message + "the nearest is 0.1"
    assert offsets({"action": [0.14]}, BEAT, fps=10, tolerance_s=0.05)["action"].tolist() == [1]


@pytest.mark.parametrize("told", [0.1, [], [[0.1]], ["0.1"], [float("nan")], [float("inf")], None, [True]])
def test_anything_but_seconds_is_refused(told: Any) -> None:
    assert refusal(BEAT, {"action": told}) == f"delta_timestamps['action']: expected a list of seconds, got {told!r}"


def test_a_frame_off_the_beat_is_named() -> None:
    table = make_table(np.arange(5) / 10, np.array([0, 0.1, 0.35, 0.45]))
    assert refusal(table, {"action": [0]}) == (
        "delta_timestamps: episode 11: frame 2 comes 0.25 s after frame 1, not 1/fps = 0.1 s within tolerance_s 0.0001 "
        "(1 of 7 frames differ); if no frame is missing, raise tolerance_s to treat them as evenly spaced"
    )
    assert offsets({"action": [0.2]}, table, fps=10, tolerance_s=float("inf"))["action"].tolist() == [2]


def test_a_timestamp_that_is_not_a_number_is_off_the_beat() -> None:
    assert "frame 1 comes nan s after frame 0" in refusal(make_table([0, np.nan, 0.2]), {"action": [0]})


def test_steps_that_the_view_leaves_out_are_named() -> None:
    table = make_table([0, 0.1, 0.4, 0.5], step=np.array([0, 1, 4, 5]))
    assert "(1 of 3 frames differ; the view leaves out steps in between)" in refusal(table, {"action": [0]})


def test_an_episode_that_shows_nothing_is_no_frame_off_the_beat() -> None:
    table = make_table([], np.arange(3) / 10, [], [7.0], [])
    assert offsets({"action": [0.1]}, table, fps=10, tolerance_s=1e-4)["action"].tolist() == [1]


def test_without_a_declared_rate_the_timestamps_tell_it() -> None:
    assert frame_rate(BEAT, control_hz=None) == pytest.approx(10)
    assert frame_rate(BEAT, control_hz=5) == 5
    assert frame_rate(make_table([3.0], [4.0]), control_hz=None) is None
    assert frame_rate(make_table([3.0, 3.0]), control_hz=None) is None


def test_without_any_rate_deltas_are_refused() -> None:
    message = "delta_timestamps require a frame rate: the dataset has neither a control_hz nor timestamps"
    assert refusal(BEAT, {"action": [0]}, fps=None) == message
    assert offsets({}, BEAT, fps=None, tolerance_s=1e-4) == {}
