"""`stale_stats`: statistics in `meta/stats.json` that do not belong to the data."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.findings import RuleFinding
from pipelines.statistics.cache import read_cache, why_outdated
from schemas.errors import StatsError
from schemas.store.dataset import Dataset


def of_records(dataset: Dataset, *, member: int = 0) -> Iterator[RuleFinding]:
    """Find records that are damaged or were computed from another content; computing statistics replaces these."""
    whole: dict[str, Any] = {"member": member, "rule": "stale_stats"}
    try:
        records = read_cache(dataset)
    except StatsError as error:
        yield RuleFinding(**whole, message=str(error))
        return
    for record in records:
        if why := why_outdated(dataset, record):
            yield RuleFinding(**whole, message=why)


def of_ranges(about: About, extremes: Mapping[str, Mapping[str, Any]]) -> Iterator[RuleFinding]:
    """Compare the statistics of the stored vectors with the data that was read.

    `extremes` has the smallest and largest values of each vector, with the keys `<dataset>.<vector>`.
    """
    for name, ranges in about.ranges.items():
        space = about.action if name == "action" else about.state
        read = extremes.get(f"{about.member}.{name}")
        if space is None or read is None:
            continue
        differs = (ranges.low != np.array(read["low"])) | (ranges.high != np.array(read["high"]))
        if differs.any():
            dims = tuple(f"{name}.{dim.name}" for dim, differ in zip(space.dims, differs, strict=True) if differ)
            message = "the smallest or largest value is not that of the data"
            yield RuleFinding(member=about.member, rule="stale_stats", dims=dims, message=message)
