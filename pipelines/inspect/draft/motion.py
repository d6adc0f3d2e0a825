"""How a vector of commands relates to a measured vector: as a change of it, or as its target.

Commands a[t] are fitted to measurements s[t] with one factor, the gain. Delays k of 0 to 3 steps are tried, and
the best fit is used:

    delta     s[t+k+1] - s[t+k] = gain * a[t]         in the axes of s
    tool      the same as delta                       in the axes of the tool
    absolute  s[t+k]            = gain * a[t] + c
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pipelines.conventions.moments import moments
from pipelines.conventions.trajectories import Trajectories
from pipelines.inspect.draft.claims import Claim, todo
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Relation: TypeAlias = Literal["delta", "tool", "absolute"]

DELAYS = range(4)  # steps between a command and the motion
STILL = 1e-3  # a step counts as moving if its motion, relative to the largest one, exceeds this
MIN_MOVING = 30  # moving steps; a fit to fewer may be chance
MIN_R2 = 0.5  # required for a claim; Bridge's commanded deltas reach 0.7, unrelated vectors 0.1 to 0.3
MAX_UNEXPLAINED = 0.5  # required for a claim: unexplained part of the best fit, relative to the second best


@dataclass(frozen=True, slots=True)
class Fit:
    """The share of the measured motion that a relation explains (`r2`), and the fitted factor (`gain`)."""

    r2: float
    gain: float
    moving: int  # moving steps


NOTHING = Fit(-np.inf, np.nan, 0)


def fits(commands: Sequence[Array], measured: Sequence[Array]) -> dict[Relation, Fit]:
    """Fit the commands [T, k] of each episode as deltas and as targets of the measurements [T, k]."""
    steps = Trajectories.of(commands, measured)
    return {
        "delta": _best(steps, steps.action, steps.to_next(steps.state)),
        "absolute": _best(steps, steps.action, steps.state, is_centred=True),
    }


def tool_fit(commands: Sequence[Array], positions: Sequence[Array], rotations: "Sequence[Rotation]") -> Fit:
    """Fit commands as changes of position in the axes of the tool."""
    turned = [turn[: len(c)].apply(c[: len(turn)]) for c, turn in zip(commands, rotations, strict=True)]
    steps = Trajectories.of(turned, positions)
    return _best(steps, steps.action, steps.to_next(steps.state))


def rotation_fits(commands: Sequence[Array], rotations: "Sequence[Rotation]") -> dict[Relation, Fit]:
    """Fit commands [T, 3] as rotation vectors from step to step, in fixed axes and in those of the tool.

    Small Euler angles fit as well as rotation vectors.
    """
    fixed = [(turn[1:] * turn[:-1].inv()).as_rotvec() for turn in rotations]
    tool = [(turn[:-1].inv() * turn[1:]).as_rotvec() for turn in rotations]
    fitted: dict[Relation, Fit] = {}
    for relation, turns in (("delta", fixed), ("tool", tool)):
        steps = Trajectories.of(commands, turns)
        fitted[relation] = _best(steps, steps.action, steps.state)  # type: ignore[index]
    return fitted


def _best(steps: Trajectories, commands: Array, motions: Array, *, is_centred: bool = False) -> Fit:
    if is_centred and len(commands):
        commands, motions = commands - np.nanmean(commands, axis=0), motions - np.nanmean(motions, axis=0)
    return max((_fit(steps, commands, motions, delay=delay) for delay in DELAYS), key=lambda fit: fit.r2)


def _fit(steps: Trajectories, commands: Array, motions: Array, *, delay: int) -> Fit:
    total = moments(steps, commands, motions, delay=delay).total
    if not total.yy.sum() or not total.xx.any():
        return NOTHING
    size = np.nan_to_num(np.abs(motions)).max(axis=1)
    return Fit(float(total.r2_of_factor), float(total.factor), int((size > STILL * size.max()).sum()))


def best(fitted: Mapping[Relation, Fit]) -> tuple[Relation | None, str]:
    """Return the relation that explains the motion clearly better than the others, and all figures as text.

    The relation is None if no relation is clearly better, or if too few steps are moving.
    """
    figures = ", ".join(
        f"{relation} R2 {fit.r2:.2f} (factor {fit.gain:.4g})" for relation, fit in fitted.items() if fit.moving
    )
    ranked = sorted(fitted, key=lambda relation: fitted[relation].r2, reverse=True)
    if not ranked or fitted[ranked[0]].moving < MIN_MOVING:
        return None, f"too few moving steps to compare ({figures or 'none'})"
    first = fitted[ranked[0]]
    others = max([fitted[relation].r2 for relation in ranked[1:]], default=-np.inf)
    is_clear = first.r2 >= MIN_R2 and 1 - first.r2 <= MAX_UNEXPLAINED * (1 - max(others, 0.0)) and first.gain > 0
    return (ranked[0] if is_clear else None), figures


def merged_frames(fitted: Mapping[Relation, Fit]) -> dict[Relation, Fit]:
    """Keep the better fit of the deltas in base and tool axes, to compare it with absolute targets."""
    deltas = [fitted[relation] for relation in ("delta", "tool") if relation in fitted]
    return {"delta": max(deltas, key=lambda fit: fit.r2), "absolute": fitted["absolute"]}


def confidence(fit: Fit) -> Literal["high", "medium"]:
    """Return the confidence of a claim that is based on a fit."""
    return "high" if fit.r2 >= 0.9 else "medium"


def claim_mode(fitted: Mapping[Relation, Fit]) -> Claim:
    """Claim `delta` or `absolute`; left open if neither is clearly better."""
    mode, figures = best(merged_frames(fitted))
    if mode is None:
        return todo(f"delta, absolute or velocity? {figures}")
    return Claim(mode, confidence(merged_frames(fitted)[mode]), f"compared with the measured motion: {figures}")
