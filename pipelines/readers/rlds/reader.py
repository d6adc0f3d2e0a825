"""Read RLDS datasets, as `tensorflow-datasets` writes them, without TensorFlow."""

import hashlib
import re
from collections.abc import Collection, Sequence
from functools import cached_property, partial
from itertools import count
from typing import Any

from pipelines.readers.find import FORMAT_PATTERNS, find_sources, several_sources_error
from pipelines.readers.folder import SourceFolder, safe_path
from pipelines.readers.reader import Episodes, FilePart, Files, LeftOut, SourceReader, Stored, Values
from pipelines.readers.rlds import example, features, tfrecord
from schemas.declarations.formats import RldsSource
from schemas.errors import SourceError, UsageError
from schemas.parsing import parse_json
from schemas.source import Field

FEATURES, INFO, DECLARATION = "features.json", "dataset_info.json", "oxe_spec.toml"
MAX_EPISODES = 10**9  # in one split
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
PACKED = re.compile(r".*\.tfrecord.*\.gz")
SHARD_FILE = re.compile(r"(?P<dataset>.+)-(?P<split>[^-]+)\.tfrecord-(?P<shard>\d{5,})-of-(?P<of>\d{5,})")


class RldsReader(SourceReader):
    """An RLDS dataset: `features.json`, `dataset_info.json` and TFRecord shards.

    `uri` is the folder of one version of the dataset, or a folder above it that contains no other dataset.
    """

    format = "rlds"
    ended = "{count} episodes are declared, but the file ends after {done}"

    def __init__(self, uri: str, source: RldsSource | None = None) -> None:
        """Read `features.json`; the shards and their sizes are not read yet."""
        self.uri, self.source = uri, source or RldsSource()
        self.folder = find_dataset(SourceFolder.at(uri), uri)
        declared = features.load(self.folder.read(FEATURES), self.place(FEATURES))
        self.empty = tuple(feature.field for feature in declared if 0 in feature.field.shape)
        self.features = tuple(feature for feature in declared if 0 not in feature.field.shape)
        self._buffers = tfrecord.BufferPool()  # not thread-safe
        self.fields: tuple[Field, ...] = tuple(feature.field for feature in self.features)

    @cached_property
    def info(self) -> dict[str, Any]:
        """The parsed `dataset_info.json`; empty if there is none."""
        if self.folder.size(INFO) is None:
            return {}
        try:
            info = parse_json(self.folder.read(INFO))
        except ValueError as error:
            raise SourceError(f"not JSON ({error})", reason="bad_info", file=self.place(INFO)) from error
        if not isinstance(info, dict):
            raise SourceError("not a dataset_info.json: expected an object", reason="bad_info", file=self.place(INFO))
        return info

    def parts(self) -> Files:
        """Return the shards of every split, in order, with their declared numbers of episodes."""
        where = self.place(INFO)
        try:
            shards = self._declared_shards(where) if self.info else self._shards_in_folder()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"not a dataset_info.json ({error!r})", reason="bad_info", file=where) from error
        if not shards:
            message = f"no splits, neither in dataset_info.json nor in the file names{_packed_hint(self.folder)}"
            raise SourceError(message, reason="bad_info", file=where)
        sizes = self.folder.sizes(name for names in shards.values() for name, _ in names)
        return {
            split: [
                FilePart(name=name, size=sizes[name], count=declared)
                if declared is not None
                else self._counted(name, sizes[name])
                for name, declared in names
            ]
            for split, names in shards.items()
        }

    def _declared_shards(self, where: str) -> dict[str, list[tuple[str, int | None]]]:
        """Return the shards in `dataset_info.json` by split, with their numbers of episodes.

        If it has no numbers for a split, the shards of this split are those in the folder.
        """
        if self.info.get("fileFormat", "tfrecord") != "tfrecord":
            raise SourceError(f"file format '{self.info['fileFormat']}' is not tfrecord", reason="bad_info", file=where)
        splits: dict[str, list[tuple[str, int | None]]] = {}
        for split in self.info.get("splits", []):
            name, lengths = split["name"], [int(n) for n in split.get("shardLengths", [])]
            if not SPLIT_NAME.fullmatch(name):
                raise SourceError(f"'{name}' is not a valid name for a split", reason="unsafe_path", file=where)
            if name in splits or min(lengths, default=0) < 0 or sum(lengths) > MAX_EPISODES:
                raise SourceError(
                    f"split '{name}' occurs twice, or its lengths are negative or impossibly large",
                    reason="bad_info",
                    file=where,
                )
            template = split.get("filepathTemplate") or features.TEMPLATE
            splits[name] = [
                (safe_path(_fill_template(template, self.info["name"], name, shard=i, of=len(lengths)), where=where), n)
                for i, n in enumerate(lengths)
            ] or self._shards_in_folder(name).get(name, [])
        return splits

    def _shards_in_folder(self, only: str | None = None) -> dict[str, list[tuple[str, int | None]]]:
        """Return the shards in the folder by split, or those of one split; their numbers of episodes are None."""
        splits: dict[str, list[re.Match[str]]] = {}
        for match in filter(None, map(SHARD_FILE.fullmatch, self.folder.names())):
            if only in {None, match["split"]}:
                splits.setdefault(match["split"], []).append(match)
        for split, matches in splits.items():
            is_complete = len({(match["dataset"], match["of"]) for match in matches}) == 1 and len(matches) == int(
                matches[0]["of"]
            )
            if not is_complete:
                raise SourceError(
                    f"no dataset_info.json with lengths, and the shards of '{split}' are not a complete set, so it is "
                    "unknown how many episodes are missing; copy dataset_info.json from where the shards came",
                    reason="missing_shard",
                    file=self.place(matches[0][0]),
                )
        return {split: [(match[0], None) for match in matches] for split, matches in splits.items()}

    def _counted(self, name: str, size: int | None) -> FilePart:
        """Count the records of a shard; if it is damaged, everything from the damage on counts as one record."""
        records = 0
        try:
            with self.folder.open(name) as file:
                for _ in tfrecord.offsets(file, self.place(name)):
                    records += 1
        except SourceError:
            return FilePart(name=name, size=size, count=records + 1, is_counted=False)
        return FilePart(name=name, size=size, count=records)

    def description(self) -> dict[str, Any]:
        """Return the format, the name and version of the dataset, and the digest of `features.json`."""
        return {
            "format": self.format,
            "name": self.info.get("name"),
            "version": self.info.get("version"),
            "features_sha256": hashlib.sha256(self.folder.read(FEATURES)).hexdigest(),
        }

    def notes(self) -> Sequence[str]:
        """Describe the features without values, and say if the episodes of a split were counted in its shards."""
        files = self.files()
        lengths = {split["name"]: split.get("shardLengths") for split in self.info.get("splits", [])}
        counted = [split for split, parts in files.items() if parts and not lengths.get(split)]
        why = "has no shardLengths" if self.info else "is missing"
        notes = [f"{field.path}: the shape is {list(field.shape)}, so it is left out." for field in self.empty]
        if counted:
            notes.append(f"{INFO} {why}: the episodes of {', '.join(counted)} were counted in the shards.")
        return notes

    def left_out(self) -> Sequence[LeftOut]:
        """Count the shards in the folder that `dataset_info.json` does not declare."""
        declared = {part.name for parts in self.files().values() for part in parts}
        others = [name for name in self.folder.names() if ".tfrecord" in name and name not in declared]
        return [LeftOut("shards", len(others), others[0])] if others else []

    def declaration(self) -> str | None:
        """Return the `oxe_spec.toml` of our exports; None if there is none."""
        return None if self.folder.size(DECLARATION) is None else self.folder.read(DECLARATION).decode()

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a shard and yield its records, then a SourceError for each undeclared one."""
        if part.size is None:
            if part.count:
                packed = f"{part.name}.gz"
                hint = f"; unpack {packed} with gunzip" if self.folder.size(packed) is not None else ""
                raise SourceError(f"the shard is missing{hint}", reason="missing_shard", file=self.place(part.name))
            return
        selected = [feature for feature in self.features if columns is None or feature.field.path in columns]
        with self.folder.open(part.name) as file:
            records = tfrecord.RecordFile(file, self.place(part.name), self._buffers)
            for number in count():
                length = records.next_length()
                if length is None:
                    return
                if number >= part.skip + part.count:
                    yield _undeclared(records, length)
                    continue
                yield Stored(partial(_values, records, length, selected), offset=records.offset)
                if number < part.skip:
                    records.skip(length)


def _values(records: tfrecord.RecordFile, length: int, selected: list[features.ExampleFeature]) -> Values:
    """Read one record; raise SourceError, which has the record's offset, if it cannot be decoded."""
    offset = records.offset
    data = records.data(length)
    try:
        values = example.parse(data)
        steps = {feature.field.path: feature.decode(values) for feature in selected if feature.field.per_step}
        metadata = {
            feature.field.path: feature.decode_metadata(values) for feature in selected if not feature.field.per_step
        }
    except SourceError as error:
        raise error.at(records.name, offset=offset) from error
    return steps, metadata


def _undeclared(records: tfrecord.RecordFile, length: int) -> SourceError:
    """Return the error for a record that is not declared; its checksum is verified first."""
    message, offset = "a record that dataset_info.json does not declare", records.offset
    try:
        records.data(length)
    except SourceError as error:
        return error
    return SourceError(message, reason="undeclared_record", file=records.name, offset=offset)


def _fill_template(template: str, dataset: str, split: str, *, shard: int, of: int) -> str:
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


def find_dataset(folder: SourceFolder, uri: str) -> SourceFolder:
    """Return the folder with `features.json`: this folder, or the only such folder below it.

    Raises UsageError if there is no such folder or more than one, and SourceError if there are shards but no
    `features.json`.
    """
    if folder.size(FEATURES) is not None:
        return folder
    sources = find_sources(uri, {"rlds": FORMAT_PATTERNS["rlds"]})
    if len(sources) == 1:
        return SourceFolder.at(sources[0].uri)
    if sources:
        raise several_sources_error(uri, sources)
    if any(SHARD_FILE.fullmatch(name) for name in folder.names()):
        raise SourceError(
            "features.json is missing: without it the shards have no types or shapes; "
            "copy it from where the shards came",
            reason="bad_features",
            file=folder.path(FEATURES),
        )
    hint = _packed_hint(folder)
    raise UsageError(f"{uri}: no RLDS dataset here (no features.json, no *.tfrecord-* shards){hint}")


def _packed_hint(folder: SourceFolder) -> str:
    """Return a hint that names the first shard that is compressed as a whole, if there is one."""
    packed = [name for name in folder.names() if PACKED.fullmatch(name)]
    return f"; {packed[0]} is compressed with gzip: unpack it with gunzip" if packed else ""
