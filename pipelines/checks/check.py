"""`Check`: how one rule is computed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from pipelines.checks.batch import About
from pipelines.checks.findings import RuleFinding
from schemas.source import Array

Read = TypeVar("Read")  # what was read together: a NumberBatch of numbers, or the images of an episode
Measures: TypeAlias = Mapping[str, Array]  # by name, [E, ...] for the E episodes that were read together


def assessable(_about: About) -> str | None:
    """Return None: the rule can be applied to every dataset."""
    return None


def no_measures(_read: object) -> Measures:
    """Return no measures."""
    return {}


def no_findings(*_read: object) -> Iterable[RuleFinding]:
    """Return no findings."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[Read]):
    """One rule: pure functions of the data.

    `learn` returns what is usual in this dataset, from a sample of its episodes; the other functions get it as
    `About.usual`. Findings of single episodes come from `of_episodes`. A rule that compares episodes with the others
    of the dataset returns `measures` of each, which are gathered from all workers; then `of_dataset` judges them in
    one process. So findings do not depend on which episodes are read together.
    """

    rule: str
    why_not: Callable[[About], str | None] = assessable  # why the rule cannot say anything about a dataset, or None
    learn: Callable[[Read], Measures] = no_measures  # names are unique among all rules
    of_episodes: Callable[[Read], Iterable[RuleFinding]] = no_findings
    measures: Callable[[Read], Measures] = no_measures
    of_dataset: Callable[[About, Measures], Iterable[RuleFinding]] = no_findings
