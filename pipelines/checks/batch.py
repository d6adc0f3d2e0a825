"""`NumberBatch`: the numbers of whole episodes that were read together, so that a rule needs few numpy calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipelines.checks.thresholds import Thresholds
from schemas.source import Array, Field
from schemas.spaces import Space

QUATERNIONS, QUATERNION = {"quat_xyzw", "quat_wxyz"}, 4
CHANGES = {"delta", "velocity"}  # modes of dimensions whose value is a change


@dataclass(frozen=True, kw_only=True)
class DimRanges:
    """The exact statistics of each dimension of a vector over the whole dataset, [D] float64 each."""

    low: Array
    high: Array
    q01: Array
    q99: Array
    std: Array

    @cached_property
    def usual(self) -> Array:
        """The range from q01 to q99, or of all values where the quantiles are equal."""
        return np.where(self.q99 > self.q01, self.q99 - self.q01, self.high - self.low)

    @cached_property
    def per_usual(self) -> Array:
        """One divided by the usual range, [D] float32; 0 for a constant dimension."""
        return np.divide(1, self.usual, out=np.zeros(len(self.usual)), where=self.usual > 0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What rules know of the dataset before they read an episode."""

    member: int
    name: str
    control_hz: float | None
    action: Space
    state: Space | None
    ranges: Mapping[str, DimRanges]  # "action" and "state"
    cameras: tuple[str, ...]  # colour cameras, by the names of their columns
    is_derived: bool  # whether the actions were computed from the states
    is_clock: bool  # whether the times were recorded, not computed from `control_hz`
    rules: Thresholds
    raw: tuple[Field, ...] = ()  # columns of the source whose values are floats and have one shape
    usual: Mapping[str, Array] = field(default_factory=dict)  # what rules learned from a sample of the episodes


@dataclass(frozen=True, kw_only=True)
class NumberBatch:
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

    def runs(self, mask: Array, *, at_least: int) -> Iterator[tuple[int, int, int]]:
        """Yield each run of `at_least` or more rows of an episode where `mask` [N] holds.

        A run is the number of its episode in this batch, its first step, and one past its last.
        """
        is_edge = np.ones(len(mask) + 1, bool)
        is_edge[1:-1] = mask[1:] != mask[:-1]
        is_edge[self.starts] = True  # a run ends with its episode
        edges = np.flatnonzero(is_edge)
        first, stop = edges[:-1], edges[1:]
        chosen = mask[first] & (stop - first >= at_least)
        for begin, end in zip(first[chosen].tolist(), stop[chosen].tolist(), strict=True):
            number = int(self.owner[begin])
            start = int(self.starts[number])
            yield number, begin - start, end - start

    def steps_in(self, seconds: float, *, at_least: int = 1) -> int:
        """Return the number of steps in a time, or `at_least` if the rate is unknown or the time is short."""
        return max(at_least, round(seconds * (self.about.control_hz or 0)))

    @cached_property
    def smooth(self) -> Array:
        """The states without the jumps of angles by 2 pi, and of quaternions from q to -q, [N, S] float32."""
        state, space = self.state, self.about.state
        if state is None or space is None:
            raise ValueError("there are no states")
        turns = [i for i, dim in enumerate(space.dims) if dim.unit == "rad" and dim.mode == "absolute"]
        quaternion = space.indices("rotation") if space.rotation in QUATERNIONS else []
        whole = np.round(self.changes(state[:, turns]) / (2 * np.pi))
        flips = self._flips(state[:, quaternion]) if len(quaternion) == QUATERNION else np.zeros(len(state), bool)
        if not whole.any() and not flips.any():
            return state
        out = state.copy()
        out[1:, turns] -= np.float32(2 * np.pi) * np.cumsum(whole, axis=0)[:-1].astype(np.float32)
        if flips.any():
            out[:, quaternion] *= np.where(np.cumsum(flips)[:, None] % 2, np.float32(-1), np.float32(1))
        return out

    def _flips(self, quaternions: Array) -> Array:
        """Return whether a quaternion [N, 4] is closer to the negative of the one before it, [N] bool."""
        flips = np.zeros(len(quaternions), bool)
        flips[1:] = np.einsum("nd,nd->n", quaternions[1:], quaternions[:-1]) < 0
        flips[self.starts] = False
        return flips

    @cached_property
    def moved(self) -> Array:
        """The change of the state to the next step, as a share of the usual range of each dimension, [N, S] float32."""
        return self.changes(self.smooth) * self.about.ranges["state"].per_usual

    @cached_property
    def commanded(self) -> Array:
        """The commanded change, as a share of the usual range of each dimension, [N, A] float32.

        That is the value of a delta or a velocity, and the change to the next step of an absolute command.
        """
        is_change = np.array([dim.mode in CHANGES for dim in self.about.action.dims])
        changes = np.where(is_change, self.action, self.changes(self.action))
        return np.asarray(changes * self.about.ranges["action"].per_usual)
