"""`oxe datasets show` of an embodiment."""

from oxe_tools.robots import details, section
from schemas.declarations import catalog


def test_a_robot_is_described_with_all_that_its_recordings_need() -> None:
    text = section(catalog.robot("so101_travel"))
    for line in (
        "## so101_travel",
        "- robot: SO-101; joint_position; single_arm",
        "- maker: TheRobotStudio",
        "- robot types: `so101_follower`",
        "- rate: 30 Hz",
        "- recorded state: joints from -100 to 100, wrist_roll from -100 to 100, gripper from 0 to 100",
    ):
        assert f"{line}\n" in text
    assert "joints = `state[0:4] | scale(1/100)`, wrist_roll = `state[4:5] | scale(3.14159265/100)`" in text
    assert "(travel, absolute), wrist_roll (rad, absolute), gripper (1, absolute); gripper open_is_1" in text
    assert "\nKnown problems:\n\n- The zero of wrist_roll is the pose" in text


def test_limits_and_unusual_types_are_described() -> None:
    text = section(catalog.robot("so101_degrees"))
    assert "- robot types after a setting was changed: `so101_follower`\n" in text
    assert "- limits: shoulder_pan -1.91986 to 1.91986, shoulder_lift" in text


def test_an_embodiment_without_recordings_is_described_too() -> None:
    robot = catalog.robot("franka_eef_pose")
    assert section(robot).startswith(
        "## franka_eef_pose\n\n- robot: Franka Panda; eef_pose; single_arm\n- action: x y z "
    )
    assert details(robot)["recorded"] is None
    assert details(robot)["action"]["expressions"]["quat"] == "action[3:7]"


def test_the_json_has_the_space_names_expressions_and_facts() -> None:
    shown = details(catalog.robot("droid_joint_position"))
    assert (shown["name"], shown["robot"]) == ("droid_joint_position", "Franka Panda with Robotiq 2F-85")
    assert shown["state"]["names"][-1] == "gripper"
    assert shown["state"]["expressions"]["gripper"] == "state[7:8] | invert"
    assert shown["state"]["space"]["gripper"] == "open_is_1"
    assert shown["recorded"]["maker"] == "Franka Robotics"
    assert shown["recorded"]["control_hz"] == [15]
    assert "state" not in shown["recorded"]
