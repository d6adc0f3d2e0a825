"""Resample topics to the steps of a clock by choosing messages or interpolating between them.

Stamps are nanoseconds as int64, because floats would lose the last digits of seconds since 1970.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from schemas.declarations.rotations import between
from schemas.errors import SourceError
from schemas.source import Array

Policy: TypeAlias = Literal["nearest", "hold", "linear", "slerp"]
Disorder: TypeAlias = Literal["refuse", "sort"]
NS = 1e9  # nanoseconds per second


@dataclass(frozen=True, slots=True)
class Alignment:
    """For each of T steps, its messages and their distance in time."""

    left: Array  # [T] positions of the messages before the steps, or of the chosen ones
    right: Array  # [T] positions of the messages after the steps
    weight: Array  # [T] float64, from 0 (left) to 1 (right); 0 without interpolation
    skew: Array  # [T] float64, seconds from the step to the nearest of its messages

    def restricted(self, messages: Array) -> "Alignment":
        """Return the alignment with positions in `messages`, sorted positions that include all that are used."""
        left, right = (np.searchsorted(messages, side) for side in (self.left, self.right))
        return Alignment(left, right, self.weight, self.skew)


def stamp_order(stamps: Array, disorder: Disorder) -> Array:
    """Return the positions of messages in strictly increasing order of their stamps [N].

    If stamps decrease or repeat, `refuse` raises SourceError; `sort` sorts them and keeps the last of equal ones.
    """
    steps = np.diff(stamps)
    if (steps > 0).all():
        return np.arange(len(stamps))
    if disorder == "refuse":
        at = int(np.argmax(steps <= 0))
        relation = "has the same stamp as" if steps[at] == 0 else f"is {-steps[at] / NS:g} s earlier than"
        more = f" ({np.count_nonzero(steps <= 0)} such messages)"
        raise SourceError(
            f"message {at + 1} {relation} the one before it{more}; source.disorder = 'sort' sorts them",
            reason="bad_timestamps",
        )
    order = np.argsort(stamps, kind="stable")
    is_last = np.append(np.diff(stamps[order]) > 0, [True])
    last: Array = order[is_last]
    return last


def ticks(start: int, end: int, hz: float) -> Array:
    """Return the steps of a clock with `hz` ticks per second, from `start` to at most `end`.

    >>> ticks(0, 100_000_000, 20.0).tolist()
    [0, 50000000, 100000000]
    """
    count = int((end - start) * hz / NS + 1e-6) + 1 if end >= start else 0
    steps: Array = start + np.rint(np.arange(count) * (NS / hz)).astype(np.int64)
    within: Array = steps[steps <= end]
    return within


def coverage(stamps: Array, clock: Array, policy: Policy) -> Array:
    """Return for which steps [T] a topic has a value: from its first message to its last, or, if held, to the end."""
    if not len(stamps):
        return np.zeros(len(clock), bool)
    until = np.iinfo(np.int64).max if policy == "hold" else stamps[-1]
    return np.asarray((clock >= stamps[0]) & (clock <= until))


def align(stamps: Array, clock: Array, policy: Policy) -> Alignment:
    """Choose messages, whose stamps [N] increase, for the steps [T] that they cover.

    `nearest` chooses the nearest message, and the earlier of two. `hold` chooses the last message at or before the
    step. `linear` and `slerp` choose the messages before and after the step.
    """
    left = np.searchsorted(stamps, clock, side="right") - 1
    right = np.minimum(left + (stamps[left] < clock), len(stamps) - 1)
    before, after = clock - stamps[left], stamps[right] - clock
    weight = np.zeros(len(clock))
    if policy == "nearest":
        left = right = np.where(after < before, right, left)
    elif policy == "hold":
        right = left
    else:
        weight = before / np.maximum(before + after, 1)
    skew = np.minimum(np.abs(clock - stamps[left]), np.abs(clock - stamps[right])) / NS
    return Alignment(left, right, weight, skew)


def linear(values: Array, alignment: Alignment) -> Array:
    """Interpolate floats [N, ...] linearly; a message exactly at a step keeps every bit."""
    weight = alignment.weight.reshape(-1, *[1] * (values.ndim - 1))
    left, right = (values[side].astype(np.float64) for side in (alignment.left, alignment.right))
    with np.errstate(invalid="ignore"):  # infinite values
        mixed = left * (1 - weight) + right * weight
    return np.where(weight == 0, left, mixed).astype(values.dtype)


def slerp(values: Array, alignment: Alignment) -> Array:
    """Interpolate unit quaternions [N, ..., 4], x y z w, at constant speed along the shorter arc.

    The sign is that of the message before; a message exactly at a step keeps every bit.
    """
    left, right = values[alignment.left], values[alignment.right]
    weight = np.broadcast_to(alignment.weight.reshape(-1, *[1] * (values.ndim - 2)), left.shape[:-1])
    moving = weight > 0
    turned = left.copy()
    if moving.any():
        mixed = between(left[moving], right[moving], weight[moving])
        opposite = (mixed * left[moving]).sum(axis=-1, keepdims=True) < 0
        turned[moving] = np.where(opposite, -mixed, mixed)
    return turned
