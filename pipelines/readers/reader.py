"""What a reader is, and how it names the work: shards of about a fixed size, each a list of file parts."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

from schemas.source import Field, RawEpisode, Unreadable

FILMED = 10  # times: about what the frames of a video take as JPEG, where nobody has counted them
LARGE, SMALL, PARTS = 256 << 20, 32 << 20, 8  # bytes, bytes, how many shards a small source becomes


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A run of episodes inside one file."""

    name: str  # relative to the source
    size: int | None  # bytes of the run; None: the file is missing
    first: int  # episode index of the first
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


Files: TypeAlias = Mapping[str, Sequence[FilePart]]  # by split, in order


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
