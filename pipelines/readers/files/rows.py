"""Read files whose columns have the rows of many episodes, one after another."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from pipelines.readers.episode_rows import EpisodeRows, RowColumn, Table, divide, find_path, row_count_error
from pipelines.readers.fields import Leaf
from pipelines.readers.files.lazy_field import LazyField
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError
from schemas.source import Array

MAX_CACHED = 256 << 20  # bytes of a column that is read once for all episodes


@dataclass(frozen=True, slots=True)
class FileTable:
    """The columns of a file or folder with the rows of many episodes; `episode` returns the fields of one of them.

    A column with as many rows as the columns that divide the table has a row per step, and one with as many rows as
    there are episodes has a row per episode. Any other value is the same in each episode.
    """

    fields: Mapping[str, LazyField]
    rows: EpisodeRows
    _cached: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, LazyField], source: FolderSource) -> "FileTable":
        """Divide the rows into episodes; only the columns that say where episodes end are read.

        Raises SourceError if a column has neither a row per step nor a row per episode.
        """
        rows = divide(row_table(fields), source)
        ends = find_path(fields, source.episode_ends) if source.episode_ends is not None else None
        columns = {path: column for path, column in fields.items() if path != ends}
        for path, column in columns.items():
            if column.leaf.field.per_step and column.count not in {rows.rows, len(rows)}:
                raise _row_count_error(path, column, rows=rows)
        return cls(columns, rows)

    def episode(self, number: int) -> dict[str, LazyField]:
        """Return the fields of the episode with this number; no values are read."""
        if number >= len(self.rows):
            raise SourceError("no row is the last one of an episode", reason="no_episodes")
        return {path: self._field(path, column, number) for path, column in self.fields.items()}

    def _field(self, path: str, column: LazyField, number: int) -> LazyField:
        if not column.leaf.field.per_step:
            return column
        if column.count != self.rows.rows:
            return LazyField(
                leaf=_value_leaf(column.leaf), read=lambda _: _plain(self._values(path, number, number + 1))
            )
        start, end = self.rows.bounds(number)
        cells = None if column.cells is None else column.cells[start:end]
        return replace(
            column, count=end - start, cells=cells, read=lambda rows: self._values(path, start, start + rows), span=None
        )

    def _values(self, path: str, start: int, end: int) -> Any:
        column = self.fields[path]
        if _size(column) > MAX_CACHED:
            return column.rows(start, end)
        if path not in self._cached:
            self._cached[path] = column.read(column.count)
        return self._cached[path][start:end]


def _size(column: LazyField) -> int:
    """Return the size of a column in bytes; 0 if it is in memory, and a large one for images."""
    if column.span is None:
        return 0
    kind = column.leaf.field
    row = np.dtype(kind.dtype).itemsize * prod(side or 1 for side in kind.shape)
    return column.count * row if column.leaf.form == "numbers" else MAX_CACHED + 1


def _value_leaf(leaf: Leaf) -> Leaf:
    if leaf.form not in {"numbers", "texts"}:
        message = f"{leaf.field.path} has an image for each episode: leave it out with source.ignore"
        raise SourceError(message, reason="unsupported_field")
    return Leaf(replace(leaf.field, per_step=False), "value")


def _plain(rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return rows[0].tolist()
    return bytes(rows[0]).decode(errors="replace")


def row_table(fields: Mapping[str, LazyField]) -> Table:
    """Describe the number and text columns of files as the columns of a table."""
    steps = {path: column for path, column in fields.items() if column.leaf.field.per_step}
    return {
        path: _row_column(path, column) for path, column in steps.items() if column.leaf.form in {"numbers", "texts"}
    }


def _row_column(path: str, column: LazyField) -> RowColumn:
    kind = column.leaf.field
    letter = "O" if column.leaf.form == "texts" else np.dtype(kind.dtype).kind
    return RowColumn((column.count, *(side or 0 for side in kind.shape)), letter, partial(_blocks, path, column))


def _blocks(path: str, column: LazyField) -> Iterator[Array]:
    values = column.read(column.count)
    if column.leaf.form != "texts":
        yield np.asarray(values)
        return
    try:
        yield np.array([bytes(text).decode() for text in values], object)
    except UnicodeError as error:
        raise SourceError(f"{path} is not UTF-8", reason="bad_utf8") from error


def _row_count_error(path: str, column: LazyField, *, rows: EpisodeRows) -> SourceError:
    if column.leaf.form in {"numbers", "texts"}:
        return row_count_error(path, column.count, rows)
    return SourceError(f"{path} has {column.count} frames, but there are {rows.rows} rows", reason="frame_count")
