"""`convert`: turn a source and its declaration into a published dataset."""

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
from pipelines.beam.workers import running_workers
from pipelines.convert.files import settle
from pipelines.convert.folders import check_not_nested
from pipelines.convert.job import check_allowance
from pipelines.convert.ledger import (
    Ledger,
    begin,
    begin_append,
    clear,
    is_finished,
    locked,
    published_identity,
    read_all_records,
    sweep,
)
from pipelines.convert.plan import Conversion
from pipelines.convert.publish import episodes_schema, publish
from pipelines.convert.rate import rate_note
from pipelines.convert.records import Options
from pipelines.convert.repair import repair
from pipelines.convert.turned import turned_notes
from pipelines.readers.coverage import Coverage
from pipelines.statistics.statistics import statistics
from schemas.declarations.spec import DatasetSpec
from schemas.errors import UsageError
from schemas.files.folder import Folder, absolute, open_folder
from schemas.parsing import parse_json
from schemas.source import Unreadable
from schemas.spaces import Space
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.text import masked_json
from schemas.views.views import view_names


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReport:
    """The outcome of a conversion: counts and problems.

    The episodes that were kept, dropped and quarantined add up to the episodes of the source.
    """

    out: str
    source: int
    kept: int
    added: int  # episodes that this run added
    dropped: dict[str, int]
    quarantined: dict[str, int]
    steps: int
    files: int
    seconds: float
    repaired: tuple[str, ...]  # files that were missing or damaged, and were written again
    notes: tuple[str, ...]  # warnings to read before using the dataset
    problems: tuple[Unreadable, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe convert --json` prints."""
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
            "repaired": list(self.repaired),
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
) -> ConversionReport:
    """Convert a source to a dataset at `out`, a folder or an fsspec URI.

    If `source` is None, the source named in the declaration is used. Calling this again with the same declaration,
    source and options continues an interrupted conversion, and leaves a finished one unchanged, except for files that
    are missing or damaged, which are repaired. With `append`, files that were added to the source since the last
    conversion are added to the dataset. Episodes that cannot be read are quarantined and counted.

    Raises SpecError if the declaration does not fit, SourceError if the source as a whole cannot be read, UsageError if
    `out` cannot be written or contains other files, DatasetError if damage cannot be repaired, UnreachableError if a
    remote folder cannot be accessed, and TooManyQuarantinedError if more than `max_quarantine` episodes are
    quarantined.
    """
    began = time.monotonic()
    if append and overwrite:
        raise UsageError("--append and --overwrite: pass only one of them")
    folder = open_folder(out, for_writing=True)
    plan = Conversion.of(spec, folder, source=source, options=options or Options(), overwrite=overwrite)
    check_not_nested(folder.uri, plan.reader.uri)
    with locked(folder):
        if overwrite:
            clear(folder)
        settle(folder)
        if append and published_identity(folder) != plan.stored:
            raise UsageError(f"{folder.uri}: another process has just appended to it; run the command again")
        repaired: tuple[str, ...] = ()
        if (is_finished if append else begin)(folder, plan.identity) or append:
            repaired = repair(folder, plan, engine=engine, progress=progress)
        if (begin_append if append else begin)(folder, plan.identity):
            manifest = parse_json(folder.read(layout.MANIFEST))
            _add_statistics(folder, engine)
            report = _report(folder, manifest, began=began, repaired=repaired)
            if repaired:
                _log_run(folder, plan.reader.uri, report)
            return report
        ledger = Ledger(folder, episodes_schema(plan.binding.layout))
        with running_workers(engine) as running:
            _run(plan, ledger, engine=running, max_quarantine=max_quarantine, progress=progress)
            sweep(folder)  # removes unfinished files of killed workers
            records = read_all_records(ledger, [ref.name for ref in plan.refs])
            problems = tuple(problem for record in records for problem in record.quarantined)
            check_allowance(problems, max_quarantine)
            plan.reader.check_unchanged()
            manifest = publish(folder, plan.reader, binding=plan.binding, identity=plan.identity, records=records)
            _add_statistics(folder, running)
        ledger.close()
        added = sum(len(record.episodes) for record in records)
        report = _report(folder, manifest, began=began, repaired=repaired, added=added, problems=problems)
        _log_run(folder, plan.reader.uri, report)
    return report


def _run(plan: Conversion, ledger: Ledger, *, engine: Engine, max_quarantine: int | None, progress: Progress) -> None:
    """Convert the shards that have no record yet."""
    done = ledger.read(ref.name for ref in plan.refs)
    todo = [ref for ref in plan.refs if ref.name not in done]
    check_allowance([problem for record in done.values() for problem in record.quarantined], max_quarantine)
    if not todo:
        return
    plan.run(todo, ledger, engine=engine, progress=progress, max_quarantine=max_quarantine)


def _add_statistics(out: Folder, engine: Engine) -> None:
    """Compute the statistics of the dataset, unless they are cached."""
    dataset = Dataset(out)
    if dataset.manifest["steps"]:
        statistics(dataset, engine=engine)


def _report(
    out: Folder,
    manifest: Mapping[str, Any],
    *,
    began: float,
    repaired: tuple[str, ...],
    added: int = 0,
    problems: tuple[Unreadable, ...] = (),
) -> ConversionReport:
    return ConversionReport(
        out=out.uri,
        **manifest["balance"],
        added=added,
        steps=manifest["steps"],
        files=len(manifest["files"]),
        seconds=time.monotonic() - began,
        repaired=repaired,
        notes=(
            *Coverage.from_json(manifest).sentences(),
            *turned_notes(manifest),
            *filter(None, [rate_note(Dataset(out))]),
        ),
        problems=problems,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a conversion would read and write."""

    dataset: str
    episodes: int
    bytes: int  # size of the source's files
    files: int
    missing_files: tuple[str, ...]
    action: tuple[str, ...]  # one text per dimension, with its unit and mode
    state: tuple[str, ...]
    cameras: tuple[str, ...]
    views: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]  # what was guessed about the source, and what is not read

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe convert --dry-run --json` prints."""
        return {name: getattr(self, name) for name in self.__slots__}


def dry_run(
    spec: DatasetSpec,
    *,
    source: str | None = None,
    options: Options | None = None,
    append_to: str | Path | None = None,
) -> DryRun:
    """Check that a declaration fits its source, and return what `convert` would write.

    With `append_to`, the result counts only the files and episodes that would be added to that dataset.
    """
    out = None if append_to is None else open_folder(append_to, for_writing=True)
    plan = Conversion.of(spec, out, source=source, options=options or Options())
    refs = plan.refs if out is None or not is_finished(out, plan.identity) else ()
    columns = plan.binding.layout
    cameras = (f"{camera.leaf} ({camera.role})" if camera.role else camera.leaf for camera in columns.cameras)
    return DryRun(
        dataset=spec.name,
        episodes=sum(ref.episodes for ref in refs),
        bytes=sum(part.size or 0 for ref in refs for part in ref.parts),
        files=len(refs),
        missing_files=tuple(part.name for ref in refs for part in ref.parts if part.size is None),
        action=_dimension_labels(columns.action),
        state=_dimension_labels(columns.state) if columns.state else (),
        cameras=tuple(cameras),
        views=tuple(view_names(spec)),
        columns=tuple(columns.schema().names),
        notes=tuple(Coverage.of(plan.reader).sentences()),
    )


def _dimension_labels(space: Space) -> tuple[str, ...]:
    return tuple(f"{dim.name} [{dim.unit}, {dim.mode}]" for dim in space.dims)


def _log_run(out: Folder, uri: str, report: ConversionReport) -> None:
    """Append this run to the log `meta/runs.jsonl`."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "convert",
        "source": absolute(uri),
        "oxe_tools": version("oxe-tools"),
        **report.to_json(),
    }
    log = out.read_many([layout.RUNS]).get(layout.RUNS, b"")
    out.write(layout.RUNS, log + json.dumps(masked_json(run)).encode() + b"\n")
