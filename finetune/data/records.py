"""Fixed-size records of stored steps. There is one cache file for each data file, and it is read by row.

The records of a data file are computed when a step is first drawn from it. They are cached under the digests of the
dataset and the view. As a result, a loader starts quickly, and its memory does not grow with the dataset.
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
from schemas.parsing import parse_json
from schemas.store import columns, layout
from schemas.store.columns import STATE, Span
from schemas.store.dataset import Dataset
from schemas.store.index import Index
from schemas.views.views import View

VERSION = 1
ROWS = 1 << 15  # how many records are computed at once
SIZE = np.dtype("<u8")  # the last 8 bytes of a cache file: the length in bytes of the texts, which come before them


class Records:
    """The records of one dataset under one view."""

    def __init__(self, dataset: Dataset, *, view: str | None, cache: Path) -> None:
        """Define the dtype of a record. Records are computed later, when a file is opened.

        A record has `action` [A] and `state` [S] float32; `text` int32, an index into the file's texts, or -1 for none;
        `masked` bool, whether the view leaves out the step; and `image` [K], the `offset` and `length` of the image of
        each camera. The length is 0 if there is no image.
        """
        self._dataset, self._view_name = dataset, view
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
        """Open the records of one data file. If they are not cached, they are computed first."""
        path = self._folder / f"{Path(file).name}.records"
        if not is_whole(path, rows=self._rows[file], dtype=self.dtype):
            keep(path, self._computed(file))
        return FileRecords(path, self.dtype)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {file["path"]: file["rows"] for file in self._dataset.manifest["files"]}

    @property
    def _view(self) -> View | None:
        """The view. It is not stored in an attribute, because its functions cannot be pickled for a worker process."""
        return self._dataset.view(self._view_name) if self._view_name else None

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
                with suppress(ViewError):  # the lock leaves out episodes that the view cannot show
                    viewed = steps.viewed(view)
                    records["masked"] = ~viewed.mask
                    records["action"][viewed.mask] = viewed.action
        encoded = json.dumps(list(texts)).encode()
        return table.tobytes() + encoded + np.array(len(encoded), SIZE).tobytes()


def is_whole(path: Path, *, rows: int, dtype: np.dtype) -> bool:
    """Return whether a cache file has its full size. A full disk or a crash may have truncated it."""
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
        """Return the bytes of `count` records from `row` on."""
        return self._ranges.read(row * self._dtype.itemsize, count * self._dtype.itemsize)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The instructions to which the `text` of a record is an index."""
        end = self._size - SIZE.itemsize
        size = int(np.frombuffer(self._ranges.read(end, SIZE.itemsize), SIZE)[0])
        return tuple(parse_json(self._ranges.read(end - size, size)))
