"""The range of a gripper's numbers, and which end of it is open."""

from collections.abc import Sequence

import numpy as np

from pipelines.conventions.gripper import strongest
from pipelines.conventions.trajectories import Trajectories
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.roles import words
from schemas.declarations.spec import TODO
from schemas.source import Array

CLOSED = {"closed", "close", "closedness", "closing", "closure"}
OPEN = {"open", "opened", "opening", "openness", "width", "aperture"}
SCALES = (255.0, 100.0, 1000.0)  # upper ends of ranges that start at 0
OVERSHOOT = 0.15  # how far the range of a measured gripper may differ from 0 and 1
TOLERANCE = 0.02  # distance to an end that counts as the end, relative to the range
MIN_CORRELATION = 0.7  # between a command and its measurement
STAY_SHARE = 0.05  # if the share of zeros is larger, 0 is a third command besides -1 and 1


def range_op(columns: Sequence[Array]) -> tuple[str, Claim]:
    """Return the ops that map the numbers [T, 1] to 0..1, and the evidence for them.

    The ops contain `TODO` if the user must decide. They never invert the numbers.
    """
    values = np.concatenate(columns) if columns else np.zeros((0, 1))
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        always = f" (always {values[0]:.4g})" if len(values) else ""
        return _open_range(f"the gripper's full range; it never moves{always}")
    low, high = float(values.min()), float(values.max())
    evidence = f"values from {low:.4g} to {high:.4g}"
    if abs(low + 1) <= TOLERANCE and abs(high - 1) <= TOLERANCE:
        return _signed_range(values, evidence)
    op = _unsigned_op(low, high)
    if op is None:
        return _open_range(f"the gripper's full range; {evidence}")
    return op, Claim("", "high" if not op else "medium", evidence)


def _unsigned_op(low: float, high: float) -> str | None:
    if abs(low) <= TOLERANCE and abs(high - 1) <= TOLERANCE:
        return ""
    for scale in SCALES:
        if abs(low) <= TOLERANCE * scale and abs(high / scale - 1) <= TOLERANCE / 10:
            return f" | scale(1/{scale:g})"
    is_near = -OVERSHOOT <= low <= OVERSHOOT and 1 - OVERSHOOT <= high <= 1 + OVERSHOOT
    return " | clip(0, 1)" if is_near else None


def _signed_range(values: Array, evidence: str) -> tuple[str, Claim]:
    if len(np.unique(values)) == 3 and (np.abs(values) < TOLERANCE).mean() > STAY_SHARE:
        question = "does 0 mean stay (rel2abs_gripper) or half open (shift(1) | scale(1/2))?"
        return f" | {TODO}", todo(f"{question} three different {evidence}", f" | {TODO}")
    return " | shift(1) | scale(1/2)", Claim("", "high", evidence)


def _open_range(evidence: str) -> tuple[str, Claim]:
    op = f" | scale(1/{TODO}) | clip(0, 1)"
    return op, todo(evidence, op)


def sense_from_name(path: str) -> Claim | None:
    """Claim from a name whether the largest value means `open` or `closed`.

    Returns None if the name has words for both or for neither.
    """
    name = {*words(path)}
    for marks, sense in ((CLOSED, "closed"), (OPEN, "open")):
        if matches := marks & name:
            contradiction = (OPEN if sense == "closed" else CLOSED) & name
            return None if contradiction else Claim(sense, "high", f"the name contains '{min(matches)}'")
    return None


def correlation(commands: Sequence[Array], measured: Sequence[Array]) -> float:
    """Return the strongest correlation of commands [T, 1] with measurements up to ten steps later."""
    steps = Trajectories.of(commands, measured)
    return strongest(steps, steps.action, steps.state)[1] if len(steps.lengths) else 0.0


def carried_sense(sense: Claim, strength: float, other: str) -> Claim | None:
    """Infer the sense of a gripper from that of `other`, its command or measurement.

    `strength` is the correlation of the two. Returns None if it is too weak.
    """
    if abs(strength) < MIN_CORRELATION:
        return None
    flipped = {"open": "closed", "closed": "open"}[sense.value]
    evidence = f"correlates by {strength:.2f} with {other}: {sense.evidence}"
    return Claim(sense.value if strength > 0 else flipped, "high" if abs(strength) > 0.9 else "medium", evidence)
