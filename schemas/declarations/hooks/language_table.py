"""Language Table: instructions stored as code points."""

import sys

import numpy as np

from schemas.errors import SourceError
from schemas.source import Column


def code_points(column: Column) -> Column:
    """Convert [T, k] code points, padded with zeros, to T texts in UTF-8; equal neighbouring rows are decoded once.

    >>> code_points(np.int32([[112, 117, 115, 104, 0, 0], [112, 105, 99, 107, 0, 0]]))
    [b'push', b'pick']
    """
    if not isinstance(column, np.ndarray) or column.dtype.kind not in "iuf":
        return column  # already texts
    if column.dtype.kind == "f":  # some readers return floats
        if not (column == np.clip(np.floor(column), 0, sys.maxunicode)).all():
            raise SourceError("an instruction is not code points (they must be whole numbers)", reason="bad_utf8")
        column = column.astype(np.int32)
    rows = column.reshape(len(column), column[:1].size if len(column) else 0)
    starts = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])[: len(rows)])
    ends = np.append(starts[1:], len(rows))
    texts: list[bytes] = []
    for start, end in zip(starts, ends, strict=False):
        texts += [_text(rows[start])] * int(end - start)
    return texts


def _text(row: np.ndarray) -> bytes:
    used = row[: np.argmin(row != 0)] if (row == 0).any() else row
    try:
        return "".join(map(chr, used.tolist())).encode()
    except (ValueError, OverflowError, UnicodeEncodeError) as error:
        raise SourceError(f"an instruction is not code points ({error})", reason="bad_utf8") from error
