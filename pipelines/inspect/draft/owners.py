"""What a field or a number belongs to: the robot's tool, the robot, its base, or something else, such as an object.

A name is split into words. Words for shapes, units, frames and files name nothing (`state`, `pos`, `xyz`, `obs`). Of
the other words, those in `TOOL`, `ROBOT` and `BASE` name a part of a robot, those in `THINGS` name something else, and
any other word may be either. So `obs.lamp_pose` is `unknown`, and `lamp_to_eef_pos`, the place of one thing as seen
from another, is a `thing`.
"""

from collections.abc import Collection
from typing import Literal, TypeAlias

from pipelines.inspect.draft.roles import (
    ACTION,
    CLOCK,
    GRIPPER,
    JOINT,
    OBSERVED,
    POSE,
    POSITION,
    ROTATION,
    SIDES,
    STATE,
    numbered_words,
    words,
)

Owner: TypeAlias = Literal["tool", "robot", "base", "unknown", "thing"]

TOOL = {
    *("eef", "ee", "tcp", "tool", "effector", "endeffector", "endpose", "end", "hand", "hands", "flange"),
    *("wrist", "gripper", "grippers", "finger", "fingers", "fingertip", "fingertips", "thumb", "palm", "grip"),
    *("jaw", "ee2base"),
}
ROBOT = {
    *(JOINT - {"qpos"}),
    *("robot", "robots", "arm", "arms", "agent", "manipulator", "leader", "follower", "puppet", "master"),
    *("humanoid", "leg", "legs"),
    # makes of robots
    *("franka", "panda", "fr", "widowx", "viperx", "wx", "vx", "aloha", "trossen", "ur", "ur5e", "ur10e"),
    *("kuka", "iiwa", "lbr", "xarm", "kinova", "jaco", "sawyer", "baxter", "fetch", "spot", "stretch", "so"),
    *("koch", "piper", "unitree", "gr", "rm", "realman", "dobot", "flexiv", "rizon", "yumi", "abb", "fanuc"),
    *("yam", "arx", "openarm", "tiago", "hello"),
}
BASE = {
    *("base", "root", "torso", "trunk", "pelvis", "chest", "neck", "head", "chassis", "platform"),
    *("wheel", "wheels", "odom", "odometry", "imu", "navigate"),
}
THINGS = {
    *("object", "obj", "objs", "item", "goal", "desired", "reference", "actor", "rigid", "asset"),
    *("scene", "env", "environment", "achieved", "obstacle", "marker", "tag", "apriltag", "aruco", "keypoint"),
    *("landmark", "cam", "camera", "cube", "block", "brick", "box", "ball", "sphere", "cylinder", "can", "mug"),
    *("cup", "bowl", "plate", "bottle", "pot", "lid", "kettle", "jar", "drawer", "door", "cabinet", "handle"),
    *("hinge", "knob", "faucet", "microwave", "button", "lever", "switch", "peg", "hole", "nut", "bolt"),
    *("screw", "socket", "plug", "gear", "table", "shelf", "tray", "basket", "bin", "rack", "apple", "banana"),
    *("book", "cloth", "towel", "rope", "puck", "hammer", "needle", "sponge", "spoon", "fork", "knife", "toy"),
    *("human", "person", "user", "glove", "headset"),
}
RELATIONS = {"to", "wrt", "relative", "from", "distance", "dist"}
PLAIN = {
    *ACTION,
    *CLOCK,
    *GRIPPER,
    *JOINT,
    *OBSERVED,
    *POSE,
    *POSITION,
    *ROTATION,
    *SIDES,
    *STATE,
    *RELATIONS,
    *("actual", "measured", "real", "raw", "filtered", "curr", "cur", "prev", "last", "full", "abs"),
    *("absolute", "rel", "delta", "deltas", "displacement", "residual", "future", "present", "local", "global"),
    *("frame", "frames", "in", "of", "the", "at", "and", "vector", "vec", "value", "values", "array", "data"),
    *("dataset", "datasets", "dim", "dict", "low", "lowdim", "info", "extra", "feature", "features", "sensor"),
    *("sensors", "sensed", "signal", "signals", "record", "records", "recording", "log", "logs", "teleop"),
    *("demo", "demos", "traj", "trajectory", "episode", "step", "steps", "msg", "message", "node", "server"),
    *("client", "controller", "driver", "bridge", "topic", "tf", "broadcaster", "publisher", "feedback"),
    *("history", "main", "default", "input", "inputs", "site", "link", "body", "linear", "angular", "qpos"),
    *("angle", "angles", "axis", "roll", "pitch", "yaw", "theta", "euler", "matrix", "wxyz", "xyzw", "ypr"),
    *("rx", "ry", "rz", "qx", "qy", "qz", "qw", "tx", "ty", "tz", "px", "py", "pz", "rad", "radians", "deg"),
    *("degrees", "mm", "metres", "meters", "norm", "normalized", "articulation", "articulations", "ground"),
    *("truth", "proprioception", "cartesian", "open", "opened", "close", "closed", "closedness", "motor"),
}


def owner(name: str, robots: Collection[str] = ()) -> Owner:
    """Return what a name belongs to by its words; `robots` are further words that name the robot.

    >>> [owner(name) for name in ("obs.robot0_eef_pos", "qpos", "base_pose", "lamp_pose", "cubeA_to_eef_pos")]
    ['tool', 'robot', 'base', 'unknown', 'thing']
    """
    listed = words(name)
    nouns = {word for word in listed if _is_noun(word)} - {*robots}
    if nouns and (any(_is_thing(word) for word in nouns) or RELATIONS & {*listed}):
        return "thing"
    if TOOL & {*listed}:
        return "tool"
    if (ROBOT | {*robots}) & {*listed}:
        return "base" if BASE & {*listed} else "robot"
    if BASE & {*listed}:
        return "base"
    return "unknown" if nouns else "robot"


def thing_words(name: str) -> str:
    """Return the words of a name that name something, in quotes: `'peg'`."""
    return ", ".join(f"'{word}'" for word in dict.fromkeys(words(name)) if _is_noun(word))


def _is_noun(word: str) -> bool:
    return len(word) > 1 and (_is_thing(word) or word not in PLAIN | TOOL | ROBOT | BASE)


def _is_thing(word: str) -> bool:
    return word not in ACTION and bool({word, word.removesuffix("s"), word.removesuffix("es")} & THINGS)


def stem(path: str) -> frozenset[str]:
    """Return the words of a path without those for a position, a rotation or a pose; numbers are kept.

    >>> stem("obs.robot0_eef_pos") == stem("obs.robot0_eef_quat") != stem("obs.robot1_eef_quat")
    True
    """
    return frozenset(numbered_words(path)) - POSITION - ROTATION - {"pose", "poses"}
