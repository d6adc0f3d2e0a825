"""The ledger: what a conversion has done so far, so that it goes on after any crash and never does a shard twice.

It lies in `meta/ledger/` until the manifest is written: `identity.json` says which conversion this is, and a finished
shard has a record. A shard's files come first and its record last, so a record that is there is the truth.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folders import write_atomically
from pipelines.records import ShardRecord
from pipelines.writers.parquet import FileRecord
from schemas import layout
from schemas.errors import UsageError
from schemas.source import Unreadable

RECORD, FAILURE, STOP = ".parquet", ".failed", "stopped"
META = b"oxe"
TMP = "tmp-" + 32 * "[0-9a-f]"  # not `tmp-*`: a split may be called tmp


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the right to write at `out`; while another process on this machine does, this is a UsageError.

    The lock is the process's, not the file's: one that was killed holds nothing.
    """
    try:
        (out / layout.META).mkdir(parents=True, exist_ok=True)
        with (out / layout.LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), (out / layout.LOCK).stat()):
                    raise BlockingIOError  # who held it has just removed it, and a third may hold the new one
            except (BlockingIOError, FileNotFoundError) as error:
                raise UsageError(f"{out}: another conversion is writing here") from error
            try:
                yield
            finally:
                (out / layout.LOCK).unlink(missing_ok=True)
                if not any((out / layout.META).iterdir()):
                    (out / layout.META).rmdir()  # refused: what is not ours is left as it was
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error


@dataclass(frozen=True, slots=True)
class Ledger:
    """The records of one output; `schema` is that of the episode table."""

    out: Path
    schema: pa.Schema

    def write(self, name: str, record: ShardRecord) -> None:
        """Say that a shard is done."""
        about = {
            "file": record.file.to_json() if record.file else None,
            "index_bytes": self._index(record.file).stat().st_size if record.file else None,
            "dropped": record.dropped,
            "quarantined": [problem.to_json() for problem in record.quarantined],
        }
        table = pa.Table.from_pylist(list(record.episodes), self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({META: json.dumps(about)}), sink)
        write_atomically(self._path(name + RECORD), bytes(sink.getvalue()))
        self._path(name + FAILURE).unlink(missing_ok=True)

    def read(self, name: str) -> ShardRecord | None:
        """Give a shard's record; None if it is not done, or its files are not what the record says."""
        path = self._path(name + RECORD)
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path, use_threads=False)
        except pa.ArrowInvalid:  # damaged: the shard is done again
            return None
        about = json.loads(table.schema.metadata[META])
        file = FileRecord(**about["file"]) if about["file"] else None
        if file and (_size(self.out / file.path), _size(self._index(file))) != (file.bytes, about["index_bytes"]):
            return None
        return ShardRecord(
            file=file,
            episodes=tuple(table.to_pylist()),
            dropped=tuple((index, reason) for index, reason in about["dropped"]),
            quarantined=tuple(Unreadable(**problem) for problem in about["quarantined"]),
        )

    def _index(self, file: FileRecord) -> Path:
        return self.out / layout.index_file(file.path)

    def fail(self, name: str, message: str) -> None:
        """Say that a shard could not be done, and why."""
        write_atomically(self._path(name + FAILURE), message.encode())

    def failures(self) -> dict[str, str]:
        """Give the shards that could not be done."""
        paths = sorted((self.out / layout.LEDGER).glob(f"*{FAILURE}"))
        return {path.name.removesuffix(FAILURE): path.read_text() for path in paths}

    def stop(self, message: str) -> None:
        """Ask every worker to begin no more shards, and say why."""
        write_atomically(self._path(STOP), message.encode())

    def stopped(self) -> str | None:
        """Say why the run was stopped, or None."""
        path = self._path(STOP)
        return path.read_text() if path.is_file() else None

    def finished(self) -> set[str]:
        """Name the shards that have a record, without reading them."""
        return {path.name.removesuffix(RECORD) for path in (self.out / layout.LEDGER).glob(f"*{RECORD}")}

    def close(self) -> None:
        """Remove it: the manifest is written and says all that it said."""
        shutil.rmtree(self.out / layout.LEDGER)

    def _path(self, name: str) -> Path:
        return self.out / layout.LEDGER / name


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def begin(out: Path, identity: Mapping[str, Any]) -> bool:
    """Start a conversion at `out`, or go on with it; say whether it is finished already.

    What another conversion left is a UsageError that names what differs.
    """
    stored = _identity(out)
    if stored is None:
        _refuse_strangers(out)
        (out / layout.LEDGER).mkdir(exist_ok=True)
        write_atomically(out / layout.IDENTITY, json.dumps(identity).encode())
    elif stored != json.loads(json.dumps(identity)):
        differing = [key for key in identity if stored.get(key) != json.loads(json.dumps(identity[key]))]
        what = ", ".join(differing)
        raise UsageError(f"{out}: holds a conversion with another {what}; give --overwrite or another --out")
    finished = (out / layout.MANIFEST).is_file()
    sweep(out)
    if finished:
        shutil.rmtree(out / layout.LEDGER, ignore_errors=True)  # of a process killed behind the manifest
    for name in () if finished else (layout.DATA, layout.INDEX):
        (out / name).mkdir(exist_ok=True)
    return finished


def _identity(out: Path) -> Any:
    """Read which conversion is at `out`: from the manifest of a finished one, else from the ledger."""
    manifest, identity = out / layout.MANIFEST, out / layout.IDENTITY
    try:
        path = manifest if manifest.is_file() else identity
        found = json.loads(path.read_bytes()) if path.is_file() else None
        return None if found is None else {key: found[key] for key in IDENTITY_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out}: its {layout.META} is damaged ({error!r}); give --overwrite to replace it") from error


IDENTITY_KEYS = ("schema_version", "spec_digest", "source", "options")


def _refuse_strangers(out: Path) -> None:
    strangers = [path.name for path in out.iterdir() if path.name != layout.META]
    strangers += [path.name for path in (out / layout.META).iterdir() if path.name not in {"lock", "ledger"}]
    if strangers:
        raise UsageError(f"{out}: exists and is not a dataset of ours ({min(strangers)}); name an empty folder")


def sweep(out: Path) -> None:
    """Remove what a killed process was writing."""
    for name in (layout.DATA, layout.INDEX, layout.META, layout.LEDGER):
        for path in (out / name).glob(TMP):
            path.unlink()
    for path in (out / layout.LEDGER).glob(f"*{FAILURE}"):
        path.unlink()
    (out / layout.LEDGER / STOP).unlink(missing_ok=True)


def clear(out: Path) -> None:
    """Remove a dataset of ours, finished or not, but not the lock that the caller holds.

    One that is removed in part never passes for a whole one: it has no identity until the last of it is gone.
    """
    if not (out / layout.MANIFEST).is_file() and not (out / layout.IDENTITY).is_file():
        return _refuse_strangers(out)
    if strangers := {path.name for path in out.iterdir()} - {layout.DATA, layout.INDEX, layout.META}:
        raise UsageError(f"{out}: holds '{min(strangers)}', which is not ours; --overwrite will not remove it")
    (out / layout.LEDGER).mkdir(exist_ok=True)
    write_atomically(out / layout.IDENTITY, b"{}")
    (out / layout.MANIFEST).unlink(missing_ok=True)
    for name in (layout.DATA, layout.INDEX):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for path in sorted((out / layout.META).iterdir(), key=(out / layout.LEDGER).__eq__):
        if path.is_dir():
            shutil.rmtree(path)
        elif path != out / layout.LOCK:
            path.unlink()
    return None


def ordered(ledger: Ledger, names: Sequence[str]) -> list[ShardRecord]:
    """Read the records of all shards; one that is missing is a bug or a deletion in mid-run: a UsageError."""
    records = [(name, ledger.read(name)) for name in names]
    lost = [name for name, record in records if record is None]
    if lost:
        raise UsageError(f"{ledger.out}: the record of {lost[0]} is gone; run the conversion again to redo it")
    return [record for _, record in records if record]
