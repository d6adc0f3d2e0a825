"""The protocol of readers, the plan of shards, and the base class that numbers and accounts for episodes."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

from pipelines.readers.fields import digest
from pipelines.readers.folder import SourceFolder
from schemas.declarations.formats import SourceSpec
from schemas.errors import SourceError
from schemas.source import Column, Field, RawEpisode, Unreadable

VIDEO_EXPANSION = 10  # estimate: how many times larger a video becomes when its frames are JPEGs
MAX_SHARD, MIN_SHARD, TARGET_SHARDS = 256 << 20, 32 << 20, 8  # bytes, bytes, shards to aim for within these sizes
SPLIT = "train"  # the split of all episodes if a source has none
ADDED_LATER = "was added after the conversion was planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A range of episodes in one file."""

    name: str  # relative to the source
    size: int | None  # bytes of the range; None: the file is missing
    first: int = 0  # episode index of the first episode; `SourceReader.files` sets it
    count: int  # declared episodes
    skip: int = 0  # episodes of this file before the range
    is_tail: bool = True  # the range ends at the declared end of the file
    becomes: int | None = None  # bytes of the range with its videos as images; None: about `size`

    @property
    def work(self) -> int:
        """The bytes by which the part counts when shards are planned."""
        return self.size or 0 if self.becomes is None else self.becomes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """The unit of work: the episodes that become one published file."""

    split: str
    number: int  # within the split
    of: int
    parts: tuple[FilePart, ...]

    @property
    def name(self) -> str:
        """The name of the published file, without its ending."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"

    @property
    def episodes(self) -> int:
        """The number of declared episodes."""
        return sum(part.count for part in self.parts)

    @property
    def size(self) -> int:
        """The bytes of its files, without missing ones."""
        return sum(part.size or 0 for part in self.parts)


class Reader(Protocol):
    """An opened source. Opening it reads descriptions, never episodes.

    A reader that inherits from this class need not define `declaration` and `notes`.
    """

    format: str
    uri: str
    fields: tuple[Field, ...]

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Return the files of every split, in order."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, decoding only the paths in `columns` (None: all)."""

    def place(self, name: str) -> str:
        """Return the full path of a file in `files`, as errors show it."""

    def description(self) -> dict[str, Any]:
        """Return what identifies the source besides its files, without times, hosts or paths."""

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of files; missing files are left out."""

    def layout(self) -> dict[str, Any]:
        """Return the keys of `source` that open it the same way, without `format`, `uri` and defaults."""

    def declaration(self) -> str | None:
        """Return the text of the declaration inside the source; None if there is none."""
        return None

    def notes(self) -> Sequence[str]:
        """Describe where the source contradicts its own description, and how it was read."""
        return ()


Values: TypeAlias = tuple[
    Mapping[str, Column], Mapping[str, Any]
]  # an episode's columns per step, and its per-episode values


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode of an opened file, read when `read` is called."""

    read: Callable[[], Values]
    name: str = ""  # its name within the file, for errors
    offset: int | None = None  # bytes in the file before its record


Files: TypeAlias = Mapping[str, Sequence[FilePart]]  # by split, in order
Episodes: TypeAlias = Generator[Stored | SourceError, None, None]


class SourceReader(Reader):
    """The base class of our readers: it numbers the episodes and accounts for each one that was planned.

    A subclass sets `uri`, `source`, `folder` and `fields` when it is opened, and defines `parts` and `episodes`.
    """

    source: SourceSpec  # declared or guessed
    folder: SourceFolder
    ended = "{count} episodes were planned, but the file ends after {done}"

    @abstractmethod
    def parts(self) -> Files:
        """Return the files of every split with their numbers of episodes, in order; `files` sets `first`."""

    @abstractmethod
    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, in order, of which only those in `part` are read.

        Only the paths in `columns` need to be decoded (None: all). Yield a SourceError for data that belongs to no
        episode. Raise a SourceError if the file cannot be opened or read any further: it counts for all remaining
        episodes.
        """

    def where(self, part: FilePart) -> str:
        """Return the path of the file or folder with the episodes of a part, as errors show it."""
        return self.place(part.name)

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Return the files of every split, in order, with the indices of their episodes."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        first = 0
        numbered: dict[str, tuple[FilePart, ...]] = {}
        for split, parts in self.parts().items():
            ranges = []
            for part in parts:
                ranges.append(replace(part, first=first))
                first += part.count
            numbered[split] = tuple(ranges)
        return numbered

    def place(self, name: str) -> str:
        """Return a file's full path."""
        return self.folder.path(name)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files."""
        return self.folder.tails(names, count)

    def layout(self) -> dict[str, Any]:
        """Return the keys of `source` that open it the same way."""
        return self.source.layout()

    def description(self) -> dict[str, Any]:
        """Return the format, its keys without `files`, which the manifest lists, and the digest of the fields."""
        keys = {key: value for key, value in self.layout().items() if key != "files"}
        return {"format": self.format, **keys, "fields_sha256": digest(self.fields)}

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; an `Unreadable` for one that cannot be read."""
        for part in ref.parts:
            yield from self._read_part(part, ref.split, columns)

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per planned episode, and an `Unreadable` for anything else in the file."""
        path, number, end = self.where(part), 0, part.skip + part.count
        try:
            with closing(self.episodes(part, columns)) as episodes:
                while part.is_tail or number < end:
                    stored = next(episodes, None)
                    if stored is None:
                        break
                    if isinstance(stored, SourceError):
                        yield Unreadable.of(stored, index=None, split=split, file=path)
                        continue
                    if number >= part.skip:
                        index = part.first + number - part.skip if number < end else None
                        yield _read_episode(stored, index, split=split, path=path, columns=columns)
                    number += 1
            if number >= end:
                return
            message = self.ended.format(count=part.count, done=max(0, number - part.skip))
            failure = SourceError(message, reason="missing_record", file=path)
        except OSError as error:
            failure = SourceError(f"cannot be read ({error.strerror or type(error).__name__})", file=path)
        except SourceError as error:
            failure = error
        lost: list[int | None] = list(range(part.first + max(0, number - part.skip), part.first + part.count))
        for index in lost or [None]:  # None: damage after the last planned episode
            yield Unreadable.of(failure, index=index, split=split, file=path)


def _read_episode(
    stored: Stored, index: int | None, *, split: str, path: str, columns: Collection[str] | None
) -> RawEpisode | Unreadable:
    try:
        if index is None:
            raise SourceError(ADDED_LATER, reason="undeclared_record")
        steps, metadata = stored.read()
        return RawEpisode(
            index=index,
            split=split,
            steps={name: column for name, column in steps.items() if columns is None or name in columns},
            metadata={name: value for name, value in metadata.items() if columns is None or name in columns},
            file=path,
            offset=stored.offset,
        )
    except SourceError as error:
        failure = error.at(path, prefix=stored.name) if stored.name else error
        return Unreadable.of(failure, index=index, split=split, file=path)


def plan(
    files: Files, *, split: str | None = None, limit: int | None = None, before: Mapping[str, int] | None = None
) -> tuple[ShardRef, ...]:
    """Group files into shards; the plan depends only on the arguments.

    `limit` is the number of episodes to plan in total (None: all), and `before` the number of shards that each split
    already has.
    """
    selected = {name: parts for name, parts in files.items() if split in {None, name}}
    target = min(
        MAX_SHARD, max(MIN_SHARD, sum(part.work for parts in selected.values() for part in parts) // TARGET_SHARDS)
    )
    refs = []
    for name, parts in selected.items():
        groups: list[list[FilePart]] = []
        filled = 0  # bytes in the last group
        for part in (piece for file in parts for piece in _pieces(file, target)):
            if limit == 0:
                break
            limited = part if limit is None else _first(part, limit)
            limit = None if limit is None else limit - limited.count
            if groups and filled + limited.work <= target:
                groups[-1].append(limited)
                filled += limited.work
            else:
                groups.append([limited])
                filled = limited.work
        start = (before or {}).get(name, 0)
        refs += [
            ShardRef(split=name, number=number, of=start + len(groups), parts=tuple(group))
            for number, group in enumerate(groups, start)
        ]
    return tuple(refs)


def _first(part: FilePart, limit: int) -> FilePart:
    return replace(part, count=min(part.count, limit), is_tail=part.is_tail and part.count <= limit)


def _pieces(part: FilePart, target: int) -> Iterator[FilePart]:
    """Split a large file into ranges of episodes."""
    pieces = min(max(1, round(part.work / target)), max(1, part.count))
    bounds = [part.count * i // pieces for i in range(pieces + 1)]
    for start, end in pairwise(bounds):
        yield replace(
            part,
            size=None if part.size is None else part.size // pieces,
            first=part.first + start,
            skip=part.skip + start,
            count=end - start,
            is_tail=part.is_tail and end == part.count,
            becomes=None if part.becomes is None else part.becomes // pieces,
        )
