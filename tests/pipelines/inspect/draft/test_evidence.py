"""The evidence of an open claim names each reading once, and says that they cannot be told apart."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.conventions.rotations import compare
from pipelines.inspect.draft.parts import SpaceDraft
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.spaces import Spaces
from schemas.source import Array
from tests.pipelines.inspect.draft.arm import Lab, drafted, record, smooth

QUATERNIONS = {"position": "eef_position", "rotation": "eef_orientation", "gripper": "gripper"}


def evidence(space: SpaceDraft | None) -> str:
    assert space
    assert space.rotation
    assert space.rotation.is_open
    return space.rotation.evidence


def without_commands(sample: Sample) -> Sample:
    episodes = tuple({p: c for p, c in episode.items() if p.startswith("obs")} for episode in sample.episodes)
    return replace(sample, episodes=episodes)


def still(sample: Sample) -> Sample:
    """Return the sample with rotations that hardly change."""
    for episode in sample.episodes:
        path = "observation.eef_orientation"
        turns = Rotation.from_rotvec(1e-6 * smooth(np.random.default_rng(0), len(episode[path]), 1.0))
        episode[path][:] = (turns * Rotation.from_rotvec([0.4, 0.2, 2.4])).as_quat()
    return sample


@pytest.mark.parametrize("order", ["quat_xyzw", "quat_wxyz"])
@pytest.mark.parametrize(
    ("noise", "verdict"), [(0.0, "both predict the turns (errors "), (2.0, "neither predicts the turns (errors ")]
)
def test_two_orders_of_a_quaternion_that_cannot_be_told_apart_are_named_once(
    order: str, noise: float, verdict: str
) -> None:
    mode = "absolute" if not noise else "delta"
    lab = Lab(state_rotation=order, action_rotation=order, mode=mode, names=QUATERNIONS, noise=noise)
    spaces = drafted(record(lab))
    for space in (spaces.state, spaces.action):
        text = evidence(space)
        assert text.startswith(f"quat_xyzw or quat_wxyz? {verdict}")
        assert text.endswith("so they cannot be told apart")
        assert (text.count("quat_xyzw"), text.count("quat_wxyz")) == (1, 1)


def test_without_a_command_or_a_turn_the_evidence_says_so() -> None:
    lab = Lab(state_rotation="quat_wxyz", action_rotation="rotvec", names=QUATERNIONS)
    alone = without_commands(record(lab))
    spaces = Spaces(alone, state=[*alone.episodes[0]], action=(), rate=None)
    assert evidence(spaces.state) == "quat_xyzw or quat_wxyz? there is no commanded rotation to compare it with"
    assert evidence(drafted(still(record(lab))).state).endswith("? it turns too little to compare them")


def test_small_euler_angles_and_rotation_vectors_cannot_be_told_apart() -> None:
    text = evidence(drafted(record(Lab(noise=2.0, names=QUATERNIONS))).action)
    assert text.startswith("euler_xyz or rotvec? neither predicts the turns (errors ")
    assert (text.count("euler_xyz"), text.count("rotvec")) == (1, 1)


def angles(order: str) -> tuple[Array, Array]:
    """Return angles about one axis, which read alike in all orders, and their changes."""
    turns = np.concatenate([smooth(np.random.default_rng(1), 60, 0.8)[:, :1], np.zeros((60, 2))], axis=1)
    rotation = Rotation.from_rotvec(turns)
    return rotation.as_euler(order)[:-1], (rotation[1:] * rotation[:-1].inv()).as_euler(order)


@pytest.mark.parametrize("order", ["xyz", "XYZ"])
def test_fixed_and_moving_axes_that_cannot_be_told_apart_are_both_named(order: str) -> None:
    measured, commanded = angles(order)
    found = compare([measured], [commanded], factors=[1.0])
    text = found.compared("measured")
    assert "cannot be told apart, and neither can" in text
    verdict = found.verdict("measured", "xyz", "XYZ")
    assert verdict.startswith("both predict the turns (errors ")
    assert found.decided("measured") is None


def test_a_reading_that_fits_better_is_named_with_both_errors() -> None:
    lab = Lab(frame="tool", state_rotation="quat_wxyz", action_rotation="rotvec", names=QUATERNIONS)
    space = drafted(record(lab)).state
    assert space
    assert space.rotation
    assert space.rotation.value == "quat_wxyz"
    assert space.rotation.evidence.startswith("quat_wxyz or quat_xyzw: the first predicts the turns better (errors ")


@pytest.mark.parametrize(("closed", "action_closed"), [(True, True), (False, True)])
@pytest.mark.parametrize("names", [{}, QUATERNIONS])
def test_the_sense_of_one_gripper_is_asked_for_once(
    names: dict[str, str], *, closed: bool, action_closed: bool
) -> None:
    lab = Lab(closed_is_1=closed, action_closed_is_1=action_closed, is_signed=not names, names=names)
    spaces = drafted(record(lab))
    assert spaces.state
    assert spaces.action
    asked, answered = spaces.state.gripper, spaces.action.gripper
    assert asked
    assert answered
    assert asked.is_open
    assert answered.is_open
    assert "| invert" in asked.evidence
    assert "| invert" not in answered.evidence
    assert ("but not in both" in asked.evidence) == (closed != action_closed)


def test_two_grippers_that_are_not_compared_are_asked_for_twice() -> None:
    sample = record(Lab())
    for episode in sample.episodes:
        episode["action"][:, -1] = np.arange(len(episode["action"])) % 2
    spaces = drafted(sample)
    assert spaces.state
    assert spaces.action
    for space in (spaces.state, spaces.action):
        assert space.gripper
        assert "| invert" in space.gripper.evidence
