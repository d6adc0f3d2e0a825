"""`export`: write a dataset in another format. The shards are written by the same engines as in a conversion."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.beam.shards import with_retries
from pipelines.beam.workers import running_workers
from pipelines.convert.binding import Binding
from pipelines.convert.folders import check_not_nested
from pipelines.convert.ledger import locked
from pipelines.export.ledger import LOCK, OURS, RUNS, ExportLedger, begin, finish
from pipelines.export.plan import ExportOptions, ExportRef, ExportReport
from pipelines.readers.registry import EXTRAS
from pipelines.readers.rlds.reader import DECLARATION
from pipelines.verify import Verification
from schemas.episode import Episode
from schemas.errors import DatasetError, MissingExtraError, UsageError
from schemas.files.folder import LocalFolder, absolute
from schemas.store.dataset import Dataset, open_dataset
from schemas.text import masked_json

TARGETS = {
    "rlds": "pipelines.export.rlds.target:RldsExport",
    "lerobot": "pipelines.export.lerobot.target:LeRobotExport",
}


class Target(Protocol):
    """An export of a dataset to one format."""

    dataset: Dataset
    out: LocalFolder
    options: ExportOptions
    pattern: str  # regular expression that matches the relative paths of the format's files

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan the shards; raises an error if the dataset cannot be exported."""

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one shard; returns the paths of its files, and its record for `describe`."""

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:
        """Write the files that describe the whole dataset; `records` are the records that `write` returned."""

    def declaration(self) -> Mapping[str, Any]:
        """Return the declaration that reads the export back."""

    @property
    def videos(self) -> Sequence[str]:
        """Keys of the cameras that are re-encoded as videos."""

    def settings(self) -> Mapping[str, Any]:
        """Return the settings that the declaration does not contain, for the record of the export."""

    def as_exported(self, episode: Episode, binding: Binding) -> Episode:
        """Return an episode of the dataset as it should be read from the export, without the videos."""

    def comparable(self, episode: Episode) -> Episode:
        """Return an episode that was read from the export, without the data that the format adds."""

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Compare the videos and the files that describe the whole dataset; adds the differences to `out`."""


def export(
    dataset: Dataset,
    out: Path,
    options: ExportOptions,
    *,
    engine: Engine = THIS_PROCESS,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write `dataset` in another format at `out`, with the declaration that reads it back.

    Writes every column that the format can store. With a view, writes the view's actions. The steps that the view masks
    are left out, and so are episodes in which it masks every step. Resumes an interrupted export; does nothing if the
    export is finished. Raises ViewError if the view does not fit the dataset, DatasetError if the dataset is damaged or
    empty, and UsageError if `out` cannot be written or contains other files.
    """
    if not len(dataset):
        raise DatasetError(f"{dataset.uri}: no episodes to export")
    check_not_nested(str(out), dataset.uri)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; use a folder")
    folder = LocalFolder(out)
    target = open_target(dataset, folder, options)
    refs = target.refs()
    with locked(folder, LOCK):
        identity = export_identity(dataset, options)
        finished = begin(folder, identity, pattern=f"{OURS}|{target.pattern}", overwrite=overwrite)
        if finished:
            return ExportReport(out=str(out), **finished["report"])
        ledger = ExportLedger(folder)
        with running_workers(engine) as running:
            _run(dataset, ledger, refs, options=options, engine=running, progress=progress)
            report = target.describe(refs, _records(ledger, refs), running)
        folder.write(DECLARATION, tomli_w.dumps(target.declaration()).encode())
        _log_run(folder, dataset)
        summary = {name: value for name, value in report.to_json().items() if name != "out"}
        record = {"format": options.format, "identity": identity, "settings": target.settings(), "report": summary}
        finish(folder, record)
    return report


def open_target(dataset: Dataset, out: LocalFolder, options: ExportOptions) -> Target:
    """Create the `Target` of the format in `options`.

    Imports the format's module. Raises MissingExtraError if a package of an extra is not installed.
    """
    name, _, cls = TARGETS[options.format].partition(":")
    try:
        target: Target = getattr(import_module(name), cls)(dataset, out, options)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(error.name, extra=EXTRAS[error.name]) from error
    return target


def export_identity(dataset: Dataset, options: ExportOptions) -> dict[str, Any]:
    """Return the identity of an export: two exports with the same identity have the same bytes."""
    digest = dataset.view(options.view).digest if options.view else None
    return {
        "dataset": dataset.manifest["dataset"],
        "manifest": dataset.digest,
        "asked": options.to_json(),
        "view_digest": digest,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An export as plain data. Picklable."""

    dataset: str  # URI or absolute path
    manifest: str  # digest of the dataset's manifest
    out: str  # URI or absolute path
    options: ExportOptions

    def open(self) -> "ExportWork":
        """Open the dataset and the output folder on this worker.

        Raises DatasetError if the dataset was replaced since the export started.
        """
        dataset, out = open_dataset(self.dataset), LocalFolder(Path(self.out))
        if dataset.digest != self.manifest:
            raise DatasetError(f"{self.dataset}: was replaced during the export")
        return ExportWork(target=open_target(dataset, out, self.options), ledger=ExportLedger(out))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWork:
    """An export job that a worker has opened."""

    target: Target
    ledger: ExportLedger

    def shard(self, ref: ExportRef) -> str | None:
        """Export one shard and record it in the ledger; returns the error message, or None if there is no error."""

        def work() -> None:
            try:
                files, about = self.target.write(ref)
                self.ledger.write(ref.name, files, about)
            except OSError as error:
                raise UsageError(f"{self.ledger.out.uri}: cannot be written ({error})") from error

        return with_retries(self.ledger, ref.name, work)


def _run(
    dataset: Dataset,
    ledger: ExportLedger,
    refs: Sequence[ExportRef],
    *,
    options: ExportOptions,
    engine: Engine,
    progress: Progress,
) -> None:
    """Export the shards that are not finished."""
    todo = [ref for ref in refs if ledger.read(ref.name) is None]
    for ref in todo:  # there may be a record whose files are missing or have changed
        ledger.out.remove(ledger.place(ref.name + ledger.RECORD))
    if not todo:
        return
    from pipelines.beam.run import run  # noqa: PLC0415 - importing Beam takes seconds; a finished export does not need it

    job = ExportJob(
        dataset=absolute(dataset.uri),
        manifest=dataset.digest,
        out=absolute(ledger.out.uri),
        options=options,
    )
    run(job, todo, ledger, engine=engine, progress=progress)


def _records(ledger: ExportLedger, refs: Sequence[ExportRef]) -> Iterator[Mapping[str, Any]]:
    for ref in refs:
        record = ledger.read(ref.name)
        if record is None:
            raise UsageError(f"{ledger.out.uri}: the record of {ref.name} is missing; run the export again")
        yield record


def _log_run(out: LocalFolder, dataset: Dataset) -> None:
    """Append this run to the log: the time, the command and the path of the dataset."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "export",
        "source": absolute(dataset.uri),
        "oxe_tools": version("oxe-tools"),
    }
    log = out.read_many([RUNS]).get(RUNS, b"")
    out.write(RUNS, log + json.dumps(masked_json(run)).encode() + b"\n")
