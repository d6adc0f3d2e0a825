"""Read the numeric columns of a published dataset, in runs of neighbouring episodes. Images are not read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from schemas.source import Array
from schemas.store import arrow
from schemas.store.arrow import RAW
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES
from schemas.views.views import View, Viewed

if TYPE_CHECKING:
    import polars as pl

STATE = "observation.state"
ROWS = 1 << 17  # number of rows that are in memory at once
NEAR = 1 << 12  # number of rows between two chosen episodes that are read as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Some episodes of one data file."""

    file: str
    starts: Array  # [E] first row of each episode in the file, ascending
    lengths: Array  # [E] numbers of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSteps:
    """The numeric columns of one stored episode."""

    file: str
    row: int  # row of the first step in the file
    at: slice  # rows of the steps in the run that was read
    columns: Mapping[str, Array]  # [T, ...] by name

    def __len__(self) -> int:
        """Return the number of steps."""
        return int(self.at.stop - self.at.start)

    def viewed(self, view: View | None) -> Viewed:
        """Compute a view of the steps. If `view` is None, return the stored actions and states."""
        if view:
            return view.of_columns(self.columns, length=len(self))
        return Viewed(self.columns["action"], np.ones(len(self), bool), self.columns.get(STATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRun:
    """Neighbouring episodes that were read together."""

    file: str
    table: pa.Table
    columns: Mapping[str, Array]  # numeric columns by name
    rows: Array  # [E] first row of each episode in the file
    starts: Array  # [E] first row of each episode in the run
    lengths: Array  # [E] numbers of steps

    def episodes(self) -> Iterator[StoredSteps]:
        """Yield the episodes."""
        for row, start, length in zip(self.rows.tolist(), self.starts.tolist(), self.lengths.tolist(), strict=True):
            at = slice(start, start + length)
            columns = {name: column[at] for name, column in self.columns.items()}
            yield StoredSteps(file=self.file, row=row, at=at, columns=columns)

    def instructions(self, number: Callable[[str], int]) -> Array:
        """Return `number(instruction)` of each step, [N] int64, or -1 if it has none.

        `number` is called in the order in which the instructions appear.
        """
        encoded = self.table["instruction"].chunk(0).dictionary_encode()
        numbers = np.array([*map(number, encoded.dictionary.to_pylist()), -1], np.int64)
        return np.asarray(numbers[arrow.as_numpy(encoded.indices.fill_null(-1))])


def spans(episodes: "pl.DataFrame") -> list[Span]:
    """Group rows of the episode table by file, sorted by file name and row."""
    return [
        Span(file=str(file), starts=rows["row"].to_numpy(), lengths=rows["length"].to_numpy())
        for (file,), rows in episodes.sort("file", "row").group_by("file", maintain_order=True)
    ]


def spread(dataset: Dataset, count: int) -> list[tuple[Span, Array]]:
    """Choose up to `count` episodes that have steps, evenly spread over the dataset: spans, and their positions.

    Episodes that are close together in a file are one span, because it is faster to read what lies between them.
    """
    rows, files = dataset.index.rows, dataset.manifest["files"]
    kept = np.flatnonzero(rows["length"])
    if not len(kept):
        return []
    chosen = kept[np.unique(np.linspace(0, len(kept) - 1, count).round().astype(np.int64))]
    chosen = chosen[np.lexsort((rows["row"][chosen], rows["file"][chosen]))]
    starts, lengths = (rows[name][chosen].astype(np.int64) for name in ("row", "length"))
    is_far = (starts[1:] - starts[:-1] - lengths[:-1] > NEAR) | (rows["file"][chosen][1:] != rows["file"][chosen][:-1])
    return [
        (Span(file=files[int(rows["file"][chosen[at[0]]])]["path"], starts=starts[at], lengths=lengths[at]), chosen[at])
        for at in np.split(np.arange(len(chosen)), np.flatnonzero(is_far) + 1)
    ]


def runs(
    dataset: Dataset, span: Span, *, view: View | None = None, more: Iterable[str] = (), rows: int = ROWS
) -> Iterator[EpisodeRun]:
    """Read the columns of a span, about `rows` rows at a time.

    These are the action, the state, the columns that `view` reads, and `more`. Raises DatasetError if the file is
    unreadable.
    """
    names = {"action", *([STATE] if dataset.columns.state else []), *(view.columns if view else []), *more}
    number = (span.starts + span.lengths - span.starts[0]) // rows
    file = dataset.open_file(span.file).numbers
    for episodes in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
        starts, lengths = span.starts[episodes], span.lengths[episodes]
        first, last = file.groups(int(starts[0]), int(starts[-1] + lengths[-1]))
        table = file.read(first, last, sorted(names)).combine_chunks()
        yield EpisodeRun(
            file=span.file,
            table=table,
            columns=arrays(dataset, table),
            rows=starts,
            starts=starts - file.group_starts[first],
            lengths=lengths,
        )


def episodes(
    dataset: Dataset, spans: Iterable[Span], *, view: View | None = None, more: Iterable[str] = ()
) -> Iterator[StoredSteps]:
    """Read the episodes of spans one by one, with the same columns as `runs`."""
    return (steps for span in spans for run in runs(dataset, span, view=view, more=more) for steps in run.episodes())


def arrays(dataset: Dataset, table: pa.Table) -> dict[str, Array]:
    """Convert times, action, state and raw columns to numpy. Raw columns without numbers of one shape are left out."""
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
