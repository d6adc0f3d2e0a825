"""The fields of a drafted state are the robot's, and never those of an object."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.inspect.draft.choose import choose_fields
from pipelines.inspect.draft.owners import owner
from pipelines.inspect.draft.sample import Sample
from schemas.source import Array, Field
from tests.pipelines.inspect.draft.arm import drafted, sampled, smooth


def quaternions(rng: np.random.Generator, count: int = 60) -> Array:
    return Rotation.from_rotvec(smooth(rng, count, 0.6)).as_quat()


def recorded(widths: Mapping[str, int], docs: Mapping[str, str] | None = None, **more: Any) -> Sample:
    """Record smooth numbers; four numbers are a quaternion, seven a position and a quaternion."""
    episodes = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        made = {}
        for path, width in widths.items():
            plain = np.concatenate([0.4 + smooth(rng, 60, 0.1) for _ in range(-(-width // 3))], axis=1)[:, :width]
            turned = {4: (), 7: (plain[:, :3],), 8: (plain[:, :4],)}
            made[path] = np.concatenate([*turned[width], quaternions(rng)], 1) if width in turned else plain
        episodes.append(made)
    names = docs or {}
    fields = {p: Field(path=p, kind="number", shape=(w,), doc=names.get(p, "")) for p, w in widths.items()}
    return sampled(fields, episodes, **more)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("robot0_eef_pos robot0_gripper_qpos robot0_joint_pos qpos obs.agent.qpos joint_states", {"tool", "robot"}),
        (
            "observation.state.pose franka_state.O_T_EE obs.cartesian_position data.lowdim.pos",
            {"tool", "robot"},
        ),
        ("observation.tcp_base actual_TCP_pose base_to_eef_pos panda_hand_quat left_flange_pose", {"tool"}),
        ("base_pos observation.torso_orientation odom.pose.pose.position robot_root_pose", {"base"}),
        ("Can_pos SquareNut_quat akita_black_bowl_1_pos plate_1_to_robot0_eef_pos gripper_to_cube_pos", {"thing"}),
        ("peg2_to_robot0_eef_quat lamp_to_eef_pos states.rigid_object.part_1.root_pose env_states.actors.x", {"thing"}),
        ("observation.environment_state observation.object_pose goal_quat desired_pose objs_pos cubeA_pos", {"thing"}),
        ("drawer_joint_pos door_opening observation.cube_orientations achieved_goal camera_pose", {"thing"}),
        ("lamp_pose screwdriver.position wand.pose.pose.orientation slot_width", {"unknown"}),
    ],
)
def test_words_tell_what_a_field_belongs_to(names: str, expected: set[str]) -> None:
    assert {name: owner(name) for name in names.split() if owner(name) not in expected} == {}


@pytest.mark.parametrize(
    ("widths", "chosen"),
    [
        (  # Isaac Lab
            {"obs.cube_orientations": 12, "obs.cube_positions": 9, "obs.eef_pos": 3, "obs.eef_quat": 4},
            ["obs.eef_pos", "obs.eef_quat"],
        ),
        (  # robosuite
            {"obs.Can_pos": 3, "obs.Can_to_robot0_eef_quat": 4, "obs.robot0_eef_pos": 3, "obs.robot0_eef_quat_site": 4}
            | {"obs.robot0_eef_quat": 4, "obs.Can_to_robot0_eef_pos": 3},
            ["obs.robot0_eef_pos", "obs.robot0_eef_quat"],
        ),
        (  # LIBERO, MimicGen
            {"obs.akita_black_bowl_1_quat": 4, "obs.ee_ori": 3, "obs.ee_pos": 3, "obs.a_wine_bottle_pos": 3},
            ["obs.ee_ori", "obs.ee_pos"],
        ),
        (  # an object whose name is no known word
            {"observation.aubergine_pose": 7, "observation.tool_orientation": 4, "observation.tool_position": 3},
            ["observation.tool_orientation", "observation.tool_position"],
        ),
        (  # a folder of npz files
            {"arm_pose": 7, "bearing_pose": 7, "bearing_width": 1, "gripper": 1, "goal_pose": 7, "desired_pose": 7},
            ["arm_pose", "gripper"],
        ),
        (  # no rotation of the tool: none is chosen
            {"obs.cube_quat": 4, "obs.eef_pos": 3, "obs.lamp_quat": 4, "obs.base_quat": 4},
            ["obs.eef_pos"],
        ),
        (  # the rotation that is named as the position wins
            {"obs.a_quat": 4, "obs.base_pos": 3, "obs.base_quat": 4, "obs.eef_quat": 4, "obs.tool_pos": 3}
            | {"obs.tool_quat": 4},
            ["obs.tool_pos", "obs.tool_quat"],
        ),
        ({"observation.state": 8, "observation.environment_state": 7}, ["observation.state"]),
        ({"observation.base_pos": 3, "observation.base_quat": 4}, ["observation.base_pos", "observation.base_quat"]),
    ],
)
def test_an_object_is_no_part_of_the_state(widths: Mapping[str, int], chosen: list[str]) -> None:
    assert sorted(choose_fields(recorded(widths), "state")[0]) == chosen


def test_the_name_of_the_robot_is_read_from_the_description() -> None:
    widths = {"obs.lamp_pose": 7, "obs.zed_pose": 7}
    assert choose_fields(recorded(widths, description={"robot_type": "Zed-9"}), "state")[0] == ["obs.zed_pose"]


@pytest.mark.parametrize("name", ["cube", "lamp"])
def test_where_only_an_object_has_a_pose_nothing_is_claimed(name: str) -> None:
    spaces = drafted(recorded({f"obs.{name}_pos": 3, f"obs.{name}_quat": 4, "actions": 7}))
    parts = spaces.state.parts if spaces.state else []
    assert all(part.kind.is_open and f"'{name}'" in part.kind.evidence for part in parts)
    assert bool(parts) == (name == "lamp")
    assert spaces.action
    assert spaces.action.frame
    assert "R2" not in spaces.action.frame.evidence


@pytest.mark.parametrize("thing", ["cube", "lamp"])
def test_numbers_named_after_an_object_are_no_pose_of_the_robot(thing: str) -> None:
    names = f"eef_x, eef_y, eef_z, {thing}_x, {thing}_y, {thing}_z, gripper"
    spaces = drafted(recorded({"observation.state": 7}, {"observation.state": names}))
    assert spaces.state
    kinds = {part.expression.partition(" ")[0]: part.kind for part in spaces.state.parts}
    assert kinds["observation.state[0:3]"].value == "position"
    assert kinds["observation.state[3:6]"].is_open
    assert f"'{thing}'" in kinds["observation.state[3:6]"].evidence


def test_a_target_of_an_object_is_no_action() -> None:
    assert choose_fields(recorded({"command.cube_pos": 3, "command.eef_pos": 3}), "action")[0] == ["command.eef_pos"]
