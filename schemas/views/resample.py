"""A lower control rate: which stored steps a view keeps, and what it commands from each of them to the next.

Images and states are those of the kept steps. Nothing is interpolated: between recorded commands there are none.
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
NEAR = 1e-4  # of a period: times that are no further apart are one
SLOWEST = 1.05  # periods from one recorded step to the next, as a rule; beyond, there are too few steps


def kept_steps(times: Array, hz: float) -> Array:
    """Find the steps [K] nearest to the ticks of a clock that starts with the first of them.

    Each tick is counted from the start, so nothing drifts where the rates have no whole ratio. Halfway between two
    steps the earlier one is taken; a step is kept once, also where a gap of the recording makes it the nearest to many
    ticks. Times that go back or lie too far apart are SpecErrors.

    >>> kept_steps(np.arange(10) / 10, 4).tolist()
    [0, 2, 5, 7]
    """
    since = np.asarray(times, np.float64) - times[:1]
    gaps = np.diff(since)
    if not (gaps >= 0).all():
        raise SpecError(f"its timestamps go back at step {int(np.argmin(gaps >= 0)) + 1}, so they give no clock")
    typical = float(np.median(gaps)) if len(gaps) else 0.0
    if typical * hz > SLOWEST:
        raise SpecError(
            f"its steps are {typical:.3g} s apart, fewer than {hz:g} Hz; what was not recorded is not made up: "
            "give a lower control_hz, and let the controller interpolate"
        )
    ends = np.concatenate([since[:-1] + gaps / 2, since[-1:] + typical / 2])  # up to where each step is the nearest
    ticks = np.floor(ends * hz + NEAR)
    return np.flatnonzero(np.diff(ticks, prepend=-1) > 0)


def resampled(steps: Steps, hz: float, space: Space) -> Steps:
    """Keep the steps nearest to `hz`; each action is what was commanded from one of them to the next."""
    if TIMES not in steps:
        raise SpecError("the steps have no timestamps, so their rate cannot be changed")
    action = Path("action").read(steps)
    if action.shape[1] != len(space):
        raise SpecError(f"its action has {action.shape[1]} columns, its space has {len(space)} dimensions")
    starts = kept_steps(steps[TIMES], hz)
    return {**{path: column[starts] for path, column in steps.items()}, "action": combined(action, starts, space)}


def not_combined(space: Space) -> str | None:
    """Say why several actions in a row cannot be made one, or None if they can."""
    for dim in space.dims:
        if dim.mode == "unknown" or (dim.mode == "delta" and dim.unit == "unknown"):
            return f"the {'mode' if dim.mode == 'unknown' else 'unit'} of {dim.name} is not known"
        if dim.mode == "delta" and dim.kind == "base":
            return f"{dim.name} is a change seen from a base that moves"
    position, rotation = _deltas(space, "position"), _deltas(space, "rotation")
    if (position or rotation) and space.frame not in {"base", "tool", "world"}:
        return f"its changes are in frame '{space.frame}'"
    size, unit = ROTATION_DIMS.get(space.rotation, (0, ""))
    units = {space.dims[i].unit for i in rotation}
    if rotation and not _is_one_angle(space) and (not size or len(rotation) % size or units != {unit}):
        return (
            f"its turns are {len(rotation)} numbers in {', '.join(sorted(units))} with rotation '{space.rotation}', "
            "and only known rotations in radians can be composed"
        )
    if space.frame == "tool" and position and len(position) * size != len(rotation) * 3:
        return "its positions are seen from a tool whose turns it does not hold"
    return None


def combined(action: Array, starts: Array, space: Space) -> Array:
    """Make one action [K, A] of those from each start to the next: [T, A] -> [K, A] float32.

    Changes are added and turns composed: R = Rn ... R1 in a fixed frame, R1 ... Rn in the tool's, which also turns the
    positions. Absolute targets and grippers are the last ones, velocities the mean. An action by itself stays as it is.
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
    """Compose changes of pose: [T, 3] and [T, k] -> [K, 3], as seen from the tool at each start, and [K, k]."""
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
    """Give what happened from each kept step to the next: the sum of rewards, and whether a step was terminal."""
    starts = np.flatnonzero(mask)
    columns = {"reward": (reward, np.add), "is_terminal": (is_terminal, np.logical_or)}
    return {
        name: None if column is None else join.reduceat(column, starts) if len(starts) else column[:0]
        for name, (column, join) in columns.items()
    }


def _deltas(space: Space, kind: Any) -> list[int]:
    return [i for i in space.indices(kind) if space.dims[i].mode == "delta"]


def _is_one_angle(space: Space) -> bool:
    """Say whether all turns are about one axis, so that angles add."""
    rotation = _deltas(space, "rotation")
    return len(rotation) == 1 and space.dims[rotation[0]].unit == "rad" and space.frame != "tool"
