"""A store in which each episode is a group of arrays with one row per step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import zarr

from pipelines.readers.episode_rows import guess
from pipelines.readers.fields import Leaf, array_leaf, first_readable
from pipelines.readers.names import covers
from pipelines.readers.patterns import matches, siblings
from pipelines.readers.survey import ArrayHead
from pipelines.readers.zarr.arrays import ZarrRows, arrays_of, names_in, open_node, open_root
from pipelines.readers.zarr.buffer import is_empty, row_table
from pipelines.readers.zarr.store import DAMAGE, METADATA, SourceStore, StoreFiles
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError


class ZarrTree:
    """The groups and headers of a store; files and damaged nodes count as empty arrays."""

    def __init__(self, files: StoreFiles) -> None:
        """Open the store; raise SourceError if it is not a Zarr group."""
        self.store = SourceStore(files, path_of=str)
        self.nodes: dict[str, Any] = {"": open_root(self.store)}

    def names(self, group: str) -> Sequence[str]:
        """Return the names in a group; empty for an array."""
        node = self._node(group)
        return names_in(self.store, node) if isinstance(node, zarr.Group) else ()

    def __contains__(self, path: str) -> bool:
        """Whether there is a group or an array at a path."""
        return self._node(path) is not None

    def head(self, path: str) -> ArrayHead | None:
        """Return the header of an array; None for a group."""
        node = self._node(path)
        if isinstance(node, zarr.Group):
            return None
        if node is None:
            return ArrayHead("V", ())
        kind = node.dtype.kind
        return ArrayHead("S" if kind in "SUOT" else kind, tuple(node.shape))

    def _node(self, path: str) -> Any:
        if path not in self.nodes:
            group, _, name = path.rpartition("/")
            try:
                parent = self._node(group)
                self.nodes[path] = open_node(parent, name, path) if isinstance(parent, zarr.Group) else None
            except (SourceError, *DAMAGE):
                self.nodes[path] = None
        return self.nodes[path]


@dataclass(frozen=True, slots=True)
class EpisodeArrays:
    """The arrays of one episode: those with a row per step, and whole arrays that are per-episode values."""

    rows: Mapping[str, ZarrRows]
    leaves: Mapping[str, Leaf]
    empty: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, store: SourceStore, group: Any, source: ZarrSource) -> "EpisodeArrays":
        """Read the metadata of a group's arrays."""
        arrays = arrays_of(store, group, lambda place: covers(source.ignore, store.path_of(place)))
        by_path = {store.path_of(place): array for place, array in arrays.items()}
        whole = {path for path, array in by_path.items() if not array.shape or covers(source.per_episode, path)}
        has_rows = any(array.shape[0] for path, array in by_path.items() if path not in whole)
        empty = {path: array.shape for path, array in by_path.items() if is_empty(array.shape, has_rows=has_rows)}
        rows = {p: ZarrRows(a, p, source.frames.get(p)) for p, a in by_path.items() if p not in empty}
        table = row_table({path: array for path, array in rows.items() if path not in whole})
        is_table = not (source.episodes or "").strip("/") and source.episode_flags is None
        if is_table and (key := guess(table)):
            raise key.error()
        leaves = {
            path: array_leaf(path, array.dtype, array.shape, is_value=True)
            if path in whole
            else array.leaf(is_value=False, is_declared=path in source.frames)
            for path, array in rows.items()
        }
        return cls(rows, leaves, empty)

    @property
    def count(self) -> int:
        """The number of steps."""
        counts: list[int] = [self.rows[path].count for path, leaf in self.leaves.items() if leaf.form != "value"]
        return counts[0] if counts else 0


class GroupedStore:
    """An open store and the groups in it that are episodes."""

    def __init__(self, files: StoreFiles, source: ZarrSource) -> None:
        """List the groups; raise SourceError if no group matches `source.episodes`."""
        self.source, self.pattern = source, (source.episodes or "/").strip("/")
        self.tree = ZarrTree(files)
        depth = len(self.pattern.split("/")) if self.pattern else 0
        self.store = SourceStore(files, path_of=lambda place: ".".join(place.split("/")[depth:]), fill=source.fill)
        self.root = open_root(self.store)
        paths = [path for path in matches(self.tree, self.pattern) if f"/{path}" not in source.ignore]
        self.groups = paths if self.pattern else [""]
        if not self.groups:
            raise SourceError(f"no group matches '{source.episodes}'", reason="no_episodes")
        self._open: tuple[int, EpisodeArrays] | None = None

    @cached_property
    def first(self) -> EpisodeArrays:
        """The first episode that can be read."""
        numbers = {path: number for number, path in enumerate(self.groups)}

        def describe(path: str) -> EpisodeArrays:
            try:
                return self._episode(numbers[path])
            except SourceError as error:
                raise error.at(prefix=path) from error

        return first_readable(self.groups, describe, otherwise=SourceError("no episodes", reason="no_episodes"))

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """The fields of the first episode that can be read."""
        return self.first.leaves

    @property
    def empty(self) -> Mapping[str, tuple[int, ...]]:
        """The arrays without values of that episode."""
        return self.first.empty

    @property
    def count(self) -> int:
        """The number of episodes."""
        return len(self.groups)

    @property
    def mark(self) -> str:
        """The metadata of the last episode; it changes when episodes are added."""
        path = self.groups[-1]
        for name in sorted(METADATA):
            place = f"{path}/{name}".lstrip("/")
            if file := self.store.files.open(place):
                file.close()
                return place
        return path

    @property
    def size(self) -> int:
        """The approximate size of all episodes in bytes, uncompressed: as many times that of the first one."""
        one: int = sum(rows.array.nbytes for rows in self.first.rows.values())
        return self.count * one

    def name(self, number: int) -> str:
        """Return the path of an episode's group."""
        return self.groups[number]

    def word(self, number: int) -> str:
        """Return the last word of an episode's path."""
        return self.groups[number].rpartition("/")[2]

    def length(self, number: int) -> int:
        """Return the number of steps of an episode."""
        return self._episode(number).count

    def rows_after_end(self) -> int:
        """Return 0, because every row belongs to an episode."""
        return 0

    def others(self, ignored: Sequence[str]) -> dict[str, bool]:
        """Return what is beside the episodes, and whether it is a group, by path.

        `ignored` are paths that count although `source.ignore` names them, because that was guessed.
        """
        paths = [path for path in siblings(self.tree, self.pattern) if f"/{path}" not in self.source.ignore]
        paths += [path for path in ignored if path in self.tree]
        return {path: self.tree.head(path) is None for path in paths}

    def leaves_of(self, number: int) -> Mapping[str, Leaf]:
        """Return the fields of an episode."""
        return self._episode(number).leaves

    def values(self, path: str, number: int, *, images: str) -> Any:
        """Read one field of one episode."""
        episode = self._episode(number)
        leaf, rows = episode.leaves[path], episode.rows[path]
        return rows.whole() if leaf.form == "value" else rows.column(leaf, 0, rows.count, images=images)

    def _episode(self, number: int) -> EpisodeArrays:
        if self._open is None or self._open[0] != number:
            path = self.groups[number]
            group = self.root[path] if path else self.root
            if not isinstance(group, zarr.Group):
                raise SourceError("expected an episode's group, got an array", reason="contradicts_fields")
            self._open = number, EpisodeArrays.of(self.store, group, self.source)
        return self._open[1]
