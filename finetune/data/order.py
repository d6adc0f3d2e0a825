"""Maps a draw from a locked mixture to an episode and its stored steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import MixtureError
from schemas.mixture.lock import TRAIN, Lock
from schemas.mixture.sampling import Law
from schemas.source import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSteps:
    """The E episodes of a part that have kept steps, ordered by stratum, and the R runs of kept steps in them.

    A run is a range of consecutive steps of an episode. The kept steps of all episodes are numbered from 0 on.
    """

    source: Array  # [E] int64: index into the lock's sources
    position: Array  # [E] int64: position of the episode in its dataset
    bounds: Array  # [E + 1] int64: the number of each episode's first kept step; then how many there are in all
    run_bounds: Array  # [R + 1] int64: the number of each run's first step; then how many kept steps there are in all
    run_start: Array  # [R] int64: index of each run's first step in the stored episode

    def stored(self, numbers: Array) -> Array:
        """Return the index of each kept step in its stored episode."""
        run = np.searchsorted(self.run_bounds, numbers, "right") - 1
        return self.run_start[run] + numbers - self.run_bounds[run]


class Order:
    """Finds the step of each draw from a part, and counts the steps that may be drawn."""

    def __init__(self, lock: Lock, table: pa.Table, *, part: str, dropped: int = 0) -> None:
        """Leave out the last `dropped` steps of each episode. Raises MixtureError if no step is left."""
        keys = list(lock.strata) if part == TRAIN else [(name, "") for name in lock.sources]
        episodes = pl.DataFrame(table).filter((pl.col("part") == part) & (pl.col("steps") > 0))
        stratum = _numbered(episodes, keys, whole=part != TRAIN)
        order = np.argsort(stratum, kind="stable")
        episodes, stratum = episodes[order], stratum[order]
        self.shown = _shown(episodes, list(lock.sources))
        drawn = np.maximum(np.diff(self.shown.bounds) - dropped, 0)
        self._bounds = np.concatenate([[0], np.cumsum(drawn)])  # how many steps may be drawn before each episode
        sizes = np.bincount(stratum, weights=drawn, minlength=len(keys)).astype(np.int64)
        self._starts = np.cumsum(sizes) - sizes
        self.sizes = tuple(sizes.tolist())
        self.part, self._lock, self._keys, self._dropped = part, lock, keys, dropped
        if not sum(self.sizes):
            raise MixtureError(f"{lock.name}: the part '{part}' has no step to draw{self._why}")

    def __len__(self) -> int:
        """Return the number of steps that may be drawn."""
        return sum(self.sizes)

    @property
    def _why(self) -> str:
        if self._dropped:
            return f": no episode is longer than the {self._dropped} steps that a chunk drops; use ends='mask'"
        return "; add [holdout] to the mixture's file to get a part 'val'" if self.part != TRAIN else ""

    def law(self, seed: int | None) -> Law:
        """Return the sampling law for the part `train`. Raises MixtureError if a stratum has no step to draw."""
        law = self._lock.law(seed)
        for name, size in zip(law.names, self.sizes, strict=True):
            if not size:
                raise MixtureError(f"{self._lock.name}: {name} has no step to draw{self._why}")
        if not self._dropped and law.sizes != self.sizes:
            raise MixtureError(f"{self._lock.name}: the numbers of steps differ from the lock: lock the mixture again")
        return Law(seed=law.seed, names=law.names, shares=law.shares, sizes=self.sizes)

    def steps(self, strata: Array, steps: Array) -> tuple[Array, Array]:
        """Return the index of each draw's episode, and the number of its step among all kept steps."""
        drawn = self._starts[strata] + steps
        episode = np.searchsorted(self._bounds, drawn, "right") - 1
        return episode, self.shown.bounds[episode] + drawn - self._bounds[episode]


@dataclass(frozen=True, slots=True)
class InTurn:
    """Draws every step once, in stored order. Used for the part `val` in place of the sampling law."""

    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of draws."""
        return sum(self.sizes)

    def to_json(self) -> dict[str, Any]:
        """Return the values on which the order depends."""
        return {"sizes": list(self.sizes)}

    def counters(self, _: int) -> Array:
        """Return an empty array, because the index of a draw alone determines its step."""
        return np.empty(0, np.int64)

    def turns(self, start: int, stop: int, counters: Array) -> tuple[Array, Array, Array]:
        """Return the stratum and step of each draw in [start, stop). Draws after the end repeat the last draw."""
        positions = np.arange(start, stop).clip(0, self.count - 1)
        ends = np.cumsum(self.sizes)
        strata = np.searchsorted(ends, positions, "right")
        return strata, positions - (ends - self.sizes)[strata], counters

    def steps(self, strata: Array, turns: Array) -> Array:
        """Return the step of each draw, which here is the same number as its turn."""
        return np.broadcast_to(turns, strata.shape)


def _numbered(episodes: pl.DataFrame, keys: list[tuple[str, str]], *, whole: bool) -> Array:
    """Return the number of each episode's stratum."""
    stratum = pl.lit("") if whole else pl.col("stratum")
    names = episodes.select(key=pl.concat_str("source", stratum, separator="\0"))["key"]
    numbers = _indices(names, ["\0".join(key) for key in keys])
    if numbers.null_count():
        raise MixtureError("an episode of the lock has a stratum that the lock does not list: lock the mixture again")
    return numbers.to_numpy()


def _indices(words: pl.Series, known: list[str]) -> pl.Series:
    """Return the index of each word in `known`, or null for a word that is not in it."""
    return words.replace_strict(known, [*range(len(known))], default=None, return_dtype=pl.Int64)


def _shown(episodes: pl.DataFrame, sources: list[str]) -> ShownSteps:
    edges = episodes["ranges"].explode().to_numpy().astype(np.int64).reshape(-1, 2)
    bounds = np.concatenate([[0], np.cumsum(episodes["steps"].to_numpy())])
    run_bounds = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
    if bounds[-1] != run_bounds[-1]:
        raise MixtureError("the lock's ranges and steps differ: lock the mixture again")
    return ShownSteps(
        source=_indices(episodes["source"], sources).to_numpy(),
        position=episodes["position"].to_numpy(),
        bounds=bounds,
        run_bounds=run_bounds,
        run_start=edges[:, 0],
    )
