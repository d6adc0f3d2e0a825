"""The numeric columns of a published dataset, read in runs of neighbouring episodes and never with its images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.source import Array
from schemas.store import arrow
from schemas.store.arrow import RAW
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES

STATE = "observation.state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Some episodes of one data file."""

    file: str
    starts: Array  # [E] first rows, ascending
    lengths: Array  # [E]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Neighbouring episodes in memory: their table, and where in it each begins and how long it is."""

    table: pa.Table
    starts: Array  # [E]
    lengths: Array  # [E]


def runs(dataset: Dataset, span: Span, *, columns: Sequence[str], rows: int) -> Iterator[Run]:
    """Read some columns of a span, about `rows` rows at a time; an unreadable file is a DatasetError."""
    number = (span.starts + span.lengths - span.starts[0]) // rows
    with _parquet(dataset, span.file) as file:
        metadata = file.metadata
        bounds = np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])
        for episodes in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
            starts, lengths = span.starts[episodes], span.lengths[episodes]
            first = int(np.searchsorted(bounds, starts[0], "right")) - 1
            last = int(np.searchsorted(bounds, starts[-1] + lengths[-1], "left"))
            try:
                table = file.read_row_groups(list(range(first, last)), columns=list(columns), use_threads=False)
            except (OSError, ValueError) as error:
                raise DatasetError(f"{dataset.folder.place(span.file)}: cannot be read ({error})") from error
            yield Run(table=table.combine_chunks(), starts=starts - bounds[first], lengths=lengths)


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
