"""What names tell: which fields are actions, states, cameras, texts, clocks, and what one vector holds.

Names are evidence, not proof. They decide what no number can, such as which camera is at the wrist; where numbers can
speak too (`vectors.py`, `grippers.py`, `motion.py`), these have the last word.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from pipelines.inspect.draft.claims import Claim
from schemas.source import Field

Role: TypeAlias = Literal["action", "state", "clock", "other"]
Content: TypeAlias = Literal["pose", "position", "rotation", "gripper", "joint", "base", "unknown", "none"]

ACTION = {"action", "actions", "command", "commands", "commanded", "cmd", "ctrl", "control", "target", "targets"}
STATE = {"state", "states", "proprio", "robot", "qpos", "ee", "eef", "tcp", "arm"}
OBSERVED = {"observation", "observations", "obs", "proprio"}
CLOCK = {"timestamp", "timestamps", "time", "stamp"}
NEVER = {  # neither a pose nor a command
    *("reward", "rewards", "done", "dones", "discount", "success", "index", "first", "last", "terminal", "embedding"),
    *("vel", "velocity", "velocities", "torque", "torques", "force", "forces", "effort", "efforts", "wrench", "qvel"),
    *("object", "goal", "mask", "counter", "counters", "valid", "enabled", "speed", "acceleration", "current", "next"),
    *("camera", "intrinsics", "extrinsics", "info", "policy", "user", "flag", "padding", "cos", "sin"),
    *("annotation", "annotations", "description", "task", "id", "validity", "sec", "secs", "nanosec", "nanosecs"),
}
GRIPPER = {"gripper", "grippers", "finger", "fingers", "grip", "jaw", "aperture", "width", "opening", "openness"}
JOINT = {"joint", "joints", "qpos", "motor", "motors", "shoulder", "elbow", "forearm", "waist", "ankle", "knee", "hip"}
POSE = {"pose", "poses", "tcp", "eef", "ee", "cartesian", "effector", "endeffector", "tool", "ee2base"}
POSITION = {"position", "positions", "pos", "xyz", "translation", "trans", "world"}
ROTATION = {"quaternion", "quat", "orientation", "orn", "ori", "rotation", "rot", "euler", "rpy", "rotvec", "axisangle"}
BASE = {"base", "wheel", "wheels", "navigate"}
WRIST, DEPTH = {"wrist", "hand", "gripper", "eih", "inhand"}, {"depth"}
FIRST = (
    "primary",
    "main",
    "front",
    "agentview",
    "exterior",
    "static",
    "third",
    "top",
    "overhead",
    "head",
    "ego",
    "side",
)
INSTRUCTION = ("instruction", "language", "task", "prompt", "annotation")
SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "arm0": "arm0", "arm1": "arm1"}


def words(path: str) -> list[str]:
    """Cut a path or name into lower-case words.

    >>> words("observation.robot0_eefPos")
    ['observation', 'robot', 'eef', 'pos']
    """
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", path)
    found = [word for word in re.split(r"[^A-Za-z0-9]+", split.lower()) if word]
    plain = [word if word in SIDES or word == "ee2base" else word.rstrip("0123456789") for word in found]
    return [word for word in plain if word]


def role(field: Field) -> Role:
    """Say what a per-step field of numbers is for."""
    told = words(field.path)
    if {*told} & NEVER or field.dtype.startswith("complex"):
        return "other"
    if {*told} & CLOCK and not field.shape:
        return "clock"
    if {*told} & ACTION:
        return "action"
    return "state" if {*told} & (STATE | OBSERVED | GRIPPER | JOINT | POSE) else "other"


def content(path: str, width: int) -> Content:
    """Say what a vector of `width` numbers holds, as far as its name tells."""
    told = {*words(path)}
    if told & GRIPPER and width <= 2:
        return "gripper"
    if told & JOINT:
        return "joint"
    if told & ROTATION and not (told & POSITION) and width in {3, 4, 6, 9}:
        return "rotation"
    if told & POSE and width in {6, 7, 8, 16}:
        return "pose"
    if told & (POSITION | POSE) and width == 3:
        return "position"
    return "unknown"


def side(path: str) -> str:
    """Name the arm that a field belongs to, if its name says so."""
    return next((SIDES[word] for word in words(path) if word in SIDES), "")


def cameras(fields: Iterable[Field]) -> tuple[dict[str, tuple[str, Claim]], dict[str, str]]:
    """Give each camera a role with its claim, and each depth image one."""
    seen = [f for f in fields if f.kind == "image" and f.per_step and not f.ragged and not f.dtype.startswith("float")]
    found: dict[str, tuple[str, Claim]] = {}
    depth: dict[str, str] = {}
    scenes = []
    for field in seen:
        told = words(field.path)
        if {*told} & DEPTH or field.dtype == "uint16":
            depth[_free(side(field.path) or "primary", depth)] = field.path
        elif marks := {*told} & WRIST:
            name = _free("_".join(filter(None, ("wrist", side(field.path)))), found)
            found[name] = (field.path, Claim(name, "high", f"its name says '{min(marks)}'"))
        else:
            scenes.append(field.path)
    scenes.sort(key=_prominence)
    for i, path in enumerate(scenes):
        name = _free(("primary", "secondary")[i] if i < 2 else path.rpartition(".")[2], found)
        alone = Claim(name, "high", "the only camera that is not at a wrist")
        found[name] = (
            path,
            alone if len(scenes) == 1 else Claim(name, "low", "by its name and order; look at a frame"),
        )
    return found, depth


def _prominence(path: str) -> tuple[int, str]:
    told = words(path)
    ranks = [i for i, word in enumerate(FIRST) if word in told]
    return (ranks[0] if ranks else 0 if told[-1:] in (["image"], ["rgb"]) else len(FIRST), path)


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    free = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def language(fields: Iterable[Field]) -> list[str]:
    """List the texts whose name says that they are instructions, the likeliest first."""
    listed = []
    for field in fields:
        told = words(field.path.rpartition(".")[2])
        ranks = [i for i, word in enumerate(INSTRUCTION) if word in told]
        single = not field.ragged or (not field.per_step and field.ragged == 1)
        if field.kind == "text" and single and not field.shape and ranks and not {*told} & {"file", "path", "id"}:
            listed.append((ranks[0], len(told), field.path))
    return [path for *_, path in sorted(listed)]
