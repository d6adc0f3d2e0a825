"""`verify`: compare a published dataset with its digests and with its source."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.beam.progress import Progress, silent
from pipelines.convert.binding import Binding, bind
from pipelines.convert.files import digest_of
from pipelines.convert.publish import count_splits
from pipelines.convert.records import Options
from pipelines.convert.turned import turned_notes
from pipelines.readers.coverage import Coverage
from pipelines.readers.history import History
from pipelines.readers.reader import Reader, ShardRef
from pipelines.readers.registry import open_source
from pipelines.statistics.cache import read_cache, why_outdated
from schemas.episode import Episode, Frames
from schemas.errors import OxeError, SourceError, UnreachableError
from schemas.files import durable
from schemas.parsing import parse_json
from schemas.source import Column, Ragged, Unreadable
from schemas.store import layout
from schemas.store.checks import crc
from schemas.store.data_file import DataFile
from schemas.store.dataset import Dataset
from schemas.store.episode_index import EpisodeIndex
from schemas.store.manifest import digests, encode_manifest
from schemas.text import HIDDEN

SHOWN = 20  # number of differences that are reported in full
DAMAGE = (OxeError, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, pa.ArrowException)


@dataclass(slots=True)
class Verification:
    """The result of `verify`: counts of what was compared, and the first differences."""

    source: str  # "compared", or the reason why the source was not compared
    files: int = 0
    episodes: int = 0
    steps: int = 0
    images: int = 0
    image_bytes: int = 0
    numbers: int = 0
    differences: int = 0
    first: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # guesses on which both the conversion and this comparison rest

    @property
    def ok(self) -> bool:
        """Whether no difference was found."""
        return not self.differences

    def differs(self, what: str) -> None:
        """Count a difference; the first 20 are also reported in full."""
        self.differences += 1
        if len(self.first) < SHOWN:
            self.first.append(what)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe verify --json` prints and that `meta/verification.json` contains."""
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__slots__}}


def verify(
    dataset: Dataset,
    *,
    source: str | None = None,
    follow_links: bool = False,
    digests_only: bool = False,
    sample: int | None = None,
    progress: Progress = silent,
) -> Verification:
    """Check a dataset against its own digests and against its source.

    With `digests_only`, only the digests and counts are checked. With `sample`, that many episodes, spread evenly over
    the dataset, are read and compared with the source, and the digests of the data files are not computed. The result
    of a full comparison is written to `meta/verification.json`, if the dataset is on this machine and not read-only.

    If `source` is None, the source of the last conversion is used, as recorded in `meta/runs.jsonl`. If that source
    cannot be read, only the dataset is checked, and `Verification.source` contains the reason. Links that leave the
    source are followed with `follow_links`, or if the last conversion followed them.

    If `source` is passed and cannot be read, the OxeError of its reader is raised. Raises UnreachableError if the
    network fails.
    """
    dataset = Dataset(dataset.folder, checked=False)
    result = Verification(source="compared")
    with catch_damage(layout.MANIFEST, result):
        _check_files(dataset, result, data=sample is None)
    with catch_damage(layout.META, result):
        _check_table(dataset, result)
    with catch_damage(layout.EPISODE_INDEX, result):
        _check_episode_index(dataset, result)
    with catch_damage(layout.STATS, result):
        _check_statistics(dataset, result)
    result.notes += [*Coverage.from_json(dataset.manifest).sentences(), *turned_notes(dataset.manifest)]
    if digests_only:
        result.source = "not compared: only the digests were checked"
        return result
    positions: Sequence[int] = ()
    with catch_damage(layout.MANIFEST, result):
        positions = _spread(dataset.manifest["balance"]["kept"], sample)
        if sample is None:
            _check_index(dataset, result)
        else:
            _check_index_of(dataset, positions, result)
    chosen = None if sample is None else positions
    expected = _source_episodes(dataset, source, result, follow_links=follow_links, positions=chosen)
    with catch_damage(layout.EPISODES, result):
        _check_episodes(dataset, expected, result, positions=positions, progress=progress)
    if sample is None:
        _store(dataset, result)
    return result


def _spread(episodes: int, sample: int | None) -> Sequence[int]:
    """Return the positions of all episodes, or of `sample` of them, spread evenly."""
    if sample is None or sample >= episodes:
        return range(episodes)
    return [(2 * i + 1) * episodes // (2 * sample) for i in range(sample)]


def _store(dataset: Dataset, result: Verification) -> None:
    """Write the result beside the dataset; if that fails, only a note says so."""
    if dataset.folder.local is None:  # a remote folder may be read-only
        return
    try:
        dataset.folder.write(layout.VERIFICATION, json.dumps(result.to_json(), indent=1).encode() + b"\n")
    except OSError as error:
        result.notes.append(f"{layout.VERIFICATION} was not written ({error.strerror})")


@contextmanager
def catch_damage(path: str, result: Verification) -> Iterator[None]:
    """Catch the errors that a damaged file causes in JSON, Arrow or our own code, and count each as a difference."""
    try:
        yield
    except UnreachableError:
        raise
    except DAMAGE as error:
        result.differs(f"{path}: cannot be read ({type(error).__name__}: {error})")


def _last_source(dataset: Dataset, result: Verification) -> str | None:
    with catch_damage(layout.RUNS, result):
        log = dataset.folder.read_many([layout.RUNS]).get(layout.RUNS, b"")
        runs = [parse_json(line) for line in log.decode().splitlines()]
        return next((str(run["source"]) for run in reversed(runs) if "source" in run), None)
    return None


def _check_files(dataset: Dataset, result: Verification, *, data: bool) -> None:
    """Compare the digest of each file with the manifest, check the manifest's own digest, and look for extra files.

    Without `data`, only the sizes of the data files are compared.
    """
    manifest = {key: value for key, value in dataset.manifest.items() if key != "xxh3_128"}
    if encode_manifest(manifest) != dataset.folder.read(layout.MANIFEST):
        result.differs(f"{layout.MANIFEST}: its digest does not match its content")
    known = {layout.MANIFEST, layout.PENDING, layout.LOCK, *(file.place for file in layout.META_FILES)}
    replaced = digests(dataset.manifest)  # files that may be in `meta/pending/` while a command replaces them
    expected = replaced | {file["path"]: file["xxh3_128"] for file in dataset.manifest["files"]}
    large = {} if data else {file["path"]: file["bytes"] for file in dataset.manifest["files"]}
    for name, size in dataset.folder.sizes(large).items():
        if size != large[name]:
            result.differs(f"{name}: {'no file' if size is None else f'{size} bytes'}, the manifest has {large[name]}")
    for name, digest in expected.items():
        actual = digest if name in large else digest_of(dataset.folder, name)
        result.files += 1
        if actual != digest and name in replaced and digest_of(dataset.folder, layout.pending(name)) == digest:
            continue
        if actual != digest:
            result.differs(f"{name}: digest {actual or 'no file'}, the manifest has {digest}")
    for below in (layout.DATA, layout.INDEX, layout.META):
        for leaf in dataset.folder.names(below):
            name = f"{below}/{leaf}"
            is_unfinished = leaf.startswith(layout.SCRATCH) or durable.NAME.fullmatch(leaf)
            if name not in expected and name not in known and not is_unfinished:
                result.differs(f"{name}: the manifest does not list this file")


def _check_table(dataset: Dataset, result: Verification) -> None:
    """Check that the counts add up, and that each file has exactly one row per step of its episodes."""
    manifest = dataset.manifest
    balance = manifest["balance"]
    left_out = sum(balance["dropped"].values()) + sum(balance["quarantined"].values())
    if balance["source"] != balance["kept"] + left_out:
        result.differs(
            f"balance: {balance['source']} episodes in the source, {balance['kept']} kept, {left_out} left out"
        )
    table = _table(dataset, layout.EPISODES).select(["split", "length"]).to_pylist()
    if len(table) != balance["kept"]:
        result.differs(f"balance: {balance['kept']} episodes kept, {layout.EPISODES} has {len(table)}")
    if count_splits(table) != manifest["splits"]:
        result.differs(f"splits: the manifest has {manifest['splits']}, {layout.EPISODES} has {count_splits(table)}")
    rows = [dataset.where(i) for i in range(len(table))]
    ends = {file["path"]: 0 for file in manifest["files"]}
    for path, row, length in rows:
        if row != ends[path]:
            result.differs(f"{path}: an episode starts at row {row}, expected {ends[path]}")
        ends[path] = row + length
    for file in manifest["files"]:
        if ends[file["path"]] != file["rows"]:
            result.differs(f"{file['path']}: {file['rows']} rows, its episodes have {ends[file['path']]} steps")
    steps = sum(length for _, _, length in rows)
    if steps != manifest["steps"]:
        result.differs(f"manifest: {manifest['steps']} steps, the episodes have {steps}")
    quarantine = _table(dataset, layout.QUARANTINE).num_rows
    if quarantine != sum(balance["quarantined"].values()):
        result.differs(f"{layout.QUARANTINE}: {quarantine} rows, the manifest has {balance['quarantined']}")


def _table(dataset: Dataset, name: str) -> pa.Table:
    return pq.read_table(pa.py_buffer(dataset.read_listed(name)))


def _check_episode_index(dataset: Dataset, result: Verification) -> None:
    """Check that `meta/episodes.idx` has the same episodes as the episode table."""
    if dataset.version < 3:
        return
    table = _table(dataset, layout.EPISODES).select(["file", "split", "row", "length"]).to_pydict()
    expected = EpisodeIndex.of(table, dataset.manifest["files"], cameras=len(dataset.columns.cameras))
    if expected.encode() != dataset.read_listed(layout.EPISODE_INDEX):
        result.differs(f"{layout.EPISODE_INDEX}: does not have the episodes of {layout.EPISODES}")


def _check_statistics(dataset: Dataset, result: Verification) -> None:
    """Check that the cached statistics are undamaged, and that they were computed from the current content."""
    for record in read_cache(dataset):
        if why := why_outdated(dataset, record):
            result.differs(f"{layout.STATS}: {why}")


def _check_index(dataset: Dataset, result: Verification) -> None:
    """Read every image with pyarrow, and compare it with the bytes that the index points to."""
    for entry in dataset.manifest["files"]:
        with catch_damage(entry["path"], result):
            file = dataset.file(entry["path"])
            for number, camera in enumerate(dataset.columns.cameras):
                row = 0
                for batch in file.parquet.iter_batches(batch_size=128, columns=[camera.column]):
                    for stored in batch.column(0):
                        image = stored.as_py()
                        result.images += image is not None
                        result.image_bytes += len(image["bytes"]) if image else 0
                        _check_image(file, image and image["bytes"], at=(row, number), result=result)
                        row += 1


def _check_image(file: DataFile, image: bytes | None, *, at: tuple[int, int], result: Verification) -> None:
    place = f"{file.path}: row {at[0]}: {file.index.columns[at[1]]}"
    if image != file.image(*at):
        result.differs(f"{place}: the index points to other bytes")
    elif image and file.index.checks and crc(image) != file.index.images[at]["crc"]:
        result.differs(f"{place}: the index has another CRC-32C")


def _check_index_of(dataset: Dataset, positions: Sequence[int], result: Verification) -> None:
    """Compare the images of some episodes with the bytes that the index points to."""
    for path, first, length in map(dataset.where, positions):
        with catch_damage(path, result):
            file = dataset.file(path)
            groups = file.numbers.groups(first, first + length)
            start = int(file.numbers.group_starts[groups[0]])
            for number, camera in enumerate(dataset.columns.cameras):
                table = file.parquet.read_row_groups([*range(*groups)], columns=[camera.column], use_threads=False)
                for row, image in enumerate(table.column(0).slice(first - start, length).to_pylist(), first):
                    result.images += image is not None
                    result.image_bytes += len(image["bytes"]) if image else 0
                    _check_image(file, image and image["bytes"], at=(row, number), result=result)


def _source_episodes(
    dataset: Dataset,
    source: str | None,
    result: Verification,
    *,
    follow_links: bool,
    positions: Sequence[int] | None,
) -> Iterator[Episode] | None:
    """Return the episodes of the source, or only those at some positions of the dataset.

    Returns None if `source` is None and the source of the last conversion is unknown or cannot be read.
    """
    uri = source or _last_source(dataset, result)
    if uri is None or HIDDEN in uri:
        why = "does not keep the password of its source" if uri else "names no source"
        result.source = f"not compared: {layout.RUNS} {why}; pass --source"
        return None
    try:
        return _read_source(dataset, uri, result, follow_links=follow_links, positions=positions)
    except OxeError as error:
        if source:
            raise
        result.source = f"not compared: {error}"
    except DAMAGE as error:
        result.source = f"not compared: {layout.MANIFEST} cannot be read ({type(error).__name__}: {error})"
        result.differs(result.source)
    return None


def _read_source(
    dataset: Dataset, uri: str, result: Verification, *, follow_links: bool, positions: Sequence[int] | None
) -> Iterator[Episode]:
    """Return the episodes of the source, converted as in the last conversion.

    This also compares the description of the source and, if all episodes are read, the counts of dropped and
    quarantined episodes.
    """
    manifest = dataset.manifest
    options = Options.from_json(manifest["options"])
    reader = open_source(uri, dataset.spec.source, follow_links=follow_links or options.follow_links)
    binding = bind(dataset.spec, reader.fields, keep_raw=options.keep_raw, materialize=options.materialize)
    past, now = History.from_json(manifest["source"]), History.of(reader)
    for key, value in reader.description().items():
        if value != manifest["source"].get(key):
            result.differs(f"source: {key} is {value}, at the conversion it was {manifest['source'].get(key)}")
    for line in now.since(past).lines():
        result.differs(f"source: since the conversion {line}")
    planned = now.after(past).plan(reader.files(), split=options.split, limit=options.limit)
    added_after = len(past.ends)  # files from there on were added after the conversion
    refs: Iterable[ShardRef] = chain.from_iterable(planned[:added_after])
    if positions is not None:
        refs = _only(refs, set(_table(dataset, layout.EPISODES)["episode_index"].take(list(positions)).to_pylist()))
    balance = manifest["balance"]

    def episodes() -> Iterator[Episode]:
        left_out: dict[str, int] = {}
        yield from _converted_again(reader, binding, refs, left_out=left_out)
        expected = {**balance["dropped"], **balance["quarantined"]}
        if positions is None and left_out != expected:
            result.differs(f"source: left out {left_out}, at the conversion {expected}")

    return episodes()


def _converted_again(
    reader: Reader, binding: Binding, refs: Iterable[ShardRef], *, left_out: dict[str, int]
) -> Iterator[Episode]:
    """Yield the episodes that are kept, and count the others in `left_out` by their reason."""
    for raw in chain.from_iterable(reader.read(ref, binding.columns) for ref in refs):
        try:
            reason = raw.reason if isinstance(raw, Unreadable) else binding.drop_reason(raw)
            episode = None if isinstance(raw, Unreadable) or reason else binding.episode(raw)
        except SourceError as error:
            episode, reason = None, error.reason
        if episode is not None:
            yield episode
        else:
            left_out[str(reason)] = left_out.get(str(reason), 0) + 1


def _check_episodes(
    dataset: Dataset,
    expected: Iterator[Episode] | None,
    result: Verification,
    *,
    positions: Sequence[int],
    progress: Progress,
) -> None:
    """Compare stored episodes with their hashes, and with the episodes of the source that have the same index."""
    table = _table(dataset, layout.EPISODES).select(["episode_index", "content_hash"])
    rows = table.take(list(positions)) if len(positions) < len(table) else table
    wanted = next(expected, None) if expected else None
    for i, index, digest in zip(positions, *(column.to_pylist() for column in rows.columns), strict=True):
        stored = _check_stored(dataset, i, result, digest=digest)
        while expected and wanted and wanted.index < index:
            result.differs(f"episode {wanted.id}: in the source, not in the dataset")
            wanted = next(expected, None)
        if expected and (wanted is None or wanted.index != index):
            result.differs(f"episode {index}: in the dataset, not in the source")
        elif expected and wanted:
            if stored:
                compare(stored, wanted, result)
            wanted = next(expected, None)
        progress(1, 0)
    for missing in [wanted, *expected] if expected and wanted else []:
        result.differs(f"episode {missing.id}: in the source, not in the dataset")


def _only(refs: Iterable[ShardRef], indices: Collection[int]) -> Iterator[ShardRef]:
    """Return shards that have only the episodes with the given indices."""
    for ref in refs:
        for part in ref.parts:
            for i in range(part.count):
                if part.first + i in indices:
                    is_tail = part.is_tail and i == part.count - 1
                    one = replace(part, first=part.first + i, skip=part.skip + i, count=1, is_tail=is_tail)
                    yield replace(ref, parts=(one,))


def _check_stored(dataset: Dataset, i: int, result: Verification, *, digest: str) -> Episode | None:
    """Read one stored episode, and check its hash and its materialized views.

    Returns None if it cannot be read.
    """
    try:
        stored = dataset.episode(i)
        _check_views(dataset, i, result, stored=stored)
    except UnreachableError:
        raise
    except DAMAGE as error:
        result.differs(f"episode {i}: cannot be read ({type(error).__name__}: {error})")
        return None
    result.episodes += 1
    result.steps += len(stored)
    result.numbers += sum(column.size for column in stored.columns().values() if isinstance(column, np.ndarray))
    if stored.content_hash() != digest:
        result.differs(f"episode {i} ({stored.id}): its content does not match its hash in {layout.EPISODES}")
    return stored


def _check_views(dataset: Dataset, i: int, result: Verification, *, stored: Episode) -> None:
    path, row, length = dataset.where(i)
    for view in dataset.columns.views:
        viewed = dataset.view(view.name).of(stored)
        for column, vectors in view.columns(viewed).items():
            cells = dataset.rows(path, row, length, names=[column])[column].to_pylist()
            kept = [cell for cell in cells if cell is not None]
            same = [cell is not None for cell in cells] == viewed.mask.tolist()
            if not same or not np.array_equal(np.array(kept, np.float32).reshape(vectors.shape), vectors):
                result.differs(f"episode {i} ({stored.id}): {column} does not match the view")


def compare(stored: Episode, wanted: Episode, result: Verification) -> None:
    """Compare two episodes value by value; numbers must be equal bit for bit."""
    for name in ("id", "index", "split", "instructions", "control_hz", "outcome", "metadata"):
        ours, theirs = (_comparable(getattr(episode, name)) for episode in (stored, wanted))
        if ours != theirs:
            result.differs(f"episode {wanted.id}: {name} is {ours}, the source has {theirs}")
    ours_by_name, theirs_by_name = stored.columns(), wanted.columns()
    for name in sorted(ours_by_name.keys() | theirs_by_name.keys()):
        if name not in ours_by_name or name not in theirs_by_name:
            where = "dataset" if name in ours_by_name else "source"
            result.differs(f"episode {wanted.id}: {name} is only in the {where}")
            continue
        difference = first_difference(ours_by_name[name], theirs_by_name[name])
        if difference is not None:
            result.differs(f"episode {wanted.id}: {name}: {difference}")


def _comparable(value: Any) -> str:
    """Return a text that is the same for equal values.

    NaN counts as equal to NaN, and the order of a mapping is ignored.
    """
    return repr(dict(sorted(value.items()))) if isinstance(value, Mapping) else repr(value)


def first_difference(ours: Column | Frames, theirs: Column | Frames) -> str | None:
    """Describe the first difference between two columns, or return None if they are equal."""
    if isinstance(ours, Ragged) and isinstance(theirs, Ragged):
        levels = [*zip(ours.lengths, theirs.lengths, strict=True), (ours.values, theirs.values)]
        return next((text for a, b in levels if (text := first_difference(a, b)) is not None), None)
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return f"{ours.dtype} {list(ours.shape)}, the source has {theirs.dtype} {list(theirs.shape)}"
        same = _bits(ours) == _bits(theirs)
        if same.all():
            return None
        at = tuple(int(i) for i in np.argwhere(~same.reshape(ours.shape))[0])
        return f"{list(at)} is {ours[at]}, the source has {theirs[at]}"
    for step, (a, b) in enumerate(zip_longest(ours, theirs)):  # type: ignore[arg-type]
        if a != b:
            sizes = ["nothing" if item is None else f"{len(item)} bytes" for item in (a, b)]
            return f"step {step}: {sizes[0]}, the source has {sizes[1]}; they differ"
    return None


def _bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """View numbers as bits, so that NaN equals NaN and 0.0 differs from -0.0."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(f"u{flat.dtype.itemsize}")
