"""`convert`: a source and its declaration become one published dataset."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.beam.workers import started
from pipelines.convert.binding import Binding, bind
from pipelines.convert.folders import check_apart
from pipelines.convert.job import Job, check_allowance
from pipelines.convert.ledger import Ledger, begin, begin_append, clear, is_finished, locked, ordered, published, sweep
from pipelines.convert.publish import episodes_schema, identity_of, publish
from pipelines.convert.rate import rate_note
from pipelines.convert.records import Options
from pipelines.readers.history import History
from pipelines.readers.reader import Reader, ShardRef
from pipelines.readers.registry import open_source
from pipelines.statistics.statistics import statistics
from schemas.declarations.spec import DatasetSpec
from schemas.errors import UsageError, did_you_mean
from schemas.files.folder import Folder, absolute, open_folder
from schemas.source import Unreadable
from schemas.spaces import Space
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.views.views import view_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome: counts that balance, and what was left out."""

    out: str
    source: int
    kept: int
    added: int  # kept episodes of this run
    dropped: dict[str, int]
    quarantined: dict[str, int]
    steps: int
    files: int
    seconds: float
    notes: tuple[str, ...]  # what the user should know before using it
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
            "added": self.added,
            "steps": self.steps,
            "files": self.files,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


def convert(
    spec: DatasetSpec,
    out: str | Path,
    *,
    source: str | None = None,
    options: Options | None = None,
    engine: Engine = THIS_PROCESS,
    max_quarantine: int | None = None,
    append: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert `source` (by default the one the declaration names) into a dataset at `out`, a folder or an fsspec URI.

    An interrupted conversion of the same declaration, source and options goes on where it was; a finished one is left
    as it is. With `append`, the files that the source has more than the dataset are added to it. Single episodes that
    cannot be read are quarantined and counted. Raises SpecError where the declaration does not fit, SourceError where
    the source as a whole cannot be read, UsageError where `out` cannot be written or holds something else,
    UnreachableError where a remote one fails, and TooManyQuarantinedError above `max_quarantine` episodes.
    """
    began = time.monotonic()
    if append and overwrite:
        raise UsageError("--append keeps what is there, --overwrite removes it: give one of them")
    folder = open_folder(out, for_writing=True)
    work = Conversion.of(spec, folder, source=source, options=options or Options(), overwrite=overwrite)
    check_apart(folder.uri, work.reader.uri)
    with locked(folder):
        if overwrite:
            clear(folder)
        if append and published(folder) != work.stored:
            raise UsageError(f"{folder.uri}: another run has just appended to it; run again")
        if (begin_append if append else begin)(folder, work.identity):
            manifest = json.loads(folder.read(layout.MANIFEST))
            _count(folder, engine)
            return _report(folder, manifest, problems=(), added=0, seconds=time.monotonic() - began)
        ledger = Ledger(folder, episodes_schema(work.binding.layout))
        with started(engine) as running:
            _run(work, ledger, engine=running, max_quarantine=max_quarantine, progress=progress)
            sweep(folder)  # of workers that were killed
            records = ordered(ledger, [ref.name for ref in work.refs])
            problems = tuple(problem for record in records for problem in record.quarantined)
            check_allowance(problems, max_quarantine)
            manifest = publish(folder, work.reader, binding=work.binding, identity=work.identity, records=records)
            _count(folder, running)
        ledger.close()
        added = sum(len(record.episodes) for record in records)
        report = _report(folder, manifest, problems=problems, added=added, seconds=time.monotonic() - began)
        _log_run(folder, work.reader.uri, report)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A conversion that is planned: what it is, and the shards of this run."""

    reader: Reader
    binding: Binding
    identity: dict[str, Any]
    stored: dict[str, Any] | None  # the identity of what was published when this was planned
    refs: tuple[ShardRef, ...]

    @classmethod
    def of(
        cls, spec: DatasetSpec, out: Folder | None, *, source: str | None, options: Options, overwrite: bool = False
    ) -> "Conversion":
        """Open the source and see what of it the dataset at `out` does not hold."""
        uri = source or spec.source.uri
        if uri is None:
            raise UsageError(f"{spec.name}: its declaration names no source; give --source")
        if len(set(options.materialize)) < len(options.materialize):
            raise UsageError(f"--materialize names a view twice: {', '.join(options.materialize)}")
        reader = open_source(uri, spec.source)
        if options.split is not None and options.split not in reader.files():
            raise UsageError(f"{uri}: no split '{options.split}'{did_you_mean(options.split, reader.files())}")
        binding = bind(spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
        history = History.of(reader)
        stored = None if out is None or overwrite else published(out)
        then = History.from_json(stored["source"]) if stored else None
        if then and not history.since(then).vanished:  # else this is another source
            history = history.after(then)
        *_, refs = history.plan(reader.files(), split=options.split, limit=options.limit)
        identity = identity_of(binding, reader, options=options, history=history)
        return cls(reader=reader, binding=binding, identity=identity, stored=stored, refs=refs)


def _run(work: Conversion, ledger: Ledger, *, engine: Engine, max_quarantine: int | None, progress: Progress) -> None:
    """Do the shards that are not done."""
    done = ledger.read(ref.name for ref in work.refs)
    todo = [ref for ref in work.refs if ref.name not in done]
    check_allowance([problem for record in done.values() for problem in record.quarantined], max_quarantine)
    if not todo:
        return
    from pipelines.beam.run import run  # noqa: PLC0415 - Beam takes seconds to import, a finished conversion none

    job = Job(
        declaration=work.binding.spec.to_json(),
        source=absolute(work.reader.uri),
        out=absolute(ledger.out.uri),
        options=Options.from_json(work.identity["options"]),
        max_quarantine=max_quarantine,
    )
    run(job, todo, ledger, engine=engine, progress=progress)


def _count(out: Folder, engine: Engine) -> None:
    """Give the dataset its statistics, if it has none yet."""
    dataset = Dataset(out)
    if dataset.manifest["steps"]:
        statistics(dataset, engine=engine)


def _report(
    out: Folder, manifest: Mapping[str, Any], *, problems: tuple[Unreadable, ...], added: int, seconds: float
) -> Report:
    return Report(
        out=out.uri,
        **manifest["balance"],
        added=added,
        steps=manifest["steps"],
        files=len(manifest["files"]),
        seconds=seconds,
        notes=tuple(filter(None, [rate_note(Dataset(out))])),
        problems=problems,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a conversion would read and write."""

    dataset: str
    episodes: int
    bytes: int  # of the source's files
    files: int
    missing_files: tuple[str, ...]
    action: tuple[str, ...]  # each dimension with its unit and mode
    state: tuple[str, ...]
    cameras: tuple[str, ...]
    views: tuple[str, ...]
    columns: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe convert --dry-run --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def dry_run(
    spec: DatasetSpec,
    *,
    source: str | None = None,
    options: Options | None = None,
    append_to: str | Path | None = None,
) -> DryRun:
    """Check that a declaration fits its source, and say what `convert` would write, or add to `append_to`."""
    out = None if append_to is None else open_folder(append_to, for_writing=True)
    work = Conversion.of(spec, out, source=source, options=options or Options())
    refs = work.refs if out is None or not is_finished(out, work.identity) else ()
    columns = work.binding.layout
    cameras = (f"{camera.leaf} ({camera.role})" if camera.role else camera.leaf for camera in columns.cameras)
    return DryRun(
        dataset=spec.name,
        episodes=sum(ref.episodes for ref in refs),
        bytes=sum(part.size or 0 for ref in refs for part in ref.parts),
        files=len(refs),
        missing_files=tuple(part.name for ref in refs for part in ref.parts if part.size is None),
        action=_described(columns.action),
        state=_described(columns.state) if columns.state else (),
        cameras=tuple(cameras),
        views=tuple(view_names(spec)),
        columns=tuple(columns.schema().names),
    )


def _described(space: Space) -> tuple[str, ...]:
    return tuple(f"{dim.name} [{dim.unit}, {dim.mode}]" for dim in space.dims)


def _log_run(out: Folder, uri: str, report: Report) -> None:
    """Append this run, with everything that differs from run to run, to the log."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "convert",
        "source": absolute(uri),
        "oxe_tools": version("oxe-tools"),
        **report.to_json(),
    }
    log = out.read_many([layout.RUNS]).get(layout.RUNS, b"")
    out.write(layout.RUNS, log + json.dumps(run).encode() + b"\n")
