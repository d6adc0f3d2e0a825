"""Read ROS bags and MCAP files; each is one episode, whose topics are resampled to one clock."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import PurePosixPath

from pipelines.readers.fields import first_readable
from pipelines.readers.find import ROSBAG_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.reader import SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.rosbag import times
from pipelines.readers.rosbag.bag import METADATA, STORED_NAMES, Bag, bag_files, find_bags, open_bag
from pipelines.readers.rosbag.guess import guess_source
from pipelines.readers.rosbag.storage import reading
from pipelines.readers.rosbag.streams import Stream, check_paths, check_topics, describe_streams
from pipelines.readers.rosbag.types import check_distro
from pipelines.readers.rosbag.values import read_episode
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

EPISODE_PATH = "episode_path"


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
        self.is_alone = bool(file) or pattern is not None
        self.names = (file,) if file else find_bags(self.folder, pattern)
        if not self.names:
            patterns = pattern or ", ".join([METADATA, *(f"*{end}" for end in ROSBAG_NAMES)])
            raise UsageError(f"{uri}: no bag here ({patterns})")
        self.source, self.streams = first_readable(
            self.names, partial(self._describe, source), otherwise=UsageError(f"{uri}: no bag")
        )
        self.fields: tuple[Field, ...] = (
            Field(path=EPISODE_PATH, kind="text", per_step=False),
            *times.fields(self.streams, self.source),
            *(field for stream in self.streams for field in stream.fields()),
        )
        check_paths(self.fields)

    def _describe(self, source: RosbagSource | None, name: str) -> tuple[RosbagSource, tuple[Stream, ...]]:
        """Return the layout of a bag and its streams."""
        try:
            with open_bag(self.folder, name, is_alone=self.is_alone) as bag:
                declared = source or guess_source(bag)
                check_topics(declared, bag.topics())
                return declared, describe_streams(bag, declared)
        except SourceError as error:
            raise error.at(error.file or self.place(name)) from error

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
