"""Fixed-size records of stored steps. There is one cache file for each data file, and it is read by row.

The records of a data file are computed when a step is first drawn from it. They are cached under the digests of the
dataset and the view. As a result, a loader starts quickly, and its memory does not grow with the dataset.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import polars as pl

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

VERSION = 3
ROWS = 1 << 15  # how many records are computed at once
CRC, SIZE = np.dtype("<u4"), np.dtype("<u8")


class Records:
    """The records of one dataset under one view."""

    def __init__(self, dataset: Dataset, *, view: str | None, cache: Path) -> None:
        """Define the dtype of a record. Records are computed later, when a file is opened.

        A record has `action` [A] and `state` [S] float32; `text` int32, an index into the file's texts, or -1 for none;
        `masked` u32, whether the view leaves out the step; and `image` [K], the `offset`, `length` and `crc` of the
        image of each camera. The length is 0 if there is no image. The last field is the checksum: see `RecordSums`.
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
                ("masked", "<u4"),
                ("image", IMAGE, (len(dataset.columns.cameras),)),
                ("check", "<u8"),
            ]
        )
        digest = shown.digest[:18] if shown else "stored"
        self._folder = cache / "records" / f"{dataset.digest}-{digest}-{VERSION}.{dataset.version}"
        self.sums = RecordSums(self.dtype, crc(self._folder.name.encode()))

    def of(self, file: str) -> "FileRecords":
        """Open the records of one data file. If they are not cached, they are computed first."""
        path = self._folder / f"{Path(file).name}.records"
        compute = partial(self._computed, file)
        return FileRecords(path, self.dtype, rows=self._rows[file], sums=self.sums, compute=compute)

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

    The file has the records, the texts as JSON, a CRC-32C of the texts (u32), and the size of the texts (u64).
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype,
        *,
        rows: int,
        sums: "RecordSums",
        compute: Callable[[], tuple[Array, list[str]]],
    ) -> None:
        """Open the cache file; it is written first if necessary."""
        self._path, self._dtype, self._rows, self._sums, self._compute = path, dtype, rows, sums, compute
        self._seed = crc(f"{path.parent.name}/{path.name}".encode())  # so that no other cache file passes for this one
        if not self._open():
            self.renew()

    def raw(self, row: int, count: int) -> bytes:
        """Return the bytes of `count` records from `row` on. They are not checked: see `RecordSums.damaged`."""
        size = self._dtype.itemsize
        return self._ranges.read(row * size, count * size)

    def _open(self) -> bool:
        """Open the file and read its end; returns whether that is whole."""
        records = self._rows * self._dtype.itemsize
        try:
            self._ranges = LocalRanges(self._path)
            size = self._ranges.size()
            end = self._ranges.read(records, size - records)
            texts = int(np.frombuffer(end[-SIZE.itemsize :], SIZE)[0])
            if len(end) != texts + CRC.itemsize + SIZE.itemsize:
                return False
            if crc(end[:texts], self._seed) != np.frombuffer(end, CRC, 1, texts)[0]:
                return False
            self.texts = tuple(parse_json(end[:texts]))
        except (DatasetError, ValueError, IndexError, OverflowError):
            return False
        return True

    def renew(self) -> None:
        """Compute the records again and write the file."""
        table, texts = self._compute()
        self._sums.add_to(table)
        encoded = json.dumps(texts).encode()
        end = np.array(crc(encoded, self._seed), CRC).tobytes() + np.array(len(encoded), SIZE).tobytes()
        keep(self._path, table.tobytes() + encoded + end)
        if not self._open():
            raise self.failing()

    def failing(self) -> DatasetError:
        """Return the error for a file that is damaged although it was just written."""
        return DatasetError(
            f"{self._path}: is damaged again right after it was written; check the disk, or name another folder with "
            f"cache=... or {VARIABLE}"
        )


class RecordSums:
    """The checksums of the records of one dataset, which are computed for a whole batch at once.

    The sum of the words (u32) of a record, each times an odd number of 64 bits, is `seed` plus the record's row, modulo
    2**64. The field `check` makes it so. Every change of one word changes the sum.
    """

    def __init__(self, dtype: np.dtype, seed: int) -> None:
        """Take the dtype of the records, which ends with `check`."""
        self._words, self._seed = dtype.itemsize // 4, seed
        digests = (hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in range(self._words))
        self._factors = np.array([int.from_bytes(digest, "little") | 1 for digest in digests], np.uint64)
        self._factors[-2:] = 1, 1 << 32  # the two words of `check`

    def _sums(self, records: Array) -> Array:
        return np.asarray(records.view("<u4").reshape(-1, self._words).dot(self._factors))

    def add_to(self, table: Array) -> None:
        """Fill the field `check` of all records of a file."""
        table["check"] = 0
        table["check"] = np.arange(len(table), dtype=np.uint64) + np.uint64(self._seed) - self._sums(table)

    def damaged(self, records: Array, rows: Array) -> Array | None:
        """Return which of B windows have a damaged record, [B], or None if none has.

        `records` [B, N] are those of the `rows` [B, N] of their files, int64.
        """
        sums, expected = self._sums(records), rows + self._seed
        if sums.tobytes() == expected.tobytes():  # with small batches, this takes half as long as comparing arrays
            return None
        return np.asarray((sums.view(np.int64).reshape(rows.shape) != expected).any(axis=1))
