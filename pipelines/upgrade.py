"""`upgrade`: add the checksums and the episode index of schema version 3 to a dataset of version 2, in place.

Data files are read, never written. The new index files are collected in `meta/pending/`; the manifest that lists them
is written next, and then they are moved to their places. Before the manifest is written the dataset has version 2,
afterwards version 3, and readers find an index in `meta/pending/` as long as it is there.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.beam.progress import Progress, silent
from pipelines.convert.files import check_files, settle
from pipelines.convert.ledger import locked, sweep
from schemas.errors import DatasetError, UsageError
from schemas.files.folder import Folder, open_folder
from schemas.store import layout
from schemas.store.checks import damaged, unreadable
from schemas.store.dataset import Dataset
from schemas.store.episode_index import EpisodeIndex
from schemas.store.index import DataChecksums, Index, footer_of
from schemas.store.manifest import SCHEMA_VERSION, encode_manifest

BLOCK = 4 << 20  # bytes of a data file that are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """The outcome of an upgrade, or what it would do."""

    out: str
    schema_version: int  # the version afterwards
    upgraded_from: int | None  # None if it had this version already
    files: int
    read: int  # data files that this run reads; the others were read by an earlier run
    bytes: int  # size of the files that this run reads
    seconds: float
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe upgrade --json` prints."""
        return {name: getattr(self, name) for name in self.__slots__}


def upgrade(out: str | Path, *, dry_run: bool = False, progress: Progress = silent) -> UpgradeReport:
    """Upgrade a dataset to schema version 3. Calling it again continues after an interruption.

    Locks, statistics and caches of the dataset remain valid, because its content does not change. With `dry_run`,
    nothing is written. Raises DatasetError if a file is damaged, and UsageError if the folder cannot be written.
    """
    began = time.monotonic()
    folder = open_folder(out, for_writing=not dry_run)
    dataset = Dataset(folder)
    if dry_run:
        check_files(folder)
        is_old = dataset.version < SCHEMA_VERSION
        todo = [file for file in dataset.manifest["files"] if is_old and _prepared(folder, file) is None]
        return _report(dataset, todo, began=began, dry_run=True)
    with locked(folder):
        sweep(folder)
        settle(folder)
        dataset = Dataset(folder)
        check_files(folder)
        if dataset.version == SCHEMA_VERSION:
            return _report(dataset, [], began=began)
        if dataset.is_growing:
            raise UsageError(
                f"{folder.uri}: an append was interrupted; finish it with the version of oxe-tools that began it, or "
                "convert again with --overwrite"
            )
        read = _upgrade(dataset, progress)
        settle(folder)
        report = _report(dataset, read, began=began)
        _log_run(folder, report)
    return report


def _upgrade(dataset: Dataset, progress: Progress) -> list[Mapping[str, Any]]:
    """Write the new index files and the manifest. Returns the data files that were read."""
    folder, read, files = dataset.folder, list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    for file in dataset.manifest["files"]:
        entry = _prepared(folder, file)
        if entry is None:
            entry = _prepare(dataset, file)
            read.append(file)
        files.append(entry)
        progress(file["episodes"], file["bytes"])
    names = ("file", "split", "row", "length")
    dataset.read_listed(layout.QUARANTINE)
    table = pq.read_table(pa.py_buffer(dataset.read_listed(layout.EPISODES)), columns=list(names))
    index = EpisodeIndex.of(table.to_pydict(), files, cameras=len(dataset.columns.cameras)).encode()
    folder.write(layout.pending(layout.EPISODE_INDEX), index)
    old = {key: value for key, value in dataset.manifest.items() if key != "xxh3_128"}
    before = {"schema_version": dataset.version, "xxh3_128": dataset.digest}
    manifest = {
        **old,
        "schema_version": SCHEMA_VERSION,
        "files": files,
        "episodes_index_xxh3_128": xxhash.xxh3_128_hexdigest(index),
        "upgraded_from": before,
    }
    folder.write(layout.MANIFEST, encode_manifest(manifest))
    return read


def _record(file: Mapping[str, Any]) -> str:
    """Return the name of the file with the new manifest entry of a data file whose index is prepared."""
    return layout.pending(layout.index_file(file["path"])).removesuffix(".idx") + ".json"


def _prepared(folder: Folder, file: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the new manifest entry of a data file, if an earlier run has prepared its index and both are intact."""
    name = layout.pending(layout.index_file(file["path"]))
    stored = folder.read_many([_record(file), name])
    try:
        entry: dict[str, Any] = json.loads(stored[_record(file)])
        is_intact = xxhash.xxh3_128_hexdigest(stored[name]) == entry["index_xxh3_128"]
        is_same = all(entry[key] == file[key] for key in file if key != "index_xxh3_128")
        Index.decode(stored[name], name)
    except (LookupError, TypeError, ValueError, DatasetError):
        return None
    return entry if is_intact and is_same else None


def _prepare(dataset: Dataset, file: Mapping[str, Any]) -> dict[str, Any]:
    """Read a data file, compare it with its digest, and write its new index. Returns its new manifest entry."""
    folder, name = dataset.folder, layout.index_file(file["path"])
    place, old, digest = folder.place(file["path"]), dataset.image_index(file["path"]), xxhash.xxh3_128()
    with folder.open_parts(file["path"]) as parts:
        try:
            footer = footer_of(parts, file["bytes"])
            sums = DataChecksums(footer, file["bytes"], columns=old.columns, images=old.images)
        except (OSError, ValueError) as error:  # includes Arrow's
            raise unreadable(place, error) from error
    with folder.open(file["path"]) as data:
        while part := data.read(BLOCK):
            digest.update(part)
            sums.add(memoryview(part))
    if digest.hexdigest() != file["xxh3_128"]:
        raise damaged(place, "its digest is not that of the manifest")
    content, start = sums.index().encode()
    sizes = {"index_bytes": len(content), "index_start": start}
    entry = {**file, **sizes, "index_xxh3_128": xxhash.xxh3_128_hexdigest(content)}
    folder.write(layout.pending(name), content)
    folder.write(_record(file), json.dumps(entry).encode())
    return entry


def _report(
    dataset: Dataset, read: Sequence[Mapping[str, Any]], *, began: float, dry_run: bool = False
) -> UpgradeReport:
    return UpgradeReport(
        out=dataset.uri,
        schema_version=SCHEMA_VERSION,
        upgraded_from=dataset.version if dataset.version < SCHEMA_VERSION else None,
        files=len(dataset.manifest["files"]),
        read=len(read),
        bytes=sum(file["bytes"] for file in read),
        dry_run=dry_run,
        seconds=round(time.monotonic() - began, 3),
    )


def _log_run(out: Folder, report: UpgradeReport) -> None:
    """Append this run to the log `meta/runs.jsonl`."""
    time_now = datetime.now(UTC).isoformat(timespec="seconds")
    run = {"time": time_now, "command": "upgrade", "oxe_tools": version("oxe-tools"), **report.to_json()}
    log = out.read_many([layout.RUNS]).get(layout.RUNS, b"")
    out.write(layout.RUNS, log + json.dumps(run).encode() + b"\n")
