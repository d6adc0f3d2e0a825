"""The index of a Parquet file: the byte range and CRC-32C of each image, and the CRC-32C of the other columns.

Reading a frame is one slice of the file, and every byte that is read can be checked. docs/reference/index-files.md
specifies the file `index/<name>.idx` of version 3 and of version 2, which has no checksums.
"""

import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.parsing import parse_json
from schemas.source import Array
from schemas.store.checks import RangeChecksums
from schemas.store.pages import misplaced, offsets_of

MAGIC, WITHOUT_CHECKS = b"OXEIDX02", b"OXEIDX01"
IMAGE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("crc", "<u4")])
CHUNK = 4 << 20  # bytes that are mapped at once; mapped pages count as memory of the process
TAIL = 8  # the last bytes of a Parquet file: the size of its metadata (u32) and `PAR1`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checks:
    """The CRC-32C of everything in a data file that is read besides its images."""

    leaves: tuple[str, ...]  # K paths of Parquet columns without the images, in the order of the file
    chunks: Array  # [G, K] u32: the CRC-32C of each column chunk of the G row groups
    footer: int  # the CRC-32C of the metadata at the end of the file, with the last 8 bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """The index of one data file with R rows and C image columns."""

    columns: tuple[str, ...]
    images: Array  # [R, C] of IMAGE: where each image is, and its CRC-32C; all 0 for a missing frame
    checks: Checks | None  # None in version 2, where `crc` is 0 throughout

    @property
    def offsets(self) -> Array:
        """The offset of each image in the data file, [R, C]."""
        return np.asarray(self.images["offset"])

    @property
    def lengths(self) -> Array:
        """The length of each image, [R, C]; 0 for a missing frame."""
        return np.asarray(self.images["length"])

    def encode(self) -> tuple[bytes, int]:
        """Return the content of an index file of version 3, and where its images begin."""
        if self.checks is None:
            raise ValueError("an index is written with checksums")
        groups, leaves = self.checks.chunks.shape[0], list(self.checks.leaves)
        header = {"rows": len(self.images), "columns": list(self.columns), "groups": groups, "chunks": leaves}
        start = start_of(MAGIC, header)
        chunks, footer = self.checks.chunks.astype("<u4"), self.checks.footer.to_bytes(4, "little")
        return b"".join((start, self.images.tobytes(), chunks.tobytes(), footer)), len(start)

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Parse an index file of either version. Raises DatasetError with its `place` if it is not valid."""
        header, start = read_start(data, (MAGIC, WITHOUT_CHECKS), place)
        try:
            columns = tuple(map(str, header["columns"]))
            shape = int(header["rows"]), len(columns)
            count = shape[0] * shape[1]
            if data.startswith(WITHOUT_CHECKS):
                check_size(data, start + 12 * count, place, valid=shape[0] >= 0)
                return cls(columns=columns, images=_without_crc(data, start, shape), checks=None)
            leaves, groups = tuple(map(str, header["chunks"])), int(header["groups"])
        except (LookupError, TypeError, ValueError) as error:
            raise DatasetError(f"{place}: the index has a broken header ({error!r})") from error
        after = start + IMAGE.itemsize * count
        size = 4 * groups * len(leaves)
        check_size(data, after + size + 4, place, valid=min(shape[0], groups) >= 0)
        chunks = np.frombuffer(data, "<u4", groups * len(leaves), after).reshape(groups, len(leaves))
        footer = int.from_bytes(data[after + size :], "little")
        images = np.frombuffer(data, IMAGE, count, start).reshape(shape)
        return cls(columns=columns, images=images, checks=Checks(leaves=leaves, chunks=chunks, footer=footer))


def start_of(magic: bytes, header: dict[str, Any]) -> bytes:
    """Return the start of an index file: its kind and its header, padded to 8 bytes."""
    text = json.dumps(header).encode()
    text += b" " * (-(len(magic) + 4 + len(text)) % 8)
    return magic + len(text).to_bytes(4, "little") + text


def read_start(data: bytes, magics: Sequence[bytes], place: str) -> tuple[dict[str, Any], int]:
    """Return the header of an index file, and where its content starts. Raises DatasetError if it is not one."""
    start = len(magics[0]) + 4
    size = int.from_bytes(data[start - 4 : start], "little")
    if data[: start - 4] not in magics or start + size > len(data):
        raise DatasetError(f"{place}: is not an index file")
    try:
        header = parse_json(data[start : start + size])
    except ValueError as error:
        raise DatasetError(f"{place}: the index has a broken header ({error!r})") from error
    if not isinstance(header, dict):
        raise DatasetError(f"{place}: the index has a broken header ({header!r})")
    return header, start + size


def check_size(data: bytes, expected: int, place: str, *, valid: bool = True) -> None:
    """Raise DatasetError if an index file does not have the size that its header gives."""
    if not valid or len(data) != expected:
        raise DatasetError(f"{place}: has {len(data)} bytes, expected {expected}")


def _without_crc(data: bytes, start: int, shape: tuple[int, int]) -> Array:
    """Return the images of an index of version 2."""
    count = shape[0] * shape[1]
    images = np.zeros(shape, IMAGE)
    images["offset"] = np.frombuffer(data, "<u8", count, start).reshape(shape)
    images["length"] = np.frombuffer(data, "<u4", count, start + 8 * count).reshape(shape)
    return images


class DataChecksums:
    """Computes the checksums of a data file that is read from start to end once."""

    def __init__(self, footer: bytes, size: int, *, columns: Sequence[str], images: Array) -> None:
        """Take the footer and size of the file, and its images with their offsets and lengths."""
        self._images = images.copy()
        self._present = np.nonzero(images["length"])
        shown = images[self._present]
        self.leaves, starts, sizes = column_chunks(pq.read_metadata(pa.BufferReader(footer)), without=columns)
        self._shape = starts.shape
        self._sums = RangeChecksums(
            np.concatenate([shown["offset"].astype(np.int64), starts.ravel(), [size - len(footer)]]),
            np.concatenate([shown["length"].astype(np.int64), sizes.ravel(), [len(footer)]]),
        )
        self._columns = tuple(columns)
        self.add = self._sums.add

    def index(self) -> Index:
        """Return the index with its checksums, after the whole file was passed to `add`."""
        crcs = self._sums.values()
        count = len(self._present[0])
        self._images["crc"][self._present] = crcs[:count]
        chunks = crcs[count:-1].reshape(self._shape)
        checks = Checks(leaves=self.leaves, chunks=chunks, footer=int(crcs[-1]))
        return Index(columns=self._columns, images=self._images, checks=checks)


def column_chunks(metadata: pq.FileMetaData, *, without: Sequence[str]) -> tuple[tuple[str, ...], Array, Array]:
    """Return the paths of the K Parquet columns besides images, and the start and size of their chunks, [G, K]."""
    images = tuple(f"{column}." for column in without)
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    kept = [i for i, path in enumerate(paths) if not path.startswith(images)] if images else list(range(len(paths)))
    shape = metadata.num_row_groups, len(kept)
    starts, sizes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for k, i in enumerate(kept):
            chunk = row_group.column(i)
            starts[group, k] = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            sizes[group, k] = chunk.total_compressed_size
    return tuple(paths[i] for i in kept), starts, sizes


def build(
    path: Path, *, columns: Sequence[str], lengths: Array, chunk: Callable[[memoryview], None] = lambda _: None
) -> Index:
    """Return the index of the file at `path`. The file is read once, in chunks.

    `lengths` [rows, columns] are the lengths of the images that were written, or -1 for a null. `chunk` is called with
    each chunk of the file, so that its digest can be computed in the same pass. Raises DatasetError if the images in
    the file do not have these lengths.
    """
    with path.open("rb") as file:
        offsets = offsets_of(file, pq.read_metadata(file), columns=columns, lengths=lengths)
        rows, numbers = np.nonzero(lengths >= 0)
        order = np.argsort(offsets[rows, numbers])
        rows, numbers = rows[order], numbers[order]
        images = np.zeros(lengths.shape, IMAGE)
        images["offset"], images["length"] = offsets, lengths.clip(0)
        size = file.seek(0, os.SEEK_END)
        sums = DataChecksums(footer_of(file, size), size, columns=columns, images=images)
        wrong = _first_wrong(
            file, offsets[rows, numbers].astype(np.int64), lengths[rows, numbers], each=(chunk, sums.add)
        )
    if wrong is not None:
        raise misplaced(path, columns[numbers[wrong]])
    return sums.index()


def footer_of(file: IO[bytes], size: int) -> bytes:
    """Read the metadata at the end of a Parquet file, with the last 8 bytes. Raises ValueError if it is not Parquet."""
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    length = int.from_bytes(tail[:4], "little") + TAIL
    if len(tail) < TAIL or tail[4:] != b"PAR1" or length > size:
        raise ValueError("it does not end as a Parquet file")
    file.seek(size - length)
    return file.read(length)


def _windows(file: BinaryIO, size: int) -> Iterator[tuple[int, Array]]:
    """Map the file part by part. Each part has 3 more bytes, because a length of 4 bytes may start in it."""
    for start in range(0, size, CHUNK):
        length = min(CHUNK + 3, size - start)
        yield start, np.frombuffer(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start), np.uint8)


def _first_wrong(
    file: BinaryIO, offsets: Array, lengths: Array, *, each: Sequence[Callable[[memoryview], None]]
) -> int | None:
    """Return the first image, by offset, that does not have its length before it in the file; None if all do."""
    size = file.seek(0, os.SEEK_END)
    wrong = np.flatnonzero(offsets + lengths > size).tolist()
    for start, data in () if wrong else _windows(file, size):
        for work in each:
            work(data[:CHUNK].data)
        first, last = np.searchsorted(offsets, (start + 4, start + CHUNK + 4))
        stored = data[(offsets[first:last] - 4 - start)[:, None] + np.arange(4)].view("<u4")[:, 0]
        wrong += (first + np.flatnonzero(stored != lengths[first:last])).tolist()
    return wrong[0] if wrong else None
