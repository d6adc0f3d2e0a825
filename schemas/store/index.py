"""The index of a Parquet file: the byte range of each image, so that reading a frame is one slice of a memory map.

Image columns are written uncompressed and with PLAIN encoding. The payload of a page therefore has the definition
levels, followed by `length (u32), bytes` for each value. See "Data Pages" and "Plain encoding" in the description of
the Parquet format. Page headers are Thrift compact structs. Nulls have no entry in the page, and length 0 in the index.

File `index/<name>.idx`, little endian: `OXEIDX01`, u32 size of the header, header (JSON: rows, columns; padded with
spaces to align the offsets to 8 bytes), offsets u64 [rows, columns], lengths u32 [rows, columns].
"""

import json
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.parsing import parse_json
from schemas.source import Array

MAGIC = b"OXEIDX01"
PAGE_SIZE, DATA_V1, DATA_V2 = 3, 5, 8  # field numbers in Parquet's PageHeader
CHUNK = 4 << 20  # bytes that are mapped at once; mapped pages count as memory of the process


def build(
    path: Path, *, columns: Sequence[str], lengths: Array, chunk: Callable[[memoryview], None] = lambda _: None
) -> Array:
    """Return the offset of every image in the file at `path`, [rows, columns]. The file is read once, in chunks.

    `lengths` [rows, columns] are the lengths of the images that were written, or -1 for a null. `chunk` is called with
    each chunk of the file, so that its digest can be computed in the same pass. Raises DatasetError if the images in
    the file do not have these lengths.
    """
    with path.open("rb") as file:
        offsets = _offsets(file, columns=columns, lengths=lengths)
        rows, numbers = np.nonzero(lengths >= 0)
        order = np.argsort(offsets[rows, numbers])
        rows, numbers = rows[order], numbers[order]
        wrong = _first_wrong(file, offsets[rows, numbers].astype(np.int64), lengths[rows, numbers], chunk=chunk)
    if wrong is not None:
        raise _misplaced(path, columns[numbers[wrong]])
    return offsets


def _offsets(file: BinaryIO, *, columns: Sequence[str], lengths: Array) -> Array:
    """Compute the offsets of the images from the page headers and the lengths."""
    offsets = np.zeros(lengths.shape, np.uint64)
    metadata = pq.read_metadata(file)
    leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for number, column in enumerate(columns):
        row = 0
        for group in range(metadata.num_row_groups):
            leaf = metadata.row_group(group).column(leaves[f"{column}.bytes"])
            position, end = leaf.data_page_offset, row + leaf.num_values
            while row < end:
                position, payload, count = _page(file, position)
                sizes = lengths[row : row + count, number]
                present = np.flatnonzero(sizes >= 0)
                ends = payload + np.cumsum(sizes[present] + 4)
                if (ends[-1] if len(ends) else payload) != position:
                    raise _misplaced(Path(file.name), column)
                offsets[row + present, number] = ends - sizes[present]
                row += count
    return offsets


def _first_wrong(file: BinaryIO, offsets: Array, lengths: Array, *, chunk: Callable[[memoryview], None]) -> int | None:
    """Return the first image, by offset, that does not have its length before it in the file; None if all do."""
    size = file.seek(0, os.SEEK_END)
    wrong = np.flatnonzero(offsets + lengths > size).tolist()
    for start in () if wrong else range(0, size, CHUNK):
        length = min(CHUNK + 3, size - start)  # 3 more, because a length of 4 bytes may start in this chunk
        data = np.frombuffer(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start), np.uint8)
        chunk(data[:CHUNK].data)
        first, last = np.searchsorted(offsets, (start + 4, start + CHUNK + 4))
        stored = data[(offsets[first:last] - 4 - start)[:, None] + np.arange(4)].view("<u4")[:, 0]
        wrong += (first + np.flatnonzero(stored != lengths[first:last])).tolist()
    return wrong[0] if wrong else None


def _misplaced(file: Path, column: str) -> DatasetError:
    return DatasetError(f"{file}: {column}: the images are not at the expected offsets")


def _page(file: BinaryIO, position: int) -> tuple[int, int, int]:
    """Read a page header. Returns the position of the next page, that of this page's values, and their number."""
    file.seek(position)
    header = _struct(file)
    start = file.tell()
    following = start + header[PAGE_SIZE]
    if DATA_V2 in header:
        page = header[DATA_V2]
        return following, start + page[5] + page[6], page[1]
    size = int.from_bytes(file.read(4), "little")  # size of the definition levels
    return following, start + 4 + size, header[DATA_V1][1]


def _struct(file: BinaryIO) -> dict[int, Any]:
    """Read a Thrift struct in the compact protocol; supports the types that page headers have."""
    out: dict[int, Any] = {}
    number = 0
    while kind := file.read(1)[0]:
        number = number + (kind >> 4) if kind >> 4 else _zigzag(file)
        out[number] = _value(file, kind & 15)
    return out


def _value(file: BinaryIO, kind: int) -> Any:
    if kind in {1, 2}:  # true, false
        return kind == 1
    if kind in {4, 5, 6}:  # i16, i32, i64
        return _zigzag(file)
    if kind == 8:  # binary
        return file.seek(_varint(file), os.SEEK_CUR)
    if kind == 12:  # struct
        return _struct(file)
    raise DatasetError(f"a page header has a field of unknown Thrift type {kind}")


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def _zigzag(file: BinaryIO) -> int:
    value = _varint(file)
    return value >> 1 ^ -(value & 1)


def encode(columns: Sequence[str], offsets: Array, lengths: Array) -> bytes:
    """Encode the index of one file."""
    header = json.dumps({"rows": len(offsets), "columns": list(columns)}).encode()
    header += b" " * (-(len(MAGIC) + 4 + len(header)) % 8)
    size = len(header).to_bytes(4, "little")
    return b"".join(
        (MAGIC, size, header, offsets.astype("<u8").tobytes(), np.maximum(lengths, 0).astype("<u4").tobytes())
    )


class Index:
    """The index of one file."""

    def __init__(self, data: bytes, place: str) -> None:
        """Parse an index file. Raises DatasetError with its `place` if it is not valid."""
        start = len(MAGIC) + 4
        size = int.from_bytes(data[len(MAGIC) : start], "little")
        if data[: len(MAGIC)] != MAGIC or start + size > len(data):
            raise DatasetError(f"{place}: is not an index file")
        try:
            header = parse_json(data[start : start + size])
            self.columns: list[str] = list(header["columns"])
            shape = int(header["rows"]), len(self.columns)
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{place}: the index has a broken header ({error!r})") from error
        count = shape[0] * shape[1]
        if shape[0] < 0 or len(data) != start + size + 12 * count:
            raise DatasetError(f"{place}: has {len(data)} bytes, expected {start + size + 12 * count}")
        self.offsets: Array = np.frombuffer(data, "<u8", count, start + size).reshape(shape)
        self.lengths: Array = np.frombuffer(data, "<u4", count, start + size + 8 * count).reshape(shape)
