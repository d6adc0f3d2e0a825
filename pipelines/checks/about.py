"""Describe a dataset to the rules, with the exact ranges of its numbers."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.checks import numbers
from pipelines.checks.batch import About, DimRanges, NumberBatch
from pipelines.checks.thresholds import Thresholds
from pipelines.conventions.check import Conventions, conventions
from pipelines.conventions.trajectories import Trajectories
from pipelines.statistics.statistics import statistics
from schemas.source import Array, Field
from schemas.store.dataset import Dataset
from stats.summary import Summary


def about(dataset: Dataset, *, rules: Thresholds, member: int = 0, engine: Engine = THIS_PROCESS) -> About:
    """Describe a dataset. Its statistics are computed if they are not cached; without steps there are none."""
    computed = statistics(dataset, engine=engine).vectors if dataset.manifest["steps"] else {}
    return About(
        member=member,
        name=dataset.manifest["dataset"],
        control_hz=dataset.spec.control_hz,
        action=dataset.columns.action,
        state=dataset.columns.state,
        ranges={name: _ranges(summary) for name, summary in computed.items()},
        cameras=dataset.cameras,
        is_derived=dataset.spec.derived is not None,
        is_clock=dataset.spec.timestamp is not None,
        rules=rules,
        raw=tuple(field for field in dataset.columns.raw if _is_float(field)),
    )


def learned(known: About, batch: NumberBatch, *, rules: Collection[str]) -> About:
    """Add what some rules of numbers learn from a sample of the episodes, which depends on nothing but the data."""
    usual: dict[str, Array] = {}
    for check in numbers.CHECKS:
        if check.rule in rules and not check.why_not(known):
            usual |= check.learn(batch)
    return replace(known, usual=usual)


def judged(known: About, batch: NumberBatch) -> Conventions:
    """Compare the commands of the sample with the motion that followed."""
    steps = None
    if batch.state is not None:
        steps = Trajectories(action=batch.action, state=batch.state, lengths=batch.lengths)
    return conventions(known.action, known.state, steps, hz=known.control_hz, is_derived=known.is_derived)


def _is_float(field: Field) -> bool:
    """Whether values may be NaN, and have one shape."""
    is_array = field.kind == "number" and not field.ragged and None not in field.shape
    return is_array and np.dtype(field.dtype).kind == "f"


def _ranges(summary: Summary) -> DimRanges:
    return DimRanges(low=summary.min, high=summary.max, q01=summary.q01, q99=summary.q99, std=summary.std)
