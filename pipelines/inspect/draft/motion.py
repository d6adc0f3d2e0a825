"""How a vector of commands relates to a measured one: a change of it, or where it shall go. Only numbers are compared.

Commands a[t] are fitted to the measured s with one factor, at the few delays that controllers have:

    delta     s[t+k+1] - s[t+k] = gain * a[t]         in the axes of s, or turned by the measured rotation (tool)
    absolute  s[t+k]            = gain * a[t] + c
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

How: TypeAlias = Literal["delta", "tool", "absolute"]

DELAYS = range(4)  # steps; slower answers tell too little
STILL = 1e-3  # of the largest motion: what moves by less does not move
FEWEST = 30  # moving transitions: below, any fit may be chance
EXPLAINED = 0.5  # R2 of a claim; Bridge's commanded deltas reach 0.7, unrelated vectors 0.1 to 0.3
CLEARER = 0.5  # of the runner-up's unexplained part, at most, may stay unexplained


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of the measured motion one reading of the commands explains, and the factor it takes."""

    r2: float
    gain: float
    moving: int  # transitions


NOTHING = Fit(-np.inf, np.nan, 0)


def fits(commands: Sequence[Array], measured: Sequence[Array]) -> dict[How, Fit]:
    """Fit commands [T, k] of each episode as deltas and as targets of what was measured [T, k]."""
    steps = [np.diff(seen, axis=0) for seen in measured]
    return {"delta": _best(commands, steps), "absolute": _best(commands, measured, is_centred=True)}


def tool_fit(commands: Sequence[Array], positions: Sequence[Array], rotations: "Sequence[Rotation]") -> Fit:
    """Fit commands as changes of position that are told in the axes of the moving tool."""
    turned = [turn[: len(c)].apply(c[: len(turn)]) for c, turn in zip(commands, rotations, strict=True)]
    return _best(turned, [np.diff(seen, axis=0) for seen in positions])


def turn_fits(commands: Sequence[Array], rotations: "Sequence[Rotation]") -> dict[How, Fit]:
    """Fit commands [T, 3] as turns from step to step, in fixed axes or those of the tool; small ones look alike."""
    fixed = [(turn[1:] * turn[:-1].inv()).as_rotvec() for turn in rotations]
    tool = [(turn[:-1].inv() * turn[1:]).as_rotvec() for turn in rotations]
    return {"delta": _best(commands, fixed), "tool": _best(commands, tool)}


def _best(commands: Sequence[Array], targets: Sequence[Array], *, is_centred: bool = False) -> Fit:
    tries = (_fit(commands, targets, delay=delay, is_centred=is_centred) for delay in DELAYS)
    return max(tries, key=lambda fit: fit.r2)


def _fit(commands: Sequence[Array], targets: Sequence[Array], *, delay: int, is_centred: bool) -> Fit:
    rows = [(c[: max(len(t) - delay, 0)], t[delay:][: len(c)]) for c, t in zip(commands, targets, strict=True)]
    if not rows:
        return NOTHING
    x, y = (np.concatenate([row[i] for row in rows]) for i in range(2))
    fine = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    x, y = x[fine], y[fine]
    if is_centred and len(x):
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    if not len(x) or not (x**2).sum() or not (y**2).sum():
        return NOTHING
    size = np.abs(y).max(axis=1)
    gain = float((x * y).sum() / (x**2).sum())
    unexplained = float(((y - gain * x) ** 2).sum() / (y**2).sum())
    return Fit(1 - unexplained, gain, int((size > STILL * size.max()).sum()))


def best(found: Mapping[How, Fit]) -> tuple[How | None, str]:
    """Say which reading explains the motion so much better than the others that it can be claimed; and the figures."""
    told = ", ".join(f"{how} R2 {fit.r2:.2f} (factor {fit.gain:.4g})" for how, fit in found.items() if fit.moving)
    ranked = sorted(found, key=lambda how: found[how].r2, reverse=True)
    if not ranked or found[ranked[0]].moving < FEWEST:
        return None, f"too few moving steps to compare ({told or 'none'})"
    first = found[ranked[0]]
    others = max([found[how].r2 for how in ranked[1:]], default=-np.inf)
    clear = first.r2 >= EXPLAINED and 1 - first.r2 <= CLEARER * (1 - max(others, 0.0)) and first.gain > 0
    return (ranked[0] if clear else None), told


def merged_frames(found: Mapping[How, Fit]) -> dict[How, Fit]:
    """Take base and tool deltas as one reading, for the question whether they are deltas at all."""
    deltas = [found[how] for how in ("delta", "tool") if how in found]
    return {"delta": max(deltas, key=lambda fit: fit.r2), "absolute": found["absolute"]}


def sure(fit: Fit) -> Literal["high", "medium"]:
    """Say how sure a claim is that rests on a fit."""
    return "high" if fit.r2 >= 0.9 else "medium"


def mode_of(found: Mapping[How, Fit]) -> Claim:
    """Claim `delta` or `absolute`."""
    how, told = best(merged_frames(found))
    if how is None:
        return todo(f"delta, absolute or velocity? {told}")
    return Claim(how, sure(merged_frames(found)[how]), f"against the measured motion: {told}")
