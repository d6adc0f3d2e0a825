"""The ledger: a record of each finished shard, from which an interrupted conversion continues.

The ledger is stored in `meta/ledger/` and removed once the manifest has been written. Its file `identity.json`
identifies the conversion. The record of a shard is written after the shard's files, so a shard with a record is
complete.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.beam.shards import FAILURE, StatusFolder, clear_failures
from pipelines.convert.parquet import FileRecord
from pipelines.convert.records import ShardRecord
from pipelines.readers.history import Changes, History, check_only_added
from schemas.errors import UsageError
from schemas.files.folder import Folder
from schemas.parsing import parse_json
from schemas.source import Unreadable
from schemas.store import layout
from schemas.store.manifest import READABLE, SCHEMA_VERSION

META = b"oxe"
FOLDERS = (layout.DATA, layout.INDEX, layout.META, layout.LEDGER)
IDENTITY_KEYS = ("schema_version", "spec_digest", "source", "options")


@contextmanager
def locked(out: Folder, lock: str = layout.LOCK) -> Iterator[None]:
    """Lock `out` for writing; raises UsageError if another process has locked it."""
    below = lock.rpartition("/")[0]
    is_new = out.local is not None and not out.local.exists()
    try:
        try:
            with out.exclusive(lock):
                yield
        finally:
            if out.local and not out.names(below):  # nothing was written: remove the empty folders of the lock
                out.remove(below)
            if is_new and not out.names():
                out.remove("")
    except BlockingIOError as error:
        hint = f" ({error.strerror}; remove it if that process has ended)" if error.strerror and not out.local else ""
        raise UsageError(f"{out.uri}: another process is writing to this folder{hint}") from error
    except OSError as error:
        raise UsageError(f"{out.uri}: cannot be written ({error})") from error


@dataclass(frozen=True, slots=True)
class Ledger(StatusFolder):
    """The shard records of one output folder; `schema` is the schema of the episode table."""

    BELOW = layout.LEDGER
    RECORD = ".parquet"
    schema: pa.Schema

    def write(self, name: str, record: ShardRecord) -> None:
        """Write the record of a finished shard."""
        summary = {
            "file": record.file.to_json() if record.file else None,
            "dropped": record.dropped,
            "quarantined": [problem.to_json() for problem in record.quarantined],
        }
        table = pa.Table.from_pylist(list(record.episodes), self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({META: json.dumps(summary)}), sink)
        self.out.write(self.place(name + self.RECORD), bytes(sink.getvalue()), sync=False)
        self.out.remove(self.place(name + FAILURE))

    def read(self, names: Iterable[str]) -> dict[str, ShardRecord]:
        """Return the records of the finished shards whose files have the recorded sizes."""
        stored = self.out.read_many(self.place(name + self.RECORD) for name in names)
        records = {self.shard_of(place): self._parse(content) for place, content in stored.items()}
        files = [file.path for summary, _ in filter(None, records.values()) if (file := summary["file"])]
        sizes = self.out.sizes([path for file in files for path in (file, layout.index_file(file))])
        return {
            name: _record(summary, table)
            for name, (summary, table) in ((n, r) for n, r in records.items() if r)
            if (file := summary["file"]) is None
            or (sizes[file.path], sizes[layout.index_file(file.path)]) == (file.bytes, file.index_bytes)
        }

    @staticmethod
    def _parse(content: bytes) -> tuple[dict[str, Any], pa.Table] | None:
        try:
            table = pq.read_table(pa.py_buffer(content), use_threads=False)
        except pa.ArrowInvalid:  # a damaged record is ignored; its shard is converted again
            return None
        summary = parse_json(table.schema.metadata[META])
        return {**summary, "file": FileRecord(**summary["file"]) if summary["file"] else None}, table

    def close(self) -> None:
        """Remove the ledger; the published dataset contains the same information."""
        self.out.remove(layout.LEDGER)


def _record(summary: Mapping[str, Any], table: pa.Table) -> ShardRecord:
    return ShardRecord(
        file=summary["file"],
        episodes=tuple(table.to_pylist()),
        dropped=tuple((index, reason) for index, reason in summary["dropped"]),
        quarantined=tuple(Unreadable.from_json(problem) for problem in summary["quarantined"]),
    )


def begin(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Start or continue a conversion at `out`; returns whether it is already finished.

    Raises UsageError if `out` contains a different conversion; the message lists the differences.
    """
    stored = published_identity(out)
    unfinished = _read_identity(out, layout.IDENTITY)
    if stored is not None:
        _check_same(out, _as_upgraded(stored), identity)
        if unfinished in (None, identity):  # otherwise it is the ledger of an unfinished append
            out.remove(layout.LEDGER)  # left by a process that was killed after it wrote the manifest
    elif unfinished is None:
        _refuse_foreign_files(out)
        _write_identity(out, identity)
    else:
        _check_same(out, unfinished, identity)
    sweep(out)
    return stored is not None


def begin_append(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Start or continue to append to the finished dataset at `out`; returns whether there is nothing to append.

    If an earlier append of other files was interrupted, its files are removed first. They were never part of the
    dataset.
    """
    finished = is_finished(out, identity)
    if finished or _read_identity(out, layout.IDENTITY) != identity:
        undo_append(out)
    sweep(out)
    if not finished:
        _write_identity(out, identity)
    return finished


def is_finished(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Whether the dataset at `out` already contains all that `--append` would add.

    Raises UsageError if `out` has no finished dataset, or if its dataset comes from a different conversion.
    """
    stored = published_identity(out)
    if stored is None:
        raise UsageError(f"{out.uri}: no finished dataset to append to; run the command without --append")
    if _as_upgraded(stored) != stored:
        raise UsageError(f"{out.uri}: has schema version {stored['schema_version']}; run 'oxe upgrade {out.uri}' first")
    if identity["options"]["limit"] is not None:
        raise UsageError(f"{out.uri}: --append and --limit: pass only one of them")
    files = {key: stored["source"][key] for key in ("files", "generations")}
    _check_same(out, stored, {**identity, "source": {**identity["source"], **files}})
    check_only_added(History.from_json(identity["source"]).since(History.from_json(stored["source"])), out.uri)
    return stored == identity


def _as_upgraded(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the identity that a finished dataset has after `oxe upgrade`, which changes nothing of its content."""
    is_old = identity["schema_version"] in READABLE
    return {**identity, "schema_version": SCHEMA_VERSION} if is_old else identity


def published_identity(out: Folder) -> dict[str, Any] | None:
    """Return the identity of the conversion that the manifest at `out` describes, or None if there is no manifest."""
    return _read_identity(out, layout.MANIFEST)


def _write_identity(out: Folder, identity: Mapping[str, Any]) -> None:
    out.write(layout.IDENTITY, json.dumps(identity).encode())


def _check_same(out: Folder, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differing = [key for key in IDENTITY_KEYS if stored.get(key) != identity[key]]
    if not differing:
        return
    changes = _changes(stored, identity) if differing == ["source"] else None
    details = f" ({'; '.join(changes.lines())})" if changes else ""
    fix = "pass --append to add them," if changes and changes.only_added else "pass"
    raise UsageError(
        f"{out.uri}: contains a conversion with different {', '.join(differing)}{details}; "
        f"{fix} --overwrite to replace it, or another --out"
    )


def _changes(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> Changes | None:
    try:
        return History.from_json(identity["source"]).since(History.from_json(stored["source"]))
    except (KeyError, TypeError):
        return None


def _read_identity(out: Folder, place: str) -> dict[str, Any] | None:
    """Read the identity of a conversion from the file `place` of `out`; None if there is no such file."""
    content = out.read_many([place])
    try:
        stored = parse_json(content[place]) if content else None
        return None if stored is None else {key: stored[key] for key in IDENTITY_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{out.uri}: {layout.META} is damaged ({error!r}); pass --overwrite to replace the dataset"
        ) from error


def undo_append(out: Folder) -> None:
    """Remove the files of an interrupted append."""
    known = {file["path"] for file in parse_json(out.read(layout.MANIFEST))["files"]}
    known |= {layout.index_file(path) for path in known}
    for below in (layout.DATA, layout.INDEX):
        for name in out.names(below):
            if f"{below}/{name}" not in known:
                out.remove(f"{below}/{name}")
    out.remove(layout.LEDGER)
    out.sync((layout.DATA, layout.INDEX, layout.META))


def _refuse_foreign_files(out: Folder) -> None:
    foreign = [name for name in out.names() if name != layout.META]
    foreign += [name for name in out.names(layout.META) if name not in {"lock", "ledger"}]
    if foreign:
        raise UsageError(f"{out.uri}: exists and is not a converted dataset ({min(foreign)}); --out needs a new folder")


def sweep(out: Folder) -> None:
    """Remove unfinished files of killed processes, and the recorded failures of earlier runs."""
    out.sweep(FOLDERS)
    clear_failures(out, layout.LEDGER)


def clear(out: Folder) -> None:
    """Remove a finished or unfinished dataset, but keep the caller's lock.

    The file with its identity is overwritten first. If the removal is interrupted, the remaining files are not mistaken
    for a complete dataset.
    """
    if out.size(layout.MANIFEST) is None and out.size(layout.IDENTITY) is None:
        return _refuse_foreign_files(out)
    if foreign := _foreign_files(out):
        raise UsageError(
            f"{out.uri}: contains '{min(foreign)}', which is not part of a dataset; --overwrite will not remove it"
        )
    out.write(layout.IDENTITY, b"{}")
    out.remove(layout.MANIFEST)
    out.sync((layout.META,))
    for name in (layout.DATA, layout.INDEX):
        out.remove(name)
    for place in [f"{layout.META}/{name}" for name in out.names(layout.META)]:
        if place not in {layout.LOCK, layout.LEDGER}:
            out.remove(place)
    out.sync(("", layout.META))
    out.remove(layout.LEDGER)  # last: until then, the remaining files are known to be ours
    out.sync((layout.META,))
    return None


def _foreign_files(out: Folder) -> set[str]:
    """List the names in `out` and in its `meta/` that are not part of a dataset."""
    known = {layout.MANIFEST, layout.EPISODES, layout.EPISODE_INDEX, layout.QUARANTINE}
    known |= {layout.LOCK, layout.LEDGER, layout.PENDING}
    known.update(file.place for file in layout.META_FILES)
    below = {f"{layout.META}/{name}" for name in out.names(layout.META) if not name.startswith(layout.UNFINISHED)}
    return set(out.names()) - {layout.DATA, layout.INDEX, layout.META} | below - known


def read_all_records(ledger: Ledger, names: Sequence[str]) -> list[ShardRecord]:
    """Read the records of all shards; raises UsageError if one is missing."""
    records = ledger.read(names)
    missing = [name for name in names if name not in records]
    if missing:
        raise UsageError(f"{ledger.out.uri}: the record of {missing[0]} is missing; run the conversion again")
    return [records[name] for name in names]
