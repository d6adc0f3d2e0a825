"""`DataFile`: one Parquet file of a published dataset and its index."""

import mmap
from collections.abc import Callable
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.files.folder import Folder
from schemas.store.checks import crc, damaged, unreadable
from schemas.store.index import Index
from schemas.store.numbers import NumberColumns
from schemas.store.ranges import Fetched, LocalRanges


class DataFile:
    """One data file. Its images are mapped if it is local; a remote file is fetched in parts."""

    def __init__(self, folder: Folder, path: str, *, size: int, index: Callable[[], Index], checked: bool) -> None:
        """Open the file. Raises DatasetError if it is missing, or if it does not have `size` bytes.

        If `checked` is False, neither its size nor any checksum is compared.
        """
        self.folder, self.path, self.is_checked = folder, path, checked
        self.place = folder.place(path)
        self._read_index = index
        try:
            self._ranges = LocalRanges(folder.local / path) if folder.local else Fetched(folder.open_parts(path))
        except OSError as error:
            raise unreadable(self.place, error) from error
        self.size = self._ranges.size()
        if checked and self.size != size:
            raise unreadable(self.place, f"it has {self.size} bytes, the manifest has {size}")

    @cached_property
    def content(self) -> mmap.mmap | Fetched:
        """The content: mapped if the file is local."""
        if isinstance(self._ranges, Fetched):
            return self._ranges
        try:
            with self.folder.open(self.path) as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise unreadable(self.place, error) from error

    @cached_property
    def index(self) -> Index:
        """The index of its images."""
        return self._read_index()

    @cached_property
    def numbers(self) -> NumberColumns:
        """Its columns besides the images."""
        return NumberColumns(self._ranges, self.size, index=self.index, place=self.place, checked=self.is_checked)

    @cached_property
    def parquet(self) -> pq.ParquetFile:
        """The file, opened with pyarrow. What it reads is not checked."""
        try:
            if isinstance(self.content, Fetched):
                return pq.ParquetFile(self.folder.open_parts(self.path), pre_buffer=True)
            return pq.ParquetFile(pa.py_buffer(self.content))
        except (OSError, ValueError) as error:
            raise unreadable(self.place, error) from error

    def image(self, row: int, column: int) -> bytes | None:
        """Read one encoded image, or None if the frame is missing. Raises DatasetError if it is damaged."""
        index = self.index
        start, length, expected = index.images.item(row, column)
        if not length:
            return None
        data = self.content[start : start + length]
        if self.is_checked and index.checks and crc(data) != expected:
            raise damaged(
                self.place, f"the image in row {row} of {index.columns[column]} does not have the CRC-32C of the index"
            )
        return data
