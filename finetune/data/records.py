"""Fixed-size records of stored steps. There is one cache file for each data file, and it is read by row.

The records of a data file are computed when a step is first drawn from it. They are cached under the digests of the
dataset and the view. As a result, a loader starts quickly, and its memory does not grow with the dataset.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import polars as pl
from crc32c import crc32c

from finetune.data.cache import VARIABLE, keep
from schemas.errors import DatasetError, ViewError
from schemas.parsing import parse_json
from schemas.source import Array
from schemas.store import columns
from schemas.store.checks import crc
from schemas.store.columns import Span
from schemas.store.dataset import Dataset
from schemas.store.index import IMAGE
from schemas.store.ranges import LocalRanges
from schemas.views.views import View

VERSION = 2
ROWS = 1 << 15  # how many records are computed at once
BLOCK = 4 << 10  # bytes of records that have one CRC-32C, rounded to whole records
SIZE = np.dtype("<u8")


class Records:
    """The records of one dataset under one view."""

    def __init__(self, dataset: Dataset, *, view: str | None, cache: Path) -> None:
        """Define the dtype of a record. Records are computed later, when a file is opened.

        A record has `action` [A] and `state` [S] float32; `text` int32, an index into the file's texts, or -1 for none;
        `masked` bool, whether the view leaves out the step; and `image` [K], the `offset`, `length` and `crc` of the
        image of each camera. The length is 0 if there is no image.
        """
        self._dataset, self._view_name = dataset, view
        shown = self._view
        self.has_crc = dataset.version > 2
        self.action = dataset.action_space(view)
        self.dtype = np.dtype(
            [
                ("action", "<f4", (len(self.action),)),
                ("state", "<f4", (len(dataset.state_space(view) or ()),)),
                ("text", "<i4"),
                ("masked", "?"),
                ("image", IMAGE, (len(dataset.columns.cameras),)),
            ]
        )
        digest = shown.digest[:18] if shown else "stored"
        self._folder = cache / "records" / f"{dataset.digest}-{digest}-{VERSION}.{dataset.version}"

    def of(self, file: str) -> "FileRecords":
        """Open the records of one data file. If they are not cached, they are computed first."""
        path = self._folder / f"{Path(file).name}.records"
        return FileRecords(path, self.dtype, rows=self._rows[file], compute=partial(self._computed, file))

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

    def _computed(self, file: str) -> tuple[Array, list[str]]:
        """Return the records of one data file, and its texts."""
        images = self._dataset.image_index(file).images
        table = np.zeros(len(images), self.dtype)
        table["image"] = images
        table["masked"] = True
        view = self._view
        texts: dict[str, int] = {}
        for run in columns.runs(self._dataset, self._spans[file], view=view, more=["instruction"], rows=ROWS):
            instructions = run.instructions(lambda text: texts.setdefault(text, len(texts)))
            for steps in run.episodes():
                records = table[steps.row : steps.row + len(steps)]
                records["text"] = instructions[steps.at]
                with suppress(ViewError):  # the lock leaves out episodes that the view cannot show
                    viewed = steps.viewed(view)
                    records["masked"] = ~viewed.mask
                    records["action"][viewed.mask] = viewed.action
                    if viewed.state is not None:
                        records["state"][viewed.mask] = viewed.state
        return table, list(texts)


class FileRecords:
    """The records of one data file, in a cache file. If that is missing or damaged, they are computed again.

    The file has the records, the texts as JSON, the CRC-32C of each block of records and of the texts (u32), and the
    size of the texts (u64).
    """

    def __init__(
        self, path: Path, dtype: np.dtype, *, rows: int, compute: Callable[[], tuple[Array, list[str]]]
    ) -> None:
        """Open the cache file; it is written first if necessary."""
        self._path, self._dtype, self._rows, self._compute = path, dtype, rows, compute
        self._block = max(1, BLOCK // dtype.itemsize) * dtype.itemsize  # bytes that have one CRC-32C
        self._seed = crc(f"{path.parent.name}/{path.name}".encode())  # so that no other cache file passes for this one
        if not self._open():
            self._renew()

    def raw(self, row: int, count: int) -> bytes:
        """Return the bytes of `count` records from `row` on."""
        start, stop = row * self._dtype.itemsize, (row + count) * self._dtype.itemsize
        data = self._read(start, stop)
        if data is None:
            self._renew()
            data = self._read(start, stop)
        if data is None:
            raise self._failing()
        return data

    def _read(self, start: int, stop: int) -> bytes | None:
        """Read whole blocks and check them; None if one is damaged."""
        first, last = start // self._block, -(-stop // self._block)
        begin, end = first * self._block, min(last * self._block, self._rows * self._dtype.itemsize)
        data = self._ranges.read(begin, end - begin)
        if last - first == 1:  # nearly always
            if crc32c(data, self._seed ^ first) != self._sums[first]:
                return None
        else:
            view = memoryview(data)
            for number in range(first, last):
                at = number * self._block - begin
                if crc32c(view[at : at + self._block], self._seed ^ number) != self._sums[number]:
                    return None
        return data[start - begin : stop - begin]

    def _open(self) -> bool:
        """Open the file and read its end; returns whether it is whole."""
        records = self._rows * self._dtype.itemsize
        blocks = -(-records // self._block)
        try:
            self._ranges = LocalRanges(self._path)
            size = self._ranges.size()
            end = self._ranges.read(records, size - records)
            texts = int(np.frombuffer(end[-SIZE.itemsize :], SIZE)[0])
            if len(end) != texts + 4 * (blocks + 1) + SIZE.itemsize:
                return False
            sums = np.frombuffer(end, "<u4", blocks + 1, texts)
            self._sums: list[int] = sums[:-1].tolist()
            if crc(end[:texts] + sums[:-1].tobytes(), self._seed) != sums[-1]:
                return False
            self.texts = tuple(parse_json(end[:texts]))
        except (DatasetError, ValueError, IndexError, OverflowError):
            return False
        return True

    def _renew(self) -> None:
        """Compute the records again and write the file."""
        table, texts = self._compute()
        data, encoded = table.tobytes(), json.dumps(texts).encode()
        starts = range(0, len(data), self._block)
        sums = [crc(data[at : at + self._block], self._seed ^ number) for number, at in enumerate(starts)]
        table_of_sums = np.array(sums, "<u4").tobytes()
        last = np.array([crc(encoded + table_of_sums, self._seed)], "<u4").tobytes()
        keep(self._path, data + encoded + table_of_sums + last + np.array(len(encoded), SIZE).tobytes())
        if not self._open():
            raise self._failing()

    def _failing(self) -> DatasetError:
        return DatasetError(
            f"{self._path}: is damaged again right after it was written; check the disk, or name another folder with "
            f"cache=... or {VARIABLE}"
        )
