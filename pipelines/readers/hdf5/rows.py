"""Read HDF5 groups whose datasets have the rows of many episodes, one after another, as D4RL's files do."""

from collections.abc import Iterator, Mapping
from copy import copy
from functools import partial
from math import prod
from typing import Any

import h5py
import numpy as np

from pipelines.readers.episode_rows import RowColumn, Table, divide, find_path, row_count_error
from pipelines.readers.fields import Leaf
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5.columns import check_storage, row_blocks, value, value_field
from pipelines.readers.hdf5.episode import EPISODE_PATH, Hdf5Episode
from pipelines.readers.names import covers
from schemas.declarations.formats import Hdf5Source
from schemas.limits import VALUE_BYTES, check_limit
from schemas.source import Array

CACHE = 16 << 20  # bytes of chunks per dataset; the next episode often starts in the last chunk of this one
MAX_DESCRIPTION = 64 << 10  # bytes of a dataset that is guessed to describe every episode


class Hdf5Table(Hdf5Episode):
    """A group with the rows of many episodes; `episode` returns one of them.

    A dataset with as many rows as the columns that divide the table has a row per step, and one with as many rows as
    there are episodes has a row per episode. Any other value is the same in each episode.
    """

    def __init__(self, file: h5py.File, name: str, *, folder: SourceFolder, file_name: str, source: Hdf5Source) -> None:
        """Divide the rows into episodes; only the datasets that say where episodes end are read."""
        super().__init__(file, name, folder=folder, file_name=file_name, source=source)
        self.rows = divide(row_table(self.datasets), source)
        if source.episode_ends is not None:
            self.datasets.pop(find_path(self.datasets, source.episode_ends) or "")
        self.number = 0
        self._leaves: dict[str, Leaf] = {}

    def episode(self, number: int) -> "Hdf5Table":
        """Return the episode with this number; no values are read."""
        episode = copy(self)
        episode.number, episode.start = number, self.rows.bounds(number)[0]
        return episode

    def per_episode(self, path: str) -> tuple[Leaf | None, Any]:
        """Describe and read a per-episode value; those of the whole table are read once for all episodes."""
        if self._has_row_per_episode(path):
            return self._per_episode(path)
        leaf, content = super().per_episode(path)
        return leaf, f"{content}/episode_{self.number}" if path == EPISODE_PATH else content

    def _describe(self, path: str, dataset: h5py.Dataset) -> Leaf:
        if path not in self._leaves:
            if self._has_row_per_episode(path):
                check_storage(path, dataset)
                size = dataset.dtype.itemsize * prod(dataset.shape[1:])
                check_limit(size, VALUE_BYTES, "bytes for one value", what=path)
                self._leaves[path] = Leaf(value_field(path, dataset.dtype, dataset.shape[1:]), "value")
            elif self._is_odd(path):
                raise row_count_error(path, dataset.shape[0], self.rows)
            else:
                self._leaves[path] = super()._describe(path, dataset)
        return self._leaves[path]

    def _is_odd(self, path: str) -> bool:
        """Whether a dataset has neither a row per step nor a row per episode, and is not declared to have none."""
        shape = self.datasets[path].shape
        counts = {self.rows.rows, len(self.rows)}
        return bool(shape) and shape[0] not in counts and not covers(self.source.per_episode, path)

    def _has_row_per_episode(self, path: str) -> bool:
        shape: tuple[int, ...] = self.datasets[path].shape if path in self.datasets else ()
        is_other = not shape or shape[0] == self.rows.rows or covers(self.source.per_episode, path)
        return not is_other and shape[0] == len(self.rows)

    def _stored_value(self, leaf: Leaf) -> Any:
        path = leaf.field.path
        if self._has_row_per_episode(path):
            return value(leaf.field, self.datasets[path][self.number])
        return super()._stored_value(leaf)

    def _count(self, path: str) -> int:  # noqa: ARG002 - all columns have the same rows
        start, end = self.rows.bounds(self.number)
        return end - start

    def odd_paths(self) -> dict[str, list[str]]:
        """Return the keys of `source` for datasets that have neither a row per step nor a row per episode.

        Small ones are guessed to describe each episode, and large ones, such as the weights of a policy, to be ignored.
        Those with about as many rows as there are steps are left out, because they may be damaged columns.
        """
        keys: dict[str, list[str]] = {}
        for path, dataset in self.datasets.items():
            if (
                path not in self.empty
                and self._is_odd(path)
                and not self.rows.rows < 2 * dataset.shape[0] < 4 * self.rows.rows
            ):
                size = dataset.dtype.itemsize * prod(dataset.shape)
                keys.setdefault("per_episode" if size <= MAX_DESCRIPTION else "ignore", []).append(path)
        return keys


def row_table(datasets: Mapping[str, h5py.Dataset]) -> Table:
    """Describe datasets as the columns of a table."""
    return {path: _row_column(path, dataset) for path, dataset in datasets.items() if dataset.shape}


def _row_column(path: str, dataset: h5py.Dataset) -> RowColumn:
    kind = "O" if h5py.check_string_dtype(dataset.dtype) else dataset.dtype.kind.replace("O", "V")
    return RowColumn(dataset.shape, kind, partial(_blocks, path, dataset))


def _blocks(path: str, dataset: h5py.Dataset) -> Iterator[Array]:
    check_storage(path, dataset)
    for block in row_blocks(dataset, 0, dataset.shape[0]):
        yield block.astype(object) if block.dtype.kind == "S" else np.asarray(block)
