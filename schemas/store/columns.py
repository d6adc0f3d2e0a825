"""The numeric columns of a published dataset, read in runs of neighbouring episodes and never with its images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.source import Array
from schemas.store import arrow
from schemas.store.arrow import RAW
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES
from schemas.views.views import View, Viewed

if TYPE_CHECKING:
    import polars as pl

STATE = "observation.state"
ROWS = 1 << 17  # that are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Some episodes of one data file."""

    file: str
    starts: Array  # [E] first rows, ascending
    lengths: Array  # [E]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSteps:
    """The steps of one stored episode, in its numeric columns."""

    file: str
    row: int  # of the first step in the file
    at: slice  # the steps in their run
    columns: Mapping[str, Array]  # [T, ...] by name

    def __len__(self) -> int:
        """Count them."""
        return int(self.at.stop - self.at.start)

    def viewed(self, view: View | None) -> Viewed:
        """Compute what a view shows of them; without one, it is every stored action."""
        if view:
            return view.of_columns(self.columns, length=len(self))
        return Viewed(self.columns["action"], np.ones(len(self), bool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Neighbouring episodes in memory: their columns, and where in them each begins and how long it is."""

    file: str
    table: pa.Table
    columns: Mapping[str, Array]  # those that hold numbers
    rows: Array  # [E] first rows in the file
    starts: Array  # [E] first rows in the run
    lengths: Array  # [E]

    def episodes(self) -> Iterator[StoredSteps]:
        """Take the episodes one by one."""
        for row, start, length in zip(self.rows.tolist(), self.starts.tolist(), self.lengths.tolist(), strict=True):
            at = slice(start, start + length)
            columns = {name: column[at] for name, column in self.columns.items()}
            yield StoredSteps(file=self.file, row=row, at=at, columns=columns)

    def instructions(self, number: Callable[[str], int]) -> Array:
        """Number the instruction of each step, [N] int64; -1 where there is none. Texts come in order of appearance."""
        encoded = self.table["instruction"].chunk(0).dictionary_encode()
        numbers = np.array([*map(number, encoded.dictionary.to_pylist()), -1], np.int64)
        return np.asarray(numbers[arrow.as_numpy(encoded.indices.fill_null(-1))])


def spans(episodes: "pl.DataFrame") -> list[Span]:
    """Group rows of the episode table by their file: by its name, then by the row there."""
    return [
        Span(file=str(file), starts=rows["row"].to_numpy(), lengths=rows["length"].to_numpy())
        for (file,), rows in episodes.sort("file", "row").group_by("file", maintain_order=True)
    ]


def runs(
    dataset: Dataset, span: Span, *, view: View | None = None, more: Iterable[str] = (), rows: int = ROWS
) -> Iterator[Run]:
    """Read the action, the state, what a view reads and `more` of a span, about `rows` rows at a time.

    An unreadable file is a DatasetError.
    """
    wanted = {"action", *([STATE] if dataset.columns.state else []), *(view.columns if view else []), *more}
    number = (span.starts + span.lengths - span.starts[0]) // rows
    with _parquet(dataset, span.file) as file:
        metadata = file.metadata
        bounds = np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])
        for episodes in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
            starts, lengths = span.starts[episodes], span.lengths[episodes]
            first = int(np.searchsorted(bounds, starts[0], "right")) - 1
            last = int(np.searchsorted(bounds, starts[-1] + lengths[-1], "left"))
            try:
                table = file.read_row_groups(list(range(first, last)), columns=sorted(wanted), use_threads=False)
            except (OSError, ValueError) as error:
                raise DatasetError(f"{dataset.folder.place(span.file)}: cannot be read ({error})") from error
            table = table.combine_chunks()
            yield Run(
                file=span.file,
                table=table,
                columns=arrays(dataset, table),
                rows=starts,
                starts=starts - bounds[first],
                lengths=lengths,
            )


def episodes(
    dataset: Dataset, spans: Iterable[Span], *, view: View | None = None, more: Iterable[str] = ()
) -> Iterator[StoredSteps]:
    """Read the episodes of spans one by one, in columns as in `runs`."""
    return (steps for span in spans for run in runs(dataset, span, view=view, more=more) for steps in run.episodes())


def _parquet(dataset: Dataset, file: str) -> pq.ParquetFile:
    """Open a file for reading a few columns: no memory map, of which the kernel would read more than is asked for."""
    try:
        here = dataset.folder.local
        if here is None:
            return pq.ParquetFile(dataset.folder.open_parts(file), pre_buffer=True)
        return pq.ParquetFile(here / file, memory_map=False, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{dataset.folder.place(file)}: cannot be read ({error})") from error


def arrays(dataset: Dataset, table: pa.Table) -> dict[str, Array]:
    """Take times, action, state and raw columns out of Arrow; what holds no numbers of one shape is left out."""
    sizes = {"action": len(dataset.columns.action), STATE: len(dataset.columns.state or ())}
    fields = {RAW + field.path: field for field in dataset.columns.raw}
    out: dict[str, Array] = {}
    for name in table.column_names:
        if name == TIMES:
            if (times := arrow.optional_column(table[name].chunk(0))) is not None:
                out[name] = times
        elif name in sizes:
            out[name] = arrow.vectors(table[name].chunk(0), sizes[name])
        elif name in fields and isinstance(values := arrow.from_arrow(table[name].chunk(0), fields[name]), np.ndarray):
            out[name] = values
    return out
