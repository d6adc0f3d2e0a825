"""Whatever a lab's conventions are, every claim of a draft is right or open."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipelines.inspect.draft.parts import PartDraft, SpaceDraft
from schemas.declarations import expr
from schemas.source import Array
from tests.pipelines.inspect.draft.arm import Lab, drafted, record

NAMES = st.sampled_from(
    [
        {},
        {"position": "eef_position", "rotation": "eef_orientation", "gripper": "gripper"},
        {"position": "tcp_xyz", "rotation": "rotation", "gripper": "gripper_command"},
    ]
)
ROTATIONS = ("euler_xyz", "rotvec", "quat_xyzw", "quat_wxyz")


@st.composite
def labs(draw: st.DrawFn) -> Lab:
    metres = st.sampled_from([1.0, 1000.0])
    return Lab(
        mode=draw(st.sampled_from(["delta", "absolute"])),
        frame=draw(st.sampled_from(["base", "tool"])),
        state_rotation=draw(st.sampled_from(ROTATIONS)),
        action_rotation=draw(st.sampled_from(ROTATIONS)),
        metres=draw(metres),
        action_metres=draw(metres),
        degrees=draw(st.booleans()),
        action_degrees=draw(st.booleans()),
        closed_is_1=draw(st.booleans()),
        action_closed_is_1=draw(st.booleans()),
        is_signed=draw(st.booleans()),
        noise=draw(st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.8, 2.0])),
        names=draw(NAMES),
    )


def by_kind(space: SpaceDraft | None) -> dict[str, PartDraft]:
    """Return the parts whose kind is claimed."""
    assert space
    return {part.kind.value: part for part in space.parts if not part.kind.is_open}


def canonical(part: PartDraft, raw: dict[str, Array]) -> Array:
    return expr.parse(part.expression)(raw)


def wrong(space: SpaceDraft, lab: Lab, raw: dict[str, Array], *, is_command: bool) -> list[str]:
    """List the wrong claims."""
    found = []
    parts = by_kind(space)
    true_mode = lab.mode if is_command else "absolute"
    true_rotation = lab.action_rotation if is_command else lab.state_rotation
    size = lab.action_metres if is_command else lab.metres
    frame = lab.frame if is_command and lab.mode == "delta" else "base"
    if space.frame and not space.frame.is_open and space.frame.value != frame:
        found.append(f"frame {space.frame}")
    if space.rotation and not space.rotation.is_open and space.rotation.value != true_rotation:
        found.append(f"rotation {space.rotation.value} {space.rotation}")
    for kind, part in parts.items():
        if kind != "gripper" and not part.mode.is_open and part.mode.value != true_mode:
            found.append(f"{kind}: mode {part.mode.value} {part.mode}")
    whole = np.concatenate([column for path, column in sorted_parts(raw, lab, is_command=is_command)], axis=1)
    in_degrees = lab.action_degrees if is_command else lab.degrees
    truths = {"position": ("m", whole[:, :3] / size)}
    if not true_rotation.startswith("quat"):
        truths["rotation"] = ("rad", whole[:, 3:-1] * (np.pi / 180 if in_degrees else 1.0))
    for kind, (unit, true) in truths.items():
        part = parts.get(kind)
        if part is None or part.unit.is_open:
            continue
        if part.unit.value != unit or not np.allclose(canonical(part, raw), true, atol=1e-5):
            found.append(f"{kind}: {part.unit.value} {part.expression} {part.unit}")
    if "gripper" in parts and space.gripper and not space.gripper.is_open:
        found.append(f"gripper: {space.gripper.value}, which nothing tells")
    return found


def sorted_parts(raw: dict[str, Array], lab: Lab, *, is_command: bool) -> list[tuple[str, Array]]:
    prefix = "action" if is_command else "observation"
    if not lab.names:
        return [(path, column) for path, column in raw.items() if path.startswith(prefix)]
    return [(path, raw[path]) for path in (f"{prefix}.{lab.names[k]}" for k in ("position", "rotation", "gripper"))]


@settings(max_examples=50)
@given(labs(), st.integers(0, 1000))
def test_a_claim_is_right_or_left_open(lab: Lab, seed: int) -> None:
    sample = record(lab, seed)
    spaces = drafted(sample)
    raw = dict(sample.episodes[0])
    assert spaces.state
    assert spaces.action
    assert wrong(spaces.state, lab, raw, is_command=False) == []
    assert wrong(spaces.action, lab, raw, is_command=True) == []


def test_of_a_clean_recording_most_is_claimed() -> None:
    lab = Lab(frame="tool", state_rotation="quat_wxyz", action_rotation="rotvec", metres=1000, action_degrees=True)
    spaces = drafted(record(lab))
    assert spaces.state
    assert spaces.action
    assert spaces.state.rotation
    assert spaces.state.rotation.value == "quat_wxyz"
    assert spaces.action.frame
    assert (spaces.action.frame.value, spaces.action.frame.confidence) == ("tool", "high")
    assert spaces.action.rotation
    assert spaces.action.rotation.value == "rotvec"
    assert [part.meaning for part in spaces.action.parts[:2]] == [
        "position x y z, m, delta",
        "rotation rx ry rz, rad, delta",
    ]
    assert [part.expression for part in spaces.action.parts[:2]] == ["action[0:3]", "action[3:6] | deg2rad"]
    assert [part.expression for part in spaces.state.parts[:2]] == [
        "observation.state[0:3] | scale(1/1000)",
        "observation.state[3:7]",
    ]


@pytest.mark.parametrize("order", ["zyx", "XZY", "ZYX"])
def test_angles_about_other_axes_are_not_taken_for_roll_pitch_yaw(order: str) -> None:
    lab = Lab()
    sample = record(lab)
    for episode in sample.episodes:
        for path in ("observation.state", "action"):
            turns = Rotation.from_euler("xyz", episode[path][:, 3:6])
            episode[path][:, 3:6] = turns.as_euler(order)
    spaces = drafted(sample)
    assert spaces.state
    assert spaces.state.rotation
    assert spaces.state.rotation.value in {"TODO", "euler_xyz"}
    if spaces.state.rotation.value == "euler_xyz":
        assert order == "ZYX"
        assert "permute(2, 1, 0)" in spaces.state.parts[1].expression
