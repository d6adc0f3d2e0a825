"""A replay buffer: the arrays of one store, and which of their rows belong to each episode."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipelines.readers.episode_rows import EpisodeRows, RowColumn, Table, checked_ends, divide, guess
from pipelines.readers.fields import Leaf
from pipelines.readers.names import covers
from pipelines.readers.zarr.arrays import ZarrRows, arrays_of, open_root
from pipelines.readers.zarr.store import SourceStore, StoreFiles
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError
from schemas.limits import VALUE_BYTES
from schemas.source import Array


def is_step(source: ZarrSource, place: str) -> bool:
    """Whether an array has one row per step; otherwise, it has one per episode."""
    return place != source.ends_at and (not source.steps or place.startswith(f"{source.steps}/"))


def path_of(source: ZarrSource, place: str) -> str:
    """Return the field path of an array: its place with dots; the group of the steps is removed from its start."""
    return (place.removeprefix(f"{source.steps}/") if source.steps else place).replace("/", ".")


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """An open store: its arrays and the descriptions of their fields, by path."""

    rows: Mapping[str, ZarrRows]
    leaves: Mapping[str, Leaf]
    episodes: EpisodeRows
    mark: str  # a file that changes when episodes are added: the chunk with the last end, or an array's metadata
    empty: Mapping[str, tuple[int, ...]]  # arrays without values and their shapes, by path; they are left out

    @classmethod
    def of(cls, files: StoreFiles, source: ZarrSource) -> "ReplayBuffer":
        """Read the metadata of a store and where its episodes end.

        `source.episode_ends` and `source.steps` must not start or end with a slash.
        """
        store = SourceStore(files, path_of=partial(path_of, source), fill=source.fill)
        arrays = arrays_of(store, open_root(store), lambda place: covers(source.ignore, path_of(source, place)))
        place = source.ends_at
        if place is not None and place not in arrays:
            raise _no_ends_error(source, arrays)
        ends_array = None if place is None else arrays.pop(place)
        ends = None if ends_array is None else _ends(ZarrRows(ends_array, place or ""))
        has_rows = any(array.shape and array.shape[0] for place, array in arrays.items() if is_step(source, place))
        if ends is not None:
            has_rows = bool(len(ends) and ends[-1])
        shapes = {path_of(source, place): array.shape for place, array in arrays.items()}
        empty = {path: shape for path, shape in shapes.items() if is_empty(shape, has_rows=has_rows)}
        arrays = {place: array for place, array in arrays.items() if path_of(source, place) not in empty}
        if not any(is_step(source, place) for place in arrays):
            raise _no_steps_error(source, ends)
        rows: dict[str, ZarrRows] = {}
        for place, array in arrays.items():
            path = path_of(source, place)
            if path in rows:
                raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
            if covers(source.fill, path) and array.metadata.fill_value is None:
                message = f"source.fill: {path} has no fill value, so its missing chunks cannot be filled"
                raise SourceError(message, reason="unsupported_field")
            rows[path] = ZarrRows(array, path, source.frames.get(path))
        steps = {path_of(source, place): place for place in arrays if is_step(source, place)}
        episodes = _episodes(source, {path: rows[path] for path in steps}, ends)
        leaves: dict[str, Leaf] = {}
        for place in arrays:
            path = path_of(source, place)
            if path not in steps and rows[path].count != len(episodes):
                raise _row_count_error(place, path, rows=rows[path].count, episodes=len(episodes))
            leaves[path] = rows[path].leaf(is_value=path not in steps, is_declared=path in source.frames)
        if ends_array is None:
            place = next(iter(steps.values()))
            metadata_file = "zarr.json" if arrays[place].metadata.zarr_format == 3 else ".zarray"
            return cls(rows, leaves, episodes, f"{place}/{metadata_file}", empty)
        last = max(0, -(-len(episodes) // (ends_array.shards or ends_array.chunks)[0]) - 1)
        mark = f"{source.ends_at}/{ends_array.metadata.encode_chunk_key((last,))}"
        return cls(rows, leaves, episodes, mark, empty)

    @property
    def count(self) -> int:
        """The number of episodes."""
        return len(self.episodes)

    def name(self, number: int) -> str:
        """Return the name of an episode, for errors and its path."""
        return f"episode_{number}"

    def word(self, number: int) -> str:
        """Return what an episode is called in the names of its videos."""
        return str(number)

    def length(self, number: int) -> int:
        """Return the number of steps of an episode."""
        start, end = self.episodes.bounds(number)
        return end - start

    def rows_after_end(self) -> int:
        """Return the number of rows after the end of the last episode."""
        return self.episodes.rows_after_end()

    @property
    def size(self) -> int:
        """The total size of all arrays in bytes, uncompressed."""
        return sum(rows.array.nbytes for rows in self.rows.values())

    def values(self, path: str, number: int, *, images: str) -> Any:
        """Read one field of one episode; raise SourceError if its array has too few rows."""
        leaf, rows = self.leaves[path], self.rows[path]
        if leaf.form == "value":
            return rows.value(number)
        start, end = self.episodes.bounds(number)
        if end > rows.count:
            raise SourceError(f"{path} ends at row {rows.count}, but the episode ends at {end}", reason="truncated")
        return rows.column(leaf, start, end, images=images)


def is_empty(shape: tuple[int, ...], *, has_rows: bool) -> bool:
    """Whether an array of this shape holds no values, although others have rows."""
    return bool(shape) and (0 in shape[1:] or (has_rows and not shape[0]))


def _ends(rows: ZarrRows) -> Array:
    """Read the ends of the episodes [E] int64; raise SourceError if they are not integers or decrease."""
    path = rows.path
    if len(rows.shape) != 1 or rows.dtype.kind not in "iu" or rows.count * rows.dtype.itemsize > VALUE_BYTES:
        raise SourceError(
            f"{path} is {rows.dtype} {list(rows.shape)}; expected a list of ends, which are integers", reason="bad_ends"
        )
    return checked_ends(path, np.concatenate([np.empty(0, np.int64), *rows.blocks(0, rows.count)]))


def _episodes(source: ZarrSource, steps: Mapping[str, ZarrRows], ends: Array | None) -> EpisodeRows:
    """Divide the rows of a store by the ends that were read, or by its columns.

    Arrays with fewer rows than the longest one are damaged; this is noticed when they are read.
    """
    count = max(rows.count for rows in steps.values())
    if ends is not None:
        return EpisodeRows(ends, count)
    if not source.has_tables:
        return EpisodeRows(np.array([count]), count)
    return replace(divide(row_table(steps), source), rows=count)


def row_table(steps: Mapping[str, ZarrRows]) -> Table:
    """Describe arrays as the columns of a table."""
    return {path: _row_column(rows) for path, rows in steps.items()}


def _row_column(rows: ZarrRows) -> RowColumn:
    if rows.dtype.kind not in "SUT":
        return RowColumn(rows.shape, rows.dtype.kind, partial(rows.blocks, 0, rows.count))
    return RowColumn(rows.shape, "O", lambda: (block.astype(object) for block in rows.blocks(0, rows.count)))


def _no_ends_error(source: ZarrSource, arrays: Mapping[str, Any]) -> SourceError:
    """Return the error for a store without the array of ends; it names the key that fits, if there is one."""
    if source.episode_ends is None:
        steps = {place: array for place, array in arrays.items() if is_step(source, place)}
        rows = {path_of(source, place): ZarrRows(array, place) for place, array in steps.items()}
        if key := guess(row_table(rows)):
            return key.error()
    message = f"there is no array '{source.ends_at}'; name the array with the episodes' ends in source.episode_ends"
    return SourceError(message, reason="no_episodes")


def _no_steps_error(source: ZarrSource, ends: Array | None) -> SourceError:
    if ends is None:
        message = f"there is no array below '{source.steps}'; name the group of the steps in source.steps"
        return SourceError(message, reason="no_episodes")
    steps = int(ends[-1]) if len(ends) else 0
    return SourceError(
        f"there is no array below '{source.steps}', but {source.ends_at} has {len(ends)} episodes with {steps} "
        "steps in total: copy the missing arrays, or name their group in source.steps",
        reason="no_episodes",
    )


def _row_count_error(place: str, path: str, *, rows: int, episodes: int) -> SourceError:
    return SourceError(
        f"{place} has {rows} rows, but there are {episodes} episodes: arrays outside the group in source.steps have a "
        f"row per episode; name the right group, or leave the array out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )
