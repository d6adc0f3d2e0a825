"""Find the files of each bag, check them against `metadata.yaml`, and read their messages as one stream."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.readers.beside import may_be_listed
from pipelines.readers.find import ROSBAG_NAMES, may_be_folder
from pipelines.readers.folder import SourceFolder, safe_path
from pipelines.readers.names import natural_key
from pipelines.readers.rosbag.files import open_storage
from pipelines.readers.rosbag.storage import Channel, Message, Storage, inflate, reading
from schemas.errors import SourceError
from schemas.limits import check_limit

METADATA = "metadata.yaml"
STORED_NAMES = (*ROSBAG_NAMES, *(f"{name}.zstd" for name in ROSBAG_NAMES))
MAX_DEPTH = 4  # levels of folders to search for bags
MAX_VERSION = 9
MAX_YAML = 4 << 20  # bytes


def find_bags(folder: SourceFolder, files: str | None) -> tuple[str, ...]:
    """Return the bags below a folder, in the order of the numbers in their names.

    A bag is given by its `metadata.yaml`, or by its first file if there is none. If `files` is a pattern, each path
    that matches it is one bag.
    """
    if files is None:
        return tuple(_bags(folder, "", 0))
    paths = [""]
    for depth, word in enumerate(files.split("/")):
        parents = [(parent, f"{parent}/" if depth else "") for parent in paths]
        paths = [
            f"{prefix}{name}" for parent, prefix in parents for name in folder.names(parent) if fnmatchcase(name, word)
        ]
    return tuple(sorted(paths, key=natural_key))


def _bags(folder: SourceFolder, below: str, depth: int) -> Iterator[str]:
    names = sorted(folder.names(below), key=natural_key)
    prefix = f"{below}/" if below else ""
    if METADATA in names:
        yield prefix + METADATA
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            continue
        if name.endswith(STORED_NAMES):
            seen |= {member.rpartition("/")[2] for member in bag_files(folder, prefix + name)}
            yield prefix + name
        elif depth < MAX_DEPTH and may_be_folder(folder, prefix + name):
            yield from _bags(folder, prefix + name, depth + 1)


def bag_files(folder: SourceFolder, name: str) -> list[str]:
    """Return all files of a bag that has no `metadata.yaml`, given one of them.

    rosbag2 names the files in a folder `x` like `x_0`, `x_1` and so on; any other file is a bag by itself.
    """
    below, _, file = name.rpartition("/")
    bag = below.rpartition("/")[2] or PurePosixPath(folder.uri).name
    match = re.fullmatch(rf"{re.escape(bag)}_\d+(\..*)", file)
    if not match:
        return [name]
    pattern = re.compile(rf"{re.escape(bag)}_(\d+){re.escape(match[1])}")
    files = sorted((part for part in folder.names(below) if pattern.fullmatch(part)), key=natural_key)
    return [f"{below}/{part}" if below else part for part in files] or [name]


def files_beside(folder: SourceFolder, known: Collection[str], *, below: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the files that are not in `known`, and the folders that are too deep to be searched."""
    for name in sorted(folder.names(below), key=natural_key):
        path = f"{below}/{name}" if below else name
        if path in known or name.startswith("."):
            continue
        if may_be_listed(folder, path) and depth < MAX_DEPTH:
            yield from files_beside(folder, known, below=path, depth=depth + 1)
        else:
            yield path


def _check_complete(names: Sequence[str], path: str) -> None:
    """Raise SourceError if the numbers of a bag's files have a gap."""
    for number, name in enumerate(names):
        if len(names) > 1 and not re.search(rf"_0*{number}\.[^/]*$", name):
            message = f"part {number} of the bag is missing, but '{name.rpartition('/')[2]}' exists"
            raise SourceError(message, reason="missing_file", file=path)


@dataclass(frozen=True, slots=True)
class BagMetadata:
    """The part of `metadata.yaml` that is used."""

    files: tuple[str, ...]
    counts: Mapping[str, int]  # number of messages by topic
    is_compressed: bool = False  # whether each message is compressed, with zstd


def read_metadata(folder: SourceFolder, name: str) -> BagMetadata:
    """Read `metadata.yaml`; raise SourceError if it is invalid, or if it does not list exactly the files of the bag."""
    path, below = folder.path(name), name.rpartition("/")[0]
    check_limit(folder.size(name) or 0, MAX_YAML, "bytes", where=path)
    try:
        content = YAML(typ="safe").load(folder.read(name).decode())["rosbag2_bagfile_information"]
        counts = Counter[str]()
        for topic in content["topics_with_message_count"]:
            counts[str(topic["topic_metadata"]["name"])] += int(topic["message_count"])
        names = [PurePosixPath(str(file)).name for file in content["relative_file_paths"]]
        mode, compression = (str(content.get(key) or "").lower() for key in ("compression_mode", "compression_format"))
        version = int(content["version"])
    except (YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        message = f"not the metadata of rosbag2 ({why}); 'ros2 bag reindex' writes it again"
        raise SourceError(message, reason="bad_metadata", file=path) from error
    if version > MAX_VERSION or mode not in {"", "none", "file", "message"} or compression not in {"", "zstd"}:
        message = f"version {version} with compression {mode!r} by {compression!r} is not supported"
        raise SourceError(message, reason="bad_metadata", file=path)
    files = tuple(safe_path(f"{below}/{file}" if below else file, where=path) for file in names)
    _check_files(folder, below, files, path=path)
    return BagMetadata(files, counts, mode == "message")


def _check_files(folder: SourceFolder, below: str, files: Sequence[str], *, path: str) -> None:
    stored = {f"{below}/{name}" if below else name for name in folder.names(below) if name.endswith(STORED_NAMES)}
    missing = [file for file in files if folder.size(file) is None]
    if missing:
        message = f"'{missing[0].rpartition('/')[2]}' is missing, but {METADATA} lists it"
        raise SourceError(message, reason="missing_file", file=path)
    if more := sorted(stored - {*files}):
        message = f"'{more[0].rpartition('/')[2]}' is here, but {METADATA} does not list it"
        raise SourceError(
            f"{message}: if it is part of the recording, 'ros2 bag reindex' adds it; if not, move it to another folder",
            reason="bad_metadata",
            file=path,
        )


@dataclass(frozen=True, slots=True)
class Bag:
    """An open bag."""

    storages: tuple[Storage, ...]
    metadata: BagMetadata | None
    path: str  # for errors

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The connections in all files of the bag."""
        return tuple(channel for storage in self.storages for channel in storage.channels)

    def topics(self) -> dict[str, Channel]:
        """Return the first connection of each topic, with the total number of messages in the topic."""
        merged: dict[str, Channel] = {}
        for channel in self.channels:
            first = merged.get(channel.topic, replace(channel, count=0))
            merged[channel.topic] = replace(first, count=(first.count or 0) + (channel.count or 0))
        return merged

    def check_types(self, topics: Collection[str]) -> None:
        """Raise SourceError if the connections of a topic have different types."""
        kinds: dict[str, set[tuple[str, str]]] = {}
        for channel in self.channels:
            kinds.setdefault(channel.topic, set()).add((channel.type, channel.encoding))
        for topic in sorted(topics):
            if len(kinds.get(topic, ())) > 1:
                listed = " and ".join(f"{name} ({encoding})" for name, encoding in sorted(kinds[topic]))
                message = f"{topic} contains messages of {listed}; leave it out with source.ignore = ['{topic}']"
                raise SourceError(message, reason="unsupported_field")

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of the given topics, file by file."""
        for storage in self.storages:
            for message in storage.messages(topics):
                yield message._replace(data=inflate(message.data, "zstd")) if self._is_compressed else message

    @property
    def _is_compressed(self) -> bool:
        return self.metadata is not None and self.metadata.is_compressed

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Raise SourceError if a topic's number of messages differs from the number that the bag declares."""
        topics = self.topics()
        for topic, count in sorted(counts.items()):
            declarations: dict[str, Any] = {"its own index": topics[topic].count if topic in topics else 0}
            if self.metadata:
                declarations[METADATA] = self.metadata.counts.get(topic, 0)
            for origin, declared in declarations.items():
                if declared != count:
                    message = f"{topic}: {count} messages, but {origin} declares {declared}"
                    fix = "; if nothing was lost, 'ros2 bag reindex' corrects it" if origin == METADATA else ""
                    raise SourceError(message + fix, reason="message_count")


@contextmanager
def open_bag(folder: SourceFolder, name: str, *, is_alone: bool) -> Iterator[Bag]:
    """Open all files of a bag; if `is_alone`, the file `name` is a whole bag, even if its name is that of a part."""
    path = folder.path(name)
    with ExitStack() as stack:
        if name.rpartition("/")[2] == METADATA:
            metadata = read_metadata(folder, name)
            files: Sequence[str] = metadata.files
        else:
            metadata, files = None, [name] if is_alone else bag_files(folder, name)
            _check_complete(files, path)
        storages = [stack.enter_context(open_storage(folder, file)) for file in files]
        with reading(path):
            yield Bag(tuple(storages), metadata, path)
