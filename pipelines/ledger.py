"""The ledger: what a conversion has done so far, so that it goes on after any crash and never does a shard twice.

It lies in `meta/ledger/` until the manifest is written: `identity.json` says which conversion this is, and a finished
shard has a record. A shard's files come first and its record last, so a record that is there is the truth.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.records import ShardRecord
from pipelines.writers.parquet import FileRecord, write_atomically
from schemas import layout
from schemas.errors import UsageError
from schemas.source import Unreadable

RECORD, FAILURE, STOP = ".parquet", ".failed", "stopped"
META = b"oxe"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the right to write at `out`; while another process on this machine does, this is a UsageError."""
    try:
        (out / layout.META).mkdir(parents=True, exist_ok=True)
        with (out / layout.LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{out}: another conversion is writing here") from error
            try:
                yield
            finally:
                (out / layout.LOCK).unlink(missing_ok=True)
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
        table = pq.read_table(path, use_threads=False)
        about = json.loads(table.schema.metadata[META])
        file = FileRecord(**about["file"]) if about["file"] else None
        if file and not self._holds(file):
            return None
        return ShardRecord(
            file=file,
            episodes=tuple(table.to_pylist()),
            dropped=tuple((index, reason) for index, reason in about["dropped"]),
            quarantined=tuple(Unreadable(**problem) for problem in about["quarantined"]),
        )

    def _holds(self, file: FileRecord) -> bool:
        data, index = self.out / file.path, self.out / layout.index_file(file.path)
        return data.is_file() and data.stat().st_size == file.bytes and index.is_file()

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


def begin(out: Path, identity: Mapping[str, Any]) -> bool:
    """Start a conversion at `out`, or go on with it; say whether it is finished already.

    What another conversion left is a UsageError that names what differs.
    """
    stored = _identity(out)
    if stored is None:
        _refuse_strangers(out)
        for name in (layout.DATA, layout.INDEX, layout.LEDGER):
            (out / name).mkdir(exist_ok=True)
        write_atomically(out / layout.IDENTITY, json.dumps(identity).encode())
    elif stored != json.loads(json.dumps(identity)):
        differing = [key for key in identity if stored.get(key) != json.loads(json.dumps(identity[key]))]
        what = ", ".join(differing)
        raise UsageError(f"{out}: holds a conversion with another {what}; give --overwrite or another --out")
    sweep(out)
    return (out / layout.MANIFEST).is_file()


def _identity(out: Path) -> Any:
    """Read which conversion is at `out`: from the manifest of a finished one, else from the ledger."""
    manifest, identity = out / layout.MANIFEST, out / layout.IDENTITY
    try:
        if manifest.is_file():
            found = json.loads(manifest.read_bytes())
            return {key: found[key] for key in IDENTITY_KEYS}
        return json.loads(identity.read_bytes()) if identity.is_file() else None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out}: its {layout.META} is damaged ({error!r}); give --overwrite to replace it") from error


IDENTITY_KEYS = ("schema_version", "spec_digest", "source", "options")


def _refuse_strangers(out: Path) -> None:
    strangers = [path.name for path in out.iterdir() if path.name != layout.META]
    strangers += [path.name for path in (out / layout.META).iterdir() if path.name not in {"lock", "ledger"}]
    if strangers:
        raise UsageError(f"{out}: exists and is not a dataset of ours ({strangers[0]}); name an empty folder")


def sweep(out: Path) -> None:
    """Remove what a killed process was writing."""
    for name in (layout.DATA, layout.INDEX, layout.META, layout.LEDGER):
        for path in (out / name).glob("tmp-*"):
            path.unlink()
    for path in (out / layout.LEDGER).glob(f"*{FAILURE}"):
        path.unlink()
    (out / layout.LEDGER / STOP).unlink(missing_ok=True)


def clear(out: Path) -> None:
    """Remove a dataset of ours, finished or not, but not the lock that the caller holds."""
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder")
    if not {layout.DATA, layout.INDEX, layout.META} <= {path.name for path in out.iterdir()}:
        return _refuse_strangers(out)
    for name in (layout.DATA, layout.INDEX):
        shutil.rmtree(out / name)
    for path in (out / layout.META).iterdir():
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
