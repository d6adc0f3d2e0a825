"""Describe a dataset to the rules, with the exact ranges of its numbers."""

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.checks.batch import About, DimRanges
from pipelines.checks.thresholds import Thresholds
from pipelines.statistics.statistics import statistics
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
    )


def _ranges(summary: Summary) -> DimRanges:
    return DimRanges(low=summary.min, high=summary.max, q01=summary.q01, q99=summary.q99, std=summary.std)
