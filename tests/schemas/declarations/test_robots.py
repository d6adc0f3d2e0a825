"""The embodiments of robots: what their files say about recordings, and that declarations can use them."""

from typing import Any

import numpy as np
import pytest

from schemas.declarations import catalog, robots, spec
from schemas.declarations.robots import BOTH, Robot, Which
from schemas.declarations.spec import DatasetSpec
from schemas.errors import SpecError

KNOWN = catalog.known_robots()
each = pytest.mark.parametrize("robot", KNOWN, ids=lambda robot: robot.name)
SO = ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"]
PATHS: dict[Which, str] = {"state": "observation.state", "action": "action"}
ARM = """
name       = "arm"
robot      = "an arm"
controller = "joint_position"

[state]
origin        = "achieved"
gripper       = "open_is_1"
parts.joints  = "joint j1 j2, rad, absolute"
parts.gripper = "gripper, 1, absolute"

[action]
origin       = "commanded"
parts.joints = "joint j1 j2, rad, absolute"

[recorded]
maker       = "a maker"
robot_types = ["arm"]
limits.j1   = [-1, 2.5]

[recorded.state]
names          = ["a", "b", "hand"]
ops.joints     = "deg2rad"
ranges.gripper = [0, 100]

[recorded.action]
names      = ["a", "b"]
ops.joints = "deg2rad"
"""


def declaration(robot: Robot) -> DatasetSpec:
    """Declare a dataset of this embodiment, with the expressions that its file suggests."""
    lines = ['name = "lab"', f'embodiment = "{robot.name}"']
    for which in BOTH:
        lines.append(f"[{which}]")
        lines += [f'{part} = "{text}"' for part, text in robot.expressions(which, PATHS[which]).items()]
    return spec.load("\n".join(lines), where="lab.toml", robot=catalog.robot)


def stored(name: str, which: Which, *recorded: float) -> list[float]:
    """Return what a declaration of this embodiment stores for one recorded vector."""
    robot, steps = catalog.robot(name), {"vector": np.float32([recorded])}
    parts = [spec.expr.parse(text)(steps) for text in robot.expressions(which, "vector").values()]
    return [round(float(value), 4) for value in np.concatenate(parts, axis=1)[0]]


def recorded(name: str) -> robots.RecordedSpec:
    """Return what the file of a shipped embodiment says about recordings."""
    table = catalog.robot(name).recorded
    assert table is not None
    return table


@each
def test_a_declaration_may_name_it(robot: Robot) -> None:
    declared = declaration(robot)
    for which in BOTH:
        space = robot.space(which)
        if space is None:
            assert declared.state_parts == []
            continue
        size = len(space.space(which))
        steps = {PATHS[which]: np.random.default_rng(0).uniform(-100, 100, (3, size)).astype(np.float32)}
        parts = declared.state_parts if which == "state" else declared.action_parts
        columns = np.concatenate([part(steps) for part in parts], axis=1)
        assert columns.shape == (3, size)
        assert np.isfinite(columns).all()


@each
def test_a_dataset_keeps_nothing_of_the_recordings(robot: Robot) -> None:
    assert "recorded" not in declaration(robot).to_json()["embodiment"]


@each
def test_limits_are_those_of_angles(robot: Robot) -> None:
    units = {
        dim: part.unit
        for which in BOTH
        if (space := robot.space(which))
        for part in space.parts.values()
        for dim in part.dims
    }
    for name, (low, high) in recorded(robot.name).limits.items():
        assert low < high
        assert units[name] in {"rad", "unknown"}
        assert -7 < low < high < 7


@each
def test_its_file_cites_sources(robot: Robot) -> None:
    text = (catalog.HERE / f"embodiments/{robot.name}.toml").read_text()
    assert any("# " in line for line in text.partition("\n[recorded]\n")[2].splitlines())


def test_no_two_say_the_same() -> None:
    facts = [
        (robot.embodiment.robot, [(robot.space(which), robot.expressions(which, which)) for which in BOTH])
        for robot in KNOWN
    ]
    assert all(one != other for i, one in enumerate(facts) for other in facts[:i])


def test_the_robot_types_that_several_embodiments_have() -> None:
    several = {word: names for word, names in robots.by_type(KNOWN).items() if len(names) > 1}
    panda = ["franka_joint_open", "franka_joint_width"]
    piper = ["piper_rad_100mm", "piper_rad_70mm"]
    assert several == {
        "AgileX Piper": piper,
        "Franka": ["droid_joint_position", *panda],
        "Realman": ["realman_rm65", "realman_rm75"],
        "agilex": ["cobot_magic", *piper],
        "agilex_piper": piper,
        "aloha": ["aloha_bimanual", "aloha_main_degrees", "mobile_aloha"],
        "bi_so100_follower": ["bi_so100_travel", "bi_so100_degrees"],
        "bi_so_follower": ["bi_so_degrees", "bi_so_travel"],
        "franka": ["droid_joint_position", *panda],
        "franka_panda": ["droid_joint_position", *panda],
        "koch_follower": ["koch_travel", "koch_degrees"],
        "lekiwi": ["lekiwi_degrees", "lekiwi_main_degrees", "lekiwi_travel"],
        "lekiwi_client": ["lekiwi_degrees", "lekiwi_travel"],
        "panda": ["droid_joint_position", *panda],
        "piper": piper,
        "realman": ["realman_rm65", "realman_rm75"],
        "so100_follower": ["so100_travel", "so100_degrees"],
        "so101_follower": ["so101_travel", "so101_degrees"],
        "so_follower": ["so_degrees", "so_travel"],
        "unitree_g1": ["unitree_g1", "unitree_g1_arms"],
        "xarm": ["lite6_plugin", "xarm6_raw_gripper", "xarm7_gello"],
    }


def test_an_embodiment_and_a_dataset_never_have_the_same_name() -> None:
    assert [name for name in catalog.embodiment_names() if catalog.name_of(name)] == []


# Facts of five robots, by hand


def test_so101() -> None:
    half_turn = 3.1416
    for name in ("so101_travel", "so101_degrees", "so_travel", "so_degrees"):
        assert list(recorded(name).state.names) == SO
        assert recorded(name).control_hz == (30,)
    assert stored("so101_travel", "state", 100, -50, 20, 0, 100, 100) == [1, -0.5, 0.2, 0, half_turn, 1]
    assert stored("so101_degrees", "action", 90, -45, 0, 0, 180, 50) == [1.5708, -0.7854, 0, 0, half_turn, 0.5]
    assert recorded("so101_main_degrees").robot_types == ("so101",)
    assert recorded("so101_main_degrees").state.names[0] == "main_shoulder_pan"
    assert stored("so101_main_degrees", "state", 90, 90, 90, 0, 0, 0) == [1.5708, 0, 0, 0, 0, 0]
    assert stored("so101_main_degrees", "state", 0, 0, 0, 0, 90, 100) == [0, 1.5708, -1.5708, 0, 1.5708, 1]
    units = [dim.unit for dim in _space("so101_travel")]
    assert units == ["travel", "travel", "travel", "travel", "rad", "1"]
    assert recorded("so101_degrees").limits["shoulder_lift"] == (-1.74533, 1.74533)
    assert recorded("so101_degrees").unusual_types == ("so101_follower",)


def test_koch() -> None:
    assert [dim.unit for dim in _space("koch_travel")] == ["rad", "travel", "travel", "travel", "rad", "1"]
    assert stored("koch_travel", "state", -100, 100, 0, 50, 50, 0) == [-3.1416, 1, 0, 0.5, 1.5708, 0]
    assert stored("koch_main_degrees", "state", 0, 90, 0, 0, 0, 35.156) == [0, 1.5708, 0, 0, 0, 1]
    assert catalog.robot("koch_main_degrees").embodiment.robot != catalog.robot("koch_degrees").embodiment.robot


def test_openarm() -> None:
    names = recorded("bi_openarm").state.names
    assert (names[0], names[7], names[8], names[15]) == (
        "left_joint_1.pos",
        "left_gripper.pos",
        "right_joint_1.pos",
        "right_gripper.pos",
    )
    half = [90, 0, 0, 0, 0, 0, 0]
    left, right = [1.5708, 0, 0, 0, 0, 0, 0, 1], [1.5708, 0, 0, 0, 0, 0, 0, 0]
    assert stored("bi_openarm", "action", *half, -65, *half, 0) == [*left, *right]
    assert recorded("bi_openarm").limits["left_joint_2"] == (-1.570796, 0.15708)
    assert recorded("bi_openarm").limits["right_joint_2"] == (-0.15708, 1.570796)


def test_aloha() -> None:
    names = recorded("aloha_bimanual").state.names
    assert (names[0], names[6], names[7], names[13]) == ("left_waist", "left_gripper", "right_waist", "right_gripper")
    assert recorded("aloha_bimanual").control_hz == (50,)
    assert stored("aloha_bimanual", "state", *[0.5] * 14) == [0.5] * 14
    assert catalog.embodiment("aloha_bimanual").state.gripper == "open_is_1"  # type: ignore[union-attr]
    assert len(catalog.embodiment("mobile_aloha").action.space("action")) == 16


def test_droid_has_the_names_of_other_pandas_and_the_opposite_gripper() -> None:
    names = ("joint_0", "joint_1", "joint_2", "joint_3", "joint_4", "joint_5", "joint_6", "gripper")
    assert recorded("droid_joint_position").state.names == recorded("franka_joint_open").state.names == names
    assert stored("droid_joint_position", "state", 0, 1, 2, 3, 4, 5, 6, 1) == [0, 1, 2, 3, 4, 5, 6, 0]
    assert stored("franka_joint_open", "state", 0, 1, 2, 3, 4, 5, 6, 1) == [0, 1, 2, 3, 4, 5, 6, 1]
    assert recorded("droid_joint_position").control_hz == (15,)
    assert "Franka" in recorded("droid_joint_position").robot_types


def test_grippers_whose_state_and_action_differ_are_stored_alike() -> None:
    assert stored("gello_franka", "state", *[0] * 7, 1)[-1] == stored("gello_franka", "action", *[0] * 7, 0)[-1] == 1
    assert stored("cobot_magic", "state", *[0] * 6, 4.79, *[0] * 7)[6] == 1
    assert stored("cobot_magic", "action", *[0] * 6, 11.9, *[0] * 6, 13.92)[6::7] == [1, 1]


def test_fixed_ranges_become_angles() -> None:
    degrees = np.radians([150, 180, -170, -100, 0, 130]).round(4).tolist()
    assert stored("piper_wego", "state", 100, 100, -100, -100, 0, 100, 50) == [*degrees, 0.5]
    assert stored("yam_plugin", "state", -100, 100, 100, 100, -100, 0, 0) == [-2.767, 3.8, 3.28, 1.72, -1.72, 0, 0]
    assert stored("omx", "state", 100, 50, 0, 0, 0, 0)[:2] == [3.1416, 1.5708]


def _space(name: str) -> Any:
    state = catalog.embodiment(name).state
    assert state is not None
    return state.space("state").dims


# A file that is wrong


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["a", "b", "hand"]', '["a", "b"]', "recorded.state.names: 2 names for the embodiment's 3 dimensions"),
        ('["a", "b"]', '["a", "a"]', "recorded.action.names: a name occurs twice: a, a"),
        ("ops.joints", "ops.joint", "recorded.state.ops.joint: the embodiment has no such part; did you mean 'joints'"),
        ("[0, 100]", "[100, 0]", "recorded.state.ranges.gripper: 100 is not below 0"),
        ("ranges.gripper", "ranges.hand", "recorded.state.ranges.hand: the embodiment has no such part"),
        ("limits.j1", "limits.j3", "recorded.limits.j3: the embodiment has no such dimension"),
        ("[-1, 2.5]", "[1, 1]", "recorded.limits.j1: 1 is not below 1"),
        ("deg2rad", "deg2rd", "recorded.state.ops.joints: unknown op 'deg2rd'; did you mean 'deg2rad'"),
        ("deg2rad", "permute(0)", "recorded.state.ops.joints: returns 1 columns for 2 dimensions"),
        ("deg2rad", "scale(1, 2, 3)", "recorded.state.ops.joints: 'state[0:2] | scale(1, 2, 3)': scale fails on"),
        ("maker ", "makers ", "recorded: unknown key 'makers'"),
        ("[-1, 2.5]", '[-1, "TODO"]', "TODO is left in 1 key: recorded.limits.j1"),
    ],
)
def test_a_wrong_table_names_file_key_and_fix(old: str, new: str, message: str) -> None:
    assert old in ARM
    with pytest.raises(SpecError) as error:
        robots.load(ARM.replace(old, new, 1), where="arm.toml")
    assert str(error.value).startswith(f"arm.toml: {message}")


def test_a_recorded_state_needs_a_state() -> None:
    start, end = ARM.index("[state]"), ARM.index("[action]")
    with pytest.raises(SpecError, match=r"arm.toml: recorded.state: the embodiment has no state"):
        robots.load(ARM[:start] + ARM[end:], where="arm.toml")


def test_without_a_table_the_parts_are_slices() -> None:
    robot = robots.load(ARM.partition("[recorded]")[0], where="arm.toml")
    assert robot.recorded is None
    assert robot.types == ()
    assert robot.expressions("state", "x") == {"joints": "x[0:2]", "gripper": "x[2:3]"}


def test_a_declaration_has_no_such_table_itself() -> None:
    with pytest.raises(SpecError, match="embodiment: unknown key 'recorded'"):
        spec.load(
            'name = "lab"\naction = { joints = "a" }\n[embodiment]\nname = "arm"\nrobot = "arm"\ncontroller = "c"\n'
            '[embodiment.action]\norigin = "commanded"\nparts.joints = "joint j1, rad, absolute"\n'
            '[embodiment.recorded]\nmaker = "m"\n',
            where="lab.toml",
            robot=catalog.robot,
        )
