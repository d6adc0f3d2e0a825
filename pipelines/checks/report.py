"""`Report`: what `oxe check` found in all datasets, with the findings that are accepted apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.checks.findings import NotAssessable, RuleFinding
from pipelines.checks.kept import Result
from pipelines.checks.look_at import LookAt
from pipelines.checks.settings import Accept, Settings
from pipelines.conventions.check import Conventions
from schemas.store.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a check of one or several datasets."""

    names: tuple[str, ...]  # names of the datasets; if two are equal, their places
    episodes: int
    findings: tuple[RuleFinding, ...]
    accepted: tuple[tuple[RuleFinding, str], ...]  # with the reason
    not_assessable: tuple[NotAssessable, ...]
    look_at: tuple[LookAt, ...]
    conventions: Mapping[str, Mapping[str, Conventions]]  # dataset -> Space -> its aspects
    settings: Settings

    @classmethod
    def of(
        cls,
        datasets: Sequence[Dataset],
        results: Sequence[Result],
        between: Sequence[RuleFinding],
        *,
        settings: Settings,
    ) -> "Report":
        """Join the results of several datasets and the findings between them."""
        names = [str(dataset.manifest["dataset"]) for dataset in datasets]
        if len(set(names)) < len(names):
            names = [dataset.uri for dataset in datasets]
        findings: list[RuleFinding] = []
        accepted: list[tuple[RuleFinding, str]] = []
        for finding in sorted((*(f for result in results for f in result.findings), *between), key=RuleFinding.order):
            entry = next((a for a in settings.accept if _accepts(a, finding, names)), None)
            if entry:
                accepted.append((finding, entry.reason))
            else:
                findings.append(finding)
        looks = sorted((look for result in results for look in result.look_at), key=lambda look: -look.score)
        return cls(
            names=tuple(names),
            episodes=sum(map(len, datasets)),
            findings=tuple(findings),
            accepted=tuple(accepted),
            not_assessable=tuple(entry for result in results for entry in result.not_assessable),
            look_at=tuple(looks),
            conventions={
                name: {dataset.columns.action.name: result.conventions}
                for name, dataset, result in zip(names, datasets, results, strict=True)
            },
            settings=settings,
        )

    @property
    def ok(self) -> bool:
        """Whether no rule with the severity `error` found something that is not accepted."""
        return all(self.settings.severity(finding.rule) != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe check --json` prints; docs/checks.md describes it."""
        return {
            "ok": self.ok,
            "episodes": self.episodes,
            "findings": [self._finding(finding) for finding in self.findings],
            "accepted": [{**self._finding(finding), "reason": reason} for finding, reason in self.accepted],
            "not_assessable": [
                {"dataset": self.names[entry.member], "rule": entry.rule, "why": entry.why}
                for entry in self.not_assessable
            ],
            "look_at": [{"dataset": self.names[look.member], **look.to_json()} for look in self.look_at],
            "conventions": {
                name: {space: {aspect: one.to_json() for aspect, one in of.items()} for space, of in spaces.items()}
                for name, spaces in self.conventions.items()
            },
        }

    def _finding(self, finding: RuleFinding) -> dict[str, Any]:
        other = finding.other
        return {
            "dataset": self.names[finding.member],
            "rule": finding.rule,
            "severity": self.settings.severity(finding.rule),
            "episode": None if finding.episode < 0 else finding.episode,
            "other": {"dataset": self.names[other[0]], "episode": other[1]} if other else None,
            "steps": [list(span) for span in finding.steps],
            "dims": list(finding.dims),
            "value": finding.value,
            "message": finding.message,
        }


def _accepts(entry: Accept, finding: RuleFinding, names: Sequence[str]) -> bool:
    return (
        entry.rule == finding.rule
        and entry.dataset in {None, names[finding.member]}
        and (entry.episodes is None or finding.episode in entry.episodes)
    )
