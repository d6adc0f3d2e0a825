"""A replay buffer: the arrays of one store, and the rows that each episode has in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.readers.fields import VALUE_LIMIT, Leaf
from pipelines.readers.names import covers
from pipelines.readers.zarr.arrays import Rows, arrays_of
from pipelines.readers.zarr.store import Files, SourceStore
from schemas.errors import SourceError
from schemas.source import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a declaration says of the stores: the keys of `source`."""

    ends: str
    steps: str
    ignore: tuple[str, ...]
    frames: Mapping[str, str]
    fill: tuple[str, ...]

    def is_step(self, place: str) -> bool:
        """Say whether an array has a row for each step, not for each episode."""
        return place != self.ends and (not self.steps or place.startswith(f"{self.steps}/"))

    def path_of(self, place: str) -> str:
        """Give the field of an array: its dotted path, for those of the steps relative to their group."""
        return (place.removeprefix(f"{self.steps}/") if self.steps else place).replace("/", ".")


@dataclass(frozen=True, slots=True)
class Buffer:
    """One opened store: its arrays with the descriptions of their fields, by path."""

    rows: Mapping[str, Rows]
    leaves: Mapping[str, Leaf]
    ends: Array
    ends_file: str  # the chunk that changes when episodes are added

    @classmethod
    def of(cls, files: Files, told: Told) -> "Buffer":
        """Read all descriptions of a store, and its ends."""
        store = SourceStore(files, path_of=told.path_of, fill=told.fill)
        arrays = arrays_of(store, lambda place: covers(told.ignore, told.path_of(place)))
        if told.ends not in arrays:
            message = f"there is no array '{told.ends}'; source.episode_ends says where the episodes' ends are"
            raise SourceError(message, reason="no_episodes")
        held = arrays.pop(told.ends)
        ends = _ends(Rows(held, told.ends))
        if not any(map(told.is_step, arrays)):
            raise _no_steps(told, ends)
        rows: dict[str, Rows] = {}
        leaves: dict[str, Leaf] = {}
        for place, array in arrays.items():
            path = told.path_of(place)
            if path in rows:
                raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
            if covers(told.fill, path) and array.metadata.fill_value is None:
                message = f"source.fill: {path} has no fill value, so what its missing chunks held is not known"
                raise SourceError(message, reason="unsupported_field")
            rows[path] = Rows(array, path, told.frames.get(path))
            is_value = not told.is_step(place)
            if is_value and rows[path].count != len(ends):
                raise _neither(place, path, rows=rows[path].count, episodes=len(ends))
            leaves[path] = rows[path].leaf(is_value=is_value, is_declared=path in told.frames)
        last = max(0, -(-len(ends) // (held.shards or held.chunks)[0]) - 1)
        return cls(rows, leaves, ends, f"{told.ends}/{held.metadata.encode_chunk_key((last,))}")

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


def _no_steps(told: Told, ends: Array) -> SourceError:
    steps = int(ends[-1]) if len(ends) else 0
    return SourceError(
        f"there is no array below '{told.steps}', but {told.ends} has {len(ends)} episodes of {steps} steps together: "
        "the store was copied without them, or source.steps says in which group they are",
        reason="no_episodes",
    )


def _neither(place: str, path: str, *, rows: int, episodes: int) -> SourceError:
    return SourceError(
        f"{place} has {rows} rows and there are {episodes} episodes: the group that source.steps names has what is "
        f"there for each step, the others what is there for each episode; or declare source.ignore = ['{path}']",
        reason="unsupported_field",
    )
