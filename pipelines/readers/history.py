"""The history of the source files in a dataset.

The files of the first conversion are one generation. Each `--append` adds the new files as one more generation.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import xxhash

from pipelines.readers.reader import FilePart, Files, Reader, ShardRef, plan
from schemas.errors import UsageError

TAIL_BYTES = 4096  # enough to include the checksum of the last record in a TFRecord file
SHARD_COUNT = re.compile(r"-of-\d{5,}$")  # the part of a file name that changes when shards are added


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A source file, and the values that identify its content without reading all of it."""

    path: str
    split: str
    bytes: int | None  # None: the file is missing
    episodes: int  # as declared
    tail_xxh3_64: str | None  # the hash of its last TAIL_BYTES bytes

    @property
    def key(self) -> tuple[str, str]:
        """The split and path of the file; the number of shards is removed from the path."""
        return self.split, SHARD_COUNT.sub("", self.path)

    @property
    def content(self) -> tuple[int | None, int, str | None]:
        """The values that must stay the same for an append: size, number of episodes, and hash of the last bytes."""
        return self.bytes, self.episodes, self.tail_xxh3_64


def _exists(file: SourceFile | None) -> bool:
    return file is not None and file.bytes is not None


@dataclass(frozen=True, slots=True)
class History:
    """The files of all generations, oldest first, and the number of files after each generation."""

    files: tuple[SourceFile, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, reader: Reader) -> "History":
        """Return the current files of a source as one generation."""
        parts = [(split, part) for split, parts in reader.files().items() for part in parts]
        tails = reader.tails([part.name for _, part in parts if part.size is not None], TAIL_BYTES)
        files = tuple(
            SourceFile(
                path=part.name,
                split=split,
                bytes=part.size,
                episodes=part.count,
                tail_xxh3_64=xxhash.xxh3_64_hexdigest(tails[part.name]) if part.name in tails else None,
            )
            for split, part in parts
        )
        return cls(files, (len(files),))

    @classmethod
    def from_json(cls, source: Mapping[str, Any]) -> "History":
        """Read the history from the manifest's `source`."""
        return cls(tuple(SourceFile(**file) for file in source["files"]), tuple(source["generations"]))

    def to_json(self) -> dict[str, Any]:
        """Return the history as keys of the manifest's `source`."""
        return {"files": [asdict(file) for file in self.files], "generations": list(self.ends)}

    def since(self, earlier: "History") -> "Changes":
        """Compare the files with an earlier history."""
        before = {file.key: file for file in earlier.files}
        now = {file.key: file for file in self.files}
        gone = {key for key, file in before.items() if file.bytes is not None and not _exists(now.get(key))}
        arrived = {key for key, file in before.items() if file.bytes is None and _exists(now.get(key))}
        both = before.keys() & now.keys() - gone - arrived
        return Changes(
            vanished=tuple(now.get(key, file).path for key, file in before.items() if key in gone or key not in now),
            changed=tuple(
                file.path for key, file in now.items() if key in both and file.content != before[key].content
            ),
            arrived=tuple(now[key].path for key in before if key in arrived),
            added=tuple(file.path for key, file in now.items() if key not in before),
        )

    def after(self, earlier: "History") -> "History":
        """Append the files to an earlier history.

        New files become one more generation. Files that have vanished stay in the history.
        """
        now = {file.key: file for file in self.files}
        old = tuple(now.pop(file.key, file) for file in earlier.files)
        return History((*old, *now.values()), (*earlier.ends, len(old) + len(now)) if now else earlier.ends)

    def generations(self, files: Files) -> list[dict[str, list[FilePart]]]:
        """Return the parts of each generation, by split; episode indices continue from one generation to the next."""
        parts = {(split, part.name): part for split, parts in files.items() for part in parts}
        first = 0
        generations: list[dict[str, list[FilePart]]] = []
        for start, end in zip((0, *self.ends), self.ends, strict=False):
            generation: dict[str, list[FilePart]] = {}
            for file in self.files[start:end]:
                missing = FilePart(name=file.path, size=None, first=first, count=file.episodes)
                part = replace(parts.get((file.split, file.path), missing), first=first)
                generation.setdefault(file.split, []).append(part)
                first += file.episodes
            generations.append(generation)
        return generations

    def plan(self, files: Files, *, split: str | None, limit: int | None) -> list[tuple[ShardRef, ...]]:
        """Plan the shards of each generation; adding a generation does not rename the shards of earlier ones."""
        planned: Counter[str] = Counter()
        shards = []
        for generation in self.generations(files):
            refs = plan(generation, split=split, limit=limit, before=planned)
            planned.update(ref.split for ref in refs)
            shards.append(refs)
        return shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The files that differ between two states of a source."""

    vanished: tuple[str, ...]
    changed: tuple[str, ...]
    arrived: tuple[str, ...]  # were already listed, but the files were missing
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether any file differs."""
        return bool(self.vanished or self.changed or self.arrived or self.added)

    @property
    def only_added(self) -> bool:
        """Whether files were added and nothing else changed. Only then is an append possible."""
        return bool(self.added) and not (self.vanished or self.changed or self.arrived)

    def lines(self) -> list[str]:
        """Describe the changes, one line per kind."""
        kinds = {
            "vanished": self.vanished,
            "changed": self.changed,
            "no longer missing": self.arrived,
            "new": self.added,
        }
        return [f"{kind}: {_first_names(names)}" for kind, names in kinds.items() if names]


def _first_names(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_only_added(changes: Changes, out: str) -> None:
    """Raise UsageError if files that the dataset already contains have changed, because an append only adds files."""
    if changes.vanished or changes.changed or changes.arrived:
        changed = "; ".join(replace(changes, added=()).lines())
        raise UsageError(f"{out}: --append only adds files, but files that it already contains have changed: {changed}")
