"""What a locked mixture is made of, and whether its draws are what it says."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import chisquare

from schemas.mixture.lock import TRAIN, VALIDATION, Lock
from schemas.mixture.sampling import BLOCK
from schemas.source import Array

FEWEST = 5  # expected draws of a stratum in the test; rarer ones are counted together
UNLIKELY = 1e-6  # a sample that only one in a million right ones is like


def summary(lock: Lock, table: pa.Table) -> dict[str, Any]:
    """Count shares, repeats, hours, domains, and what is on both sides of a split."""
    shares = np.array([source.share for source in lock.sources.values()])
    rows = {
        name: {
            "episodes": source.stages[TRAIN].episodes,
            "steps": source.stages[TRAIN].steps,
            "hours": source.stages[TRAIN].steps / source.control_hz / 3600 if source.control_hz else None,
            "nominal": source.nominal,
            "share": source.share,
            "repeats": source.repeats,
            "strata": len(source.strata),
            "license": source.license,
            "embodiment": source.embodiment,
            "masked": [dim for dim, has in zip(lock.dims, (lock.places(name) >= 0).tolist(), strict=True) if not has],
            "stages": {key: stage.model_dump() for key, stage in source.stages.items()},
        }
        for name, source in lock.sources.items()
    }
    hours = [row["hours"] for row in rows.values()]
    return {
        "name": lock.name,
        "view": lock.view,
        "dims": list(lock.dims),
        "epoch": lock.epoch,
        "episodes": sum(row["episodes"] for row in rows.values()),
        "steps": sum(row["steps"] for row in rows.values()),
        "hours": sum(filter(None, hours)),
        "without_rate": [name for name, row in rows.items() if row["hours"] is None],
        "effective_sources": float(np.exp(-(shares * np.log(shares)).sum())),
        "sources": rows,
        "differences": list(lock.differences),
        "left_out": lock.left_out,
        "leakage": leakage(table),
    }


def leakage(table: pa.Table) -> dict[str, Any]:
    """Find motions (equal action and state) that stand on both sides of a split, and instructions that do."""
    frame = pl.DataFrame(table.drop_columns(["ranges"]).to_pydict(), schema=table.drop_columns(["ranges"]).schema.names)
    kept = frame.filter(pl.col("steps") > 0)

    def shared(key: str, by: str) -> int:
        """Count the episodes whose `key` occurs under more than one value of `by`."""
        several = kept.group_by(key).agg(pl.col(by).n_unique().alias("sides")).filter(pl.col("sides") > 1)
        return kept.join(several, on=key, how="semi").height

    parts = kept["part"].n_unique()
    return {
        "motions_in_both_parts": shared("motion_hash", "part") if parts > 1 else 0,
        "motions_in_several_splits": shared("motion_hash", "split"),
        "motions_in_several_sources": shared("motion_hash", "source"),
        "motions_twice": kept.height - kept["motion_hash"].n_unique(),
        "instructions_in_both_parts": shared("instruction", "part") if parts > 1 else 0,
        "validation_episodes": kept.filter(pl.col("part") == VALIDATION).height,
    }


def sample(lock: Lock, draws: int, *, seed: int | None = None) -> dict[str, Any]:
    """Draw, count, and test the counts against the shares (chi-squared); `ok` unless they are very unlikely."""
    law = lock.law(seed)
    counts = np.zeros(len(law.names), np.int64)
    for start in range(0, draws, BLOCK):
        counts += np.bincount(law.sources(start, min(draws, start + BLOCK)), minlength=len(counts))
    p = likelihood(counts, np.array(law.shares))
    by_source: Counter[str] = Counter()
    for (source, _), count in zip(lock.strata, counts.tolist(), strict=True):
        by_source[source] += count
    return {
        "draws": draws,
        "seed": law.seed,
        "p": p,
        "ok": p >= UNLIKELY,
        "sources": {
            name: {"draws": by_source[name], "expected": source.share * draws, "share": source.share}
            for name, source in lock.sources.items()
        },
    }


def likelihood(counts: Array, shares: Array) -> float:
    """Say how likely counts at least so far from the shares are (chi-squared); rare strata are counted together."""
    expected = shares / shares.sum() * counts.sum()
    often = expected >= FEWEST
    groups = int(often.sum() + (~often).any())
    found, wanted = (np.append(x[often], x[~often].sum())[:groups] for x in (counts, expected))
    return float(chisquare(found, wanted).pvalue) if groups > 1 else 1.0
