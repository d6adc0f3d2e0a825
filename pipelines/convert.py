"""`convert`: a source and its declaration become one published dataset."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.beam.workers import prepare
from pipelines.folders import check_apart
from pipelines.job import Job, check_allowance
from pipelines.ledger import Ledger, begin, clear, locked, ordered, sweep
from pipelines.progress import Progress, silent, watched
from pipelines.publish import episodes_schema, identity_of, publish
from pipelines.readers.registry import open_source
from pipelines.readers.source import Reader, ShardRef, plan
from pipelines.records import Engine, Options
from pipelines.standardize import Binding, bind
from schemas import layout
from schemas.errors import TooManyQuarantinedError, UsageError, did_you_mean
from schemas.source import Unreadable
from schemas.spaces import Space
from schemas.spec import DatasetSpec
from schemas.views import view_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome: counts that balance, and what was left out."""

    out: str
    source: int
    kept: int
    dropped: dict[str, int]
    quarantined: dict[str, int]
    steps: int
    files: int
    seconds: float
    problems: tuple[Unreadable, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe convert --json`."""
        return {
            "out": self.out,
            "episodes": {
                "source": self.source,
                "kept": self.kept,
                "dropped": self.dropped,
                "quarantined": self.quarantined,
            },
            "steps": self.steps,
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }


def convert(
    spec: DatasetSpec,
    out: Path,
    *,
    source: str | None = None,
    options: Options | None = None,
    engine: Engine | None = None,
    max_quarantine: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert `source` (by default the one the declaration names) into a dataset at `out`.

    An interrupted conversion of the same declaration, source and options goes on where it was; a finished one is left
    as it is. Single episodes that cannot be read are quarantined and counted. Raises SpecError where the declaration
    does not fit, SourceError where the source as a whole cannot be read, UsageError where `out` cannot be written or
    holds something else, and TooManyQuarantinedError above `max_quarantine` episodes.
    """
    began = time.monotonic()
    options = options or Options()
    reader, binding, refs = _planned(spec, source, options)
    check_apart(out, reader.uri)
    identity = identity_of(binding, reader, options)
    with locked(out):
        if overwrite:
            clear(out)
        if begin(out, identity):
            manifest = json.loads((out / layout.MANIFEST).read_bytes())
            return _report(out, manifest, problems=(), seconds=time.monotonic() - began)
        job = Job(
            declaration=spec.to_json(), source=reader.uri, out=str(out), options=options, max_quarantine=max_quarantine
        )
        ledger = Ledger(out, episodes_schema(binding.layout))
        _run(job, ledger, refs, engine=engine or Engine(), progress=progress)
        sweep(out)  # of workers that were killed
        records = ordered(ledger, [ref.name for ref in refs])
        problems = tuple(problem for record in records for problem in record.quarantined)
        check_allowance(problems, max_quarantine)
        manifest = publish(out, reader, binding=binding, options=options, records=records)
        ledger.close()
    report = _report(out, manifest, problems=problems, seconds=time.monotonic() - began)
    _log_run(out, reader.uri, report)
    return report


def _run(job: Job, ledger: Ledger, refs: Sequence[ShardRef], *, engine: Engine, progress: Progress) -> None:
    """Do the shards that are not done; those that fail for good are one error that names the first."""
    todo, problems = list[ShardRef](), list[Unreadable]()
    for ref in refs:
        record = ledger.read(ref.name)
        if record is None:
            todo.append(ref)
        else:
            problems += record.quarantined
    check_allowance(problems, job.max_quarantine)
    if not todo:
        return
    if engine.runner is None and engine.workers > 1:
        prepare()  # before the next line, whose imports it has to do as well
    from pipelines.beam.run import run  # noqa: PLC0415 - Beam takes seconds to import, a finished conversion none

    with watched(ledger.finished, refs, progress):
        run(job, todo, engine=engine)
    stopped, failures = ledger.stopped(), ledger.failures()
    if failures:
        name, message = next(iter(failures.items()))
        raise UsageError(f"{len(failures)} of {len(todo)} shards failed; run again to go on. {name}: {message}")
    if stopped:
        raise TooManyQuarantinedError(stopped)


def _report(out: Path, manifest: Mapping[str, Any], *, problems: tuple[Unreadable, ...], seconds: float) -> Report:
    return Report(
        out=str(out),
        **manifest["balance"],
        steps=manifest["steps"],
        files=len(manifest["files"]),
        seconds=seconds,
        problems=problems,
    )


def dry_run(spec: DatasetSpec, *, source: str | None = None, options: Options | None = None) -> dict[str, Any]:
    """Check that a declaration fits its source, and say what `convert` would write."""
    _, binding, refs = _planned(spec, source, options or Options())
    columns = binding.layout
    return {
        "dataset": spec.name,
        "episodes": sum(ref.episodes for ref in refs),
        "bytes": sum(part.size or 0 for ref in refs for part in ref.parts),
        "files": len(refs),
        "missing_files": [part.name for ref in refs for part in ref.parts if part.size is None],
        "action": _described(columns.action),
        "state": _described(columns.state) if columns.state else [],
        "cameras": [f"{camera.leaf} ({camera.role})" if camera.role else camera.leaf for camera in columns.cameras],
        "views": list(view_names(spec)),
        "columns": columns.schema().names,
    }


def _described(space: Space) -> list[str]:
    return [f"{dim.name} [{dim.unit}, {dim.mode}]" for dim in space.dims]


def _planned(spec: DatasetSpec, source: str | None, options: Options) -> tuple[Reader, Binding, tuple[ShardRef, ...]]:
    uri = source or spec.source.uri
    if uri is None:
        raise UsageError(f"{spec.name}: its declaration names no source; give --source")
    if len(set(options.materialize)) < len(options.materialize):
        raise UsageError(f"--materialize names a view twice: {', '.join(options.materialize)}")
    reader = open_source(uri, spec.source.format)
    if options.split is not None and options.split not in reader.files():
        raise UsageError(f"{uri}: no split '{options.split}'{did_you_mean(options.split, reader.files())}")
    binding = bind(spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
    return reader, binding, plan(reader, split=options.split, limit=options.limit)


def _log_run(out: Path, uri: str, report: Report) -> None:
    """Append this run, with everything that differs from run to run, to the log."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "convert",
        "source": uri if "://" in uri else str(Path(uri).resolve()),
        "oxe_tools": version("oxe-tools"),
        **report.to_json(),
    }
    with (out / layout.RUNS).open("a") as file:
        file.write(json.dumps(run) + "\n")
