"""Claims from names, and from single columns for units and grippers."""

import numpy as np
import pytest

from pipelines.inspect.draft import grippers, units
from pipelines.inspect.draft.layout import segments
from pipelines.inspect.draft.roles import cameras, language, role
from schemas.source import Field
from tests.pipelines.inspect.draft.arm import drafted, sampled


def image(path: str, dtype: str = "uint8") -> Field:
    return Field(path=path, kind="image", dtype=dtype, shape=(None, None, 3))


def test_cameras_get_roles_by_their_names() -> None:
    paths = ("obs.agentview_image", "obs.robot0_eye_in_hand_image", "obs.side", "obs.back", "obs.front_depth")
    found, depth = cameras([*map(image, paths), image("obs.far", "uint16")])
    assert {name: path for name, (path, _) in found.items()} == {
        "wrist": "obs.robot0_eye_in_hand_image",
        "primary": "obs.agentview_image",
        "secondary": "obs.side",
        "back": "obs.back",
    }
    assert found["wrist"][1].confidence == "high"
    assert found["primary"][1].confidence == "low"
    assert depth == {"primary": "obs.front_depth", "primary_2": "obs.far"}


def test_two_wrists_are_told_apart() -> None:
    found, _ = cameras([image("cam_left_wrist"), image("cam_right_wrist"), image("cam_high")])
    assert {*found} == {"wrist_left", "wrist_right", "primary"}


def test_an_instruction_is_no_path_and_no_number() -> None:
    texts = ["task", "language_instruction", "task_file_path", "observation.note"]
    assert language([Field(path=path, kind="text") for path in texts]) == ["language_instruction", "task"]


@pytest.mark.parametrize(
    ("path", "is_for"),
    [
        ("action", "action"),
        ("target_position", "action"),
        ("observation.state", "state"),
        ("observation.joint_velocity", "other"),
        ("reward", "other"),
        ("is_first", "other"),
        ("timestamp", "clock"),
        ("language_embedding", "other"),
        ("next.done", "other"),
    ],
)
def test_fields_have_roles_by_their_names(path: str, is_for: str) -> None:
    assert role(Field(path=path, kind="number")) == is_for


def test_the_names_of_numbers_cut_a_vector() -> None:
    names = "left_x, left_y, left_z, left_roll, left_pitch, left_yaw, left_gripper, right_joint_1, right_joint_2, odd"
    path = "observation.state"
    values = np.random.default_rng(0).normal(size=(40, 10))
    cuts = segments(sampled({path: Field(path=path, kind="number", shape=(10,), doc=names)}, [{path: values}]), path)
    assert [(cut.expression, cut.kind.value, cut.side) for cut in cuts] == [
        ("observation.state[0:3]", "position", "left"),
        ("observation.state[3:6]", "rotation", "left"),
        ("observation.state[6:7]", "gripper", "left"),
        ("observation.state[7:9]", "joint", "right"),
        ("observation.state[9:10]", "TODO", ""),
    ]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ("shoulder_pan.pos, elbow_flex.pos, wrist_flex.pos, wrist_roll.pos, gripper.pos", ["joint", "gripper"]),
        ("motor_0, motor_1, motor_2", ["TODO"]),  # converters use such names for anything
        ("x, y, yaw, gripper", ["TODO", "TODO", "gripper"]),  # incomplete position and rotation
        ("x, y, z, qx, qy, qz, qw", ["position", "rotation"]),
    ],
)
def test_names_count_only_where_they_are_whole(names: str, kinds: list[str]) -> None:
    path, width = "observation.state", len(names.split(","))
    values = np.random.default_rng(0).normal(size=(40, width))
    cuts = segments(sampled({path: Field(path=path, kind="number", shape=(width,), doc=names)}, [{path: values}]), path)
    assert [cut.kind.value for cut in cuts] == kinds


def test_the_mode_of_a_vector_that_says_nothing_is_told_all_the_same() -> None:
    rng = np.random.default_rng(0)
    names = ", ".join(f"motor_{i}" for i in range(30))
    episodes = []
    for _ in range(3):
        state = np.cumsum(rng.normal(size=(61, 30)), axis=0)
        episodes.append({"observation.state": state[:-1], "action": state[1:]})
    fields = {path: Field(path=path, kind="number", shape=(30,), doc=names) for path in episodes[0]}
    spaces = drafted(sampled(fields, episodes))
    assert spaces.action
    (part,) = spaces.action.parts
    assert (part.kind.value, part.mode.value) == ("TODO", "absolute")


def test_seven_joints_without_names_are_not_taken_for_a_pose() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        joints = np.cumsum(rng.normal(size=(61, 7)), axis=0) * 0.1
        episodes.append({"observation.state": joints[:-1], "action": np.diff(joints, axis=0)})
    fields = {path: Field(path=path, kind="number", shape=(7,)) for path in episodes[0]}
    spaces = drafted(sampled(fields, episodes))
    assert spaces.state
    assert spaces.action
    assert all(part.kind.is_open for part in (*spaces.state.parts, *spaces.action.parts))
    assert spaces.action.parts[0].mode.value == "delta"  # the numbers show the mode, whatever the kind


def test_a_gripper_among_joints_is_noticed() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(60, 6)), rng.integers(0, 2, (60, 1))], axis=1)
    path = "observation.joint_position"
    (cut,) = segments(sampled({path: Field(path=path, kind="number", shape=(7,))}, [{path: values}]), path)
    assert cut.kind.is_open
    assert "may include a gripper" in cut.kind.evidence


@pytest.mark.parametrize(
    ("values", "op"),
    [
        ([0, 1], ""),
        ([-1, 1], " | shift(1) | scale(1/2)"),
        ([0, 255], " | scale(1/255)"),
        ([0, 100], " | scale(1/100)"),
        ([0.05, 1.1], " | clip(0, 1)"),
        ([0, 0.08], " | scale(1/TODO) | clip(0, 1)"),
        ([0, 0.8], " | scale(1/TODO) | clip(0, 1)"),
        ([0.5, 0.5], " | scale(1/TODO) | clip(0, 1)"),
        ([np.nan, np.nan], " | scale(1/TODO) | clip(0, 1)"),
        ([-1, 0, 0, 0, 1], " | TODO"),
    ],
)
def test_a_grippers_range_is_mapped_or_left_open(values: list[float], op: str) -> None:
    assert grippers.range_op([np.array(values, float)[:, None]])[0] == op


def test_a_name_that_says_open_and_closed_says_nothing() -> None:
    assert grippers.sense_from_name("observation.gripper_open_close") is None
    assert grippers.sense_from_name("observation.gripper_position") is None
    assert (found := grippers.sense_from_name("action.gripper_closedness"))
    assert found.value == "closed"


@pytest.mark.parametrize(
    ("far", "unit", "op"),
    [(0.5, "m", ""), (500, "m", " | scale(1/1000)"), (20, "TODO", ""), (1e5, "TODO", ""), (1e-4, "TODO", "")],
)
def test_lengths_are_metres_or_millimetres_where_an_arm_can_reach(far: float, unit: str, op: str) -> None:
    path = np.linspace(0.1, 1, 50)[:, None] * far * np.array([1, 0.3, 0.6])
    found = units.length([path])
    assert (found.unit.value, found.op) == (unit, op)


def test_normalized_positions_are_not_metres() -> None:
    assert units.length([np.linspace(-1, 1, 50)[:, None] * np.ones(3)]).unit.is_open


@pytest.mark.parametrize(
    ("most", "unit", "op"), [(3, "rad", ""), (180, "rad", " | deg2rad"), (100, "TODO", ""), (4000, "TODO", "")]
)
def test_angles_are_radians_or_degrees_where_they_can_be(most: float, unit: str, op: str) -> None:
    found = units.angle([np.linspace(-most, most, 50)[:, None] * np.ones(3)])
    assert (found.unit.value, found.op) == (unit, op)
