"""`non_finite`: NaN or infinity. Stored actions and states are always finite; columns of the source may not be."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import NumberBatch
from pipelines.checks.check import Check
from pipelines.checks.findings import RuleFinding
from schemas.source import Array

RANGES = 20  # number of ranges of steps that a finding lists


def of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find episodes with numbers that are not finite."""
    bad: dict[str, Array] = {}
    for name, values in batch.columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad[name] = np.asarray(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if not bad:
        return
    spans: dict[int, list[tuple[int, int]]] = {}
    for number, first, stop in batch.runs(np.logical_or.reduce(list(bad.values())), at_least=1):
        spans.setdefault(number, []).append((first, stop))
    for number, ranges in spans.items():
        rows = slice(int(batch.starts[number]), int(batch.starts[number] + batch.lengths[number]))
        names = tuple(sorted(name for name, rows_of in bad.items() if rows_of[rows].any()))
        count = sum(stop - first for first, stop in ranges)
        yield RuleFinding(
            member=batch.about.member,
            rule="non_finite",
            episode=int(batch.episodes[number]),
            steps=tuple(ranges[:RANGES]),
            dims=names,
            value=float(count),
            message=f"{count} steps have NaN or infinity in {', '.join(names)}",
        )


CHECK = Check(rule="non_finite", of_episodes=of_episodes)
