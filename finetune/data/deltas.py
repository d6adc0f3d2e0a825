"""Converts `delta_timestamps` from seconds to frames, with the same checks as LeRobot."""

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.data.step_table import StepTable
from schemas.errors import UsageError
from schemas.source import Array

Deltas = Mapping[str, Sequence[float]]  # by key of an item: offsets in seconds


def frame_rate(table: StepTable, *, control_hz: float | None) -> float | None:
    """Return `control_hz`, or if it is None, the frame rate from the median difference of timestamps.

    Returns None if there are no timestamps either.
    """
    if control_hz is not None or "timestamp" not in table.columns:
        return control_hz
    differences = np.diff(table.columns["timestamp"])[_inside(table)]
    middle = float(np.median(differences)) if len(differences) else 0.0
    return 1 / middle if middle > 0 else None


def offsets(deltas: Deltas, table: StepTable, *, fps: float | None, tolerance_s: float) -> dict[str, Array]:
    """Convert the deltas of each key from seconds to frames, [D] int64.

    Raises UsageError if a delta is not a whole number of frames, or if the frames are not evenly spaced.
    """
    if not deltas:
        return {}
    if fps is None or "timestamp" not in table.columns:
        raise UsageError("delta_timestamps require a frame rate: the dataset has neither a control_hz nor timestamps")
    _check_spacing(table, fps=fps, tolerance_s=tolerance_s)
    return {key: _frames(key, seconds, fps=fps, tolerance_s=tolerance_s) for key, seconds in deltas.items()}


def window(row: int, offset: Array, *, start: int, end: int) -> tuple[Array, Array]:
    """Return the rows at `offset` from `row`, clipped to the episode [start, end), and which of them were clipped.

    >>> window(5, np.array([-1, 0, 1, 2]), start=5, end=7)
    (array([5, 5, 6, 6]), array([ True, False, False,  True]))
    """
    wanted = row + offset
    rows = wanted.clip(start, end - 1)
    return rows, rows != wanted


def _frames(key: str, seconds: Sequence[float], *, fps: float, tolerance_s: float) -> Array:
    values = np.asarray(seconds)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fi" or not np.isfinite(values).all():
        raise UsageError(f"delta_timestamps['{key}']: expected a list of seconds, got {seconds!r}")
    frames = np.rint(values * fps)
    off = np.flatnonzero(np.abs(frames / fps - values) > tolerance_s)
    if len(off):
        delta = values[off[0]]
        raise UsageError(
            f"delta_timestamps['{key}']: {delta:g} s is not a multiple of 1/fps = {1 / fps:g} s within tolerance_s "
            f"{tolerance_s:g}; the nearest is {frames[off[0]] / fps:g}"
        )
    return frames.astype(np.int64)


def _check_spacing(table: StepTable, *, fps: float, tolerance_s: float) -> None:
    step, difference, inside = table.columns["frame_index"], np.diff(table.columns["timestamp"]), _inside(table)
    off = np.flatnonzero(inside & ~(np.abs(difference - 1 / fps) <= tolerance_s))
    if not len(off):
        return
    i = int(off[0])
    episode = table.episode[np.searchsorted(table.bounds, i, "right") - 1]
    why = "; the view leaves out steps in between" if step[i + 1] - step[i] > 1 else ""
    raise UsageError(
        f"delta_timestamps: episode {episode}: frame {step[i + 1]} comes {difference[i]:.6g} s after frame "
        f"{step[i]}, not 1/fps = {1 / fps:g} s within tolerance_s {tolerance_s:g} ({len(off)} of "
        f"{int(inside.sum())} frames differ{why}); if no frame is missing, raise tolerance_s to treat "
        "them as evenly spaced"
    )


def _inside(table: StepTable) -> Array:
    """Return for each frame but the last whether the next frame is in the same episode, [N - 1] bool."""
    inside = np.ones(table.bounds[-1] - 1, bool)
    ends = table.bounds[1:-1] - 1
    inside[ends[(ends >= 0) & (ends < len(inside))]] = False
    return inside
