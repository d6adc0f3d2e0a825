"""Summarize a locked mixture, and test its draws against its shares."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import chisquare

from pipelines.mix.holdout import HeldOut, held_out
from schemas.mixture.lock import TRAIN, VALIDATION, Lock, Stage
from schemas.mixture.sampling import BLOCK
from schemas.source import Array
from stats.locked import constant_warnings, constants

FEWEST = 5  # strata with fewer expected draws are tested as one group
UNLIKELY = 1e-6  # if p is below this, the draws do not fit the shares


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """The data and the share of one source of a mixture."""

    episodes: int
    steps: int
    hours: float | None  # None: the control rate is unknown
    nominal: float  # share before caps are applied
    share: float
    repeats: float
    strata: int
    license: str | None
    embodiment: str
    masked: tuple[str, ...]  # dimensions of the mixture that the source lacks
    constant: Mapping[str, float]  # dimensions that never change, with their values
    stages: Mapping[str, Stage]

    @classmethod
    def of(cls, lock: Lock, name: str) -> "SourceSummary":
        """Summarize a source of a lock."""
        source = lock.sources[name]
        training, has_dim = source.stages[TRAIN], (lock.places(name) >= 0).tolist()
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
            masked=tuple(dim for dim, known in zip(lock.dims, has_dim, strict=True) if not known),
            constant=constants(lock, name),
            stages=source.stages,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        stages = {key: stage.model_dump() for key, stage in self.stages.items()}
        return {name: getattr(self, name) for name in self.__slots__} | {"stages": stages}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """How many episodes have a motion or an instruction that also occurs in another part, split or source.

    The motion of an episode is its action and state. In the part `train`, an episode also has the paraphrases of its
    instruction.
    """

    motions_in_both_parts: int
    motions_in_several_splits: int
    motions_in_several_sources: int
    motions_twice: int  # episodes whose motion repeats that of an earlier episode
    instructions_in_both_parts: int
    validation_episodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSummary:
    """The sources, shares, sizes and leakage of a locked mixture."""

    lock: str | None  # path of the file; None: the lock is not written
    name: str
    view: str | None
    dims: tuple[str, ...]
    epoch: int
    episodes: int
    steps: int
    hours: float
    without_rate: tuple[str, ...]  # sources that `hours` does not include
    effective_sources: float
    sources: Mapping[str, SourceSummary]
    differences: tuple[str, ...]
    left_out: Mapping[str, str]
    leakage: Leakage
    constant: str  # what becomes of constant dimensions that are not normalized: "keep" or "zero"
    warnings: tuple[str, ...]  # constant dimensions that a policy will not reproduce
    holdout: Mapping[str, HeldOut]  # by source; empty if nothing is held out
    paraphrases: Mapping[str, tuple[str, ...]]  # by instruction

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe mix lock --json` and `oxe mix stats --json` print."""
        sources = {name: source.to_json() for name, source in self.sources.items()}
        own = {name: getattr(self, name) for name in self.__slots__}
        holdout = {name: part.to_json() for name, part in self.holdout.items()}
        return own | {"sources": sources, "leakage": asdict(self.leakage), "holdout": holdout}


def summary(lock: Lock, table: pa.Table, *, path: Path | None = None) -> MixtureSummary:
    """Summarize a lock and its episodes, including the leakage between splits.

    `path` is the file of the lock; None if it is not written.
    """
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
        leakage=leakage(table, paraphrases=lock.paraphrases),
        constant=lock.constant,
        warnings=tuple(warning for name in sources for warning in constant_warnings(lock, name)),
        holdout=held_out(lock, table),
        paraphrases=lock.paraphrases,
    )


def leakage(table: pa.Table, *, paraphrases: Mapping[str, tuple[str, ...]] = {}) -> Leakage:
    """Count the episodes whose motion or instruction also occurs in another part, split or source."""
    frame = pl.DataFrame(table.drop_columns(["ranges"]).to_pydict(), schema=table.drop_columns(["ranges"]).schema.names)
    kept = frame.filter(pl.col("steps") > 0).with_row_index("row")
    texts = [
        [text, *(paraphrases.get(text, ()) if part == TRAIN else ())]
        for text, part in kept.select("instruction", "part").iter_rows()
    ]
    taught = kept.with_columns(instruction=pl.Series(texts, dtype=pl.List(pl.String))).explode("instruction")

    def shared(key: str, by: str, episodes: pl.DataFrame = kept) -> int:
        """Count the episodes whose `key` occurs under more than one value of `by`."""
        several = episodes.group_by(key).agg(pl.col(by).n_unique().alias("sides")).filter(pl.col("sides") > 1)
        return episodes.join(several, on=key, how="semi")["row"].n_unique()

    parts = kept["part"].n_unique()
    return Leakage(
        motions_in_both_parts=shared("motion_hash", "part") if parts > 1 else 0,
        motions_in_several_splits=shared("motion_hash", "split"),
        motions_in_several_sources=shared("motion_hash", "source"),
        motions_twice=kept.height - kept["motion_hash"].n_unique(),
        instructions_in_both_parts=shared("instruction", "part", taught) if parts > 1 else 0,
        validation_episodes=kept.filter(pl.col("part") == VALIDATION).height,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDraws:
    """How often one source was drawn, and how often it was expected."""

    draws: int
    expected: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawTest:
    """The result of testing draws of a mixture against its shares."""

    draws: int
    seed: int
    p: float  # probability that correct draws differ from the shares at least this much
    ok: bool  # whether p is at least UNLIKELY
    sources: Mapping[str, SourceDraws]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe mix sample --json` prints."""
        return asdict(self)


def sample(lock: Lock, draws: int, *, seed: int | None = None) -> DrawTest:
    """Draw from a lock, and test the number of draws of each stratum against its share (chi-squared).

    If `seed` is None, the seed of the lock is used.
    """
    law = lock.law(seed)
    counts = np.zeros(len(law.names), np.int64)
    for start in range(0, draws, BLOCK):
        counts += np.bincount(law.sources(start, min(draws, start + BLOCK)), minlength=len(counts))
    p = p_value(counts, np.array(law.shares))
    by_source: Counter[str] = Counter()
    for (source, _), count in zip(lock.strata, counts.tolist(), strict=True):
        by_source[source] += count
    sources = {
        name: SourceDraws(draws=by_source[name], expected=source.share * draws, share=source.share)
        for name, source in lock.sources.items()
    }
    return DrawTest(draws=draws, seed=law.seed, p=p, ok=p >= UNLIKELY, sources=sources)


def p_value(counts: Array, shares: Array) -> float:
    """Return the p-value of a chi-squared test of counts against shares; rare strata are tested as one group."""
    expected = shares / shares.sum() * counts.sum()
    frequent = expected >= FEWEST
    groups = int(frequent.sum() + (~frequent).any())
    drawn, wanted = (np.append(x[frequent], x[~frequent].sum())[:groups] for x in (counts, expected))
    return float(chisquare(drawn, wanted).pvalue) if groups > 1 else 1.0
