"""Faults of conventions, as recorders and converters make them, put into the recorded commands of a demonstration."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from recordings import Group, Recording

from schemas.declarations.rotations import from_euler, to_rotation
from schemas.source import Array
from schemas.spaces import Space

Rng: TypeAlias = np.random.Generator
Fault: TypeAlias = Callable[[Group, Rng], Callable[[Recording], Recording]]  # draws the fault, which then is the same


def _moves(group: Group) -> Array:
    """Return the position axes that move enough to show a fault, at least two."""
    motion = np.sqrt(
        np.mean([np.square(np.diff(one.state[:, :3], axis=0)).mean(axis=0) for one in group.recordings], axis=0)
    )
    return np.flatnonzero(motion > 0.1 * motion.max())


def negate(group: Group, rng: Rng) -> Callable[[Recording], Recording]:
    """Negate one axis of the position."""
    axis = int(rng.choice(_moves(group)))
    return lambda one: _changed(one, {axis: -one.action[:, axis]})


def exchange(group: Group, rng: Rng) -> Callable[[Recording], Recording]:
    """Exchange two axes of the position."""
    first, second = rng.choice(_moves(group), 2, replace=False).tolist() if len(_moves(group)) > 1 else (0, 1)
    return lambda one: _changed(one, {first: one.action[:, second], second: one.action[:, first]})


def millimetres(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write positions in millimetres."""
    return lambda one: _changed(one, {axis: 1000 * one.action[:, axis] for axis in range(3)})


def degrees(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write rotations in degrees."""
    return lambda one: _changed(one, {axis: np.rad2deg(one.action[:, axis]) for axis in range(3, 6)})


def tool(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write changes in the frame of the tool."""

    def inject(one: Recording) -> Recording:
        turned = to_rotation(one.state[:, 3:7], "quat_xyzw").inv()
        return replace(
            one, action=np.c_[turned.apply(one.action[:, :3]), turned.apply(one.action[:, 3:6]), one.action[:, 6:]]
        )

    return inject


def order(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write Euler angles in the order z, y, x where x, y, z is declared."""

    def inject(one: Recording) -> Recording:
        turned = from_euler(one.action[:, 3:6], "xyz")
        return _changed(one, dict(zip(range(3, 6), turned.as_euler("zyx")[:, ::-1].T, strict=True)))

    return inject


def close(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write 1 for a closed hand."""
    return lambda one: _changed(one, {-1: 1 - one.action[:, -1]})


def late(group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write commands 0.4 s too late, or 6 steps."""
    count = max(6, round(0.1 * group.hz))
    return lambda one: replace(one, action=one.action[np.clip(np.arange(len(one)) - count, 0, None)])


def summed(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write targets where changes are declared."""
    return lambda one: _changed(one, {axis: one.state[:, axis] + one.action[:, axis] for axis in range(3)})


def differences(_group: Group, _rng: Rng) -> Callable[[Recording], Recording]:
    """Write changes where targets are declared."""
    return lambda one: _changed(one, {axis: one.action[:, axis] - one.state[:, axis] for axis in range(3)})


def _changed(one: Recording, columns: dict[int, Array]) -> Recording:
    action = one.action.copy()
    for place, values in columns.items():
        action[:, place] = values
    return replace(one, action=action)


def has_rotation(space: Space) -> bool:
    """Return whether a vector has a rotation."""
    return space.rotation != "none"


def is_change(group: Group) -> bool:
    """Return whether the commands of a group are changes."""
    return group.action.dims[0].mode == "delta"


FAULTS: dict[str, tuple[str, Fault, Callable[[Group], bool]]] = {  # name -> aspect, fault, whether a group can have it
    "an axis negated": ("axes", negate, lambda group: True),
    "two axes exchanged": ("axes", exchange, lambda group: len(_moves(group)) > 1),
    "millimetres": ("scale", millimetres, lambda group: True),
    "degrees": ("scale", degrees, lambda group: has_rotation(group.action)),
    "frame of the tool": ("frame", tool, lambda group: has_rotation(group.action) and is_change(group)),
    "order of Euler angles": ("rotation", order, lambda group: group.action.rotation == "euler_xyz"),
    "sense of the gripper": ("gripper", close, lambda group: True),
    "commands too late": ("lag", late, lambda group: True),
    "targets for changes": ("kind", summed, is_change),
    "changes for targets": ("kind", differences, lambda group: not is_change(group)),
}
