"""The protocol of readers, their base class, and the grouping of source files into shards.

The base class numbers the episodes, and yields either an episode or an `Unreadable` for each one that was planned.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

from pipelines.readers.boundary import source_error
from pipelines.readers.fields import digest
from pipelines.readers.folder import SourceFolder
from schemas.declarations.formats import SourceSpec
from schemas.errors import SourceError
from schemas.source import Column, Field, RawEpisode, Unreadable

VIDEO_EXPANSION = 10  # estimated ratio of the size of a video's frames as JPEGs to the size of the video
MAX_SHARD, MIN_SHARD, TARGET_SHARDS = 256 << 20, 32 << 20, 8  # bytes, bytes, intended number of shards
SPLIT = "train"  # the split of all episodes if a source has none
ADDED_LATER = "was added after the conversion was planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A range of episodes in one file."""

    name: str  # relative to the source
    size: int | None  # bytes of the range; None if the file is missing
    first: int = 0  # episode index of the first episode; `SourceReader.files` sets it
    count: int  # declared episodes
    skip: int = 0  # episodes of this file before the range
    is_tail: bool = True  # the range ends at the declared end of the file
    becomes: int | None = None  # bytes of the range after its videos are converted to images; None: about `size`
    is_counted: bool = True  # whether `count` is declared or was counted; otherwise, there is at least this number

    @property
    def work(self) -> int:
        """The estimated size of the part's output in bytes, used to plan shards of similar size."""
        return self.size or 0 if self.becomes is None else self.becomes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """One unit of work: the episodes that are written to one published file."""

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
        """The total size of its parts in bytes; missing files count as 0."""
        return sum(part.size or 0 for part in self.parts)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Things of one kind that a source contains beside its episodes and that the reader does not read."""

    what: str  # a plural noun: files, folders, groups, arrays, topics
    count: int
    example: str  # the path of one of them, relative to the source

    def __str__(self) -> str:
        """Return a phrase such as `3 files, such as videos/0.mp4`."""
        return f"{self.count} {self.what}, such as {self.example}" if self.count > 1 else f"{self.example}"

    def to_json(self) -> dict[str, Any]:
        """Return the three fields as JSON."""
        return {"what": self.what, "count": self.count, "example": self.example}


class Reader(Protocol):
    """An opened source; opening it reads descriptions, but no episodes.

    A reader that inherits from this class may leave the last six methods undefined.
    """

    format: str
    uri: str
    fields: tuple[Field, ...]

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Return the files of every split, in order."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`; only the fields in `columns` are decoded, or all if it is None."""

    def place(self, name: str) -> str:
        """Return the full path of a file in `files`, as errors show it."""

    def description(self) -> dict[str, Any]:
        """Return what identifies the source besides its files; it must not contain times, hosts or paths."""

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of files; missing files are left out."""

    def layout(self) -> dict[str, Any]:
        """Return the keys of `source` that reproduce this reader; `format`, `uri` and default values are left out."""

    def declaration(self) -> str | None:
        """Return the text of the declaration inside the source; None if there is none."""
        return None

    def total_steps(self) -> int | None:
        """Return the number of steps of all episodes; None if only reading them would give it."""
        return None

    def notes(self) -> Sequence[str]:
        """Describe each contradiction between the source and its own description, and how the source is read."""
        return ()

    def check_unchanged(self) -> None:
        """Raise UnreachableError if a file of the source has changed since this reader first looked at it."""

    def guesses(self) -> Mapping[str, str]:
        """Return the keys of `source` that were guessed because they are not declared, each with what was guessed.

        A value is a phrase with the guess and its evidence, such as `'ep_*', the names of 3 of 3 folders`.
        """
        return {}

    def left_out(self) -> Sequence[LeftOut]:
        """Count what lies in the source and is not read; what the declaration ignores by name is not counted."""
        return ()


Values: TypeAlias = tuple[
    Mapping[str, Column], Mapping[str, Any]
]  # an episode's columns, with one value per step, and its per-episode values


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode of an open file; calling `read` reads it."""

    read: Callable[[], Values]
    name: str = ""  # its name within the file, for errors
    offset: int | None = None  # bytes in the file before its record


Files: TypeAlias = Mapping[str, Sequence[FilePart]]  # by split, in order
Episodes: TypeAlias = Generator[Stored | SourceError, None, None]


class SourceReader(Reader):
    """The base class of our readers: it numbers the episodes, and yields one value for each one that was planned.

    A subclass sets `uri`, `source`, `folder` and `fields` in `__init__`, and defines `parts` and `episodes`.
    """

    source: SourceSpec  # declared or guessed
    folder: SourceFolder
    ended = "{count} episodes were planned, but the file ends after {done}"

    @abstractmethod
    def parts(self) -> Files:
        """Return the files of every split, in order, with their numbers of episodes; `files` sets `first` later."""

    @abstractmethod
    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open the file of a part and yield all of its episodes, in order; only those in the part are then read.

        Only the fields in `columns` need to be decoded, or all if it is None. Data that belongs to no episode is
        yielded as a SourceError. A SourceError is raised if the file cannot be opened, or cannot be read any further;
        all remaining episodes are then reported with this error.
        """

    def where(self, part: FilePart) -> str:
        """Return the path of the file or folder with the episodes of a part, as errors show it."""
        return self.place(part.name)

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Return the files of every split, in order, each with the index of its first episode."""
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
        """Return the keys of `source` that reproduce this reader."""
        return self.source.layout()

    def description(self) -> dict[str, Any]:
        """Return the format, the layout and the digest of the fields.

        The key `files` is left out, because the manifest lists the files themselves.
        """
        keys = {key: value for key, value in self.layout().items() if key != "files"}
        return {"format": self.format, **keys, "fields_sha256": digest(self.fields)}

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; an `Unreadable` for one that cannot be read."""
        for part in ref.parts:
            with self.folder.unchanged():
                yield from self._read_part(part, ref.split, columns)

    def check_unchanged(self) -> None:
        """Raise UnreachableError if a file has changed since this reader first looked at it."""
        self.folder.check_unchanged()

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per planned episode, and an `Unreadable` for each other episode or damage in the file."""
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
        except BaseException as error:  # noqa: BLE001 - `source_error` raises those that are not about the data
            failure = source_error(error, path)
        lost: list[int | None] = list(range(part.first + max(0, number - part.skip), part.first + part.count))
        for index in lost or [None]:  # None: the error occurred after the last planned episode
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
    except OSError:  # the file cannot be read any further
        raise
    except BaseException as error:  # noqa: BLE001 - `source_error` raises those that are not about the data
        failure = source_error(error, path)
        failure = failure.at(path, prefix=stored.name) if stored.name else failure
        return Unreadable.of(failure, index=index, split=split, file=path)


def plan(
    files: Files, *, split: str | None = None, limit: int | None = None, before: Mapping[str, int] | None = None
) -> tuple[ShardRef, ...]:
    """Group files into shards; the same arguments always give the same shards.

    `split` is the only split to plan, or None for all. `limit` is the total number of episodes to plan, or None for
    all. `before` is the number of shards that each split already has.
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
    """Split a file into ranges of episodes, each with about `target` bytes of output."""
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
