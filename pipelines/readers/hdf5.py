"""HDF5 in any layout that a declaration names: groups of one file as episodes, or a file for each."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import h5py

from pipelines.hdf5 import tree
from pipelines.hdf5.columns import Leaf, check_same, column, leaf_of, value, value_field
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.source import FilePart, ShardRef
from schemas.errors import SourceError, UsageError
from schemas.source import Field, RawEpisode, Unreadable

SPLIT = "train"
PLACE, OWN, PARENT = "episode_path", "attrs", "parent"  # per-episode fields that every source has, or may have


class Hdf5Reader:
    """HDF5 files in a folder, or one of them.

    `episodes` is a pattern of groups (`data/demo_*`), or `/` where each file is one episode; None: guessed from the
    first file. The fields are those of the first episode that can be read. Dotted paths in `ignore` are not read,
    those in `per_episode` have no step axis, those in `drop_last` have one step more than the others.
    """

    format = "hdf5"

    def __init__(
        self,
        uri: str,
        *,
        episodes: str | None = None,
        files: str | None = None,
        ignore: Sequence[str] = (),
        per_episode: Sequence[str] = (),
        drop_last: Sequence[str] = (),
        images: str = "png",
    ) -> None:
        """Read the structure of the first episode."""
        self.uri, self.pattern = uri, files
        self.ignore, self.per_episode, self.drop_last, self.images = ignore, per_episode, drop_last, images
        above, _, name = uri.rstrip("/").rpartition("/")
        is_file = files is None and name.endswith(HDF5_NAMES)
        self.folder = SourceFolder.at((above or "/" if "/" in uri else ".") if is_file else uri)
        self.names = (name,) if is_file else _found(self.folder, files)
        if not self.names:
            raise UsageError(f"{uri}: no HDF5 file here ({files or ', '.join(f'*{end}' for end in HDF5_NAMES)})")
        self.episodes, self.leaves = self._first(episodes)
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _first(self, episodes: str | None) -> tuple[str, dict[str, Leaf]]:
        """Describe the first episode that can be read; where none can, its error stands for all."""
        failure = None
        for name in self.names:
            path = self.folder.path(name)
            try:
                with tree.opened(self.folder, name) as file, tree.reading(path):
                    pattern = tree.guess(file) if episodes is None else episodes
                    for group in tree.groups(file, pattern):
                        try:
                            return pattern, self._leaves(tree.group_at(file, group))
                        except SourceError as error:
                            told = SourceError(f"{group}: {error.message}", reason=error.reason, file=path)
                            if error.reason == "unsupported_field":  # as in all others, most likely
                                raise told from error
                            failure = failure or told
                    failure = failure or _nothing(pattern, path)
            except SourceError as error:
                if error.reason == "unsupported_field":
                    raise
                failure = failure or SourceError(error.message, reason=error.reason, file=error.file or path)
        raise failure or UsageError(f"{self.uri}: no HDF5 file")

    def _leaves(self, group: h5py.Group) -> dict[str, Leaf]:
        """Describe an episode: every dataset below it, its attributes and those of the group that it lies in."""
        found = {PLACE: Leaf(Field(path=PLACE, kind="text", per_step=False), "value")}
        for path, dataset in tree.datasets(group, self.ignore).items():
            _add(found, leaf_of(path, dataset, self.per_episode))
        for path, (holder, name) in self._attributes(group).items():
            held = holder.attrs.get_id(name)
            _add(found, Leaf(value_field(path, held.dtype, held.shape), "value"))
        return found

    def _attributes(self, group: h5py.Group) -> dict[str, tuple[h5py.Group, str]]:
        holders = {OWN: group} if group.name == "/" else {OWN: group, PARENT: group.parent}
        named = {f"{prefix}.{name}": (held, name) for prefix, held in holders.items() for name in held.attrs}
        return {path: place for path, place in named.items() if not tree.covers(self.ignore, path)}

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name the files, in the order of the numbers in their names, with the episodes that each holds."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        first, parts = 0, []
        sizes = self.folder.sizes(self.names)
        for name in self.names:
            parts.append(FilePart(name=name, size=sizes[name], first=first, count=self._count(name)))
            first += parts[-1].count
        return {SPLIT: tuple(parts)}

    def _count(self, name: str) -> int:
        """Count the episodes of a file; one in which none can be found counts as one that cannot be read."""
        if not self.episodes.strip("/"):
            return 1
        try:
            with tree.opened(self.folder, name) as file, tree.reading(self.folder.path(name)):
                return len(tree.groups(file, self.episodes)) or 1
        except SourceError:
            return 1

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the layout, and the fields by their digest."""
        fields = json.dumps([asdict(field) for field in self.fields])
        return {
            "format": self.format,
            "episodes_at": self.episodes,
            "fields_sha256": hashlib.sha256(fields.encode()).hexdigest(),
        }

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files."""
        return self.folder.tails(names, count)

    def layout(self) -> dict[str, Any]:
        """Give where the episodes are, as told or guessed, and what else was told."""
        told = {"files": self.pattern, "ignore": self.ignore, "per_episode": self.per_episode}
        told |= {"drop_last": self.drop_last, "images": None if self.images == "png" else self.images}
        kept = {key: value if isinstance(value, str) else list(value) for key, value in told.items() if value}
        return {"episodes": self.episodes, **kept}

    def declaration(self) -> str | None:
        """Give nothing: no HDF5 file carries one."""
        return None

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            yield from self._read_part(part, ref.split, columns)

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        path, done = self.folder.path(part.name), 0
        try:
            with tree.opened(self.folder, part.name) as file:
                with tree.reading(path):
                    names = tree.groups(file, self.episodes)
                if not names:
                    raise _nothing(self.episodes, path)
                for name in names[part.skip : None if part.is_tail else part.skip + part.count]:
                    index = part.first + done if done < part.count else None
                    try:
                        if index is None:
                            raise SourceError("was added after the conversion was planned", reason="undeclared_record")
                        with tree.reading(path):
                            steps, metadata = self._values(file, name, part=part, columns=columns)
                        yield RawEpisode(index=index, split=split, steps=steps, metadata=metadata, file=path)
                    except SourceError as error:
                        told = SourceError(f"{name}: {error.message}", reason=error.reason, file=path)
                        yield Unreadable.of(told, index=index, split=split)
                    done += 1
            ended = f"{part.count} episodes were planned, the file ends after {done}"
            failure = SourceError(ended, reason="missing_record", file=path)
        except SourceError as error:
            failure = error
        for index in range(part.first + done, part.first + part.count):
            yield Unreadable.of(failure, index=index, split=split, file=path)

    def _values(
        self, file: h5py.File, name: str, *, part: FilePart, columns: Collection[str] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read one episode: what it has per step, and what it has once."""
        group = tree.group_at(file, name)
        datasets, attributes = tree.datasets(group, self.ignore), self._attributes(group)
        self._check({*datasets, *attributes})
        steps: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        for path, leaf in self.leaves.items():
            if columns is not None and path not in columns:
                continue
            if path == PLACE:
                metadata[path] = f"{part.name}{name.rstrip('/')}"
            elif path in attributes:
                holder, attribute = attributes[path]
                held = holder.attrs.get_id(attribute)
                check_same(leaf, Leaf(value_field(path, held.dtype, held.shape), "value"))
                metadata[path] = value(leaf.field, holder.attrs[attribute])
            elif path not in datasets:  # an attribute that this episode does not have
                metadata[path] = None
            elif leaf.form == "value":
                check_same(leaf, leaf_of(path, datasets[path], self.per_episode))
                metadata[path] = value(leaf.field, datasets[path][()])
            else:
                steps[path] = self._column(leaf, datasets[path])
        return steps, metadata

    def _column(self, leaf: Leaf, dataset: h5py.Dataset) -> Any:
        path = leaf.field.path
        found = leaf_of(path, dataset, self.per_episode)
        rows = dataset.shape[0] - tree.covers(self.drop_last, path) if dataset.shape else 0
        if found.form == "value" or dataset.shape[0]:  # a camera without a frame cannot show how it is encoded
            check_same(leaf, found)
        return column(leaf, dataset, rows=max(rows, 0), images=self.images)

    def _check(self, found: Collection[str]) -> None:
        """Refuse an episode that lacks a dataset of the first one, or holds more: that would be lost."""
        known = {path for path in self.leaves if path != PLACE}
        optional = {path for path in known if tree.covers([OWN, PARENT], path)}
        missing, more = sorted(known - optional - {*found}), sorted({*found} - known)
        if missing:
            raise SourceError(f"there is no '{missing[0]}', which the first episode has", reason="contradicts_fields")
        if more:
            message = f"'{more[0]}' is not in the first episode; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")


def _add(found: dict[str, Leaf], leaf: Leaf) -> None:
    if leaf.field.path in found:
        raise SourceError(f"two fields are called {leaf.field.path}", reason="unsupported_field")
    found[leaf.field.path] = leaf


def _nothing(pattern: str, path: str) -> SourceError:
    return SourceError(f"no group matches '{pattern}'", reason="no_episodes", file=path)


def _found(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the files that a pattern such as `*/demo.hdf5` names, or those directly in the folder."""
    if pattern is None:
        return tuple(sorted((name for name in folder.names() if name.endswith(HDF5_NAMES)), key=tree.natural))
    found = [""]
    for depth, word in enumerate(pattern.split("/")):
        bases = [(base, f"{base}/" if depth else "") for base in found]
        found = [f"{stem}{name}" for base, stem in bases for name in folder.names(base) if fnmatchcase(name, word)]
    return tuple(sorted(found, key=tree.natural))
