"""`Batch`: the numbers of whole episodes that were read together, so that a rule needs few numpy calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.checks.thresholds import Thresholds
from schemas.source import Array
from schemas.spaces import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The exact statistics of each dimension of a vector over the whole dataset, [D] float64 each."""

    low: Array
    high: Array
    q01: Array
    q99: Array
    std: Array

    @property
    def usual(self) -> Array:
        """The range from q01 to q99, or of all values where the quantiles are equal."""
        return np.where(self.q99 > self.q01, self.q99 - self.q01, self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What rules know of the dataset before they read an episode."""

    member: int
    name: str
    control_hz: float | None
    action: Space
    state: Space | None
    ranges: Mapping[str, Ranges]  # "action" and "state"
    is_derived: bool  # whether the actions were computed from the states
    is_clock: bool  # whether the times were recorded, not computed from `control_hz`
    rules: Thresholds


@dataclass(frozen=True, kw_only=True)
class Batch:
    """E whole episodes, one after the other: N steps in all."""

    about: About
    episodes: Array  # [E] position among the kept episodes
    starts: Array  # [E] first row of each episode
    lengths: Array  # [E] number of steps, at least 1
    columns: Mapping[str, Array]  # [N, ...] by name: `action`, `observation.state`, `timestamp`, `raw.*`

    @cached_property
    def action(self) -> Array:
        """The actions, [N, A] float32."""
        return self.columns["action"]

    @cached_property
    def state(self) -> Array | None:
        """The states, [N, S] float32, or None."""
        return self.columns.get("observation.state")

    @cached_property
    def is_last(self) -> Array:
        """Whether a row is the last step of its episode, [N] bool."""
        last = np.zeros(len(self.action), bool)
        last[self.starts + self.lengths - 1] = True
        return last

    @cached_property
    def owner(self) -> Array:
        """The number of each row's episode in this batch, [N]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def changes(self, values: Array) -> Array:
        """Return the change of each row to the next of its episode, like `values`; 0 at the last step."""
        out = np.zeros_like(values)
        np.subtract(values[1:], values[:-1], out=out[:-1])
        out[self.is_last] = 0
        return out

    def per_episode(self, ufunc: np.ufunc, values: Array) -> Array:
        """Reduce the rows of each episode with a ufunc such as `np.maximum`, [E, ...]."""
        return np.asarray(ufunc.reduceat(values, self.starts, axis=0))

    def runs(self, mask: Array, at_least: int) -> Iterator[tuple[int, int, int]]:
        """Yield each run of `at_least` or more rows of an episode where `mask` [N] holds.

        A run is the number of its episode in this batch, its first step, and one past its last.
        """
        edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0) | 0)
        bounds = np.union1d(edges, self.starts[1:])  # runs end with their episode
        bounds = np.append(bounds, len(mask)) if not len(bounds) or bounds[-1] != len(mask) else bounds
        first, stop = bounds[:-1], bounds[1:]
        chosen = mask[np.minimum(first, len(mask) - 1)] & (stop - first >= at_least)
        for begin, end in zip(first[chosen].tolist(), stop[chosen].tolist(), strict=True):
            owner = int(self.owner[begin])
            yield owner, begin - int(self.starts[owner]), end - int(self.starts[owner])
