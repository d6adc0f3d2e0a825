"""`export`: a published dataset in the format of others, shard by shard, on the engines that convert, too."""

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

TARGETS = {
    "rlds": "pipelines.export.rlds.target:RldsExport",
    "lerobot": "pipelines.export.lerobot.target:LeRobotExport",
}


class Target(Protocol):
    """One format, and the export that is written in it."""

    dataset: Dataset
    out: LocalFolder
    asked: ExportOptions
    holds: str  # a regular expression of the relative paths that the format has

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan the shards; what cannot be exported at all is an error here."""

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one shard; gives its files, and what the description of the whole needs to know of it."""

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:
        """Write the files that make a whole of the shards; `records` are what `write` gave for each."""

    def declaration(self) -> Mapping[str, Any]:
        """Give the declaration that reads the export back."""

    @property
    def videos(self) -> Sequence[str]:
        """Name the cameras whose images are not those of the dataset."""

    def settings(self) -> Mapping[str, Any]:
        """Say for the record how the dataset's columns are kept, as far as the declaration does not."""

    def read_back(self, episode: Episode, binding: Binding) -> Episode:
        """Say what an exported episode is when the export is read, without the videos."""

    def comparable(self, episode: Episode) -> Episode:
        """Leave out of an episode that was read what the format adds."""

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Compare what is no episode, and the videos."""


def export(
    dataset: Dataset,
    out: Path,
    asked: ExportOptions,
    *,
    engine: Engine = THIS_PROCESS,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write `dataset` in another format at `out`, with the declaration that reads it back.

    Without a view everything stored is written that the format can hold. With one, its actions are, and the steps it
    masks are left out, as are episodes of which nothing remains. An export that was interrupted goes on, a finished
    one is left as it is. Raises ViewError where the dataset cannot give the view, DatasetError where it is damaged or
    has no episodes, UsageError where `out` cannot be written or holds something else.
    """
    if not len(dataset):
        raise DatasetError(f"{dataset.uri}: no episodes to export")
    check_not_nested(str(out), dataset.uri)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder")
    folder = LocalFolder(out)
    target = opened(dataset, folder, asked)
    refs = target.refs()
    with locked(folder, LOCK):
        identity = identity_of(dataset, asked)
        finished = begin(folder, identity, holds=f"{OURS}|{target.holds}", overwrite=overwrite)
        if finished:
            return ExportReport(out=str(out), **finished["report"])
        ledger = ExportLedger(folder)
        with running_workers(engine) as running:
            _run(dataset, ledger, refs, asked=asked, engine=running, progress=progress)
            report = target.describe(refs, _records(ledger, refs), running)
        folder.write(DECLARATION, tomli_w.dumps(target.declaration()).encode())
        _log_run(folder, dataset)
        told = {name: value for name, value in report.to_json().items() if name != "out"}
        finish(folder, {"format": asked.format, "identity": identity, "settings": target.settings(), "report": told})
    return report


def opened(dataset: Dataset, out: LocalFolder, asked: ExportOptions) -> Target:
    """Open a format's export; its module is imported only now."""
    name, _, cls = TARGETS[asked.format].partition(":")
    try:
        target: Target = getattr(import_module(name), cls)(dataset, out, asked)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(error.name, extra=EXTRAS[error.name]) from error
    return target


def identity_of(dataset: Dataset, asked: ExportOptions) -> dict[str, Any]:
    """Say which export this is: two with the same identity have the same bytes."""
    digest = dataset.view(asked.view).digest if asked.view else None
    return {
        "dataset": dataset.manifest["dataset"],
        "manifest": dataset.manifest["xxh3_128"],
        "asked": asked.to_json(),
        "view_digest": digest,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """What to export, from where, to where; picklable."""

    dataset: str  # a URI, or a path that is the same from any working directory
    manifest: str  # its digest
    out: str  # likewise
    asked: ExportOptions

    def open(self) -> "ExportWork":
        """Open both on this worker."""
        dataset, out = open_dataset(self.dataset), LocalFolder(Path(self.out))
        if dataset.manifest["xxh3_128"] != self.manifest:
            raise DatasetError(f"{self.dataset}: was replaced while it was exported")
        return ExportWork(target=opened(dataset, out, self.asked), ledger=ExportLedger(out))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWork:
    """An opened job."""

    target: Target
    ledger: ExportLedger

    def shard(self, ref: ExportRef) -> str | None:
        """Export one shard and enter it in the ledger; say what went wrong, or None."""

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
    asked: ExportOptions,
    engine: Engine,
    progress: Progress,
) -> None:
    """Do the shards that are not done."""
    todo = [ref for ref in refs if ledger.read(ref.name) is None]
    for ref in todo:  # one whose files are gone or changed is not done
        ledger.out.remove(ledger.place(ref.name + ledger.RECORD))
    if not todo:
        return
    from pipelines.beam.run import run  # noqa: PLC0415 - Beam takes seconds to import, a finished export none

    job = ExportJob(
        dataset=absolute(dataset.uri),
        manifest=dataset.manifest["xxh3_128"],
        out=absolute(ledger.out.uri),
        asked=asked,
    )
    run(job, todo, ledger, engine=engine, progress=progress)


def _records(ledger: ExportLedger, refs: Sequence[ExportRef]) -> Iterator[Mapping[str, Any]]:
    for ref in refs:
        record = ledger.read(ref.name)
        if record is None:
            raise UsageError(f"{ledger.out.uri}: the record of {ref.name} is gone; run the export again to redo it")
        yield record


def _log_run(out: LocalFolder, dataset: Dataset) -> None:
    """Append what differs from run to run to the log: the time, and where the dataset was."""
    run = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "export",
        "source": absolute(dataset.uri),
        "oxe_tools": version("oxe-tools"),
    }
    log = out.read_many([RUNS]).get(RUNS, b"")
    out.write(RUNS, log + json.dumps(run).encode() + b"\n")
