"""A replay buffer: the arrays of one store, and the rows that each episode has in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.readers.fields import VALUE_LIMIT, Leaf
from pipelines.readers.names import covers
from pipelines.readers.zarr.arrays import Rows, arrays_of
from pipelines.readers.zarr.store import Files, SourceStore
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError
from schemas.source import Array


def _is_step(source: ZarrSource, place: str) -> bool:
    """Whether an array has a row for each step, not for each episode."""
    return place != source.episode_ends and (not source.steps or place.startswith(f"{source.steps}/"))


def _path_of(source: ZarrSource, place: str) -> str:
    """Return the field of an array: its dotted path, for those of the steps relative to their group."""
    return (place.removeprefix(f"{source.steps}/") if source.steps else place).replace("/", ".")


@dataclass(frozen=True, slots=True)
class Buffer:
    """One opened store: its arrays with the descriptions of their fields, by path."""

    rows: Mapping[str, Rows]
    leaves: Mapping[str, Leaf]
    ends: Array
    ends_file: str  # the chunk that changes when episodes are added

    @classmethod
    def of(cls, files: Files, source: ZarrSource) -> "Buffer":
        """Read all descriptions of a store, and its ends; the places in `source` have no slashes around them."""
        path_of = partial(_path_of, source)
        store = SourceStore(files, path_of=path_of, fill=source.fill)
        arrays = arrays_of(store, lambda place: covers(source.ignore, path_of(place)))
        place_of_ends = source.episode_ends
        if place_of_ends not in arrays:
            message = f"there is no array '{place_of_ends}'; source.episode_ends says where the episodes' ends are"
            raise SourceError(message, reason="no_episodes")
        held = arrays.pop(place_of_ends)
        ends = _ends(Rows(held, place_of_ends))
        if not any(_is_step(source, place) for place in arrays):
            raise _no_steps(source, ends)
        rows: dict[str, Rows] = {}
        leaves: dict[str, Leaf] = {}
        for place, array in arrays.items():
            path = path_of(place)
            if path in rows:
                raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
            if covers(source.fill, path) and array.metadata.fill_value is None:
                message = f"source.fill: {path} has no fill value, so what its missing chunks held is not known"
                raise SourceError(message, reason="unsupported_field")
            rows[path] = Rows(array, path, source.frames.get(path))
            is_value = not _is_step(source, place)
            if is_value and rows[path].count != len(ends):
                raise _neither(place, path, rows=rows[path].count, episodes=len(ends))
            leaves[path] = rows[path].leaf(is_value=is_value, is_declared=path in source.frames)
        last = max(0, -(-len(ends) // (held.shards or held.chunks)[0]) - 1)
        return cls(rows, leaves, ends, f"{place_of_ends}/{held.metadata.encode_chunk_key((last,))}")

    @property
    def size(self) -> int:
        """Count the bytes of all arrays, as they are in memory."""
        return sum(rows.array.nbytes for rows in self.rows.values())

    def bounds(self, number: int) -> tuple[int, int]:
        """Give the first row of an episode, and the one behind its last."""
        return int(self.ends[number - 1]) if number else 0, int(self.ends[number])

    def left_over(self) -> int:
        """Count the rows behind the last episode."""
        rows = max((self.rows[path].count for path, leaf in self.leaves.items() if leaf.field.per_step), default=0)
        return max(0, rows - (int(self.ends[-1]) if len(self.ends) else 0))

    def values(self, path: str, number: int, *, images: str) -> Any:
        """Read one field of one episode; an array that ends before the episode is a SourceError."""
        leaf, rows = self.leaves[path], self.rows[path]
        if leaf.form == "value":
            return rows.value(number)
        start, end = self.bounds(number)
        if end > rows.count:
            raise SourceError(f"{path} ends at row {rows.count}, the episode at {end}", reason="truncated")
        return rows.column(leaf, start, end, images=images)


def _ends(rows: Rows) -> Array:
    """Read the ends of the episodes: whole numbers that grow; an empty episode ends where the one before it does."""
    path = rows.path
    if len(rows.shape) != 1 or rows.dtype.kind not in "iu" or rows.count * rows.dtype.itemsize > VALUE_LIMIT:
        raise SourceError(f"{path} is {rows.dtype} {list(rows.shape)}, and no list of ends", reason="bad_ends")
    ends = np.concatenate([np.zeros(1, np.int64), *(block.astype(np.int64) for block in rows.blocks(0, rows.count))])
    if (np.diff(ends) < 0).any():
        at = int(np.argmax(np.diff(ends) < 0))
        message = f"{path}: episode {at} would end at row {ends[at + 1]}, before it begins at {ends[at]}"
        raise SourceError(message, reason="bad_ends")
    return ends[1:]


def _no_steps(source: ZarrSource, ends: Array) -> SourceError:
    steps = int(ends[-1]) if len(ends) else 0
    return SourceError(
        f"there is no array below '{source.steps}', but {source.episode_ends} has {len(ends)} episodes of {steps} "
        "steps together: the store was copied without them, or source.steps says in which group they are",
        reason="no_episodes",
    )


def _neither(place: str, path: str, *, rows: int, episodes: int) -> SourceError:
    return SourceError(
        f"{place} has {rows} rows and there are {episodes} episodes: the group that source.steps names has what is "
        f"there for each step, the others what is there for each episode; or declare source.ignore = ['{path}']",
        reason="unsupported_field",
    )
