"""Recordings of the simulators as declared data: metres, radians, an opening from 0 to 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from schemas.declarations.rotations import from_rotation, to_rotation
from schemas.source import Array
from schemas.spaces import DELTA, Dim, Space

GRIPPER = Dim("gripper", "1", "absolute", "gripper")
XYZ = ("x", "y", "z")
METAWORLD_STEP = 0.01  # metres that a command of 1 moves metaworld's target
OSC_STEP = np.array([0.05] * 3 + [0.5] * 3)  # metres and radians that a command of 1 moves OSC_POSE's target
CLOSES_UPWARDS = {"UR5e", "IIWA", "Kinova3"}  # arms with Robotiq hands, whose joints grow as they close


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One demonstration."""

    action: Array  # [T, A] float64
    state: Array  # [T, S]
    style: str

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.action)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The demonstrations of one task and arm, with the meaning of their numbers."""

    name: str
    hz: float
    action: Space
    state: Space
    recordings: Sequence[Recording]
    is_held_out: bool


HELD_OUT = {"window-open", "peg-insert-side", "faucet-open", "drawer-close", "Sawyer", "IIWA", "Kinova3"}


def groups(folder: Path) -> list[Group]:
    """Read all files; each of robosuite becomes two groups, whose commands are changes or targets."""
    found = []
    for file in sorted(folder.glob("*.npz")):
        simulator, name = file.stem.split("_")
        with np.load(file) as data:
            ends = np.cumsum(data["lengths"])[:-1]
            parts = [np.split(data[key].astype(np.float64), ends) for key in ("action", "state")]
            recordings = [
                Recording(action=action, state=state, style=str(style))
                for action, state, style in zip(*parts, data["styles"], strict=True)
            ]
            shared: dict[str, Any] = {"hz": float(data["hz"]), "is_held_out": name in HELD_OUT}
        if simulator == "metaworld":
            found.append(_metaworld(name, recordings, shared))
        else:
            found.append(_changes(name, recordings, shared))
            found.append(_targets(found[-1]))
    return found


def _space(name: str, dims: Sequence[Dim], rotation: str, *, is_command: bool) -> Space:
    return Space(
        name=name,
        dims=tuple(dims),
        frame="base",
        rotation=rotation,  # type: ignore[arg-type]
        gripper="open_is_1",
        origin="commanded" if is_command else "achieved",
    )


def _metaworld(name: str, recordings: Sequence[Recording], shared: dict[str, Any]) -> Group:
    scaled = [
        replace(one, action=np.c_[one.action[:, :3] * METAWORLD_STEP, (1 - one.action[:, 3:]) / 2])
        for one in recordings
    ]
    place = [Dim(axis, "m", "absolute", "position") for axis in XYZ]
    return Group(
        name=f"metaworld {name}",
        action=_space("action", [*DELTA[:3], GRIPPER], "none", is_command=True),
        state=_space("state", [*place, GRIPPER], "none", is_command=False),
        recordings=scaled,
        **shared,
    )


def _changes(name: str, recordings: Sequence[Recording], shared: dict[str, Any]) -> Group:
    joints = np.concatenate([one.state[:, 7] for one in recordings])
    closed, opened = (joints.max(), joints.min()) if name in CLOSES_UPWARDS else (joints.min(), joints.max())
    scaled = [
        replace(
            one,
            action=np.c_[one.action[:, :6] * OSC_STEP, (1 - one.action[:, 6:]) / 2],
            state=np.c_[one.state[:, :7], (one.state[:, 7:] - closed) / (opened - closed)],
        )
        for one in recordings
    ]
    place = [Dim(axis, "m", "absolute", "position") for axis in XYZ]
    turn = [Dim(f"q{axis}", "1", "absolute", "rotation") for axis in (*XYZ, "w")]
    change = [Dim(f"r{axis}", "rad", "delta", "rotation") for axis in XYZ]
    return Group(
        name=f"robosuite {name}, changes",
        action=_space("action", [*DELTA[:3], *change, GRIPPER], "rotvec", is_command=True),
        state=_space("state", [*place, *turn, GRIPPER], "quat_xyzw", is_command=False),
        recordings=scaled,
        **shared,
    )


def _targets(group: Group) -> Group:
    """Return the same demonstrations with the targets of the controller as commands, in Euler angles."""
    pose = [Dim(dim.name, dim.unit, "absolute", dim.kind) for dim in DELTA]
    space = {"action": _space("action", [*pose, GRIPPER], "euler_xyz", is_command=True)}
    space["state"] = _space("state", [*pose, GRIPPER], "euler_xyz", is_command=False)
    return replace(
        group,
        name=group.name.replace("changes", "targets"),
        recordings=[_targeted(one) for one in group.recordings],
        **space,
    )


def _targeted(one: Recording) -> Recording:
    now = to_rotation(one.state[:, 3:7], "quat_xyzw")
    goal = to_rotation(one.action[:, 3:6], "rotvec") * now
    state = np.c_[one.state[:, :3], from_rotation(now, "euler_xyz"), one.state[:, 7:]]
    action = np.c_[one.state[:, :3] + one.action[:, :3], from_rotation(goal, "euler_xyz"), one.action[:, 6:]]
    return replace(one, action=action, state=state)
