"""Kuka (QT-Opt): state vectors that some readers return as zlib-compressed bytes."""

import zlib

import numpy as np

from schemas.errors import SourceError
from schemas.limits import above_limit
from schemas.source import Bytes, Column, Ragged

LIMIT = 1 << 16  # maximum size of a decompressed vector in bytes; the largest in use has 28 bytes


def zlib_float32(column: Column) -> Column:
    """Decompress T byte strings of little-endian float32 to [T, k]; a column of numbers is returned unchanged.

    >>> zlib_float32([zlib.compress(np.float32([1, 2]).tobytes())]).tolist()
    [[1.0, 2.0]]
    """
    if isinstance(column, Ragged) or (isinstance(column, np.ndarray) and column.dtype.kind in "fiub"):
        return column
    try:
        rows = [np.frombuffer(_decompressed(item), "<f4") for item in column]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 0), np.float32)
    except (zlib.error, ValueError, TypeError) as error:
        raise SourceError(
            f"a zlib-compressed vector cannot be read ({error})", reason="contradicts_features"
        ) from error


def _decompressed(item: Bytes) -> bytes:
    data = zlib.decompressobj().decompress(item, LIMIT + 1)
    if len(data) > LIMIT:
        raise above_limit(LIMIT, "bytes", what="a zlib-compressed vector")
    return data
