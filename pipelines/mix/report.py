"""What a locked mixture is made of, and whether its draws are what it says."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import chisquare

from schemas.mixture.lock import TRAIN, VALIDATION, Lock, Stage
from schemas.mixture.sampling import BLOCK
from schemas.source import Array

FEWEST = 5  # expected draws of a stratum in the test; rarer ones are counted together
UNLIKELY = 1e-6  # a sample that only one in a million right ones is like


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """What one source of a mixture is to be trained with."""

    episodes: int
    steps: int
    hours: float | None  # None: its control rate is not known
    nominal: float  # share before caps
    share: float
    repeats: float
    strata: int
    license: str | None
    embodiment: str
    masked: tuple[str, ...]  # dimensions of the mixture that it lacks
    stages: Mapping[str, Stage]

    @classmethod
    def of(cls, lock: Lock, name: str) -> "SourceSummary":
        """Look a source up in its lock."""
        source = lock.sources[name]
        training, has = source.stages[TRAIN], (lock.places(name) >= 0).tolist()
        return cls(
            episodes=training.episodes,
            steps=training.steps,
            hours=training.steps / source.control_hz / 3600 if source.control_hz else None,
            nominal=source.nominal,
            share=source.share,
            repeats=source.repeats,
            strata=len(source.strata),
            license=source.license,
            embodiment=source.embodiment,
            masked=tuple(dim for dim, known in zip(lock.dims, has, strict=True) if not known),
            stages=source.stages,
        )

    def to_json(self) -> dict[str, Any]:
        """Give its fields."""
        stages = {key: stage.model_dump() for key, stage in self.stages.items()}
        return {name: getattr(self, name) for name in self.__slots__} | {"stages": stages}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """Episodes with a like on the other side of a split; a motion is the action and state of an episode."""

    motions_in_both_parts: int
    motions_in_several_splits: int
    motions_in_several_sources: int
    motions_twice: int  # episodes that repeat another one
    instructions_in_both_parts: int
    validation_episodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSummary:
    """What a locked mixture is made of."""

    lock: str | None  # its file; None: not written
    name: str
    view: str | None
    dims: tuple[str, ...]
    epoch: int
    episodes: int
    steps: int
    hours: float
    without_rate: tuple[str, ...]  # sources that `hours` leaves out
    effective_sources: float
    sources: Mapping[str, SourceSummary]
    differences: tuple[str, ...]
    left_out: Mapping[str, str]
    leakage: Leakage

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe mix lock --json` and `oxe mix stats --json`."""
        sources = {name: source.to_json() for name, source in self.sources.items()}
        own = {name: getattr(self, name) for name in self.__slots__}
        return own | {"sources": sources, "leakage": asdict(self.leakage)}


def summary(lock: Lock, table: pa.Table, *, path: Path | None = None) -> MixtureSummary:
    """Count shares, repeats, hours, domains, and what is on both sides of a split; `path` is where the lock lies."""
    shares = np.array([source.share for source in lock.sources.values()])
    sources = {name: SourceSummary.of(lock, name) for name in lock.sources}
    return MixtureSummary(
        lock=None if path is None else str(path),
        name=lock.name,
        view=lock.view,
        dims=lock.dims,
        epoch=lock.epoch,
        episodes=sum(source.episodes for source in sources.values()),
        steps=sum(source.steps for source in sources.values()),
        hours=sum(source.hours or 0 for source in sources.values()),
        without_rate=tuple(name for name, source in sources.items() if source.hours is None),
        effective_sources=float(np.exp(-(shares * np.log(shares)).sum())),
        sources=sources,
        differences=lock.differences,
        left_out=lock.left_out,
        leakage=leakage(table),
    )


def leakage(table: pa.Table) -> Leakage:
    """Find motions (equal action and state) that stand on both sides of a split, and instructions that do."""
    frame = pl.DataFrame(table.drop_columns(["ranges"]).to_pydict(), schema=table.drop_columns(["ranges"]).schema.names)
    kept = frame.filter(pl.col("steps") > 0)

    def shared(key: str, by: str) -> int:
        """Count the episodes whose `key` occurs under more than one value of `by`."""
        several = kept.group_by(key).agg(pl.col(by).n_unique().alias("sides")).filter(pl.col("sides") > 1)
        return kept.join(several, on=key, how="semi").height

    parts = kept["part"].n_unique()
    return Leakage(
        motions_in_both_parts=shared("motion_hash", "part") if parts > 1 else 0,
        motions_in_several_splits=shared("motion_hash", "split"),
        motions_in_several_sources=shared("motion_hash", "source"),
        motions_twice=kept.height - kept["motion_hash"].n_unique(),
        instructions_in_both_parts=shared("instruction", "part") if parts > 1 else 0,
        validation_episodes=kept.filter(pl.col("part") == VALIDATION).height,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDraws:
    """How often one source was drawn, and how often it should be."""

    draws: int
    expected: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawTest:
    """Draws of a mixture beside its shares."""

    draws: int
    seed: int
    p: float  # how likely counts at least so far from the shares are
    ok: bool  # they are not very unlikely
    sources: Mapping[str, SourceDraws]

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe mix sample --json`."""
        return asdict(self)


def sample(lock: Lock, draws: int, *, seed: int | None = None) -> DrawTest:
    """Draw, count, and test the counts against the shares (chi-squared)."""
    law = lock.law(seed)
    counts = np.zeros(len(law.names), np.int64)
    for start in range(0, draws, BLOCK):
        counts += np.bincount(law.sources(start, min(draws, start + BLOCK)), minlength=len(counts))
    p = likelihood(counts, np.array(law.shares))
    by_source: Counter[str] = Counter()
    for (source, _), count in zip(lock.strata, counts.tolist(), strict=True):
        by_source[source] += count
    sources = {
        name: SourceDraws(draws=by_source[name], expected=source.share * draws, share=source.share)
        for name, source in lock.sources.items()
    }
    return DrawTest(draws=draws, seed=law.seed, p=p, ok=p >= UNLIKELY, sources=sources)


def likelihood(counts: Array, shares: Array) -> float:
    """Say how likely counts at least so far from the shares are (chi-squared); rare strata are counted together."""
    expected = shares / shares.sum() * counts.sum()
    often = expected >= FEWEST
    groups = int(often.sum() + (~often).any())
    found, wanted = (np.append(x[often], x[~often].sum())[:groups] for x in (counts, expected))
    return float(chisquare(found, wanted).pvalue) if groups > 1 else 1.0
