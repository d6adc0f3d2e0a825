"""Draft the unit of numbers from the range that an arm can have, or from the motion that a command causes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.motion import MIN_R2, Fit, confidence
from schemas.source import Array

REACH_M = (0.08, 2.5)  # largest distance of an arm's tool from its base or from the room's origin
MAX_ANGLE = np.pi * 1.01  # rad
MIN_SPREAD = 0.3  # rad; a smaller spread may also be an arm in degrees that hardly moves
MAX_PERCENT = 105  # some motors report percent, so numbers up to this may be percent or degrees
TOLERANCE = 0.25  # largest relative difference between a fitted factor and the factor of a unit
MILLI, DEGREE = 1e-3, np.pi / 180


@dataclass(frozen=True, slots=True)
class UnitDraft:
    """A unit, and the op that converts the numbers to it."""

    unit: Claim
    op: str = ""


def length(columns: Sequence[Array]) -> UnitDraft:
    """Draft the unit of absolute positions [T, 3]."""
    values = _finite(columns)
    if not len(values):
        return UnitDraft(todo("no finite numbers"))
    far, low, high = float(np.abs(values).max()), values.min(axis=0), values.max(axis=0)
    evidence = f"at most {far:.4g} from the origin"
    if np.isclose(low.min(), -1, atol=1e-6) and np.isclose(high.max(), 1, atol=1e-6):
        return UnitDraft(todo("m, mm or no unit? the range is exactly -1 to 1, so the numbers may be normalized"))
    if (high - low).max() < 0.01 * far or not far:
        return UnitDraft(todo(f"m or mm? {evidence}, and hardly moving"))
    if REACH_M[0] <= far <= REACH_M[1]:
        return UnitDraft(Claim("m", "high", f"{evidence}: an arm's reach in metres"))
    if REACH_M[0] <= far * MILLI <= REACH_M[1]:
        return UnitDraft(Claim("m", "high", f"{evidence}: an arm's reach in millimetres"), " | scale(1/1000)")
    return UnitDraft(todo(f"m or mm? {evidence}"))


def angle(columns: Sequence[Array], *, limit: float = MAX_ANGLE) -> UnitDraft:
    """Draft the unit of absolute angles [T, k]; `limit` is the largest possible angle in radians."""
    values = _finite(columns)
    if not len(values):
        return UnitDraft(todo("no finite numbers"))
    most, spread = float(np.abs(values).max()), float(np.ptp(values, axis=0).max())
    evidence = f"up to {most:.4g}, moving by {spread:.4g}"
    if MAX_PERCENT < most <= 361:
        return UnitDraft(Claim("rad", "high", f"{evidence}: degrees"), " | deg2rad")
    if most <= limit and spread >= MIN_SPREAD and not _is_normalized(values):
        return UnitDraft(Claim("rad", "high" if most > np.pi / 2 else "medium", f"{evidence}: radians"))
    return UnitDraft(todo(f"rad? {evidence}: radians, normalized, or degrees (then append '| deg2rad' below)"))


def _is_normalized(values: Array) -> bool:
    """Whether the largest magnitude is 1, as in a normalized range."""
    return bool(np.isclose(np.abs(values).max(), 1, atol=1e-3))


def _finite(columns: Sequence[Array]) -> Array:
    values = np.concatenate(columns) if columns else np.zeros((0, 1))
    finite: Array = values[np.isfinite(values).all(axis=1)]
    return finite


def unit_of_deltas(
    fit: Fit, known: UnitDraft, mode: Claim, *, small: float, rate: float | None
) -> tuple[UnitDraft, Claim]:
    """Draft unit and mode of commanded deltas from their fit to the measured motion, whose unit is `known`.

    `small` is the size of the smaller unit in the larger one: 1/1000 for millimetres, pi/180 for degrees. `rate` is the
    control rate in Hz; if None, velocities are not considered.
    """
    if known.unit.is_open:
        return UnitDraft(todo("the unit of the state, which is open, too")), mode
    unit, gain = known.unit.value, fit.gain * (small if known.op else 1.0)  # metres or radians for a command of 1
    evidence = f"a command of 1 causes a motion of {gain:.4g} {unit} (R2 {fit.r2:.2f})"
    matches = [name for name, size in _sizes(small, rate).items() if abs(gain / size - 1) <= TOLERANCE]
    if fit.r2 < MIN_R2 or len(matches) != 1 or matches[0] == "small velocity":
        question = f"{unit}, or controller if the command has no unit? {evidence}"
        return UnitDraft(todo(question)), todo(f"delta or velocity? {evidence}")
    if matches == ["velocity"]:
        evidence += f", the motion of 1 {unit}/s in a step of 1/{rate:g} s"
        return UnitDraft(Claim(f"{unit}/s", confidence(fit), evidence)), Claim("velocity", confidence(fit), evidence)
    op = {MILLI: " | scale(1/1000)", DEGREE: " | deg2rad"}[small] if matches == ["small"] else ""
    return UnitDraft(Claim(unit, confidence(fit), evidence), op), mode


def _sizes(small: float, rate: float | None) -> dict[str, float]:
    sizes = {"large": 1.0, "small": small}
    return sizes | ({"velocity": 1 / rate, "small velocity": small / rate} if rate else {})
