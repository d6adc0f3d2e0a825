"""Where the steps of a locked mixture are: from a draw to an episode, and to the stored steps around it."""

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
class Shown:
    """The E episodes of a part that have steps, one stratum after the other, and their R runs of kept steps.

    A kept step has a number: it counts the kept steps of all episodes before it.
    """

    source: Array  # [E] int64, of the lock's sources
    position: Array  # [E] int64, in its dataset
    bounds: Array  # [E + 1] int64: the number of each episode's first step, and of none
    run_bounds: Array  # [R + 1] int64: the number of each run's first step
    run_start: Array  # [R] int64: that step's place in the stored episode

    def stored(self, numbers: Array) -> Array:
        """Give the places of kept steps in their stored episodes."""
        run = np.searchsorted(self.run_bounds, numbers, "right") - 1
        return self.run_start[run] + numbers - self.run_bounds[run]


class Order:
    """Which step each draw from a part is, and how much there is to draw from."""

    def __init__(self, lock: Lock, table: pa.Table, *, part: str, dropped: int = 0) -> None:
        """Leave out the last `dropped` steps of each episode; a part of which nothing is left is a MixtureError."""
        keys = list(lock.strata) if part == TRAIN else [(name, "") for name in lock.sources]
        episodes = pl.DataFrame(table).filter((pl.col("part") == part) & (pl.col("steps") > 0))
        stratum = _numbered(episodes, keys, whole=part != TRAIN)
        order = np.argsort(stratum, kind="stable")
        episodes, stratum = episodes[order], stratum[order]
        self.shown = _shown(episodes, list(lock.sources))
        drawn = np.maximum(np.diff(self.shown.bounds) - dropped, 0)
        self._bounds = np.concatenate([[0], np.cumsum(drawn)])  # of what may be drawn
        sizes = np.bincount(stratum, weights=drawn, minlength=len(keys)).astype(np.int64)
        self._starts = np.cumsum(sizes) - sizes
        self.sizes = tuple(sizes.tolist())
        self.part, self._lock, self._keys, self._dropped = part, lock, keys, dropped
        if not sum(self.sizes):
            raise MixtureError(f"{lock.name}: the part '{part}' has no step to draw{self._why}")

    def __len__(self) -> int:
        """Count the steps that may be drawn."""
        return sum(self.sizes)

    @property
    def _why(self) -> str:
        if self._dropped:
            return f": no episode is longer than the {self._dropped} steps that a chunk drops; take ends='mask'"
        return "; [holdout] in the mixture's file makes a part 'val'" if self.part != TRAIN else ""

    def law(self, seed: int | None) -> Law:
        """Give the law of drawing for training; a stratum of which nothing is left is a MixtureError."""
        law = self._lock.law(seed)
        for name, size in zip(law.names, self.sizes, strict=True):
            if not size:
                raise MixtureError(f"{self._lock.name}: {name} has no step to draw{self._why}")
        if not self._dropped and law.sizes != self.sizes:
            raise MixtureError(f"{self._lock.name}: the episodes do not have the steps that the lock counts")
        return Law(seed=law.seed, names=law.names, shares=law.shares, sizes=self.sizes)

    def steps(self, strata: Array, steps: Array) -> tuple[Array, Array]:
        """Give the episode of each draw, and the number of its step."""
        drawn = self._starts[strata] + steps
        episode = np.searchsorted(self._bounds, drawn, "right") - 1
        return episode, self.shown.bounds[episode] + drawn - self._bounds[episode]


@dataclass(frozen=True, slots=True)
class InTurn:
    """Every step once, in the order in which they are stored: what the law of sampling is for training."""

    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Count the draws until the end."""
        return sum(self.sizes)

    def to_json(self) -> dict[str, Any]:
        """Say what the order depends on."""
        return {"sizes": list(self.sizes)}

    def counters(self, _: int) -> Array:
        """Count nothing: a draw tells its place by itself."""
        return np.empty(0, np.int64)

    def turns(self, start: int, stop: int, counters: Array) -> tuple[Array, Array, Array]:
        """Give stratum and step of each draw in [start, stop); behind the end, those of the last."""
        places = np.arange(start, stop).clip(0, self.count - 1)
        ends = np.cumsum(self.sizes)
        strata = np.searchsorted(ends, places, "right")
        return strata, places - (ends - self.sizes)[strata], counters

    def steps(self, strata: Array, turns: Array) -> Array:
        """Give the steps of draws: they are their turns."""
        return np.broadcast_to(turns, strata.shape)


def _numbered(episodes: pl.DataFrame, keys: list[tuple[str, str]], *, whole: bool) -> Array:
    """Number each episode's stratum."""
    stratum = pl.lit("") if whole else pl.col("stratum")
    said = episodes.select(key=pl.concat_str("source", stratum, separator="\0"))["key"]
    found = _places(said, ["\0".join(key) for key in keys])
    if found.null_count():
        raise MixtureError("the lock's episodes are of a stratum that the lock does not have: lock the mixture again")
    return found.to_numpy()


def _places(words: pl.Series, known: list[str]) -> pl.Series:
    """Number words by their place in a list; null is what is not in it."""
    return words.replace_strict(known, range(len(known)), default=None, return_dtype=pl.Int64)


def _shown(episodes: pl.DataFrame, sources: list[str]) -> Shown:
    edges = episodes["ranges"].explode().to_numpy().astype(np.int64).reshape(-1, 2)
    bounds = np.concatenate([[0], np.cumsum(episodes["steps"].to_numpy())])
    run_bounds = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
    if bounds[-1] != run_bounds[-1]:
        raise MixtureError("the lock's ranges and steps do not agree: lock the mixture again")
    return Shown(
        source=_places(episodes["source"], sources).to_numpy(),
        position=episodes["position"].to_numpy(),
        bounds=bounds,
        run_bounds=run_bounds,
        run_start=edges[:, 0],
    )
