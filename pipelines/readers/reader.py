"""What a reader is, how it names the work (shards of file parts), and what all of ours do the same way."""

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

FILMED = 10  # times: about what the frames of a video take as JPEG, where nobody has counted them
LARGE, SMALL, PARTS = 256 << 20, 32 << 20, 8  # bytes, bytes, how many shards a small source becomes
SPLIT = "train"  # of all episodes, where a source does not say
ADDED = "was added after the conversion was planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A run of episodes inside one file."""

    name: str  # relative to the source
    size: int | None  # bytes of the run; None: the file is missing
    first: int = 0  # episode index of the first; `SourceReader.files` counts it
    count: int  # episodes, as declared
    skip: int = 0  # episodes of this file before the run
    is_tail: bool = True  # the run ends where the file should end
    becomes: int | None = None  # bytes of the run with its videos as images; None: about its size

    @property
    def work(self) -> int:
        """Give what counts when shards are cut."""
        return self.size or 0 if self.becomes is None else self.becomes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """The unit of work: what becomes one published file."""

    split: str
    number: int  # within the split
    of: int
    parts: tuple[FilePart, ...]

    @property
    def name(self) -> str:
        """Name the published file, without its ending."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"

    @property
    def episodes(self) -> int:
        """Count the declared episodes."""
        return sum(part.count for part in self.parts)

    @property
    def size(self) -> int:
        """Tell the bytes of its files, as far as they are there."""
        return sum(part.size or 0 for part in self.parts)


class Reader(Protocol):
    """One opened source. Opening reads descriptions only, never episodes.

    A reader that inherits from this need not say that nothing lies inside its source, or that all of it agrees.
    """

    format: str
    uri: str
    fields: tuple[Field, ...]

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name every file of every split, in order."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`; only the paths in `columns` are decoded (None: all)."""

    def place(self, name: str) -> str:
        """Name a file of `files` the way errors do."""

    def description(self) -> dict[str, Any]:
        """Say which source this is, but for its files: without clocks, hosts or paths."""

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of files; those that are not there are left out."""

    def layout(self) -> dict[str, Any]:
        """Give the keys of the declaration's `source` that open it the same way, without format, uri and defaults."""

    def declaration(self) -> str | None:
        """Give the text of the declaration that lies inside the source, if one does."""
        return None

    def notes(self) -> Sequence[str]:
        """Say where the source's description does not agree with its files, and how it was read."""
        return ()


Values: TypeAlias = tuple[Mapping[str, Column], Mapping[str, Any]]  # what an episode has per step, and what once


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode in an opened file that is not read yet."""

    read: Callable[[], Values]
    name: str = ""  # within the file, where errors should say it
    offset: int | None = None  # bytes, of its record


Files: TypeAlias = Mapping[str, Sequence[FilePart]]  # by split, in order
Episodes: TypeAlias = Generator[Stored | SourceError, None, None]


class SourceReader(Reader):
    """What the readers of all formats do the same way: numbering episodes, and accounting for each that was planned.

    A format's reader sets `uri`, `source`, `folder` and `fields` when it is opened, and has `parts` and `episodes`.
    """

    source: SourceSpec  # as it was declared, or guessed
    folder: SourceFolder
    ended = "{count} episodes were planned, the file ends after {done}"

    @abstractmethod
    def parts(self) -> Files:
        """Name every file of every split with the episodes it holds, in order; `files` numbers them."""

    @abstractmethod
    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, in order; those that are not part of `part` are not read.

        No more than the paths in `columns` need to be decoded (None: all). What belongs to no episode is yielded as a
        SourceError. A file that cannot be opened, or not be read on, raises one: it stands for all episodes that are
        left.
        """

    def where(self, part: FilePart) -> str:
        """Name what holds the episodes of a part the way errors do."""
        return self.place(part.name)

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name every file of every split, in order, with the numbers of its episodes."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        first = 0
        numbered: dict[str, tuple[FilePart, ...]] = {}
        for split, parts in self.parts().items():
            listed = []
            for part in parts:
                listed.append(replace(part, first=first))
                first += part.count
            numbered[split] = tuple(listed)
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
        """Name the format, its keys without `files` (the manifest names each), and the fields by their digest."""
        keys = {key: value for key, value in self.layout().items() if key != "files"}
        return {"format": self.format, **keys, "fields_sha256": digest(self.fields)}

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            yield from self._read_part(part, ref.split, columns)

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value for each planned episode, and one for whatever else the file holds."""
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
                        yield _value(stored, index, split=split, path=path, columns=columns)
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


def _value(
    stored: Stored, index: int | None, *, split: str, path: str, columns: Collection[str] | None
) -> RawEpisode | Unreadable:
    try:
        if index is None:
            raise SourceError(ADDED, reason="undeclared_record")
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
    """Group files into shards; `before` counts the shards that each split has already.

    The plan depends on the arguments alone.
    """
    chosen = {name: parts for name, parts in files.items() if split in {None, name}}
    target = min(LARGE, max(SMALL, sum(part.work for parts in chosen.values() for part in parts) // PARTS))
    refs = []
    for name, parts in chosen.items():
        groups: list[list[FilePart]] = []
        filled = 0  # of the last group
        for part in (piece for whole in parts for piece in _pieces(whole, target)):
            if limit == 0:
                break
            kept = part if limit is None else _first(part, limit)
            limit = None if limit is None else limit - kept.count
            if groups and filled + kept.work <= target:
                groups[-1].append(kept)
                filled += kept.work
            else:
                groups.append([kept])
                filled = kept.work
        start = (before or {}).get(name, 0)
        refs += [
            ShardRef(split=name, number=number, of=start + len(groups), parts=tuple(group))
            for number, group in enumerate(groups, start)
        ]
    return tuple(refs)


def _first(part: FilePart, limit: int) -> FilePart:
    return replace(part, count=min(part.count, limit), is_tail=part.is_tail and part.count <= limit)


def _pieces(part: FilePart, target: int) -> Iterator[FilePart]:
    """Split a large file into runs of episodes."""
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
