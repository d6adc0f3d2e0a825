"""A replay buffer: the arrays of one store, and which of their rows belong to each episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.readers.fields import VALUE_LIMIT, Leaf
from pipelines.readers.names import covers
from pipelines.readers.zarr.arrays import ZarrRows, arrays_of, open_root
from pipelines.readers.zarr.store import SourceStore, StoreFiles
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError
from schemas.source import Array


def _is_step(source: ZarrSource, place: str) -> bool:
    """Whether an array has one row per step; otherwise, it has one per episode."""
    return place != source.episode_ends and (not source.steps or place.startswith(f"{source.steps}/"))


def _path_of(source: ZarrSource, place: str) -> str:
    """Return the field path of an array: its place with dots; the group of the steps is removed from its start."""
    return (place.removeprefix(f"{source.steps}/") if source.steps else place).replace("/", ".")


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """An open store: its arrays and the descriptions of their fields, by path."""

    rows: Mapping[str, ZarrRows]
    leaves: Mapping[str, Leaf]
    ends: Array
    mark: str  # the chunk with the last episode's end; it changes when episodes are added
    empty: Mapping[str, tuple[int, ...]]  # arrays without values and their shapes, by path; they are left out

    @classmethod
    def of(cls, files: StoreFiles, source: ZarrSource) -> "ReplayBuffer":
        """Read the metadata of a store and the ends of its episodes.

        `source.episode_ends` and `source.steps` must not start or end with a slash.
        """
        path_of = partial(_path_of, source)
        store = SourceStore(files, path_of=path_of, fill=source.fill)
        arrays = arrays_of(store, open_root(store), lambda place: covers(source.ignore, path_of(place)))
        ends_place = source.episode_ends
        if ends_place not in arrays:
            message = f"there is no array '{ends_place}'; name the array with the episodes' ends in source.episode_ends"
            raise SourceError(message, reason="no_episodes")
        ends_array = arrays.pop(ends_place)
        ends = _ends(ZarrRows(ends_array, ends_place))
        has_rows = bool(len(ends) and ends[-1])
        empty = {path_of(place): array.shape for place, array in arrays.items() if is_empty(array, has_rows=has_rows)}
        arrays = {place: array for place, array in arrays.items() if path_of(place) not in empty}
        if not any(_is_step(source, place) for place in arrays):
            raise _no_steps_error(source, ends)
        rows: dict[str, ZarrRows] = {}
        leaves: dict[str, Leaf] = {}
        for place, array in arrays.items():
            path = path_of(place)
            if path in rows:
                raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
            if covers(source.fill, path) and array.metadata.fill_value is None:
                message = f"source.fill: {path} has no fill value, so its missing chunks cannot be filled"
                raise SourceError(message, reason="unsupported_field")
            rows[path] = ZarrRows(array, path, source.frames.get(path))
            is_value = not _is_step(source, place)
            if is_value and rows[path].count != len(ends):
                raise _row_count_error(place, path, rows=rows[path].count, episodes=len(ends))
            leaves[path] = rows[path].leaf(is_value=is_value, is_declared=path in source.frames)
        last = max(0, -(-len(ends) // (ends_array.shards or ends_array.chunks)[0]) - 1)
        mark = f"{ends_place}/{ends_array.metadata.encode_chunk_key((last,))}"
        return cls(rows, leaves, ends, mark, empty)

    @property
    def count(self) -> int:
        """The number of episodes."""
        return len(self.ends)

    def name(self, number: int) -> str:
        """Return the name of an episode, for errors and its path."""
        return f"episode_{number}"

    def word(self, number: int) -> str:
        """Return what an episode is called in the names of its videos."""
        return str(number)

    def length(self, number: int) -> int:
        """Return the number of steps of an episode."""
        start, end = self.bounds(number)
        return end - start

    @property
    def size(self) -> int:
        """The total size of all arrays in bytes, uncompressed."""
        return sum(rows.array.nbytes for rows in self.rows.values())

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the first row of an episode, and one past its last row."""
        return int(self.ends[number - 1]) if number else 0, int(self.ends[number])

    def rows_after_end(self) -> int:
        """Return the number of rows after the end of the last episode."""
        rows = max((self.rows[path].count for path, leaf in self.leaves.items() if leaf.field.per_step), default=0)
        return max(0, rows - (int(self.ends[-1]) if len(self.ends) else 0))

    def values(self, path: str, number: int, *, images: str) -> Any:
        """Read one field of one episode; raise SourceError if its array has too few rows."""
        leaf, rows = self.leaves[path], self.rows[path]
        if leaf.form == "value":
            return rows.value(number)
        start, end = self.bounds(number)
        if end > rows.count:
            raise SourceError(f"{path} ends at row {rows.count}, but the episode ends at {end}", reason="truncated")
        return rows.column(leaf, start, end, images=images)


def is_empty(array: Any, *, has_rows: bool) -> bool:
    """Whether an array holds no values, although others have rows."""
    shape = array.shape
    return bool(shape) and (0 in shape[1:] or (has_rows and not shape[0]))


def _ends(rows: ZarrRows) -> Array:
    """Read the ends of the episodes [E] int64; raise SourceError if they are not integers or decrease."""
    path = rows.path
    if len(rows.shape) != 1 or rows.dtype.kind not in "iu" or rows.count * rows.dtype.itemsize > VALUE_LIMIT:
        raise SourceError(
            f"{path} is {rows.dtype} {list(rows.shape)}; expected a list of ends, which are integers", reason="bad_ends"
        )
    ends = np.concatenate([np.zeros(1, np.int64), *(block.astype(np.int64) for block in rows.blocks(0, rows.count))])
    if (np.diff(ends) < 0).any():
        at = int(np.argmax(np.diff(ends) < 0))
        message = f"{path}: episode {at} ends at row {ends[at + 1]}, before it starts at {ends[at]}"
        raise SourceError(message, reason="bad_ends")
    return ends[1:]


def _no_steps_error(source: ZarrSource, ends: Array) -> SourceError:
    steps = int(ends[-1]) if len(ends) else 0
    return SourceError(
        f"there is no array below '{source.steps}', but {source.episode_ends} has {len(ends)} episodes with {steps} "
        "steps in total: copy the missing arrays, or name their group in source.steps",
        reason="no_episodes",
    )


def _row_count_error(place: str, path: str, *, rows: int, episodes: int) -> SourceError:
    return SourceError(
        f"{place} has {rows} rows, but there are {episodes} episodes: arrays outside the group in source.steps have a "
        f"row per episode; name the right group, or leave the array out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )
