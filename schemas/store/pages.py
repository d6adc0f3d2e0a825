"""Find the images in a Parquet file, by walking the headers of its pages.

Image columns are written uncompressed and with PLAIN encoding. The payload of a page therefore has the definition
levels, followed by `length (u32), bytes` for each value. See "Data Pages" and "Plain encoding" in the description of
the Parquet format. Page headers are Thrift compact structs. Nulls have no entry in the page.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.source import Array

PAGE_SIZE, DATA_V1, DATA_V2 = 3, 5, 8  # field numbers in Parquet's PageHeader


def offsets_of(file: BinaryIO, metadata: pq.FileMetaData, *, columns: Sequence[str], lengths: Array) -> Array:
    """Compute the offsets of the images, [rows, columns], from the page headers and the lengths (-1 for a null).

    Raises DatasetError if the pages do not have room for exactly these lengths.
    """
    offsets = np.zeros(lengths.shape, np.uint64)
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
                    raise misplaced(Path(file.name), column)
                offsets[row + present, number] = ends - sizes[present]
                row += count
    return offsets


def misplaced(file: Path, column: str) -> DatasetError:
    """Return the error for images that are not where they should be."""
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
