"""CRC-32C of byte ranges, and the error for bytes that are not those that were written."""

import numpy as np
from crc32c import crc32c

from schemas.errors import DatasetError
from schemas.source import Array

FIX = "run 'oxe verify' to find all damaged files; restore them from a copy, or repair them with the same 'oxe convert'"
crc = crc32c  # the CRC-32C of bytes; the second argument is the CRC-32C of the bytes before them


def damaged(place: str, why: str) -> DatasetError:
    """Return the error for a file whose content is not what was written."""
    return DatasetError(f"{place}: damaged ({why}); {FIX}")


def unreadable(place: str, why: object) -> DatasetError:
    """Return the error for a file that cannot be read."""
    return DatasetError(f"{place}: cannot be read ({why}); {FIX}")


class RangeChecksums:
    """Computes the CRC-32C of byte ranges of a file that is read from start to end.

    Ranges must not overlap; an empty range has the CRC-32C 0.
    """

    def __init__(self, starts: Array, sizes: Array) -> None:
        """Take the start and size of each range, in any order."""
        self._order = np.argsort(starts, kind="stable")
        self._starts = starts[self._order].astype(np.int64)
        self._stops = self._starts + sizes[self._order].astype(np.int64)
        self._crcs = np.zeros(len(starts), np.uint32)
        self._at = 0

    def add(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
        begin, end = self._at, self._at + len(data)
        first, last = np.searchsorted(self._stops, begin, "right"), np.searchsorted(self._starts, end, "left")
        starts, stops = self._starts[first:last].clip(begin) - begin, self._stops[first:last].clip(None, end) - begin
        spans = zip(starts.tolist(), stops.tolist(), self._crcs[first:last].tolist(), strict=True)
        self._crcs[first:last] = [crc(data[start:stop], known) for start, stop, known in spans]
        self._at = end

    def values(self) -> Array:
        """Return the CRC-32C of each range, in the order in which the ranges were passed."""
        out = np.empty_like(self._crcs)
        out[self._order] = self._crcs
        return out
