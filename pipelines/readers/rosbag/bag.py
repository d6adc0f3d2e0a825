"""Bags: which files are one, what `metadata.yaml` says of them, and their messages as one stream."""

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

from pipelines.readers.find import ROSBAG_NAMES
from pipelines.readers.folder import SourceFolder, inside
from pipelines.readers.names import natural
from pipelines.readers.rosbag.files import opened
from pipelines.readers.rosbag.storage import Channel, Message, Storage, inflated, reading
from schemas.errors import SourceError

METADATA = "metadata.yaml"
STORED = (*ROSBAG_NAMES, *(f"{name}.zstd" for name in ROSBAG_NAMES))
DEPTH = 4  # folders below the source in which bags are looked for
MAX_VERSION = 9
MAX_YAML = 16 << 20  # bytes


def find(folder: SourceFolder, files: str | None) -> tuple[str, ...]:
    """Name the bags below a folder, each by its `metadata.yaml` or its first file, in the order of their numbers.

    `files` is a pattern of files, each of which is a bag.
    """
    if files is None:
        return tuple(_bags(folder, "", 0))
    found = [""]
    for depth, word in enumerate(files.split("/")):
        bases = [(base, f"{base}/" if depth else "") for base in found]
        found = [f"{stem}{name}" for base, stem in bases for name in folder.names(base) if fnmatchcase(name, word)]
    return tuple(sorted(found, key=natural))


def _bags(folder: SourceFolder, below: str, depth: int) -> Iterator[str]:
    names = sorted(folder.names(below), key=natural)
    stem = f"{below}/" if below else ""
    if METADATA in names:
        yield stem + METADATA
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            continue
        if name.endswith(STORED):
            seen |= {member.rpartition("/")[2] for member in parts(folder, stem + name)}
            yield stem + name
        elif depth < DEPTH and "." not in name:
            yield from _bags(folder, stem + name, depth + 1)


def parts(folder: SourceFolder, name: str) -> list[str]:
    """Name the files of a bag without `metadata.yaml`: rosbag2 calls those of the folder `x` `x_0`, `x_1`, ..."""
    below, _, file = name.rpartition("/")
    bag = below.rpartition("/")[2] or PurePosixPath(folder.uri).name
    match = re.fullmatch(rf"{re.escape(bag)}_\d+(\..*)", file)
    if not match:
        return [name]
    like = re.compile(rf"{re.escape(bag)}_(\d+){re.escape(match[1])}")
    named = sorted((word for word in folder.names(below) if like.fullmatch(word)), key=natural)
    return [f"{below}/{word}" if below else word for word in named] or [name]


def _check_parts(names: Sequence[str], path: str) -> None:
    """Refuse a bag of which a part is missing in between."""
    for number, name in enumerate(names):
        if len(names) > 1 and not re.search(rf"_0*{number}\.[^/]*$", name):
            message = f"part {number} of the bag is not there, but '{name.rpartition('/')[2]}' is"
            raise SourceError(message, reason="missing_file", file=path)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is used of `metadata.yaml`."""

    files: tuple[str, ...]
    counts: Mapping[str, int]  # topic -> messages
    is_compressed: bool = False  # each message, with zstd


def metadata(folder: SourceFolder, name: str) -> Metadata:
    """Read `metadata.yaml`; what it lacks, and files that it does not name or that are not there, are SourceErrors."""
    path, below = folder.path(name), name.rpartition("/")[0]
    if (folder.size(name) or 0) > MAX_YAML:
        raise SourceError(f"more than {MAX_YAML} bytes", reason="bad_metadata", file=path)
    try:
        told = YAML(typ="safe").load(folder.read(name).decode())["rosbag2_bagfile_information"]
        counts = Counter[str]()
        for topic in told["topics_with_message_count"]:
            counts[str(topic["topic_metadata"]["name"])] += int(topic["message_count"])
        names = [PurePosixPath(str(file)).name for file in told["relative_file_paths"]]
        mode, how = (str(told.get(key) or "").lower() for key in ("compression_mode", "compression_format"))
        version = int(told["version"])
    except (YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        message = f"not the metadata of rosbag2 ({why}); 'ros2 bag reindex' writes it anew"
        raise SourceError(message, reason="bad_metadata", file=path) from error
    if version > MAX_VERSION or mode not in {"", "none", "file", "message"} or how not in {"", "zstd"}:
        message = f"version {version} with compression {mode!r} by {how!r} is not known"
        raise SourceError(message, reason="bad_metadata", file=path)
    files = tuple(inside(f"{below}/{file}" if below else file, where=path) for file in names)
    _check_files(folder, below, files, path=path)
    return Metadata(files, counts, mode == "message")


def _check_files(folder: SourceFolder, below: str, files: Sequence[str], *, path: str) -> None:
    here = {f"{below}/{name}" if below else name for name in folder.names(below) if name.endswith(STORED)}
    gone = [file for file in files if folder.size(file) is None]
    if gone:
        message = f"'{gone[0].rpartition('/')[2]}' is not there, which {METADATA} names"
        raise SourceError(message, reason="missing_file", file=path)
    if more := sorted(here - {*files}):
        message = f"'{more[0].rpartition('/')[2]}' lies here, but {METADATA} does not name it"
        raise SourceError(f"{message}: 'ros2 bag reindex' adds it, or move it away", reason="bad_metadata", file=path)


@dataclass(frozen=True, slots=True)
class Bag:
    """One opened bag."""

    storages: tuple[Storage, ...]
    told: Metadata | None
    path: str  # as errors name it

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Name the connections of all files."""
        return tuple(channel for storage in self.storages for channel in storage.channels)

    def topics(self) -> dict[str, Channel]:
        """Merge the connections of each topic; `count` is that of all."""
        found: dict[str, Channel] = {}
        for channel in self.channels:
            first = found.get(channel.topic, replace(channel, count=0))
            found[channel.topic] = replace(first, count=(first.count or 0) + (channel.count or 0))
        return found

    def check_types(self, topics: Collection[str]) -> None:
        """Refuse topics whose connections hold different types."""
        kinds: dict[str, set[tuple[str, str]]] = {}
        for channel in self.channels:
            kinds.setdefault(channel.topic, set()).add((channel.type, channel.encoding))
        for topic in sorted(topics):
            if len(kinds.get(topic, ())) > 1:
                listed = " and ".join(f"{name} ({encoding})" for name, encoding in sorted(kinds[topic]))
                message = f"{topic} holds messages of {listed}; leave it out with source.ignore = ['{topic}']"
                raise SourceError(message, reason="unsupported_field")

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Give the messages of some topics, file after file."""
        for storage in self.storages:
            for message in storage.messages(topics):
                yield message._replace(data=inflated(message.data, "zstd")) if self._inflates else message

    @property
    def _inflates(self) -> bool:
        return self.told is not None and self.told.is_compressed

    def check_counts(self, found: Mapping[str, int]) -> None:
        """Refuse a bag that holds more or fewer messages than it says itself."""
        topics = self.topics()
        for topic, count in sorted(found.items()):
            says: dict[str, Any] = {"its own index": topics[topic].count if topic in topics else 0}
            if self.told:
                says[METADATA] = self.told.counts.get(topic, 0)
            for who, declared in says.items():
                if declared != count:
                    message = f"{topic}: {count} messages are there, {who} says {declared}"
                    fix = "; 'ros2 bag reindex' mends it, if nothing was lost" if who == METADATA else ""
                    raise SourceError(message + fix, reason="message_count")


@contextmanager
def opened_bag(folder: SourceFolder, name: str, *, is_alone: bool) -> Iterator[Bag]:
    """Open all files of a bag; `is_alone`: the file is one, whatever lies beside it."""
    path = folder.path(name)
    with ExitStack() as stack:
        if name.rpartition("/")[2] == METADATA:
            told = metadata(folder, name)
            files: Sequence[str] = told.files
        else:
            told, files = None, [name] if is_alone else parts(folder, name)
            _check_parts(files, path)
        storages = [stack.enter_context(opened(folder, file)) for file in files]
        with reading(path):
            yield Bag(tuple(storages), told, path)
