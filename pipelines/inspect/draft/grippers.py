"""Which way a gripper is open, and what brings its numbers to 0 and 1."""

from collections.abc import Sequence

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.roles import words
from schemas.declarations.spec import TODO
from schemas.source import Array

CLOSED = {"closed", "close", "closedness", "closing", "closure"}
OPEN = {"open", "opened", "opening", "openness", "width", "aperture"}
SCALES = (255.0, 100.0, 1000.0)  # ends of the ranges that grippers are commanded in
ABOUT = 0.15  # how far from 0 and 1 a measured gripper may end
END = 0.02  # of the range: how near to an end counts as the end
ALIKE = 0.7  # correlation of a command with what it does
DELAYS = range(11)  # steps that a gripper takes to answer
STAYS = 0.05  # share of zeros between -1 and 1 that makes zero a third command: to stay


def ranged(columns: Sequence[Array]) -> tuple[str, Claim]:
    """Give the ops that map the numbers [T, 1] to 0 and 1, without inverting them; with `TODO` where they are open."""
    values = np.concatenate(columns) if columns else np.zeros((0, 1))
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        at = f" at {values[0]:.4g}" if len(values) else ""
        return _open(f"its range: it never moves{at}")
    low, high = float(values.min()), float(values.max())
    told = f"from {low:.4g} to {high:.4g}"
    if abs(low + 1) <= END and abs(high - 1) <= END:
        return _signed(values, told)
    op = _op(low, high)
    if op is None:
        return _open(f"its full range; seen {told}")
    return op, Claim("", "high" if not op else "medium", told)


def _op(low: float, high: float) -> str | None:
    if abs(low) <= END and abs(high - 1) <= END:
        return ""
    for scale in SCALES:
        if abs(low) <= END * scale and abs(high / scale - 1) <= END / 10:
            return f" | scale(1/{scale:g})"
    return " | clip(0, 1)" if -ABOUT <= low <= ABOUT and 1 - ABOUT <= high <= 1 + ABOUT else None


def _signed(values: Array, told: str) -> tuple[str, Claim]:
    if len(np.unique(values)) == 3 and (np.abs(values) < END).mean() > STAYS:
        ask = "is 0 to stay (rel2abs_gripper) or half open (shift(1) | scale(1/2))?"
        return f" | {TODO}", todo(f"{ask} {told} in three values", f" | {TODO}")
    return " | shift(1) | scale(1/2)", Claim("", "high", told)


def _open(evidence: str) -> tuple[str, Claim]:
    op = f" | scale(1/{TODO}) | clip(0, 1)"
    return op, todo(evidence, op)


def named_sense(path: str) -> Claim | None:
    """Read from a name which end of the range is open: `open` or `closed` at the high end."""
    told = words(path)
    for marks, sense in ((CLOSED, "closed"), (OPEN, "open")):
        if found := marks & {*told}:
            other = (OPEN if sense == "closed" else CLOSED) & {*told}
            return None if other else Claim(sense, "high", f"its name says '{min(found)}'")
    return None


def alike(commands: Sequence[Array], measured: Sequence[Array]) -> float:
    """Correlate commands with what is measured up to ten steps later; the strongest value counts."""
    found = [_correlation(commands, measured, delay) for delay in DELAYS]
    return max(found, key=abs)


def _correlation(commands: Sequence[Array], measured: Sequence[Array], delay: int) -> float:
    pairs = [
        (command[: max(len(seen) - delay, 0), 0], seen[delay:, 0][: len(command)])
        for command, seen in zip(commands, measured, strict=True)
    ]
    x, y = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    fine = np.isfinite(x) & np.isfinite(y)
    if fine.sum() < 10 or not np.ptp(x[fine]) or not np.ptp(y[fine]):
        return 0.0
    return float(np.corrcoef(x[fine], y[fine])[0, 1])


def follows(sense: Claim, correlation: float, other: str) -> Claim | None:
    """Carry a known sense over to the other of command and measurement."""
    if abs(correlation) < ALIKE:
        return None
    same = correlation > 0
    flipped = {"open": "closed", "closed": "open"}[sense.value]
    how = f"correlation {correlation:.2f} with {other}, of which {sense.evidence}"
    return Claim(sense.value if same else flipped, "high" if abs(correlation) > 0.9 else "medium", how)
