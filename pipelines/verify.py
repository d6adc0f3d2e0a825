"""`verify`: read a published dataset and its source again, and compare every number, image byte, count and digest."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.beam.progress import Progress, silent
from pipelines.convert.binding import bind
from pipelines.convert.publish import counted, sealed
from pipelines.convert.records import Options
from pipelines.readers.history import History
from pipelines.readers.registry import open_source
from pipelines.statistics.kept import read_kept, unusable
from schemas.episode import Episode, Frames
from schemas.errors import OxeError, SourceError, UnreachableError
from schemas.files.folder import Folder
from schemas.source import Column, Ragged, Unreadable
from schemas.store import layout
from schemas.store.dataset import Dataset

SHOWN = 20  # differences that are reported in full
BLOCK = 1 << 20  # bytes that are hashed at a time
DAMAGE = (OxeError, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, pa.ArrowException)


@dataclass(slots=True)
class Verification:
    """What was compared, and the first differences."""

    source: str  # "compared", or why not
    files: int = 0
    episodes: int = 0
    steps: int = 0
    images: int = 0
    image_bytes: int = 0
    numbers: int = 0
    differences: int = 0
    first: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether nothing differs."""
        return not self.differences

    def differs(self, what: str) -> None:
        """Count a difference; the first ones are kept."""
        self.differences += 1
        if len(self.first) < SHOWN:
            self.first.append(what)

    def to_json(self) -> dict[str, Any]:
        """Give the form of `oxe verify --json` and of `meta/verification.json`."""
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__slots__}}


def verify(dataset: Dataset, *, source: str | None = None, progress: Progress = silent) -> Verification:
    """Check a dataset against itself and against its source.

    The source is the one given, or the one of the last conversion (`meta/runs.jsonl`). Where it cannot be reached, only
    the dataset itself is checked and the result says so; a `source` that is given and cannot be read is an error. A
    network that fails on the way is no difference but an UnreachableError.
    """
    out = Verification(source="compared")
    with damage(layout.MANIFEST, out):
        _check_files(dataset, out)
    with damage(layout.META, out):
        _check_table(dataset, out)
    with damage(layout.STATS, out):
        _check_statistics(dataset, out)
    with damage(layout.MANIFEST, out):
        _check_index(dataset, out)
    expected = _expected(dataset, source, out)
    with damage(layout.EPISODES, out):
        _check_episodes(dataset, expected, out, progress=progress)
    if dataset.folder.local:  # elsewhere one may have no right to write
        dataset.folder.write(layout.VERIFICATION, json.dumps(out.to_json(), indent=1).encode() + b"\n")
    return out


@contextmanager
def damage(place: str, out: Verification) -> Iterator[None]:
    """Count as a difference whatever a damaged file makes JSON, Arrow or our own code raise."""
    try:
        yield
    except UnreachableError:
        raise
    except DAMAGE as error:
        out.differs(f"{place}: cannot be read ({type(error).__name__}: {error})")


def _last_source(dataset: Dataset, out: Verification) -> str | None:
    with damage(layout.RUNS, out):
        log = dataset.folder.read_many([layout.RUNS]).get(layout.RUNS, b"")
        runs = [json.loads(line) for line in log.decode().splitlines()]
        return next((str(run["source"]) for run in reversed(runs) if "source" in run), None)
    return None


def _check_files(dataset: Dataset, out: Verification) -> None:
    """Compare digests with the manifest, and the manifest with its own; look for files it does not know."""
    manifest = {key: value for key, value in dataset.manifest.items() if key != "xxh3_128"}
    if sealed(manifest) != dataset.folder.read(layout.MANIFEST):
        out.differs(f"{layout.MANIFEST}: its content does not have the digest that it states")
    known = {layout.MANIFEST, *(file.place for file in layout.META_FILES)}
    expected = {
        layout.EPISODES: dataset.manifest["episodes_xxh3_128"],
        layout.QUARANTINE: dataset.manifest["quarantine_xxh3_128"],
    }
    for file in dataset.manifest["files"]:
        expected |= {file["path"]: file["xxh3_128"], layout.index_file(file["path"]): file["index_xxh3_128"]}
    for name, digest in expected.items():
        found = _digest(dataset.folder, name)
        out.files += 1
        if found != digest:
            out.differs(f"{name}: digest {found}, the manifest says {digest}")
    for below in (layout.DATA, layout.INDEX, layout.META):
        for leaf in dataset.folder.names(below):
            name = f"{below}/{leaf}"
            if name not in expected and name not in known and not leaf.startswith(layout.SCRATCH):
                out.differs(f"{name}: the manifest does not know this file")


def _digest(folder: Folder, name: str) -> str:
    digest = xxhash.xxh3_128()
    try:
        with folder.open(name) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return "no file"
    return digest.hexdigest()


def _check_table(dataset: Dataset, out: Verification) -> None:
    """Check that counts balance and that every file's rows are its episodes' steps."""
    manifest = dataset.manifest
    balance = manifest["balance"]
    left_out = sum(balance["dropped"].values()) + sum(balance["quarantined"].values())
    if balance["source"] != balance["kept"] + left_out:
        out.differs(f"balance: {balance['source']} episodes in the source, {balance['kept']} kept, {left_out} left out")
    table = _table(dataset, layout.EPISODES).select(["split", "length"]).to_pylist()
    if len(table) != balance["kept"]:
        out.differs(f"balance: {balance['kept']} episodes kept, {layout.EPISODES} has {len(table)}")
    if counted(table) != manifest["splits"]:
        out.differs(f"splits: the manifest says {manifest['splits']}, {layout.EPISODES} has {counted(table)}")
    rows = [dataset.where(i) for i in range(len(table))]
    ends = {file["path"]: 0 for file in manifest["files"]}
    for path, row, length in rows:
        if row != ends[path]:
            out.differs(f"{path}: an episode starts at row {row}, expected {ends[path]}")
        ends[path] = row + length
    for file in manifest["files"]:
        if ends[file["path"]] != file["rows"]:
            out.differs(f"{file['path']}: {file['rows']} rows, its episodes have {ends[file['path']]} steps")
    steps = sum(length for _, _, length in rows)
    if steps != manifest["steps"]:
        out.differs(f"manifest: {manifest['steps']} steps, the episodes have {steps}")
    quarantine = _table(dataset, layout.QUARANTINE).num_rows
    if quarantine != sum(balance["quarantined"].values()):
        out.differs(f"{layout.QUARANTINE}: {quarantine} rows, the manifest says {balance['quarantined']}")


def _table(dataset: Dataset, name: str) -> pa.Table:
    return pq.read_table(pa.py_buffer(dataset.folder.read(name)))


def _check_statistics(dataset: Dataset, out: Verification) -> None:
    """Check that kept statistics are whole and belong to this content."""
    for found in read_kept(dataset):
        if why := unusable(dataset, found):
            out.differs(f"{layout.STATS}: {why}")


def _check_index(dataset: Dataset, out: Verification) -> None:
    """Compare every image that pyarrow reads with the slice that the index gives."""
    for entry in dataset.manifest["files"]:
        with damage(entry["path"], out):
            file = dataset.file(entry["path"])
            for number, camera in enumerate(dataset.columns.cameras):
                row = 0
                for batch in file.parquet.iter_batches(batch_size=128, columns=[camera.column]):
                    for stored in batch.column(0):
                        image = stored.as_py()
                        out.images += image is not None
                        out.image_bytes += len(image["bytes"]) if image else 0
                        if (image and image["bytes"]) != file.image(row, number):
                            out.differs(f"{entry['path']}: row {row}: {camera.column}: the index points elsewhere")
                        row += 1


def _expected(dataset: Dataset, source: str | None, out: Verification) -> Iterator[Episode] | None:
    """Give the episodes to compare with; None where the source cannot be reached and nobody asked for it."""
    uri = source or _last_source(dataset, out)
    if uri is None:
        out.source = f"not compared: no source given, and {layout.RUNS} names none"
        return None
    try:
        return _from_source(dataset, uri, out)
    except OxeError as error:
        if source:
            raise
        out.source = f"not compared: {error}"
    except DAMAGE as error:
        out.source = f"not compared: {layout.MANIFEST} does not say how ({type(error).__name__}: {error})"
        out.differs(out.source)
    return None


def _from_source(dataset: Dataset, uri: str, out: Verification) -> Iterator[Episode]:
    """Read the source as the conversion did; its fingerprint, drops and quarantine are compared on the way."""
    manifest = dataset.manifest
    options = Options.from_json(manifest["options"])
    reader = open_source(uri, dataset.spec.source)
    binding = bind(dataset.spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
    then, now = History.from_json(manifest["source"]), History.of(reader)
    for key, value in reader.description().items():
        if value != manifest["source"].get(key):
            out.differs(f"source: {key} is {value}, at the conversion it was {manifest['source'].get(key)}")
    for line in now.since(then).lines():
        out.differs(f"source: since the conversion {line}")
    planned = now.after(then).plan(reader.files(), split=options.split, limit=options.limit)
    refs = chain.from_iterable(planned[: len(then.ends)])  # without what was added since
    balance = manifest["balance"]

    def episodes() -> Iterator[Episode]:
        left_out: dict[str, int] = {}
        for ref in refs:
            for raw in reader.read(ref, binding.columns):
                try:
                    reason = raw.reason if isinstance(raw, Unreadable) else binding.why_drop(raw)
                    episode = None if isinstance(raw, Unreadable) or reason else binding.episode(raw)
                except SourceError as error:
                    episode, reason = None, error.reason
                if episode is not None:
                    yield episode
                else:
                    left_out[str(reason)] = left_out.get(str(reason), 0) + 1
        expected = {**balance["dropped"], **balance["quarantined"]}
        if left_out != expected:
            out.differs(f"source: left out {left_out}, at the conversion {expected}")

    return episodes()


def _check_episodes(
    dataset: Dataset, expected: Iterator[Episode] | None, out: Verification, *, progress: Progress
) -> None:
    """Compare every stored episode with its hash, and with the one of the same index that the source gives now."""
    table = _table(dataset, layout.EPISODES).select(["episode_index", "content_hash"])
    indices, hashes = (column.to_pylist() for column in table.columns)
    wanted = next(expected, None) if expected else None
    for i, (index, digest) in enumerate(zip(indices, hashes, strict=True)):
        stored = _stored(dataset, i, out, digest=digest)
        while expected and wanted and wanted.index < index:
            out.differs(f"episode {wanted.id}: in the source, not in the dataset")
            wanted = next(expected, None)
        if expected and (wanted is None or wanted.index != index):
            out.differs(f"episode {index}: in the dataset, not in the source")
        elif expected and wanted:
            if stored:
                compare(stored, wanted, out)
            wanted = next(expected, None)
        progress(1, 0)
    for missing in [wanted, *expected] if expected and wanted else []:
        out.differs(f"episode {missing.id}: in the source, not in the dataset")


def _stored(dataset: Dataset, i: int, out: Verification, *, digest: str) -> Episode | None:
    """Read one stored episode; its hash and its materialized views must be right."""
    try:
        stored = dataset.episode(i)
        _check_views(dataset, i, out, stored=stored)
    except UnreachableError:
        raise
    except DAMAGE as error:
        out.differs(f"episode {i}: cannot be read ({type(error).__name__}: {error})")
        return None
    out.episodes += 1
    out.steps += len(stored)
    out.numbers += sum(column.size for column in stored.columns().values() if isinstance(column, np.ndarray))
    if stored.content_hash() != digest:
        out.differs(f"episode {i} ({stored.id}): its content does not have the hash of {layout.EPISODES}")
    return stored


def _check_views(dataset: Dataset, i: int, out: Verification, *, stored: Episode) -> None:
    path, row, length = dataset.where(i)
    for column in dataset.columns.views:
        viewed = dataset.view(column.name).of(stored)
        cells = dataset.file(path).rows(row, length, [column.column])[column.column].to_pylist()
        kept = [cell for cell in cells if cell is not None]
        same = [cell is not None for cell in cells] == viewed.mask.tolist()
        if not same or not np.array_equal(np.array(kept, np.float32).reshape(viewed.action.shape), viewed.action):
            out.differs(f"episode {i} ({stored.id}): {column.column} is not what the view gives")


def compare(stored: Episode, wanted: Episode, out: Verification) -> None:
    """Compare two episodes, value by value; numbers are equal bit for bit."""
    for name in ("id", "index", "split", "instructions", "control_hz", "outcome", "metadata"):
        ours, theirs = (_told(getattr(episode, name)) for episode in (stored, wanted))
        if ours != theirs:
            out.differs(f"episode {wanted.id}: {name} is {ours}, the source gives {theirs}")
    here, there = stored.columns(), wanted.columns()
    for name in sorted(here.keys() | there.keys()):
        if name not in here or name not in there:
            out.differs(f"episode {wanted.id}: {name} is only in the {'dataset' if name in here else 'source'}")
            continue
        place = first_difference(here[name], there[name])
        if place is not None:
            out.differs(f"episode {wanted.id}: {name}: {place}")


def _told(value: Any) -> str:
    """Write a value so that NaN equals itself; which entry of a table comes first means nothing."""
    return repr(dict(sorted(value.items()))) if isinstance(value, Mapping) else repr(value)


def first_difference(ours: Column | Frames, theirs: Column | Frames) -> str | None:
    """Say where two columns first differ, or None."""
    if isinstance(ours, Ragged) and isinstance(theirs, Ragged):
        levels = [*zip(ours.lengths, theirs.lengths, strict=True), (ours.values, theirs.values)]
        return next((place for a, b in levels if (place := first_difference(a, b)) is not None), None)
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return f"{ours.dtype} {list(ours.shape)}, the source gives {theirs.dtype} {list(theirs.shape)}"
        same = _bits(ours) == _bits(theirs)
        if same.all():
            return None
        at = tuple(int(i) for i in np.argwhere(~same.reshape(ours.shape))[0])
        return f"{list(at)} is {ours[at]}, the source gives {theirs[at]}"
    for step, (a, b) in enumerate(zip_longest(ours, theirs)):  # type: ignore[arg-type]
        if a != b:
            sizes = ["nothing" if item is None else f"{len(item)} bytes" for item in (a, b)]
            return f"step {step}: {sizes[0]}, the source gives {sizes[1]}; they differ"
    return None


def _bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """View numbers as bits, so that NaN equals itself and 0.0 is not -0.0."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(f"u{flat.dtype.itemsize}")
