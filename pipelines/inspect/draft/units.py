"""Metres or millimetres, radians or degrees: by the ranges that an arm can have, or next to numbers of a known unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.motion import EXPLAINED, Fit, sure
from schemas.source import Array

REACH_M = (0.08, 2.5)  # the farthest point that an arm's tool reaches, seen from its base or the room's origin
TURN_MAX = np.pi * 1.01
TURNED = 0.3  # an arm that turns at all turns by more than 0.3 degrees: such a spread can only be radians
PERCENT = 105  # some motors are told in parts of a hundred: what stays below may be that as well as degrees
NEAR = 0.25  # how far a fitted factor may be from that of a unit
MILLI, DEGREE = 1e-3, np.pi / 180


@dataclass(frozen=True, slots=True)
class Scaled:
    """A unit, and the op that brings the numbers there."""

    unit: Claim
    op: str = ""


def length(columns: Sequence[Array]) -> Scaled:
    """Tell the unit of absolute positions [T, 3]."""
    values = _finite(columns)
    if not len(values):
        return Scaled(todo("no numbers"))
    far, low, high = float(np.abs(values).max()), values.min(axis=0), values.max(axis=0)
    told = f"goes {far:.4g} from the origin at most"
    if np.isclose(low.min(), -1, atol=1e-6) and np.isclose(high.max(), 1, atol=1e-6):
        return Scaled(todo("m, mm or none? It ends exactly at -1 and 1: normalized?"))
    if (high - low).max() < 0.01 * far or not far:
        return Scaled(todo(f"m or mm? {told}, and hardly moves"))
    if REACH_M[0] <= far <= REACH_M[1]:
        return Scaled(Claim("m", "high", f"{told}: an arm's reach in metres"))
    if REACH_M[0] <= far * MILLI <= REACH_M[1]:
        return Scaled(Claim("m", "high", f"{told}: an arm's reach in millimetres"), " | scale(1/1000)")
    return Scaled(todo(f"m or mm? {told}"))


def angle(columns: Sequence[Array], *, limit: float = TURN_MAX) -> Scaled:
    """Tell the unit of absolute angles [T, k]; `limit` is the largest that one can be in radians."""
    values = _finite(columns)
    if not len(values):
        return Scaled(todo("no numbers"))
    most, spread = float(np.abs(values).max()), float(np.ptp(values, axis=0).max())
    told = f"up to {most:.4g}, moving by {spread:.4g}"
    if PERCENT < most <= 361:
        return Scaled(Claim("rad", "high", f"{told}: degrees"), " | deg2rad")
    if most <= limit and spread >= TURNED and not _normalized(values):
        return Scaled(Claim("rad", "high" if most > np.pi / 2 else "medium", f"{told}: radians"))
    return Scaled(todo(f"rad, after '| deg2rad' if it is degrees? {told}, which may be either, or a normalized number"))


def _normalized(values: Array) -> bool:
    """Say whether numbers end where a normalized range ends."""
    return bool(np.isclose(np.abs(values).max(), 1, atol=1e-3))


def _finite(columns: Sequence[Array]) -> Array:
    values = np.concatenate(columns) if columns else np.zeros((0, 1))
    kept: Array = values[np.isfinite(values).all(axis=1)]
    return kept


def compared(fit: Fit, known: Scaled, mode: Claim, *, small: float, rate: float | None) -> tuple[Scaled, Claim]:
    """Tell unit and mode of commanded deltas from the factor between them and the measured motion of a known unit.

    `small` is what one of the smaller unit is in the larger (1/1000, a degree).
    """
    if known.unit.is_open:
        return Scaled(todo("that of the state, which is not known")), mode
    unit, gain = known.unit.value, fit.gain * (small if known.op else 1.0)  # metres or radians for one of the command
    told = f"one of the command moves by {gain:.4g} {unit} (R2 {fit.r2:.2f})"
    matches = [name for name, size in _sizes(small, rate).items() if abs(gain / size - 1) <= NEAR]
    if fit.r2 < EXPLAINED or len(matches) != 1 or matches[0] == "small velocity":
        return Scaled(todo(f"{unit}, or controller for a command without unit? {told}")), todo(
            f"delta or velocity? {told}"
        )
    if matches == ["velocity"]:
        told += f": what it moves in a step of 1/{rate:g} s"
        return Scaled(Claim(f"{unit}/s", sure(fit), told)), Claim("velocity", sure(fit), told)
    op = {MILLI: " | scale(1/1000)", DEGREE: " | deg2rad"}[small] if matches == ["small"] else ""
    return Scaled(Claim(unit, sure(fit), told), op), mode


def _sizes(small: float, rate: float | None) -> dict[str, float]:
    sizes = {"large": 1.0, "small": small}
    return sizes | ({"velocity": 1 / rate, "small velocity": small / rate} if rate else {})
