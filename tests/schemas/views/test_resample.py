import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from schemas.declarations.rotations import to_rotation
from schemas.errors import SpecError, ViewError
from schemas.source import Array
from schemas.spaces import Dim, Space
from schemas.views import views
from schemas.views.resample import TIMES, combined, kept_steps, resampled, why_not_combined
from schemas.views.views import view
from tests.schemas.makers import TOY, load, make_episode, make_space
from tests.schemas.views.test_views import REPRESENTATIONS, matrices, poses, with_gripper

SLOW = TOY + "\n[views.slow]\ncontrol_hz = 2\n"

# Kept steps


@pytest.mark.parametrize(
    ("stored", "hz", "kept"),
    [
        (10, 10, list(range(10))),
        (10, 5, [0, 2, 4, 6, 8]),
        (10, 4, [0, 2, 5, 7]),
        (10, 3, [0, 3, 7]),
        (15, 10, [0, 1, 3, 4, 6, 7, 9]),
        (10, 0.1, [0]),
        (3, 3, list(range(10))),
    ],
)
def test_the_steps_nearest_to_each_tick_are_kept(stored: float, hz: float, kept: list[int]) -> None:
    assert kept_steps(np.arange(10) / stored, hz).tolist() == kept


def test_rates_without_a_whole_ratio_do_not_drift() -> None:
    times = np.arange(30 * 3600) / 30  # an hour
    kept = kept_steps(times, 7)
    assert len(kept) == 7 * 3600
    assert np.abs(times[kept] - np.arange(len(kept)) / 7).max() <= 1 / 60 + 1e-6


@pytest.mark.parametrize("start", [0.0, 1.7e9])
def test_a_clock_that_trembles_or_starts_late_keeps_every_step_at_its_own_rate(start: float) -> None:
    times = start + np.arange(500) / 10 + np.random.default_rng(0).uniform(-0.03, 0.03, 500)
    assert kept_steps(times, 10).tolist() == list(range(500))
    assert kept_steps(start + np.arange(500) / 10, 5).tolist() == list(range(0, 500, 2))


def test_a_gap_of_the_recording_has_no_steps_however_long_it_is() -> None:
    assert kept_steps(np.array([0, 0.1, 0.2, 0.3, 0.6, 0.7]), 5).tolist() == [0, 2, 3, 4]
    assert kept_steps(np.array([0, 0.1, 0.2, 0.3, 1e12, 1e12 + 0.1]), 5).tolist() == [0, 2, 3, 4]


def test_steps_of_one_time_are_one_tick() -> None:
    assert kept_steps(np.zeros(4), 5).tolist() == [0]
    assert kept_steps(np.zeros(0), 5).tolist() == []


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ([0, 0.2, 0.1, 0.3], "its timestamps decrease at step 2"),
        ([0, np.nan, 0.2], "its timestamps decrease at step 1"),
        ([0, 0.5, 1.0], "its steps are 0.5 s apart, too far for 5 Hz; give a lower control_hz"),
    ],
)
def test_times_that_give_no_steps_are_refused(times: list[float], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        kept_steps(np.array(times), 5)


# Combined actions


def end_pose(action: Array, space: Space, *, representation: str) -> tuple[Array, Array]:
    """Apply changes in order, as matrices."""
    at, turned = np.zeros(3), np.eye(3)
    for by, turn in zip(action[:, :3], matrices(action[:, 3:-1].astype(np.float64), representation), strict=True):
        at, turned = (at + turned @ by, turned @ turn) if space.frame == "tool" else (at + by, turn @ turned)
    return at, turned


STARTS = st.lists(st.integers(1, 6), unique=True, max_size=6).map(lambda rest: np.array([0, *sorted(rest)]))


@pytest.mark.parametrize("frame", ["base", "world", "tool"])
@pytest.mark.parametrize("representation", REPRESENTATIONS)
@settings(max_examples=30)
@given(data=st.data())
def test_all_changes_together_lead_to_the_same_pose(frame: str, representation: str, data: st.DataObject) -> None:
    action, starts = with_gripper(data.draw(poses(representation, steps=7))), data.draw(STARTS)
    space = make_space(frame=frame, rotation=representation)
    out = combined(action, starts, space)
    assert (out.shape, out.dtype) == ((len(starts), action.shape[1]), np.float32)
    at, turned = end_pose(action, space, representation=representation)
    our_at, our_turned = end_pose(out, space, representation=representation)
    np.testing.assert_allclose(our_at, at, atol=5e-3)
    np.testing.assert_allclose(our_turned, turned, atol=5e-3)
    ends = np.append(starts[1:], 7) - 1
    np.testing.assert_array_equal(out[:, -1], action[ends, -1])


def steps_of(action: Array, hz: float) -> dict[str, Array]:
    return {"action": action, TIMES: np.arange(len(action)) / hz, "observation.state": action * 2}


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("representation", REPRESENTATIONS)
@settings(max_examples=20)
@given(data=st.data())
def test_at_its_own_rate_nothing_changes(frame: str, representation: str, data: st.DataObject) -> None:
    steps = steps_of(with_gripper(data.draw(poses(representation, steps=5))), 10)
    out = resampled(steps, 10, make_space(frame=frame, rotation=representation))
    assert {path: column.tobytes() for path, column in out.items()} == {p: c.tobytes() for p, c in steps.items()}
    again = resampled(resampled(steps, 4, make_space(rotation=representation)), 4, make_space(rotation=representation))
    once = resampled(steps, 4, make_space(rotation=representation))
    assert again["action"].tobytes() == once["action"].tobytes()


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("mode", ["delta", "absolute"])
@settings(max_examples=50)
@given(
    length=st.integers(1, 40),
    first=st.integers(1, 4),
    second=st.integers(1, 4),
    seed=st.integers(0, 9),
    hz=st.sampled_from([5, 12, 30, 50.0]),
)
def test_two_changes_of_rate_are_one_where_the_rates_divide(
    frame: str, mode: str, *, length: int, first: int, second: int, seed: int, hz: float
) -> None:
    action = with_gripper(np.random.default_rng(seed).uniform(-0.3, 0.3, (length, 6)).astype(np.float32))
    space, steps = make_space(frame=frame, mode=mode), steps_of(action, hz)
    twice = resampled(resampled(steps, hz / first, space), hz / first / second, space)
    once = resampled(steps, hz / first / second, space)
    np.testing.assert_array_equal(twice[TIMES], once[TIMES])
    np.testing.assert_allclose(twice["action"], once["action"], atol=1e-5)


def dims(*told: str) -> tuple[Dim, ...]:
    return tuple(Dim(f"d{i}", *words.split()) for i, words in enumerate(told))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("m absolute position", [4, 7]),
        ("m delta position", [10, 18]),
        ("controller delta position", [10, 18]),
        ("m/s velocity position", [2.5, 6]),
        ("rad/s velocity rotation", [2.5, 6]),
        ("rad absolute rotation", [4, 7]),
        ("rad delta rotation", [10, 18]),  # one angle
        ("rad delta joint", [10, 18]),
        ("controller delta joint", [10, 18]),
        ("1 absolute gripper", [4, 7]),
        ("1 delta gripper", [10, 18]),
        ("unknown absolute other", [4, 7]),
        ("unknown velocity base", [2.5, 6]),
    ],
)
def test_each_dimension_is_combined_as_its_mode_says(told: str, expected: list[float]) -> None:
    space = make_space(dims=dims(told))
    assert why_not_combined(space) is None
    action = np.arange(1, 8, dtype=np.float32)[:, None]
    assert combined(action, np.array([0, 4]), space).ravel().tolist() == expected


def test_two_arms_are_composed_one_by_one() -> None:
    arm = make_space(frame="tool", rotation="rotvec")
    both = replace(arm, dims=(*arm.dims, *arm.dims))
    one, other = (with_gripper(np.random.default_rng(i).normal(size=(6, 6)).astype(np.float32)) for i in range(2))
    starts = np.array([0, 2, 3])
    assert why_not_combined(both) is None
    np.testing.assert_array_equal(
        combined(np.concatenate([one, other], axis=1), starts, both),
        np.concatenate([combined(one, starts, arm), combined(other, starts, arm)], axis=1),
    )


def test_turns_are_composed_and_not_added() -> None:
    quarter = np.pi / 2
    action = np.float32([[0, 0, 0, quarter, 0, 0, 1], [0, 0, 0, 0, quarter, 0, 1]])
    for frame, order in (("base", [1, 0]), ("tool", [0, 1])):
        (out,) = combined(action, np.array([0]), make_space(frame=frame))
        turns = [Rotation.from_euler("xyz", action[i, 3:6]) for i in order]
        np.testing.assert_allclose(
            to_rotation(out[None, 3:6], "euler_xyz")[0].as_matrix(), (turns[0] * turns[1]).as_matrix(), atol=1e-6
        )


REFUSED: dict[str, tuple[Space, str]] = {
    "an unknown mode": (make_space(dims=dims("m unknown position")), "the mode of d0 is unknown"),
    "an unknown unit": (make_space(unit="unknown"), "the unit of x is unknown"),
    "an unknown frame": (make_space(frame="unknown"), "its changes are in frame 'unknown'"),
    "an unknown rotation": (make_space(rotation="unknown"), "its rotation is 3 numbers in rad with rotation 'unknown'"),
    "turns in controller units": (
        make_space(dims=(*make_space().dims[:3], *dims(*["controller delta rotation"] * 3))),
        "its rotation is 3 numbers in controller with rotation 'euler_xyz', and only known rotations in radians can be",
    ),
    "two angles": (make_space(dims=dims(*["rad delta rotation"] * 2)), "its rotation is 2 numbers in rad"),
    "a tool without turns": (
        make_space(frame="tool", dims=make_space().dims[:3]),
        "its positions are relative to the tool, and it has no rotation of the tool",
    ),
    "one angle of a tool": (
        make_space(frame="tool", dims=dims("rad delta rotation")),
        "its rotation is 1 numbers in rad",
    ),
    "a moving base": (make_space(dims=dims("m delta base")), "d0 is a change relative to a moving base"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_sum_is_refused(what: str) -> None:
    space, why = REFUSED[what]
    found = why_not_combined(space)
    assert found is not None
    assert found.startswith(why)


def test_absolute_targets_need_no_known_unit_or_frame() -> None:
    assert why_not_combined(make_space(mode="absolute", unit="unknown", frame="unknown", rotation="unknown")) is None


# Views


def test_a_view_of_a_lower_rate_keeps_the_nearest_steps_and_sums_rewards() -> None:
    stored = make_episode(8, is_terminal=np.arange(8) == 7)  # 5 Hz
    viewed = view(load(SLOW), "slow").apply(stored)
    assert viewed.control_hz == 2
    assert viewed.timestamp is not None
    assert viewed.timestamp.tolist() == [0, 0.4, 1.0, 1.4]  # for the ticks 0, 0.5, 1 and 1.5
    assert viewed.images["image"] == [stored.images["image"][i] for i in (0, 2, 5, 7)]
    assert (viewed.is_first.tolist(), viewed.is_last.tolist()) == ([True] + [False] * 3, [False] * 3 + [True])  # type: ignore[union-attr]
    assert viewed.reward is not None
    assert (viewed.reward.dtype, viewed.reward.tolist()) == (np.float32, [0 + 1, 2 + 3 + 4, 5 + 6, 7])
    assert viewed.is_terminal is not None
    assert viewed.is_terminal.tolist() == [False, False, False, True]
    np.testing.assert_allclose(viewed.action[:, 0], np.add.reduceat(stored.action[:, 0], [0, 2, 5, 7]), atol=1e-6)
    np.testing.assert_array_equal(viewed.action[:, 6], stored.action[[1, 4, 6, 7], 6])


def test_step_ops_come_first_and_the_steps_they_left_out_stay_out() -> None:
    text = SLOW.replace("[views.slow]", '[views.slow]\nbefore = ["drop_first(2)"]')
    viewed = view(load(text), "slow").of(make_episode(8))
    assert np.flatnonzero(viewed.mask).tolist() == [2, 4, 7]


def test_a_placeholder_is_not_combined() -> None:
    viewed = view(load('last_action = "placeholder"\n' + SLOW), "slow").of(make_episode(8))
    full = view(load(SLOW), "slow").of(make_episode(7))
    assert viewed.mask.tolist() == [*full.mask.tolist(), False]
    np.testing.assert_array_equal(viewed.action, full.action)


@pytest.mark.parametrize("steps", [0, 1])
def test_short_episodes_have_short_views(steps: int) -> None:
    assert len(view(load(SLOW), "slow").apply(make_episode(steps))) == steps


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            SLOW.replace("control_hz = 5\n", ""),
            "views.slow.control_hz: the stored rate is unknown; declare control_hz",
        ),
        (SLOW.replace("= 2\n", "= 8\n"), "views.slow.control_hz: 8 Hz is more than the recorded 5 Hz; give a lower"),
        (SLOW.replace("= 2\n", "= 0\n"), "views.slow.control_hz: Input should be greater than 0"),
        (SLOW.replace("= 2\n", "= inf\n"), "views.slow.control_hz: Input should be less than inf"),
    ],
)
def test_a_rate_that_cannot_be_is_refused_when_the_declaration_is_read(text: str, why: str) -> None:
    with pytest.raises(SpecError) as error:
        load(text)
    assert str(error.value).startswith(f"toy.toml: {why}")


def test_a_space_that_cannot_be_combined_is_a_view_error() -> None:
    text = SLOW + 'space = { frame = "unknown" }\n'
    with pytest.raises(ViewError) as error:
        view(load(text), "slow")
    assert str(error.value) == "toy has no view 'slow' at 2 Hz: its changes are in frame 'unknown'"


def test_ways_from_the_measured_pose_to_a_target_overlap_and_are_refused() -> None:
    text = SLOW + 'action = ["action[:6] | pose_to_delta(observation.state[:6])", "action[6:]"]\n'
    with pytest.raises(ViewError, match="at 2 Hz: pose_to_delta computes changes from the pose of each step"):
        view(load(text), "slow")


@pytest.mark.parametrize("changes", [{"timestamp": None}, {"timestamp": np.arange(3) * -1.0}])
def test_an_episode_without_a_clock_is_a_view_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ViewError, match=r"view 'slow': .*timestamps"):
        view(load(SLOW), "slow").of(make_episode(**changes))


def test_the_digest_changes_with_the_rate_and_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(text: str = SLOW) -> str:
        return view(load(text), "slow").digest

    before = digest()
    assert digest(SLOW.replace("= 2\n", "= 2.5\n")) != before
    assert digest(SLOW.replace("control_hz = 5", "control_hz = 6")) == before
    stored = view(load(SLOW), "eef_delta").digest
    monkeypatch.setitem(views.VERSIONS, "resampled", 2)
    assert digest() != before
    assert view(load(SLOW), "eef_delta").digest == stored


def test_the_rate_is_in_the_declaration_that_is_kept() -> None:
    assert json.loads(json.dumps(load(SLOW).to_json()))["views"]["slow"] == {"control_hz": 2.0}
