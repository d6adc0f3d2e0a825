"""Which files of a source a dataset holds, in the order in which it took them: `--append` adds a generation."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import xxhash

from pipelines.readers.reader import FilePart, Files, Reader, ShardRef, plan
from schemas.errors import UsageError

TAIL = 4096  # bytes; in a TFRecord file the checksum of the last record is among them
OF = re.compile(r"-of-\d{5,}$")  # the number of shards: it changes when shards are added


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What tells a file from another one without reading it whole."""

    path: str
    split: str
    bytes: int | None  # None: it is missing
    episodes: int  # as declared
    tail_xxh3_64: str | None  # of the last bytes

    @property
    def key(self) -> tuple[str, str]:
        """Name its place, which stays the same when shards are added."""
        return self.split, OF.sub("", self.path)

    @property
    def content(self) -> tuple[int | None, int, str | None]:
        """Give what must not change."""
        return self.bytes, self.episodes, self.tail_xxh3_64


def _is_there(file: SourceFile | None) -> bool:
    return file is not None and file.bytes is not None


@dataclass(frozen=True, slots=True)
class History:
    """The files of all generations, oldest first, and how many there were after each."""

    files: tuple[SourceFile, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, reader: Reader) -> "History":
        """Take a source as it is now, as one generation."""
        parts = [(split, part) for split, parts in reader.files().items() for part in parts]
        tails = reader.tails([part.name for _, part in parts if part.size is not None], TAIL)
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
        """Read it from the manifest's `source`."""
        return cls(tuple(SourceFile(**file) for file in source["files"]), tuple(source["generations"]))

    def to_json(self) -> dict[str, Any]:
        """Give its part of the manifest's `source`."""
        return {"files": [asdict(file) for file in self.files], "generations": list(self.ends)}

    def since(self, then: "History") -> "Changes":
        """Compare with what the source was."""
        before = {file.key: file for file in then.files}
        now = {file.key: file for file in self.files}
        gone = {key for key, file in before.items() if file.bytes is not None and not _is_there(now.get(key))}
        arrived = {key for key, file in before.items() if file.bytes is None and _is_there(now.get(key))}
        both = before.keys() & now.keys() - gone - arrived
        return Changes(
            vanished=tuple(now.get(key, file).path for key, file in before.items() if key in gone or key not in now),
            changed=tuple(
                file.path for key, file in now.items() if key in both and file.content != before[key].content
            ),
            arrived=tuple(now[key].path for key in before if key in arrived),
            added=tuple(file.path for key, file in now.items() if key not in before),
        )

    def after(self, then: "History") -> "History":
        """Put the files in the order of `then`; new ones are one more generation, vanished ones stay."""
        now = {file.key: file for file in self.files}
        old = tuple(now.pop(file.key, file) for file in then.files)
        return History((*old, *now.values()), (*then.ends, len(old) + len(now)) if now else then.ends)

    def generations(self, files: Files) -> list[dict[str, list[FilePart]]]:
        """Give the parts of each generation by split; episodes are counted through all of them."""
        parts = {(split, part.name): part for split, parts in files.items() for part in parts}
        first = 0
        out: list[dict[str, list[FilePart]]] = []
        for start, end in zip((0, *self.ends), self.ends, strict=False):
            generation: dict[str, list[FilePart]] = {}
            for file in self.files[start:end]:
                missing = FilePart(name=file.path, size=None, first=first, count=file.episodes)
                part = replace(parts.get((file.split, file.path), missing), first=first)
                generation.setdefault(file.split, []).append(part)
                first += file.episodes
            out.append(generation)
        return out

    def plan(self, files: Files, *, split: str | None, limit: int | None) -> list[tuple[ShardRef, ...]]:
        """Plan the shards of each generation; later ones do not change the names of earlier ones."""
        taken: Counter[str] = Counter()
        planned = []
        for generation in self.generations(files):
            refs = plan(generation, split=split, limit=limit, before=taken)
            taken.update(ref.split for ref in refs)
            planned.append(refs)
        return planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The files by which a source differs from what it was."""

    vanished: tuple[str, ...]
    changed: tuple[str, ...]
    arrived: tuple[str, ...]  # missing then
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return bool(self.vanished or self.changed or self.arrived or self.added)

    @property
    def only_added(self) -> bool:
        """Say whether an append would take them in."""
        return bool(self.added) and not (self.vanished or self.changed or self.arrived)

    def lines(self) -> list[str]:
        """Say it, a line for each kind."""
        kinds = {
            "vanished": self.vanished,
            "changed": self.changed,
            "missing then, there now": self.arrived,
            "new": self.added,
        }
        return [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_only_added(changes: Changes, out: str) -> None:
    """Refuse to append to a dataset whose source is no longer what it holds."""
    if changes.vanished or changes.changed or changes.arrived:
        told = "; ".join(replace(changes, added=()).lines())
        raise UsageError(f"{out}: --append adds files, but some of those it holds are not as they were: {told}")
