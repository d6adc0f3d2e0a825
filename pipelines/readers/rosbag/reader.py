"""Read ROS bags and MCAP files; each is one episode, whose topics are resampled to one clock."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath

from pipelines.readers.fields import first_readable
from pipelines.readers.find import ROSBAG_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import covers
from pipelines.readers.reader import SPLIT, Episodes, FilePart, Files, LeftOut, SourceReader, Stored, Values
from pipelines.readers.rosbag import times
from pipelines.readers.rosbag.bag import METADATA, STORED_NAMES, Bag, bag_files, files_beside, find_bags, open_bag
from pipelines.readers.rosbag.guess import BagGuess, guess_source
from pipelines.readers.rosbag.storage import reading
from pipelines.readers.rosbag.streams import (
    Stream,
    check_paths,
    check_topics,
    describe_streams,
    ignored_paths,
    is_read,
    topic_path,
)
from pipelines.readers.rosbag.types import check_distro
from pipelines.readers.rosbag.values import read_episode
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

EPISODE_PATH = "episode_path"


@dataclass(frozen=True, slots=True)
class FirstBag:
    """What the first bag that can be read says about all of them."""

    source: RosbagSource
    streams: tuple[Stream, ...]
    evidence: Mapping[str, str]  # by guessed key
    counts: Mapping[str, int]  # messages by topic


class RosbagReader(SourceReader):
    """A reader of one bag, or of all bags in a folder.

    The first bag that can be read defines the fields. Without a `source`, the layout is guessed from it as well.
    """

    format = "rosbag"
    source: RosbagSource

    def __init__(self, uri: str, source: RosbagSource | None = None) -> None:
        """Read the topics and types of the first bag."""
        self.uri = uri
        check_distro(source.ros if source else None)
        pattern = source.files if source else None
        self.folder, file = SourceFolder.around(uri, (*STORED_NAMES, f"/{METADATA}") if pattern is None else ())
        self.is_file, self.is_alone = bool(file), bool(file) or pattern is not None
        self.names = (file,) if file else find_bags(self.folder, pattern)
        if not self.names:
            patterns = pattern or ", ".join([METADATA, *(f"*{end}" for end in ROSBAG_NAMES)])
            raise UsageError(f"{uri}: no bag here ({patterns})")
        first = first_readable(self.names, partial(self._describe, source), otherwise=UsageError(f"{uri}: no bag"))
        self.source, self.streams, self.first = first.source, first.streams, first
        self.fields: tuple[Field, ...] = (
            Field(path=EPISODE_PATH, kind="text", per_step=False),
            *times.fields(self.streams, self.source),
            *(field for stream in self.streams for field in stream.fields()),
        )
        check_paths(self.fields)

    def _describe(self, source: RosbagSource | None, name: str) -> FirstBag:
        """Return the layout of a bag and its streams."""
        try:
            with open_bag(self.folder, name, is_alone=self.is_alone) as bag:
                guess = BagGuess(source, {}) if source else guess_source(bag)
                check_topics(guess.source, bag.topics())
                counts = {topic: channel.count or 0 for topic, channel in bag.topics().items()}
                return FirstBag(guess.source, describe_streams(bag, guess.source), guess.evidence, counts)
        except SourceError as error:
            raise error.at(error.file or self.place(name)) from error

    def guesses(self) -> Mapping[str, str]:
        """Return the guessed keys, and which files are taken for one bag although no `metadata.yaml` says so."""
        several = [name for name in self.names if not name.endswith(METADATA) and self._other_files(name)]
        joined = [file for name in several for file in self._other_files(name) if file != name]
        if not joined:
            return self.first.evidence
        example = f"{several[0]} and {joined[0].rpartition('/')[2]}"
        return {**self.first.evidence, "files": f"files with the name of their folder are one bag, such as {example}"}

    def left_out(self) -> Sequence[LeftOut]:
        """Count the topics of the first bag that are not read, and the files beside the bags."""
        return self._left_out

    @cached_property
    def _left_out(self) -> tuple[LeftOut, ...]:
        declared = () if "ignore" in self.first.evidence else ignored_paths(self.source)
        topics = [topic for topic in self.first.counts if not covers(declared, topic_path(topic))]
        empty = [topic for topic in topics if not self.first.counts[topic]]
        unread = [topic for topic in topics if topic not in empty and not is_read(self.source, topic)]
        known = {file for name in self.names for file in (name, *self._other_files(name))}
        files = [] if self.is_file else list(files_beside(self.folder, known))
        kinds = {"topics": unread, "topics without messages": empty, "files": files}
        return tuple(LeftOut(what, len(names), names[0]) for what, names in kinds.items() if names)

    def parts(self) -> Files:
        """Return the bags, each with the size of all its files."""
        return {SPLIT: [FilePart(name=name, size=self._size(name), count=1) for name in self.names]}

    def _size(self, name: str) -> int | None:
        sizes = self.folder.sizes([name, *self._other_files(name)])
        return None if sizes[name] is None else sum(size or 0 for size in sizes.values())

    def _other_files(self, name: str) -> list[str]:
        """Return the files of a bag other than `name`, from the names in its folder; no file is opened."""
        below, _, file = name.rpartition("/")
        if file != METADATA:
            return [] if self.is_alone else bag_files(self.folder, name)
        return [
            f"{below}/{word}" if below else word for word in self.folder.names(below) if word.endswith(STORED_NAMES)
        ]

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of each file of each bag; those of one bag are joined."""
        tails_by_bag = {}
        for name in names:
            tails = self.folder.tails([name, *self._other_files(name)], count)
            if name in tails:
                tails_by_bag[name] = b"".join(tails[file] for file in sorted(tails))
        return tails_by_bag

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a bag and yield its episode."""
        with open_bag(self.folder, part.name, is_alone=self.is_alone) as bag:
            yield Stored(partial(self._values, bag, part.name, columns=columns))

    def _values(self, bag: Bag, name: str, *, columns: Collection[str] | None) -> Values:
        with reading(self.place(name)):
            steps, metadata = read_episode(bag, self.streams, self.source, columns=columns)
        episode_path = name.removesuffix(METADATA).rstrip("/") or PurePosixPath(self.folder.uri).name
        return steps, {EPISODE_PATH: episode_path, **metadata}
