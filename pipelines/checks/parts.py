"""Divide a dataset into parts that workers check, and read the numbers of a part as batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.conventions.check import SAMPLE
from pipelines.statistics.numbers import open_once
from schemas.files.folder import Folder
from schemas.source import Array
from schemas.store.arrow import RAW
from schemas.store.columns import ROWS, EpisodeRun, Span, runs, spread
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES

MEMORY = 1 << 28  # bytes of the source's columns that are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPart:
    """A picklable part of a dataset: some episodes of one data file or of several small ones."""

    about: About
    folder: Folder
    manifest: str  # digest of the manifest
    spans: tuple[Span, ...]
    positions: tuple[Array, ...]  # positions of each span's episodes among the kept episodes

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return sum(len(span.starts) for span in self.spans)

    def open(self) -> Dataset:
        """Open the dataset, once per worker."""
        return open_once(self.folder, self.manifest)


def parts_of(dataset: Dataset, about: About, *, steps: int = ROWS, positions: Array | None = None) -> list[CheckPart]:
    """Divide all episodes with at least one step, or those at some positions, into parts of about this many steps."""
    rows = dataset.index.rows
    order = np.lexsort((rows["row"], rows["file"]))
    order = order[rows["length"][order] > 0] if positions is None else order[np.isin(order, positions)]
    if not len(order):
        return []
    rows = rows[order]
    number = np.cumsum(rows["length"]) // np.uint64(steps)
    cuts = np.flatnonzero((rows["file"][1:] != rows["file"][:-1]) | (number[1:] != number[:-1])) + 1
    groups: dict[int, list[Array]] = {}
    for group in np.split(np.arange(len(order)), cuts):
        groups.setdefault(int(number[group[0]]), []).append(group)
    files = [file["path"] for file in dataset.manifest["files"]]
    empty = CheckPart(about=about, folder=dataset.folder.absolute(), manifest=dataset.digest, spans=(), positions=())
    return [
        replace(
            empty,
            spans=tuple(
                Span(
                    file=files[int(rows["file"][group[0]])],
                    starts=rows["row"][group].astype(np.int64),
                    lengths=rows["length"][group].astype(np.int64),
                )
                for group in chosen
            ),
            positions=tuple(order[group] for group in chosen),
        )
        for chosen in groups.values()
    ]


def batches(part: CheckPart) -> Iterator[NumberBatch]:
    """Read the numbers of a part: actions, states, recorded times, and floats among the columns of the source."""
    raw = part.about.raw
    width = sum(math.prod(size or 1 for size in field.shape) * np.dtype(field.dtype).itemsize for field in raw)
    rows = min(ROWS, max(1, MEMORY // max(1, width)))
    dataset, more = part.open(), [*(RAW + field.path for field in raw), *([TIMES] if part.about.is_clock else [])]
    waiting: list[NumberBatch] = []
    for span, positions in zip(part.spans, part.positions, strict=True):
        done = 0
        for run in runs(dataset, span, more=more, rows=rows):
            count = len(run.lengths)
            batch = _batch(part.about, run, positions[done : done + count])
            done += count
            if waiting and (_rows(*waiting, batch) > rows or batch.columns.keys() != waiting[0].columns.keys()):
                yield _joined(waiting)
                waiting = []
            waiting.append(batch)
    if waiting:
        yield _joined(waiting)


def sample(dataset: Dataset, about: About) -> NumberBatch | None:
    """Read the numbers of up to SAMPLE episodes, evenly spread over the dataset; None without steps."""
    more, read = [TIMES] if about.is_clock else [], []
    for span, positions in spread(dataset, SAMPLE):
        done = 0
        for run in runs(dataset, span, more=more):
            read.append(_batch(about, run, positions[done : done + len(run.lengths)]))
            done += len(run.lengths)
    return _joined(read) if read else None


def _rows(*batches: NumberBatch) -> int:
    return sum(len(batch.action) for batch in batches)


def _joined(batches: Sequence[NumberBatch]) -> NumberBatch:
    """Join the batches of small files, because each batch has a fixed cost."""
    if len(batches) == 1:
        return batches[0]
    offsets = np.cumsum([0, *(len(batch.action) for batch in batches[:-1])])
    return NumberBatch(
        about=batches[0].about,
        episodes=np.concatenate([batch.episodes for batch in batches]),
        starts=np.concatenate([batch.starts + offset for batch, offset in zip(batches, offsets, strict=True)]),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        columns={name: np.concatenate([batch.columns[name] for batch in batches]) for name in batches[0].columns},
    )


def _batch(about: About, run: EpisodeRun, positions: Array) -> NumberBatch:
    """Cut the rows of neighbouring episodes out of what was read; no row belongs to none of them."""
    starts, lengths = run.starts.astype(np.int64), run.lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    rows = np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])
    is_whole = len(rows) == run.table.num_rows
    columns = {name: column if is_whole else column[rows] for name, column in run.columns.items()}
    return NumberBatch(about=about, episodes=positions, starts=ends - lengths, lengths=lengths, columns=columns)
