"""RLDS as `tensorflow-datasets` writes it, read without TensorFlow."""

import hashlib
import json
import re
from collections.abc import Collection
from functools import cached_property, partial
from itertools import count
from typing import Any

from pipelines.readers.find import LOOKS, several, sources
from pipelines.readers.folder import SourceFolder, inside
from pipelines.readers.reader import Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.rlds import example, features, tfrecord
from schemas.declarations.formats import RldsSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

FEATURES, INFO, DECLARATION = "features.json", "dataset_info.json", "oxe_spec.toml"
MAX_EPISODES = 10**9  # of one split
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
SHARD_FILE = re.compile(r"(?P<dataset>.+)-(?P<split>[^-]+)\.tfrecord-(?P<shard>\d{5,})-of-(?P<of>\d{5,})")


class RldsReader(SourceReader):
    """One RLDS dataset: `features.json`, `dataset_info.json` and TFRecord shards.

    `uri` is the version folder, or one above it that holds a single dataset.
    """

    format = "rlds"
    ended = "{count} episodes are declared, the file ends after {done}"

    def __init__(self, uri: str, source: RldsSource | None = None) -> None:
        """Read the two descriptions; neither the shards' contents nor their sizes."""
        self.uri, self.source = uri, source or RldsSource()
        self.folder = find(SourceFolder.at(uri), uri)
        self.leaves = features.load(self.folder.read(FEATURES), self.place(FEATURES))
        self._buffers = tfrecord.Buffers()  # for one thread at a time
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves)

    @cached_property
    def info(self) -> dict[str, Any]:
        """The parsed `dataset_info.json`; empty where there is none."""
        if self.folder.size(INFO) is None:
            return {}
        try:
            info = json.loads(self.folder.read(INFO))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"not JSON ({error})", reason="bad_info", file=self.place(INFO)) from error
        if not isinstance(info, dict):
            raise SourceError("not a dataset_info.json: no object", reason="bad_info", file=self.place(INFO))
        return info

    def parts(self) -> Files:
        """Name the shards of every split, in order, with the episodes they declare."""
        where = self.place(INFO)
        try:
            shards = self._declared_shards(where) if self.info else self._found_shards()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"not a dataset_info.json ({error!r})", reason="bad_info", file=where) from error
        if not shards:
            raise SourceError(
                "no splits: neither dataset_info.json nor file names tell them", reason="bad_info", file=where
            )
        sizes = self.folder.sizes(name for names in shards.values() for name, _ in names)
        return {
            split: [
                FilePart(name=name, size=sizes[name], count=self._count(name) if declared is None else declared)
                for name, declared in names
            ]
            for split, names in shards.items()
        }

    def _declared_shards(self, where: str) -> dict[str, list[tuple[str, int | None]]]:
        """Name the shards as `dataset_info.json` does, with the episodes of each."""
        if self.info.get("fileFormat", "tfrecord") != "tfrecord":
            raise SourceError(f"file format '{self.info['fileFormat']}' is not tfrecord", reason="bad_info", file=where)
        splits: dict[str, list[tuple[str, int | None]]] = {}
        for split in self.info.get("splits", []):
            name, lengths = split["name"], [int(n) for n in split.get("shardLengths", [])]
            if not SPLIT_NAME.fullmatch(name):
                raise SourceError(f"'{name}' is no name for a split", reason="unsafe_path", file=where)
            if name in splits or min(lengths, default=0) < 0 or sum(lengths) > MAX_EPISODES:
                raise SourceError(
                    f"split '{name}' is named twice, or has negative lengths or ones too large to be true",
                    reason="bad_info",
                    file=where,
                )
            template = split.get("filepathTemplate") or features.TEMPLATE
            splits[name] = [
                (inside(_expand(template, self.info["name"], name, shard=i, of=len(lengths)), where=where), n)
                for i, n in enumerate(lengths)
            ]
        return splits

    def _found_shards(self) -> dict[str, list[tuple[str, int | None]]]:
        """Name the shards as they lie in the folder; how many episodes they hold is not known."""
        splits: dict[str, list[re.Match[str]]] = {}
        for match in filter(None, map(SHARD_FILE.fullmatch, self.folder.names())):
            splits.setdefault(match["split"], []).append(match)
        for split, found in splits.items():
            whole = len({(match["dataset"], match["of"]) for match in found}) == 1 and len(found) == int(found[0]["of"])
            if not whole:
                raise SourceError(
                    f"no dataset_info.json, and the shards of '{split}' are no complete set: how many episodes are "
                    "missing cannot be known; copy dataset_info.json from where the shards came",
                    reason="missing_shard",
                    file=self.place(found[0][0]),
                )
        return {split: [(match[0], None) for match in found] for split, found in splits.items()}

    def _count(self, name: str) -> int:
        """Count the records of a shard; whatever lies behind damage counts as one."""
        found = 0
        try:
            with self.folder.open(name) as file:
                for _ in tfrecord.offsets(file, self.place(name)):
                    found += 1
        except SourceError:
            found += 1
        return found

    def description(self) -> dict[str, Any]:
        """Name the source, and its fields by their digest."""
        return {
            "format": self.format,
            "name": self.info.get("name"),
            "version": self.info.get("version"),
            "features_sha256": hashlib.sha256(self.folder.read(FEATURES)).hexdigest(),
        }

    def declaration(self) -> str | None:
        """Give the `oxe_spec.toml` that our exports carry."""
        return None if self.folder.size(DECLARATION) is None else self.folder.read(DECLARATION).decode()

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a shard and yield its records; those that nobody declared are errors."""
        if part.size is None:
            if part.count:
                raise SourceError("the shard is missing", reason="missing_shard", file=self.place(part.name))
            return
        leaves = [leaf for leaf in self.leaves if columns is None or leaf.field.path in columns]
        with self.folder.open(part.name) as file:
            records = tfrecord.RecordFile(file, self.place(part.name), self._buffers)
            for number in count():
                length = records.next_length()
                if length is None:
                    return
                if number >= part.skip + part.count:
                    yield _undeclared(records, length)
                    continue
                yield Stored(partial(_values, records, length, leaves), offset=records.offset)
                if number < part.skip:
                    records.skip(length)


def _values(records: tfrecord.RecordFile, length: int, leaves: list[features.Leaf]) -> Values:
    """Read one record; what is wrong with it is a SourceError that names its place."""
    offset = records.offset
    data = records.data(length)
    try:
        values = example.parse(data)
        steps = {leaf.field.path: leaf.decode(values) for leaf in leaves if leaf.field.per_step}
        metadata = {leaf.field.path: leaf.decode_metadata(values) for leaf in leaves if not leaf.field.per_step}
    except SourceError as error:
        raise error.at(records.name, offset=offset) from error
    return steps, metadata


def _undeclared(records: tfrecord.RecordFile, length: int) -> SourceError:
    """Check a record that belongs to no declared episode."""
    message, offset = "a record beyond those that dataset_info.json declares", records.offset
    try:
        records.data(length)
    except SourceError as error:
        return error
    return SourceError(message, reason="undeclared_record", file=records.name, offset=offset)


def _expand(template: str, dataset: str, split: str, *, shard: int, of: int) -> str:
    digits = max(5, len(str(of)))
    values = {
        "DATASET": dataset,
        "SPLIT": split,
        "FILEFORMAT": "tfrecord",
        "SHARD_INDEX": f"{shard:0{digits}d}",
        "NUM_SHARDS": f"{of:0{digits}d}",
        "SHARD_X_OF_Y": f"{shard:0{digits}d}-of-{of:0{digits}d}",
    }
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def find(folder: SourceFolder, uri: str) -> SourceFolder:
    """Find the folder with `features.json`: this one, or the only one below it."""
    if folder.size(FEATURES) is not None:
        return folder
    found = sources(uri, {"rlds": LOOKS["rlds"]})
    if len(found) == 1:
        return SourceFolder.at(found[0].uri)
    if found:
        raise several(uri, found)
    if any(SHARD_FILE.fullmatch(name) for name in folder.names()):
        raise SourceError(
            "features.json is missing: without it the shards have no types or shapes; "
            "copy it from where the shards came",
            reason="bad_features",
            file=folder.path(FEATURES),
        )
    raise UsageError(f"{uri}: no RLDS dataset here (no features.json, no *.tfrecord-* shards)")
