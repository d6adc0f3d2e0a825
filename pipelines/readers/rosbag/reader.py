"""ROS bags and MCAP files: one bag is one episode, its topics resampled to one clock as a declaration says."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from pipelines.readers.fields import digest
from pipelines.readers.find import ROSBAG_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.reader import FilePart, Reader, ShardRef
from pipelines.readers.rosbag import times
from pipelines.readers.rosbag.bag import METADATA, STORED, find, opened_bag, parts
from pipelines.readers.rosbag.clock import Disorder
from pipelines.readers.rosbag.guess import guessed
from pipelines.readers.rosbag.streams import Stamp, Stream, Told, check_paths, check_topics, first_streams
from pipelines.readers.rosbag.types import check_distro
from pipelines.readers.rosbag.values import episode
from schemas.errors import SourceError, UsageError
from schemas.source import Field, RawEpisode, Unreadable

SPLIT, PLACE = "train", "episode_path"


class RosbagReader(Reader):
    """Bags in a folder, or one of them; the keys are those of `RosbagSource`.

    Without a `clock`, the keys are guessed from the first bag. The fields are those of the first bag that can be read.
    """

    format = "rosbag"

    def __init__(
        self,
        uri: str,
        *,
        clock: str | float | None = None,
        topics: Mapping[str, str] | None = None,
        stamp: Stamp | Mapping[str, Stamp] = "log",
        max_skew: float | None = None,
        disorder: Disorder = "refuse",
        only: Sequence[str] = (),
        ignore: Sequence[str] = (),
        ros: str | None = None,
        files: str | None = None,
        images: str = "png",
    ) -> None:
        """Read what the first bag holds."""
        self.uri, self.pattern = uri, files
        check_distro(ros)
        above, _, name = uri.rstrip("/").rpartition("/")
        is_file = files is None and (name.endswith(STORED) or name == METADATA)
        self.folder = SourceFolder.at((above or "/" if "/" in uri else ".") if is_file else uri)
        self.is_alone = is_file or files is not None
        self.names = (name,) if is_file else find(self.folder, files)
        if not self.names:
            looked = files or ", ".join([METADATA, *(f"*{end}" for end in ROSBAG_NAMES)])
            raise UsageError(f"{uri}: no bag here ({looked})")
        told = Told(
            clock=clock or 0.0,
            topics=topics or {},
            stamp=stamp,
            max_skew=max_skew,
            disorder=disorder,
            only=tuple(only),
            ignore=tuple(ignore),
            ros=ros,
            images=images,
        )
        self.told, self.streams = self._first(told)
        self.fields: tuple[Field, ...] = (
            Field(path=PLACE, kind="text", per_step=False),
            *times.fields(self.streams, self.told),
            *(field for stream in self.streams for field in stream.fields()),
        )
        check_paths(self.fields)

    def _first(self, told: Told) -> tuple[Told, tuple[Stream, ...]]:
        """Describe the first bag that can be read; where none can, its error stands for all."""
        failure = None
        for name in self.names:
            path = self.folder.path(name)
            try:
                with opened_bag(self.folder, name, is_alone=self.is_alone) as bag:
                    known = guessed(bag, told) if not told.clock else told
                    check_topics(known, bag.topics())
                    return known, first_streams(bag, known)
            except SourceError as error:
                told_where = SourceError(error.message, reason=error.reason, file=error.file or path)
                if error.reason in {"no_definition", "unsupported_field", "unsupported_image"}:  # as in all others
                    raise told_where from error
                failure = failure or told_where
        raise failure or UsageError(f"{self.uri}: no bag")

    def layout(self) -> dict[str, Any]:
        """Give the keys that open it the same way."""
        named = {**asdict(self.told), "files": self.pattern}
        defaults = {"stamp": "log", "disorder": "refuse", "images": "png"}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in named.items()
            if value and value != defaults.get(key)
        }

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name the bags, each with the size of all its files."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        made = []
        for index, name in enumerate(self.names):
            sizes = self.folder.sizes([name, *self._stored(name)])
            size = None if sizes[name] is None else sum(held or 0 for held in sizes.values())
            made.append(FilePart(name=name, size=size, first=index, count=1))
        return {SPLIT: tuple(made)}

    def _stored(self, name: str) -> list[str]:
        """Name the files of a bag, as far as that is known without opening it."""
        below, _, file = name.rpartition("/")
        if file != METADATA:
            return [] if self.is_alone else parts(self.folder, name)
        return [f"{below}/{word}" if below else word for word in self.folder.names(below) if word.endswith(STORED)]

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the keys, and the fields by their digest."""
        return {"format": self.format, **self.layout(), "fields_sha256": digest(self.fields)}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of bags: of all the files that each has."""
        found = {}
        for name in names:
            held = self.folder.tails([name, *self._stored(name)], count)
            if name in held:
                found[name] = b"".join(held[file] for file in sorted(held))
        return found

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per bag of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            if not part.count:
                continue
            path = self.folder.path(part.name)
            try:
                with opened_bag(self.folder, part.name, is_alone=self.is_alone) as bag:
                    steps, metadata = episode(bag, self.streams, self.told, columns=columns)
                bag_name = part.name.removesuffix(METADATA).rstrip("/") or PurePosixPath(self.folder.uri).name
                metadata = {PLACE: bag_name, **metadata}
                if columns is not None:
                    metadata = {path: value for path, value in metadata.items() if path in columns}
                made = RawEpisode(index=part.first, split=ref.split, steps=steps, metadata=metadata, file=path)
            except SourceError as error:
                yield Unreadable.of(error, index=part.first, split=ref.split, file=path)
                continue
            yield made
