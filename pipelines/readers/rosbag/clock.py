"""Resample topics to the steps of a clock: choose a message for each step, or interpolate between two.

Stamps are int64 nanoseconds, because float64 is not exact enough for times since 1970.
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
    """The messages chosen for each of T steps, and their distance in time."""

    left: Array  # [T] position of the last message at or before each step, or of the one chosen message
    right: Array  # [T] position of the first message at or after each step, or of the one chosen message
    weight: Array  # [T] float64 weight of `right`, from 0 to 1; 0 if there is no interpolation
    skew: Array  # [T] float64, seconds from each step to the nearer of its two messages

    def restricted(self, messages: Array) -> "Alignment":
        """Return the alignment for a selection of messages.

        `messages` are the sorted positions of the selected messages, which include all that the alignment uses.
        """
        left, right = (np.searchsorted(messages, side) for side in (self.left, self.right))
        return Alignment(left, right, self.weight, self.skew)


def stamp_order(stamps: Array, disorder: Disorder) -> Array:
    """Return the positions of messages, ordered so that their stamps [N] strictly increase.

    If stamps decrease or repeat, `refuse` raises SourceError. `sort` sorts the messages, and keeps only the last of
    those with equal stamps.
    """
    steps = np.diff(stamps)
    if (steps > 0).all():
        return np.arange(len(stamps))
    if disorder == "refuse":
        at = int(np.argmax(steps <= 0))
        relation = "has the same stamp as" if steps[at] == 0 else f"is {-steps[at] / NS:g} s earlier than"
        more = f" ({np.count_nonzero(steps <= 0)} such messages)"
        fix = (
            "keeps only the last of them, which loses messages if several publishers share the topic"
            if steps[at] == 0
            else "sorts them, which is right only if they were logged out of order and no clock was set back"
        )
        message = f"message {at + 1} {relation} the one before it{more}; source.disorder = 'sort' {fix}"
        raise SourceError(message, reason="bad_timestamps")
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
    """Return whether a topic has a value at each step [T].

    It has values from its first message to its last one, or, with `hold`, to the end of the clock.
    """
    if not len(stamps):
        return np.zeros(len(clock), bool)
    until = np.iinfo(np.int64).max if policy == "hold" else stamps[-1]
    return np.asarray((clock >= stamps[0]) & (clock <= until))


def align(stamps: Array, clock: Array, policy: Policy) -> Alignment:
    """Choose the messages for each step [T]; their stamps [N] must increase and cover all steps.

    `nearest` chooses the nearest message, or the earlier one of two that are equally near. `hold` chooses the last
    message at or before the step. `linear` and `slerp` choose the messages before and after the step.
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
    """Interpolate floats [N, ...] linearly; if a message is exactly at a step, its value is returned unchanged."""
    weight = alignment.weight.reshape(-1, *[1] * (values.ndim - 1))
    left, right = (values[side].astype(np.float64) for side in (alignment.left, alignment.right))
    with np.errstate(invalid="ignore"):  # infinite values
        mixed = left * (1 - weight) + right * weight
    return np.where(weight == 0, left, mixed).astype(values.dtype)


def slerp(values: Array, alignment: Alignment) -> Array:
    """Interpolate unit quaternions [N, ..., 4], x y z w, at constant speed along the shorter arc.

    Each result has the sign that is closer to the message before the step. If a message is exactly at a step, its value
    is returned unchanged.
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
