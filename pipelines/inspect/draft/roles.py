"""Find the role of a field (action, state, camera, text or clock) and the content of a vector by their names.

Names decide what numbers cannot show, such as which camera is on the wrist. Where numbers can contradict a name
(`rotations.py`, `grippers.py`, `motion.py`), the numbers win.
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
OTHER = {  # words in names of fields that are neither a pose nor a command
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
SCENE = (  # the likeliest primary camera first
    *("primary", "main", "front", "agentview", "exterior", "static"),
    *("third", "top", "overhead", "head", "ego", "side"),
)
INSTRUCTION = ("instruction", "language", "lang", "task", "prompt", "annotation")  # the likeliest first
SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "arm0": "arm0", "arm1": "arm1"}


def words(path: str) -> list[str]:
    """Split a path or name into lower-case words without numbers.

    >>> words("observation.robot0_eefPos")
    ['observation', 'robot', 'eef', 'pos']
    """
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", path)
    numbered = [word for word in re.split(r"[^A-Za-z0-9]+", split.lower()) if word]
    plain = [word if word in SIDES or word == "ee2base" else word.rstrip("0123456789") for word in numbered]
    return [word for word in plain if word]


def role(field: Field) -> Role:
    """Return the role of a per-step field of numbers."""
    path = {*words(field.path)}
    if path & OTHER or field.dtype.startswith("complex"):
        return "other"
    if path & CLOCK and not field.shape:
        return "clock"
    if path & ACTION:
        return "action"
    return "state" if path & (STATE | OBSERVED | GRIPPER | JOINT | POSE) else "other"


def content(path: str, width: int) -> Content:
    """Return the content of a vector of `width` numbers by its name; `unknown` if the name does not show it."""
    name = {*words(path)}
    if name & GRIPPER and width <= 2:
        return "gripper"
    if name & JOINT:
        return "joint"
    if name & ROTATION and not (name & POSITION) and width in {3, 4, 6, 9}:
        return "rotation"
    if name & POSE and width in {6, 7, 8, 16}:
        return "pose"
    if name & (POSITION | POSE) and width == 3:
        return "position"
    return "unknown"


def side(path: str) -> str:
    """Return the arm that a field belongs to by its name, such as `left`; empty if the name has none."""
    return next((SIDES[word] for word in words(path) if word in SIDES), "")


def cameras(fields: Iterable[Field]) -> tuple[dict[str, tuple[str, Claim]], dict[str, str]]:
    """Return two mappings: role -> field and claim for colour cameras, role -> field for depth cameras."""
    images = [
        f for f in fields if f.kind == "image" and f.per_step and not f.ragged and not f.dtype.startswith("float")
    ]
    colour: dict[str, tuple[str, Claim]] = {}
    depth: dict[str, str] = {}
    scenes = []
    for field in images:
        name = {*words(field.path)}
        if name & DEPTH or field.dtype == "uint16":
            depth[_free(side(field.path) or "primary", depth)] = field.path
        elif marks := name & WRIST:
            role = _free("_".join(filter(None, ("wrist", side(field.path)))), colour)
            colour[role] = (field.path, Claim(role, "high", f"the name contains '{min(marks)}'"))
        else:
            scenes.append(field.path)
    scenes.sort(key=_prominence)
    for i, path in enumerate(scenes):
        role = _free(("primary", "secondary")[i] if i < 2 else path.rpartition(".")[2], colour)
        only = Claim(role, "high", "the only camera that is not on a wrist")
        guess = Claim(role, "low", "a guess from names and their order; look at a frame")
        colour[role] = (path, only if len(scenes) == 1 else guess)
    return colour, depth


def _prominence(path: str) -> tuple[int, str]:
    name = words(path)
    ranks = [i for i, word in enumerate(SCENE) if word in name]
    return (ranks[0] if ranks else 0 if name[-1:] in (["image"], ["rgb"]) else len(SCENE), path)


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    free = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def language(fields: Iterable[Field]) -> list[str]:
    """List the text fields whose names suggest an instruction, the likeliest first."""
    ranked = []
    for field in fields:
        name = words(field.path.rpartition(".")[2])
        ranks = [i for i, word in enumerate(INSTRUCTION) if word in name]
        single = not field.ragged or (not field.per_step and field.ragged == 1)
        if field.kind == "text" and single and not field.shape and ranks and not {*name} & {"file", "path", "id"}:
            ranked.append((ranks[0], len(name), field.path))
    return [path for *_, path in sorted(ranked)]
