"""`meta/checks.parquet`: the result of the last check of a dataset, and what it depends on."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.checks.findings import NotAssessable, RuleFinding
from pipelines.checks.look_at import LookAt
from pipelines.checks.rules import RULES
from pipelines.checks.settings import Settings
from pipelines.conventions.check import Conventions
from pipelines.conventions.verdicts import Verdict
from schemas.errors import UnreachableError
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.store.findings import KEY, MANIFEST
from schemas.store.findings import RULES as APPLIED

VERSION = 2
FINDING, NOT_ASSESSABLE, LOOK_AT, CONVENTION = "finding", "not_assessable", "look_at", "convention"
SCHEMA = pa.schema(
    {
        "kind": pa.string(),  # `finding`, `not_assessable`, `look_at` or `convention`
        "rule": pa.string(),  # or the aspect of a convention
        "episode": pa.int64(),  # position among the kept episodes; null: the dataset as a whole
        "other": pa.int64(),  # the other episode of a pair
        "steps": pa.list_(pa.list_(pa.int64(), 2)),
        "dims": pa.list_(pa.string()),
        "value": pa.float64(),
        "verdict": pa.string(),  # `pass`, `contradicts` or `undetermined`, for a convention
        "message": pa.string(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result for one dataset."""

    findings: Sequence[RuleFinding]
    not_assessable: Sequence[NotAssessable]
    look_at: Sequence[LookAt]
    conventions: Conventions

    def of_member(self, member: int) -> Self:
        """Return the result as that of another one of the datasets that are checked together."""
        return replace(
            self,
            findings=[
                replace(finding, member=member, other=(member, finding.other[1]) if finding.other else None)
                for finding in self.findings
            ],
            not_assessable=[replace(entry, member=member) for entry in self.not_assessable],
            look_at=[replace(entry, member=member) for entry in self.look_at],
        )


def key_of(dataset: Dataset, settings: Settings, *, all_frames: bool) -> str:
    """Return a digest of all that a result depends on: data, thresholds, versions of the rules, options, statistics."""
    statistics = dataset.folder.read_many([layout.STATS]).get(layout.STATS, b"")
    depends: dict[str, Any] = {
        "version": VERSION,
        "dataset": dataset.digest,
        "rules": {rule: RULES[rule].version for rule in sorted(RULES)},
        "settings": settings.rules.model_dump(mode="json"),
        "all_frames": all_frames,
        "statistics": xxhash.xxh3_128_hexdigest(statistics) if settings.severity("stale_stats") != "off" else "",
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(depends, sort_keys=True).encode())


def read(dataset: Dataset, key: str) -> Result | None:
    """Read the kept result. Returns None if there is none with this key, or if the file is damaged."""
    content = dataset.folder.read_many([layout.CHECKS]).get(layout.CHECKS)
    if content is None:
        return None
    try:
        table = pq.ParquetFile(pa.py_buffer(content)).read(use_threads=False)
        if (table.schema.metadata or {}).get(KEY) != key.encode() or table.schema.names != SCHEMA.names:
            return None
        rows = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException):
        return None
    return Result(
        findings=[_finding(row) for row in rows if row["kind"] == FINDING],
        not_assessable=[
            NotAssessable(member=0, rule=row["rule"], why=row["message"])
            for row in rows
            if row["kind"] == NOT_ASSESSABLE
        ],
        look_at=[
            LookAt(member=0, episode=row["episode"], score=row["value"], reason=row["message"])
            for row in rows
            if row["kind"] == LOOK_AT
        ],
        conventions={
            row["rule"]: Verdict(verdict=row["verdict"], confidence=row["value"], evidence=row["message"])
            for row in rows
            if row["kind"] == CONVENTION
        },
    )


def write(dataset: Dataset, result: Result, key: str, *, rules: Iterable[str]) -> None:
    """Keep a result; does nothing if the folder is read-only."""
    local = dataset.folder.local
    if local and not os.access(local / layout.META, os.W_OK):
        return
    rows = [_row(finding) for finding in result.findings]
    rows += [{"kind": NOT_ASSESSABLE, "rule": entry.rule, "message": entry.why} for entry in result.not_assessable]
    rows += [
        {"kind": LOOK_AT, "episode": entry.episode, "value": entry.score, "message": entry.reason}
        for entry in result.look_at
    ]
    rows += [
        {"kind": CONVENTION, "rule": aspect, "verdict": one.verdict, "value": one.confidence, "message": one.evidence}
        for aspect, one in result.conventions.items()
    ]
    about = {KEY: key, MANIFEST: dataset.digest, APPLIED: " ".join(sorted(rules))}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata(about), sink, compression="zstd")
    with suppress(UnreachableError):
        dataset.folder.write(layout.CHECKS, sink.getvalue().to_pybytes())


def _row(finding: RuleFinding) -> dict[str, Any]:
    episode = None if finding.episode < 0 else finding.episode
    other = finding.other[1] if finding.other else None
    row = {key: value for key, value in asdict(finding).items() if key != "member"}
    return {**row, "kind": FINDING, "episode": episode, "other": other}


def _finding(row: dict[str, Any]) -> RuleFinding:
    return RuleFinding(
        member=0,
        rule=row["rule"],
        episode=-1 if row["episode"] is None else row["episode"],
        other=None if row["other"] is None else (0, row["other"]),
        steps=tuple((first, stop) for first, stop in row["steps"]),
        dims=tuple(row["dims"]),
        value=row["value"],
        message=row["message"],
    )
