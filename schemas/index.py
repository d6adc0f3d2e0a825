"""The byte-range index: where each image lies inside a Parquet file; a random frame is then one slice of a mmap.

It works because image columns are written uncompressed and PLAIN: a page's payload is then definition levels followed
by `length (u32), bytes` per value, as the Parquet format says ("Data Pages", "Plain encoding"; page headers are Thrift
compact structs). Nulls have no entry in the page and length 0 in the index.

File `index/<name>.idx`, little endian: `OXEIDX01`, u32 size of the header, header (JSON: rows, columns; padded with
spaces so that what follows is aligned to 8 bytes), offsets u64 [rows, columns], lengths u32 [rows, columns].
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.source import Array

MAGIC = b"OXEIDX01"
PAGE_SIZE, DATA_V1, DATA_V2 = 3, 5, 8  # field numbers of Thrift's PageHeader


def build(file: Path, data: memoryview, *, columns: Sequence[str], lengths: Array) -> Array:
    """Find every image: [rows, columns] offsets into `data`, the bytes of `file`.

    `lengths` [rows, columns] are the lengths that were written, -1 for a null. They must fill every page exactly.
    """
    offsets = np.zeros(lengths.shape, np.uint64)
    raw = np.frombuffer(data, np.uint8)
    metadata = pq.read_metadata(file)
    leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for number, column in enumerate(columns):
        row = 0
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(leaves[f"{column}.bytes"])
            position, end = chunk.data_page_offset, row + chunk.num_values
            while row < end:
                position, payload, count = _page(data, position)
                sizes = lengths[row : row + count, number]
                present = np.flatnonzero(sizes >= 0)
                ends = payload + np.cumsum(sizes[present] + 4)
                if (ends[-1] if len(ends) else payload) != position:
                    raise _misplaced(file, column)
                offsets[row + present, number] = ends - sizes[present]
                row += count
        present = np.flatnonzero(lengths[:, number] >= 0)
        before = offsets[present, number].astype(np.int64)[:, None] + np.arange(-4, 0)  # four bytes that say the length
        if len(present) and not np.array_equal(raw[before].view("<u4")[:, 0], lengths[present, number]):
            raise _misplaced(file, column)
    return offsets


def _misplaced(file: Path, column: str) -> DatasetError:
    return DatasetError(f"{file}: {column}: the pages do not hold the images where they should")


def _page(data: memoryview, position: int) -> tuple[int, int, int]:
    """Read one page header: the position of the next page, of this page's values, and how many values it counts."""
    header, start = _struct(data, position)
    following = start + header[PAGE_SIZE]
    if DATA_V2 in header:
        page = header[DATA_V2]
        return following, start + page[5] + page[6], page[1]
    size = int.from_bytes(data[start : start + 4], "little")  # of the definition levels
    return following, start + 4 + size, header[DATA_V1][1]


def _struct(data: memoryview, position: int) -> tuple[dict[int, Any], int]:
    """Read one Thrift struct of the compact protocol, as far as page headers need it."""
    out: dict[int, Any] = {}
    number = 0
    while kind := data[position]:
        position += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, position = _zigzag(data, position)
        out[number], position = _value(data, position, kind & 15)
    return out, position + 1


def _value(data: memoryview, position: int, kind: int) -> tuple[Any, int]:
    if kind in {1, 2}:  # true, false
        return kind == 1, position
    if kind in {4, 5, 6}:  # i16, i32, i64
        return _zigzag(data, position)
    if kind == 8:  # binary
        size, position = _varint(data, position)
        return None, position + size
    if kind == 12:  # struct
        return _struct(data, position)
    raise DatasetError(f"a page header with a field of Thrift type {kind}")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _zigzag(data: memoryview, position: int) -> tuple[int, int]:
    value, position = _varint(data, position)
    return value >> 1 ^ -(value & 1), position


def encode(columns: Sequence[str], offsets: Array, lengths: Array) -> bytes:
    """Write the index of one file."""
    header = json.dumps({"rows": len(offsets), "columns": list(columns)}).encode()
    header += b" " * (-(len(MAGIC) + 4 + len(header)) % 8)
    size = len(header).to_bytes(4, "little")
    return b"".join(
        (MAGIC, size, header, offsets.astype("<u8").tobytes(), np.maximum(lengths, 0).astype("<u4").tobytes())
    )


class Index:
    """The index of one file."""

    def __init__(self, data: bytes, place: str) -> None:
        """Read it; what is no index of ours is a DatasetError that names the place."""
        start = len(MAGIC) + 4
        size = int.from_bytes(data[len(MAGIC) : start], "little")
        if data[: len(MAGIC)] != MAGIC or start + size > len(data):
            raise DatasetError(f"{place}: not an index file")
        try:
            header = json.loads(data[start : start + size])
            self.columns: list[str] = list(header["columns"])
            shape = int(header["rows"]), len(self.columns)
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{place}: the index has a broken header ({error!r})") from error
        count = shape[0] * shape[1]
        if shape[0] < 0 or len(data) != start + size + 12 * count:
            raise DatasetError(f"{place}: {len(data)} bytes, expected {start + size + 12 * count}")
        self.offsets: Array = np.frombuffer(data, "<u8", count, start + size).reshape(shape)
        self.lengths: Array = np.frombuffer(data, "<u4", count, start + size + 8 * count).reshape(shape)
