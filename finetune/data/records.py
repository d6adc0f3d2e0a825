"""What a loader needs of each stored step, as fixed records that are read by their place: a file for each data file.

They are computed once, when a data file is first drawn from, and kept in the cache under the digests of the dataset
and the view, so that starting is quick, and memory does not grow with the dataset.
"""

import json
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from finetune.data.cache import LocalRanges, keep
from schemas.errors import ViewError
from schemas.store import columns, layout
from schemas.store.columns import STATE, Span
from schemas.store.dataset import Dataset
from schemas.store.index import Index
from schemas.views.views import View

VERSION = 1
ROWS = 1 << 15  # that are computed at once
SIZE = np.dtype("<u8")  # the last bytes of a file: how many bytes of texts stand before them


class Records:
    """The records of one dataset under one view."""

    def __init__(self, dataset: Dataset, *, view: str | None, cache: Path) -> None:
        """Name what a record holds; nothing is computed yet.

        It is `action` [A] and `state` [S] float32, `text` int32 (of the file's texts; -1: none), `masked` bool, and
        `image` [K] of `offset` and `length` for the K cameras of the dataset, whose length is 0 where there is none.
        """
        self._dataset, self._named = dataset, view
        shown = self._view
        self.action = dataset.action_space(view)
        image = np.dtype([("offset", "<u8"), ("length", "<u4")])
        self.dtype = np.dtype(
            [
                ("action", "<f4", (len(self.action),)),
                ("state", "<f4", (len(dataset.columns.state or ()),)),
                ("text", "<i4"),
                ("masked", "?"),
                ("image", image, (len(dataset.columns.cameras),)),
            ]
        )
        digest = shown.digest[:18] if shown else "stored"
        self._folder = cache / "records" / f"{dataset.manifest['xxh3_128']}-{digest}-{VERSION}"

    def of(self, file: str) -> "FileRecords":
        """Open the records of one data file, computed if they are not there yet."""
        path = self._folder / f"{Path(file).name}.records"
        if not is_whole(path, rows=self._rows[file], dtype=self.dtype):
            keep(path, self._computed(file))
        return FileRecords(path, self.dtype)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {file["path"]: file["rows"] for file in self._dataset.manifest["files"]}

    @property
    def _view(self) -> View | None:
        """The view; it is not kept, for its functions cannot be sent to a worker process."""
        return self._dataset.view(self._named) if self._named else None

    @cached_property
    def _spans(self) -> dict[str, Span]:
        table = self._dataset.episodes.select("file", "row", "length").filter(pl.col("length") > 0)
        return {span.file: span for span in columns.spans(table.collect())}

    def _computed(self, file: str) -> bytes:
        folder, name = self._dataset.folder, layout.index_file(file)
        index = Index(folder.read(name), folder.place(name))
        table = np.zeros(len(index.offsets), self.dtype)
        table["image"]["offset"], table["image"]["length"] = index.offsets, index.lengths
        table["masked"] = True
        view = self._view
        texts: dict[str, int] = {}
        for run in columns.runs(self._dataset, self._spans[file], view=view, more=["instruction"], rows=ROWS):
            instructions = run.instructions(lambda text: texts.setdefault(text, len(texts)))
            for steps in run.episodes():
                records = table[steps.row : steps.row + len(steps)]
                records["text"] = instructions[steps.at]
                if STATE in steps.columns:
                    records["state"] = steps.columns[STATE]
                with suppress(ViewError):  # the lock has no step of an episode that the view cannot show
                    viewed = steps.viewed(view)
                    records["masked"] = ~viewed.mask
                    records["action"][viewed.mask] = viewed.action
        said = json.dumps(list(texts)).encode()
        return table.tobytes() + said + np.array(len(said), SIZE).tobytes()


def is_whole(path: Path, *, rows: int, dtype: np.dtype) -> bool:
    """Say whether a file has as many bytes as it should: a disk that was full, or a crash, may have cut it."""
    try:
        with path.open("rb") as file:
            file.seek(-SIZE.itemsize, os.SEEK_END)
            texts = int(np.frombuffer(file.read(), SIZE)[0])
            return file.tell() == rows * dtype.itemsize + texts + SIZE.itemsize
    except OSError:
        return False


class FileRecords:
    """The records of one data file."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        """Open the file."""
        self._ranges, self._dtype, self._size = LocalRanges(path), dtype, path.stat().st_size

    def raw(self, row: int, count: int) -> bytes:
        """Read the bytes of some neighbouring records."""
        return self._ranges.read(row * self._dtype.itemsize, count * self._dtype.itemsize)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The instructions of the file's steps."""
        end = self._size - SIZE.itemsize
        size = int(np.frombuffer(self._ranges.read(end, SIZE.itemsize), SIZE)[0])
        return tuple(json.loads(self._ranges.read(end - size, size)))
