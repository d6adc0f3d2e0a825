"""Faults as recorders and converters make them: of conventions in recorded commands, and of single episodes."""

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
    """Write commands too late, by 6 steps or a tenth of a second."""
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


# Faults of single episodes


def _fast(one: Recording, rng: Rng, count: int) -> int:
    """Choose a step from which the robot moves for `count` steps, among the faster half."""
    speed = np.abs(np.diff(one.state[:, :3], axis=0)).sum(axis=1)
    total = np.convolve(speed, np.ones(count), "valid")[2:-2]
    return 2 + int(rng.choice(np.flatnonzero(total >= np.quantile(total, 0.5))))


def freeze(group: Group, one: Recording, rng: Rng) -> Recording:
    """Keep the dimension of the position that moves most for 0.6 s."""
    count = max(5, round(0.6 * group.hz))
    at = _fast(one, rng, count) if len(one) > count + 8 else 2
    state = one.state.copy()
    axis = int(np.argmax(np.ptp(state[at : at + count, :3], axis=0)))
    state[at : at + count, axis] = state[at, axis]
    return replace(one, state=state)


def lose(_group: Group, one: Recording, rng: Rng) -> Recording:
    """Leave out 3 steps while the robot moves; the times are written anew."""
    kept = np.delete(np.arange(len(one)), _fast(one, rng, 5) + 1 + np.arange(3))
    return replace(one, action=one.action[kept], state=one.state[kept])


def shift(_group: Group, one: Recording, rng: Rng) -> Recording:
    """Shift the commands by 4 steps."""
    count = 4 * int(rng.choice([-1, 1]))
    return replace(one, action=one.action[np.clip(np.arange(len(one)) - count, 0, len(one) - 1)])


def spike(_group: Group, one: Recording, rng: Rng) -> Recording:
    """Let a position jump by 5 cm for a step."""
    state = one.state.copy()
    state[int(rng.integers(3, len(one) - 4)), int(rng.integers(3))] += 0.05 * rng.choice([-1, 1])
    return replace(one, state=state)


def pause(group: Group, one: Recording, rng: Rng) -> Recording:
    """Insert a second without motion or command."""
    count, at = round(group.hz), int(rng.integers(4, len(one) - 4))
    state = np.insert(one.state, [at] * count, one.state[at], axis=0)
    action = np.insert(one.action, [at] * count, one.action[at], axis=0)
    if is_change(group):
        action[at : at + count, :-1] = 0
    state[at : at + count, :3] += rng.normal(0, 1e-4, (count, 3))
    return replace(one, action=action, state=state)


def copy(_group: Group, one: Recording, _rng: Rng) -> Recording:
    """Write the measured position into the commands."""
    return _changed(one, {axis: one.state[:, axis] for axis in range(3)})


# name -> rule, fault, whether a group can have it
EPISODE_FAULTS: dict[str, tuple[str, Callable[[Group, Recording, Rng], Recording], Callable[[Group], bool]]] = {
    "a dimension of the state frozen for 0.6 s": ("frozen_state", freeze, lambda _: True),
    "3 steps lost while moving": ("timestamp_gap", lose, lambda _: True),
    "commands shifted by 4 steps": ("lag", shift, lambda _: True),
    "a position off by 5 cm for a step": ("spike", spike, lambda _: True),
    "a second without motion": ("idle", pause, lambda _: True),
    "the state in the commands": ("copied_field", copy, lambda group: not is_change(group)),
}
MIXED = ("an axis negated", "two axes exchanged", "millimetres", "degrees", "frame of the tool", "sense of the gripper")


def has_gripper(group: Group) -> bool:
    """Return whether hands open and close."""
    return all(np.ptp(np.concatenate([values[:, -1] for values in both])) > 0.2 for both in _both(group))


def _both(group: Group) -> tuple[list[Array], list[Array]]:
    return [one.action for one in group.recordings], [one.state for one in group.recordings]


FAULTS: dict[str, tuple[str, Fault, Callable[[Group], bool]]] = {  # name -> aspect, fault, whether a group can have it
    "an axis negated": ("axes", negate, lambda _: True),
    "two axes exchanged": ("axes", exchange, lambda group: len(_moves(group)) > 1),
    "millimetres": ("scale", millimetres, lambda _: True),
    "degrees": ("scale", degrees, lambda group: has_rotation(group.action)),
    "frame of the tool": ("frame", tool, lambda group: has_rotation(group.action) and is_change(group)),
    "order of Euler angles": ("rotation", order, lambda group: group.action.rotation == "euler_xyz"),
    "sense of the gripper": ("gripper", close, has_gripper),
    "commands too late": ("lag", late, lambda _: True),
    "targets for changes": ("kind", summed, is_change),
    "changes for targets": ("kind", differences, lambda group: not is_change(group)),
}
