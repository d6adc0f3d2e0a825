"""The columns of a data file besides its images. What is read is compared with the checksums of the index first."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.store.checks import crc, damaged, unreadable
from schemas.store.index import TAIL, Checks, Index, column_chunks
from schemas.store.ranges import Ranges

GAP = 8 << 10  # bytes between two column chunks that are read along with them in one request


class NumberColumns:
    """Reads columns of whole row groups. The row groups of a file may have different sizes."""

    def __init__(self, file: Ranges, size: int, *, index: Index, place: str, checked: bool = True) -> None:
        """Read the metadata of a data file. Raises DatasetError if it is damaged, unless `checked` is False."""
        self._file, self._size, self._place = file, size, place
        self._checks = index.checks if checked else None
        tail = file.read(max(0, size - TAIL), min(TAIL, size))
        length = int.from_bytes(tail[:4], "little") + TAIL
        if tail[4:] != b"PAR1" or length > size:
            raise unreadable(place, "it does not end as a Parquet file")
        footer = file.read(size - length, length)
        if self._checks and crc(footer) != self._checks.footer:
            raise damaged(place, "its metadata do not have the CRC-32C of the index")
        try:
            self.metadata = pq.read_metadata(pa.BufferReader(footer))
            self.names: tuple[str, ...] = tuple(self.metadata.schema.to_arrow_schema().names)
        except (OSError, ValueError) as error:
            raise unreadable(place, error) from error
        self._leaves, self._starts, self._sizes = column_chunks(self.metadata, without=index.columns)
        if self._checks and (self._checks.leaves, self._checks.chunks.shape) != (self._leaves, self._starts.shape):
            raise damaged(place, "its columns are not those of the index")
        rows = (self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups))
        self.group_starts = np.cumsum([0, *rows])  # first row of each row group; then the number of rows

    def groups(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first row group that has some of the rows [start, stop), and one past the last."""
        first = int(np.searchsorted(self.group_starts, start, "right")) - 1
        return first, int(np.searchsorted(self.group_starts, stop, "left"))

    def read(self, first: int, last: int, names: Sequence[str]) -> pa.Table:
        """Read columns of the row groups [first, last). Raises DatasetError if their bytes are damaged."""
        if first >= last:
            return self.metadata.schema.to_arrow_schema().empty_table().select(names)
        try:
            source = _Pieces(self._pieces(first, last, names), size=self._size)
            file = pq.ParquetFile(source, metadata=self.metadata, pre_buffer=False)
            return file.read_row_groups(list(range(first, last)), columns=list(names), use_threads=False)
        except (OSError, ValueError) as error:
            raise unreadable(self._place, error) from error

    def _pieces(self, first: int, last: int, names: Sequence[str]) -> Mapping[int, memoryview]:
        """Read and check the column chunks; returns them by their first byte."""
        chosen = [k for k, leaf in enumerate(self._leaves) if any(_is_below(leaf, name) for name in names)]
        groups, leaves = (axis.ravel() for axis in np.meshgrid(np.arange(first, last), chosen, indexing="ij"))
        starts, sizes = self._starts[groups, leaves], self._sizes[groups, leaves]
        order = np.argsort(starts)
        groups, leaves, starts, sizes = groups[order], leaves[order], starts[order], sizes[order]
        pieces: dict[int, memoryview] = {}
        cuts = np.flatnonzero(starts[1:] - (starts + sizes)[:-1] > GAP) + 1
        for part in np.split(np.arange(len(starts)), cuts):
            begin = int(starts[part[0]])
            data = memoryview(self._file.read(begin, int(starts[part[-1]] + sizes[part[-1]]) - begin))
            for at, size in zip((starts[part] - begin).tolist(), sizes[part].tolist(), strict=True):
                pieces[begin + at] = data[at : at + size]
        if self._checks:
            self._compare(self._checks, pieces, (groups, leaves))
        return pieces

    def _compare(self, checks: Checks, pieces: Mapping[int, memoryview], at: tuple[np.ndarray, np.ndarray]) -> None:
        wanted = checks.chunks[at].tolist()
        for piece, expected, group, leaf in zip(pieces.values(), wanted, *(axis.tolist() for axis in at), strict=True):
            if crc(piece) != expected:
                raise damaged(
                    self._place, f"{self._leaves[leaf]}, row group {group}: it does not have the CRC-32C of the index"
                )


def _is_below(leaf: str, name: str) -> bool:
    """Whether pyarrow reads a Parquet column if `name` is requested."""
    return leaf == name or leaf.startswith(f"{name}.")


class _Pieces(io.RawIOBase):
    """A file of which only some pieces are there. pyarrow reads each column chunk in one call."""

    def __init__(self, pieces: Mapping[int, memoryview], *, size: int) -> None:
        self._pieces, self._size, self._at = pieces, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (self._size if whence == io.SEEK_END else 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        piece = self._pieces.get(self._at)
        if piece is None or size > len(piece):
            raise OSError(f"{size} bytes from byte {self._at} on are not a column chunk")
        self._at += size
        return bytes(piece[:size])
