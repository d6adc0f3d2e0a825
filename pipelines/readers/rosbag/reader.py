"""ROS bags and MCAP files: one bag is one episode, its topics resampled to one clock as a declaration says."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import PurePosixPath

from pipelines.readers.fields import first_readable
from pipelines.readers.find import ROSBAG_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.reader import SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.rosbag import times
from pipelines.readers.rosbag.bag import METADATA, STORED, Bag, find, opened_bag, parts
from pipelines.readers.rosbag.guess import guessed
from pipelines.readers.rosbag.storage import reading
from pipelines.readers.rosbag.streams import Stream, check_paths, check_topics, first_streams
from pipelines.readers.rosbag.types import check_distro
from pipelines.readers.rosbag.values import episode
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

PLACE = "episode_path"


class RosbagReader(SourceReader):
    """Bags in a folder, or one of them; without a `source`, how they are read is guessed from the first bag.

    The fields are those of the first bag that can be read.
    """

    format = "rosbag"
    source: RosbagSource

    def __init__(self, uri: str, source: RosbagSource | None = None) -> None:
        """Read what the first bag holds."""
        self.uri = uri
        check_distro(source.ros if source else None)
        pattern = source.files if source else None
        self.folder, file = SourceFolder.around(uri, (*STORED, f"/{METADATA}") if pattern is None else ())
        self.is_alone = bool(file) or pattern is not None
        self.names = (file,) if file else find(self.folder, pattern)
        if not self.names:
            looked = pattern or ", ".join([METADATA, *(f"*{end}" for end in ROSBAG_NAMES)])
            raise UsageError(f"{uri}: no bag here ({looked})")
        self.source, self.streams = first_readable(
            self.names, partial(self._first, source), otherwise=UsageError(f"{uri}: no bag")
        )
        self.fields: tuple[Field, ...] = (
            Field(path=PLACE, kind="text", per_step=False),
            *times.fields(self.streams, self.source),
            *(field for stream in self.streams for field in stream.fields()),
        )
        check_paths(self.fields)

    def _first(self, source: RosbagSource | None, name: str) -> tuple[RosbagSource, tuple[Stream, ...]]:
        """Describe a bag."""
        try:
            with opened_bag(self.folder, name, is_alone=self.is_alone) as bag:
                known = source or guessed(bag)
                check_topics(known, bag.topics())
                return known, first_streams(bag, known)
        except SourceError as error:
            raise error.at(error.file or self.place(name)) from error

    def parts(self) -> Files:
        """Name the bags, each with the size of all its files."""
        return {SPLIT: [FilePart(name=name, size=self._size(name), count=1) for name in self.names]}

    def _size(self, name: str) -> int | None:
        sizes = self.folder.sizes([name, *self._stored(name)])
        return None if sizes[name] is None else sum(size or 0 for size in sizes.values())

    def _stored(self, name: str) -> list[str]:
        """Name the files of a bag, as far as that is known without opening it."""
        below, _, file = name.rpartition("/")
        if file != METADATA:
            return [] if self.is_alone else parts(self.folder, name)
        return [f"{below}/{word}" if below else word for word in self.folder.names(below) if word.endswith(STORED)]

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of bags: of all the files that each has."""
        found = {}
        for name in names:
            held = self.folder.tails([name, *self._stored(name)], count)
            if name in held:
                found[name] = b"".join(held[file] for file in sorted(held))
        return found

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a bag and yield its one episode."""
        with opened_bag(self.folder, part.name, is_alone=self.is_alone) as bag:
            yield Stored(partial(self._values, bag, part.name, columns=columns))

    def _values(self, bag: Bag, name: str, *, columns: Collection[str] | None) -> Values:
        with reading(self.place(name)):
            steps, metadata = episode(bag, self.streams, self.source, columns=columns)
        place = name.removesuffix(METADATA).rstrip("/") or PurePosixPath(self.folder.uri).name
        return steps, {PLACE: place, **metadata}
