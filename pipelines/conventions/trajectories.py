"""`Trajectories`: the actions and states of whole episodes, and the changes between their steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from schemas.source import Array
from schemas.store.columns import STATE, runs, spread
from schemas.store.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """E episodes, one after the other: N steps in all."""

    action: Array  # [N, A]
    state: Array  # [N, S]
    lengths: Array  # [E] number of steps, at least 1

    @classmethod
    def of(cls, action: Sequence[Array], state: Sequence[Array]) -> Self:
        """Join episodes; of each, as many steps as both its action [T, A] and its state [T, S] have."""
        counts = [min(len(a), len(s)) for a, s in zip(action, state, strict=True)]
        kept = [i for i, count in enumerate(counts) if count]
        return cls(
            action=np.concatenate([np.asarray(action[i][: counts[i]], np.float64) for i in kept] or [np.zeros((0, 0))]),
            state=np.concatenate([np.asarray(state[i][: counts[i]], np.float64) for i in kept] or [np.zeros((0, 0))]),
            lengths=np.array([counts[i] for i in kept], np.int64),
        )

    @classmethod
    def sample(cls, dataset: Dataset, *, episodes: int) -> Self:
        """Read some episodes of a dataset that has states, evenly spread over it."""
        read = [
            steps for span, _ in spread(dataset, episodes) for run in runs(dataset, span) for steps in run.episodes()
        ]
        return cls.of([steps.columns["action"] for steps in read], [steps.columns[STATE] for steps in read])

    @cached_property
    def starts(self) -> Array:
        """The first row of each episode, [E]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def owner(self) -> Array:
        """The number of each row's episode, [N]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def is_last(self) -> Array:
        """Whether a row is the last step of its episode, [N]."""
        last = np.zeros(len(self.owner), bool)
        last[self.starts + self.lengths - 1] = True
        return last

    def summed(self, values: Array) -> Array:
        """Sum the rows of each episode, [E, ...]."""
        if not len(self.lengths):
            return np.zeros((0, *values.shape[1:]))
        return np.asarray(np.add.reduceat(values, self.starts, axis=0))

    def centred(self, values: Array) -> Array:
        """Subtract the mean of each episode, without NaN, from its rows."""
        fine = np.isfinite(values)
        means = self.summed(np.where(fine, values, 0)) / np.maximum(self.summed(fine.astype(float)), 1)
        return np.asarray(values - means[self.owner])

    def to_next(self, values: Array) -> Array:
        """Return the change of each row to the next of its episode, like `values`; NaN at the last step."""
        out = np.full(values.shape, np.nan)
        np.subtract(values[1:], values[:-1], out=out[:-1])
        out[self.is_last] = np.nan
        return out


def wrapped(angles: Array) -> Array:
    """Return angles in radians between -pi and pi."""
    return np.asarray((angles + np.pi) % (2 * np.pi) - np.pi, angles.dtype)
