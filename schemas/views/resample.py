"""Resample a view to a lower control rate: choose the steps to keep and combine the actions between them.

The images and states of the kept steps are unchanged. Nothing is interpolated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.declarations.expr import Path
from schemas.declarations.ops import Steps
from schemas.declarations.rotations import from_rotation, to_rotation
from schemas.errors import SpecError
from schemas.source import Array
from schemas.spaces import ROTATION_DIMS, Space

TIMES = "timestamp"
NEAR = 1e-4  # times that differ by less count as equal, in periods of the clock
SLOWEST = 1.05  # maximum median time between recorded steps, in periods of the clock


def kept_steps(times: Array, hz: float) -> Array:
    """Return the steps [K] nearest to the ticks of a clock that starts at the first step.

    Ticks are multiples of the period, so they do not drift if the recorded rate is not a multiple of `hz`. If a tick is
    halfway between two steps, the earlier one is kept. A step that is nearest to several ticks is kept once. Raises
    SpecError if times decrease or are too far apart.

    >>> kept_steps(np.arange(10) / 10, 4).tolist()
    [0, 2, 5, 7]
    """
    since = np.asarray(times, np.float64) - times[:1]
    gaps = np.diff(since)
    if not (gaps >= 0).all():
        raise SpecError(f"its timestamps decrease at step {int(np.argmin(gaps >= 0)) + 1}")
    typical = float(np.median(gaps)) if len(gaps) else 0.0
    if typical * hz > SLOWEST:
        raise SpecError(
            f"its steps are {typical:.3g} s apart, too far for {hz:g} Hz; give a lower control_hz and let the "
            "controller interpolate"
        )
    ends = np.concatenate(
        [since[:-1] + gaps / 2, since[-1:] + typical / 2]
    )  # for each step, the end of the times that are nearest to it
    ticks = np.floor(ends * hz + NEAR)
    return np.flatnonzero(np.diff(ticks, prepend=-1) > 0)


def resampled(steps: Steps, hz: float, space: Space) -> Steps:
    """Keep steps at a rate of `hz`; the action of a kept step combines all actions from it to the next kept step."""
    if TIMES not in steps:
        raise SpecError("its rate cannot be changed, because the steps have no timestamps")
    action = Path("action").read(steps)
    if action.shape[1] != len(space):
        raise SpecError(f"its action has {action.shape[1]} columns, its space has {len(space)} dimensions")
    starts = kept_steps(steps[TIMES], hz)
    return {**{path: column[starts] for path, column in steps.items()}, "action": combined(action, starts, space)}


def why_not_combined(space: Space) -> str | None:
    """Return why consecutive actions cannot be combined into one; None if they can."""
    for dim in space.dims:
        if dim.mode == "unknown" or (dim.mode == "delta" and dim.unit == "unknown"):
            return f"the {'mode' if dim.mode == 'unknown' else 'unit'} of {dim.name} is unknown"
        if dim.mode == "delta" and dim.kind == "base":
            return f"{dim.name} is a change relative to a moving base"
    position, rotation = _deltas(space, "position"), _deltas(space, "rotation")
    if (position or rotation) and space.frame not in {"base", "tool", "world"}:
        return f"its changes are in frame '{space.frame}'"
    size, unit = ROTATION_DIMS.get(space.rotation, (0, ""))
    units = {space.dims[i].unit for i in rotation}
    if rotation and not _is_one_angle(space) and (not size or len(rotation) % size or units != {unit}):
        return (
            f"its rotation is {len(rotation)} numbers in {', '.join(sorted(units))} with rotation '{space.rotation}', "
            "and only known rotations in radians can be composed"
        )
    if space.frame == "tool" and position and len(position) * size != len(rotation) * 3:
        return "its positions are relative to the tool, and it has no rotation of the tool"
    return None


def combined(action: Array, starts: Array, space: Space) -> Array:
    """Combine the actions [T, A] from each start to the next into one: [K, A] float32.

    Changes of position are added. Rotations are composed: R = Rn ... R1 in a fixed frame, and R = R1 ... Rn in the tool
    frame, where they also rotate the changes of position that follow. Absolute targets and grippers take the last
    value, and velocities take the mean. If there is only one action between two starts, it is unchanged.
    """
    if not len(starts):
        return action[:0]
    counts = np.diff(starts, append=len(action))
    out: Array = action[starts + counts - 1]
    summed = [i for i, dim in enumerate(space.dims) if dim.mode in {"delta", "velocity"}]
    sums = np.add.reduceat(action[:, summed].astype(np.float64), starts, axis=0)
    means = [i for i, dim in enumerate(space.dims) if dim.mode == "velocity"]
    out[:, summed] = sums
    out[:, means] = out[:, means] / counts[:, None]
    size, _ = ROTATION_DIMS.get(space.rotation, (0, ""))
    position, rotation = _deltas(space, "position"), _deltas(space, "rotation")
    arms = 0 if _is_one_angle(space) or not rotation else len(rotation) // size
    for arm in range(arms):
        at, turn = position[3 * arm : 3 * arm + 3], rotation[size * arm : size * arm + size]
        moved, turned = _composed(action[:, at], action[:, turn], starts, space=space)
        out[:, turn] = turned
        if space.frame == "tool":
            out[:, at] = moved
    single = counts == 1
    out[single] = action[starts[single]]
    return out


def _composed(position: Array, turn: Array, starts: Array, *, space: Space) -> tuple[Array, Array]:
    """Compose changes of position [T, 3] and rotation [T, k] from each start to the next.

    Returns positions [K, 3] relative to the tool at the start, and rotations [K, k].
    """
    counts = np.diff(starts, append=len(turn))
    each = np.asarray(to_rotation(turn, space.rotation).as_quat())
    moved, total = position[starts].astype(np.float64), each[starts]
    for step in range(1, int(counts.max())):
        longer = np.flatnonzero(counts > step)
        row = starts[longer] + step
        so_far, next_one = to_rotation(total[longer], "quat_xyzw"), to_rotation(each[row], "quat_xyzw")
        if space.frame == "tool":
            moved[longer] += so_far.apply(position[row]) if position.shape[1] else 0
            total[longer] = (so_far * next_one).as_quat()
        else:
            total[longer] = (next_one * so_far).as_quat()
    return moved, from_rotation(to_rotation(total, "quat_xyzw"), space.rotation)


def over_intervals(mask: Array, reward: Array | None, is_terminal: Array | None) -> Mapping[str, Any]:
    """Return the sum of rewards from each kept step to the next, and whether any of these steps was terminal."""
    starts = np.flatnonzero(mask)
    columns = {"reward": (reward, np.add), "is_terminal": (is_terminal, np.logical_or)}
    return {
        name: None if column is None else join.reduceat(column, starts) if len(starts) else column[:0]
        for name, (column, join) in columns.items()
    }


def _deltas(space: Space, kind: Any) -> list[int]:
    return [i for i in space.indices(kind) if space.dims[i].mode == "delta"]


def _is_one_angle(space: Space) -> bool:
    """Whether all rotations are about one axis, so that angles can be added."""
    rotation = _deltas(space, "rotation")
    return len(rotation) == 1 and space.dims[rotation[0]].unit == "rad" and space.frame != "tool"
