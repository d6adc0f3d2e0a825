"""What workers do with one part of a dataset: apply the rules, and measure each episode."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np

from pipelines.beam.counts import Mergeable
from pipelines.checks import images, numbers, signature
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.read import read
from pipelines.checks.numbers import summary
from pipelines.checks.parts import CheckPart, batches
from pipelines.checks.table import MeasureTable
from schemas.source import Array

Read = TypeVar("Read")


@dataclass(slots=True)
class FindingList:
    """Findings of workers, as an aggregate."""

    findings: list[RuleFinding] = field(default_factory=list)

    def merge(self, other: Self) -> Self:
        """Return the findings of both."""
        self.findings += other.findings
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the findings in an order that does not depend on the workers."""
        return {"findings": [finding.to_json() for finding in sorted(self.findings, key=RuleFinding.order)]}


@dataclass(frozen=True, slots=True)
class Extremes:
    """The smallest and the largest value of each dimension of a vector."""

    low: Array
    high: Array

    def merge(self, other: Self) -> "Extremes":
        """Return the extremes of both."""
        return Extremes(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def to_json(self) -> dict[str, Any]:
        """Return both as lists."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersPass:
    """A picklable CountFunction that applies rules to the numbers of a part, and measures its episodes.

    The keys are `<dataset>.findings`, `<dataset>.episodes` and `<dataset>.<vector>`.
    """

    rules: frozenset[str]  # ids of the rules to apply

    def __call__(self, part: CheckPart) -> Iterator[tuple[str, Mergeable]]:
        """Check one part."""
        checks = [check for check in numbers.CHECKS if check.rule in self.rules]
        member = part.about.member
        for batch in batches(part):
            yield f"{member}.findings", _findings(checks, batch)
            measured = {**summary.measures(batch), **signature.measures(batch)}
            yield f"{member}.episodes", _table(checks, batch, {"episode": batch.episodes, **measured})
            for name, values in (("action", batch.action), ("state", batch.state)):
                if values is not None:
                    yield f"{member}.{name}", Extremes(values.min(axis=0), values.max(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesPass:
    """A picklable CountFunction that applies rules to the images of a part, and measures its episodes."""

    rules: frozenset[str]
    all_frames: bool

    def __call__(self, part: CheckPart) -> Iterator[tuple[str, Mergeable]]:
        """Check one part, one episode after the other."""
        checks = [check for check in images.CHECKS if check.rule in self.rules]
        member, dataset = part.about.member, part.open()
        for positions in part.positions:
            for position in positions.tolist():
                episode = read(dataset, position, about=part.about, all_frames=self.all_frames)
                yield f"{member}.findings", _findings(checks, episode)
                yield f"{member}.episodes", _table(checks, episode, {"episode": np.array([position])})


def _findings(checks: Iterable[Check[Read]], read: Read) -> FindingList:
    return FindingList([finding for check in checks for finding in check.of_episodes(read)])


def _table(checks: Iterable[Check[Read]], read: Read, measured: Measures) -> MeasureTable:
    """Return the measures of the episodes that were read: those in `measured`, and those of each rule."""
    columns = dict(measured)
    for check in checks:
        columns |= check.measures(read)
    return MeasureTable([columns])
