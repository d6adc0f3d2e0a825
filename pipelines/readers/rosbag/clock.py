"""Resampling: which messages of a topic stand for each step of a clock, and what lies between two of them.

Stamps are whole nanoseconds, int64, because seconds since 1970 as a float lose the last digits.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from schemas.declarations.rotations import between
from schemas.errors import SourceError
from schemas.source import Array

Policy: TypeAlias = Literal["nearest", "hold", "linear", "slerp"]
Disorder: TypeAlias = Literal["refuse", "sort"]
NS = 1e9  # in a second


@dataclass(frozen=True, slots=True)
class Choice:
    """For each of T steps: the message before it and the one after it, how far it lies between, and how far off."""

    left: Array  # [T] positions among the messages; what stands for the step where there is no weight
    right: Array  # [T]
    weight: Array  # [T] float64, from 0 (left) to 1 (right)
    skew: Array  # [T] float64, seconds from the step to the nearest message that it is made of

    def of(self, messages: Array) -> "Choice":
        """Choose among some `messages` alone, which are sorted positions: all that are used must be among them."""
        left, right = (np.searchsorted(messages, side) for side in (self.left, self.right))
        return Choice(left, right, self.weight, self.skew)


def in_order(stamps: Array, disorder: Disorder) -> Array:
    """Give the positions of messages in the order of their stamps [N], each later than the one before it.

    Stamps that go back or repeat are a SourceError; with `sort` they are put in order, of equal ones the last counts.
    """
    steps = np.diff(stamps)
    if (steps > 0).all():
        return np.arange(len(stamps))
    if disorder == "refuse":
        at = int(np.argmax(steps <= 0))
        does = "has the same stamp as" if steps[at] == 0 else f"is {-steps[at] / NS:g} s earlier than"
        more = f" ({np.count_nonzero(steps <= 0)} such messages)"
        raise SourceError(
            f"message {at + 1} {does} the one before it{more}; with source.disorder = 'sort' they are put in order",
            reason="bad_timestamps",
        )
    order = np.argsort(stamps, kind="stable")
    is_last = np.append(np.diff(stamps[order]) > 0, [True])
    last: Array = order[is_last]
    return last


def ticks(start: int, end: int, hz: float) -> Array:
    """Give the steps of a clock that ticks `hz` times a second, from `start` to `end` at most.

    >>> ticks(0, 100_000_000, 20.0).tolist()
    [0, 50000000, 100000000]
    """
    count = int((end - start) * hz / NS + 1e-6) + 1 if end >= start else 0
    made: Array = start + np.rint(np.arange(count) * (NS / hz)).astype(np.int64)
    within: Array = made[made <= end]
    return within


def covered(stamps: Array, clock: Array, policy: Policy) -> Array:
    """Say for which steps [T] a topic has a value: from its first message on, and, unless it is held, to its last."""
    if not len(stamps):
        return np.zeros(len(clock), bool)
    until = np.iinfo(np.int64).max if policy == "hold" else stamps[-1]
    return np.asarray((clock >= stamps[0]) & (clock <= until))


def choose(stamps: Array, clock: Array, policy: Policy) -> Choice:
    """Choose messages for steps [T] that their increasing stamps [N] cover.

    `nearest`: the nearest message, of two the earlier one. `hold`: the last one that is not later than the step.
    `linear`, `slerp`: the two around the step.
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
    return Choice(left, right, weight, skew)


def linear(values: Array, choice: Choice) -> Array:
    """Interpolate [N, ...] floats; a message exactly at its step keeps every bit."""
    weight = choice.weight.reshape(-1, *[1] * (values.ndim - 1))
    left, right = (values[side].astype(np.float64) for side in (choice.left, choice.right))
    with np.errstate(invalid="ignore"):  # where one is infinite
        mixed = left * (1 - weight) + right * weight
    return np.where(weight == 0, left, mixed).astype(values.dtype)


def slerp(values: Array, choice: Choice) -> Array:
    """Turn at constant speed along the shorter way between unit quaternions [N, ..., 4], x y z w.

    The sign is that of the message before; a message exactly at its step keeps every bit.
    """
    left, right = values[choice.left], values[choice.right]
    at = np.broadcast_to(choice.weight.reshape(-1, *[1] * (values.ndim - 2)), left.shape[:-1])
    moving = at > 0
    made = left.copy()
    if moving.any():
        mixed = between(left[moving], right[moving], at[moving])
        opposite = (mixed * left[moving]).sum(axis=-1, keepdims=True) < 0
        made[moving] = np.where(opposite, -mixed, mixed)
    return made
