"""Seconds beside a frame become frames beside it, as LeRobot does: `delta_timestamps`, with its checks."""

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.data.step_table import StepTable
from schemas.errors import UsageError
from schemas.source import Array

Deltas = Mapping[str, Sequence[float]]  # seconds by key


def frame_rate(table: StepTable, *, control_hz: float | None) -> float | None:
    """Give frames per second: as declared, else the median of the timestamps' differences; None where neither is."""
    if control_hz is not None or "timestamp" not in table.columns:
        return control_hz
    differences = np.diff(table.columns["timestamp"])[_inside(table)]
    middle = float(np.median(differences)) if len(differences) else 0.0
    return 1 / middle if middle > 0 else None


def offsets(deltas: Deltas, table: StepTable, *, fps: float | None, tolerance_s: float) -> dict[str, Array]:
    """Count the frames of each delta, [D] int64; one between two frames, or frames off the beat, is a UsageError."""
    if not deltas:
        return {}
    if fps is None or "timestamp" not in table.columns:
        raise UsageError("delta_timestamps need a rate: this dataset has neither a control_hz nor timestamps")
    _check_beat(table, fps=fps, tolerance_s=tolerance_s)
    return {key: _frames(key, told, fps=fps, tolerance_s=tolerance_s) for key, told in deltas.items()}


def window(row: int, offset: Array, *, start: int, end: int) -> tuple[Array, Array]:
    """Find the rows beside `row` in its episode [start, end): where there is none, the nearest, and True as its pad.

    >>> window(5, np.array([-1, 0, 1, 2]), start=5, end=7)
    (array([5, 5, 6, 6]), array([ True, False, False,  True]))
    """
    wanted = row + offset
    rows = wanted.clip(start, end - 1)
    return rows, rows != wanted


def _frames(key: str, seconds: Sequence[float], *, fps: float, tolerance_s: float) -> Array:
    told = np.asarray(seconds)
    if told.ndim != 1 or not len(told) or told.dtype.kind not in "fi" or not np.isfinite(told).all():
        raise UsageError(f"delta_timestamps['{key}']: expected a list of seconds, got {seconds!r}")
    frames = np.rint(told * fps)
    off = np.flatnonzero(np.abs(frames / fps - told) > tolerance_s)
    if len(off):
        delta = told[off[0]]
        raise UsageError(
            f"delta_timestamps['{key}']: {delta:g} s is no multiple of 1/fps = {1 / fps:g} s within tolerance_s "
            f"{tolerance_s:g}; the nearest is {frames[off[0]] / fps:g}"
        )
    return frames.astype(np.int64)


def _check_beat(table: StepTable, *, fps: float, tolerance_s: float) -> None:
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
        f"{int(inside.sum())} frames are off{why}); with a larger tolerance_s a delta counts frames"
    )


def _inside(table: StepTable) -> Array:
    """Say of each pair of neighbours whether they are of one episode, [N - 1]."""
    inside = np.ones(table.bounds[-1] - 1, bool)
    ends = table.bounds[1:-1] - 1
    inside[ends[(ends >= 0) & (ends < len(inside))]] = False
    return inside
