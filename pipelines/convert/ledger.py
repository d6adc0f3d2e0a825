"""The ledger: what a conversion has done so far, so that it goes on after any crash and never does a shard twice.

It lies in `meta/ledger/` until the manifest is written: `identity.json` says which conversion this is, and a finished
shard has a record. A shard's files come first and its record last, so a record that is there is the truth.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.beam.shards import FAILURE, Marks, forgive
from pipelines.convert.parquet import FileRecord
from pipelines.convert.records import ShardRecord
from pipelines.readers.history import Changes, History, check_only_added
from schemas.errors import UsageError
from schemas.files.folder import Folder
from schemas.source import Unreadable
from schemas.store import layout

META = b"oxe"
FOLDERS = (layout.DATA, layout.INDEX, layout.META, layout.LEDGER)
IDENTITY_KEYS = ("schema_version", "spec_digest", "source", "options")


@contextmanager
def locked(out: Folder, lock: str = layout.LOCK) -> Iterator[None]:
    """Hold the right to write at `out`; while another process does, this is a UsageError."""
    below = lock.rpartition("/")[0]
    is_new = out.local is not None and not out.local.exists()
    try:
        try:
            with out.exclusive(lock):
                yield
        finally:
            if out.local and not out.names(below):  # refused: the folder is left as it was
                out.remove(below)
            if is_new and not out.names():
                out.remove("")
    except BlockingIOError as error:
        told = f" ({error.strerror}; remove it if that process is no more)" if error.strerror and not out.local else ""
        raise UsageError(f"{out.uri}: another process is writing here{told}") from error
    except OSError as error:
        raise UsageError(f"{out.uri}: cannot be written ({error})") from error


@dataclass(frozen=True, slots=True)
class Ledger(Marks):
    """The records of one output; `schema` is that of the episode table."""

    BELOW = layout.LEDGER
    RECORD = ".parquet"
    schema: pa.Schema

    def write(self, name: str, record: ShardRecord) -> None:
        """Say that a shard is done."""
        about = {
            "file": record.file.to_json() if record.file else None,
            "index_bytes": self.out.size(layout.index_file(record.file.path)) if record.file else None,
            "dropped": record.dropped,
            "quarantined": [problem.to_json() for problem in record.quarantined],
        }
        table = pa.Table.from_pylist(list(record.episodes), self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({META: json.dumps(about)}), sink)
        self.out.write(self.place(name + self.RECORD), bytes(sink.getvalue()))
        self.out.remove(self.place(name + FAILURE))

    def read(self, names: Iterable[str]) -> dict[str, ShardRecord]:
        """Give the records of those shards that are done and whose files are what their records say."""
        stored = self.out.read_many(self.place(name + self.RECORD) for name in names)
        found = {self.shard_of(place): self._parse(content) for place, content in stored.items()}
        files = [file.path for about, _ in filter(None, found.values()) if (file := about["file"])]
        sizes = self.out.sizes([path for file in files for path in (file, layout.index_file(file))])
        return {
            name: _record(about, table)
            for name, (about, table) in ((n, r) for n, r in found.items() if r)
            if (file := about["file"]) is None
            or (sizes[file.path], sizes[layout.index_file(file.path)]) == (file.bytes, about["index_bytes"])
        }

    @staticmethod
    def _parse(content: bytes) -> tuple[dict[str, Any], pa.Table] | None:
        try:
            table = pq.read_table(pa.py_buffer(content), use_threads=False)
        except pa.ArrowInvalid:  # damaged: the shard is done again
            return None
        about = json.loads(table.schema.metadata[META])
        return {**about, "file": FileRecord(**about["file"]) if about["file"] else None}, table

    def close(self) -> None:
        """Remove it: the manifest is written and says all that it said."""
        self.out.remove(layout.LEDGER)


def _record(about: Mapping[str, Any], table: pa.Table) -> ShardRecord:
    return ShardRecord(
        file=about["file"],
        episodes=tuple(table.to_pylist()),
        dropped=tuple((index, reason) for index, reason in about["dropped"]),
        quarantined=tuple(Unreadable.from_json(problem) for problem in about["quarantined"]),
    )


def begin(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Start a conversion at `out`, or go on with it; say whether it is finished already.

    What another conversion left is a UsageError that names what differs.
    """
    stored = published(out)
    under_way = _identity(out, layout.IDENTITY)
    if stored is not None:
        _check_same(out, stored, identity)
        if under_way in (None, identity):
            out.remove(layout.LEDGER)  # of a process killed behind the manifest; another one is of an append
    elif under_way is None:
        _refuse_strangers(out)
        _open(out, identity)
    else:
        _check_same(out, under_way, identity)
    sweep(out)
    return stored is not None


def begin_append(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Start to append to the finished dataset at `out`, or go on with it; say whether there is nothing to do.

    An append of other files that did not end is undone first: what it wrote was never part of the dataset.
    """
    finished = is_finished(out, identity)
    if finished or _identity(out, layout.IDENTITY) != identity:
        _undo(out)
    sweep(out)
    if not finished:
        _open(out, identity)
    return finished


def is_finished(out: Folder, identity: Mapping[str, Any]) -> bool:
    """Say whether the dataset at `out` holds all that it would after `--append`; it must be one to which that fits."""
    stored = published(out)
    if stored is None:
        raise UsageError(f"{out.uri}: no finished dataset to append to; convert without --append")
    if identity["options"]["limit"] is not None:
        raise UsageError(f"{out.uri}: --append and --limit do not go together")
    files = {key: stored["source"][key] for key in ("files", "generations")}
    _check_same(out, stored, {**identity, "source": {**identity["source"], **files}})
    check_only_added(History.from_json(identity["source"]).since(History.from_json(stored["source"])), out.uri)
    return stored == identity


def published(out: Folder) -> dict[str, Any] | None:
    """Say which conversion the manifest at `out` is of; None where there is none."""
    return _identity(out, layout.MANIFEST)


def _open(out: Folder, identity: Mapping[str, Any]) -> None:
    out.write(layout.IDENTITY, json.dumps(identity).encode())


def _check_same(out: Folder, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differing = [key for key in IDENTITY_KEYS if stored.get(key) != identity[key]]
    if not differing:
        return
    changes = _changes(stored, identity) if differing == ["source"] else None
    told = f" ({'; '.join(changes.lines())})" if changes else ""
    way_out = "give --append to add them, or" if changes and changes.only_added else "give"
    what = ", ".join(differing)
    raise UsageError(f"{out.uri}: holds a conversion with another {what}{told}; {way_out} --overwrite or another --out")


def _changes(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> Changes | None:
    try:
        return History.from_json(identity["source"]).since(History.from_json(stored["source"]))
    except (KeyError, TypeError):
        return None


def _identity(out: Folder, place: str) -> dict[str, Any] | None:
    """Read which conversion is at `out`: from the manifest of a finished one, or from the ledger."""
    content = out.read_many([place])
    try:
        found = json.loads(content[place]) if content else None
        return None if found is None else {key: found[key] for key in IDENTITY_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{out.uri}: its {layout.META} is damaged ({error!r}); give --overwrite to replace it"
        ) from error


def _undo(out: Folder) -> None:
    """Remove the files of an append that did not end."""
    known = {file["path"] for file in json.loads(out.read(layout.MANIFEST))["files"]}
    known |= {layout.index_file(path) for path in known}
    for below in (layout.DATA, layout.INDEX):
        for name in out.names(below):
            if f"{below}/{name}" not in known:
                out.remove(f"{below}/{name}")
    out.remove(layout.LEDGER)


def _refuse_strangers(out: Folder) -> None:
    strangers = [name for name in out.names() if name != layout.META]
    strangers += [name for name in out.names(layout.META) if name not in {"lock", "ledger"}]
    if strangers:
        raise UsageError(f"{out.uri}: exists and is not a dataset of ours ({min(strangers)}); name an empty folder")


def sweep(out: Folder) -> None:
    """Remove what a killed process was writing, and what failed."""
    out.sweep(FOLDERS)
    forgive(out, layout.LEDGER)


def clear(out: Folder) -> None:
    """Remove a dataset of ours, finished or not, but not the lock that the caller holds.

    One that is removed in part never passes for a whole one: it has no identity until the last of it is gone.
    """
    if out.size(layout.MANIFEST) is None and out.size(layout.IDENTITY) is None:
        return _refuse_strangers(out)
    if strangers := _strangers(out):
        raise UsageError(f"{out.uri}: holds '{min(strangers)}', which is not ours; --overwrite will not remove it")
    out.write(layout.IDENTITY, b"{}")
    out.remove(layout.MANIFEST)
    for name in (layout.DATA, layout.INDEX):
        out.remove(name)
    places = [f"{layout.META}/{name}" for name in out.names(layout.META)]
    for place in sorted(places, key=layout.LEDGER.__eq__):  # the ledger last
        if place != layout.LOCK:
            out.remove(place)
    return None


def _strangers(out: Folder) -> set[str]:
    """Name what lies at `out` and in its `meta/` and is no part of a dataset."""
    known = {layout.MANIFEST, layout.EPISODES, layout.QUARANTINE, layout.LOCK, layout.LEDGER}
    known.update(file.place for file in layout.META_FILES)
    below = {f"{layout.META}/{name}" for name in out.names(layout.META) if not name.startswith(layout.UNFINISHED)}
    return set(out.names()) - {layout.DATA, layout.INDEX, layout.META} | below - known


def ordered(ledger: Ledger, names: Sequence[str]) -> list[ShardRecord]:
    """Read the records of all shards; one that is missing is a bug or a deletion in mid-run: a UsageError."""
    records = ledger.read(names)
    lost = [name for name in names if name not in records]
    if lost:
        raise UsageError(f"{ledger.out.uri}: the record of {lost[0]} is gone; run the conversion again to redo it")
    return [records[name] for name in names]
