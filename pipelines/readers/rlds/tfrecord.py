"""TFRecord framing: length (u64), masked crc32c of it, data, masked crc32c of the data. Both are always verified.

Source: the comment at the head of TensorFlow's `tensorflow/core/lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator
from typing import IO

from crc32c import crc32c

from pipelines.readers.folder import LFS_MARK, lfs_pointer
from schemas.errors import SourceError

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")


def masked_crc(data: bytes | memoryview) -> int:
    """Hash as TFRecord does: crc32c, rotated right by 15 bits, plus a constant.

    >>> hex(masked_crc(b""))
    '0xa282ead8'
    """
    crc: int = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Wrap one record."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, FOOTER.pack(masked_crc(length)), data, FOOTER.pack(masked_crc(data))))


class Buffers:
    """Memory for records, given out again once nobody holds a view of it.

    Fresh memory for every record costs the kernel more than reading it: each page is cleared before it is filled.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._known: list[bytearray] = []

    def take(self, size: int) -> memoryview:
        """Give `size` bytes of memory that nobody looks at."""
        idle = [buffer for buffer in self._known if _is_idle(buffer)]
        for buffer in idle:
            if len(buffer) >= size:
                return memoryview(buffer)[:size]
        if idle:
            self._known.remove(idle[0])  # too small: a larger one takes its place
        self._known.append(bytearray(size + size // 4))
        return memoryview(self._known[-1])[:size]


def _is_idle(buffer: bytearray) -> bool:
    """Say whether there is no view of a buffer: Python resizes it only then."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


class RecordFile:
    """An open TFRecord file and a place in it: the start of a record."""

    def __init__(self, file: IO[bytes], name: str, buffers: Buffers | None = None) -> None:
        """Start at the first record; `name` stands in errors; `buffers` may serve several files."""
        self.file, self.name = file, name
        self.buffers = buffers or Buffers()
        self.size = file.seek(0, 2)
        self.offset = file.seek(0)

    def next_length(self) -> int | None:
        """Read the header here: how many bytes of data follow. None at the end of the file."""
        header = self.file.read(HEADER.size)
        if not header and self.offset == self.size:
            return None
        if self.offset == 0 and header.startswith(LFS_MARK[: HEADER.size]):
            raise lfs_pointer(self.name)
        if len(header) < HEADER.size:
            raise self._error("the file ends inside a record's header", "truncated")
        length, crc = HEADER.unpack(header)
        if crc != masked_crc(header[:8]):
            raise self._error("the record's length has a wrong CRC: nothing after it can be found", "wrong_crc")
        if self.offset + HEADER.size + length + FOOTER.size > self.size:
            raise self._error(f"the record says {length} bytes, the file ends before them", "truncated")
        return int(length)

    def data(self, length: int) -> memoryview:
        """Read and check the data whose header has just been read, and go on to the next record."""
        data = self.buffers.take(length + FOOTER.size)
        if self.file.readinto(data) < len(data):  # type: ignore[attr-defined]
            raise self._error("the file ends inside a record", "truncated")
        right = FOOTER.unpack(data[length:])[0] == masked_crc(data[:length])
        wrong = None if right else self._error("the record's data has a wrong CRC", "wrong_crc")
        self.offset += HEADER.size + length + FOOTER.size
        if wrong:
            raise wrong
        return data[:length]

    def skip(self, length: int) -> None:
        """Go on to the next record without reading this one's data."""
        self.offset = self.file.seek(self.offset + HEADER.size + length + FOOTER.size)

    def _error(self, message: str, reason: str) -> SourceError:
        return SourceError(message, reason=reason, file=self.name, offset=self.offset)


def offsets(file: IO[bytes], name: str) -> Iterator[tuple[int, int]]:
    """Walk the headers alone: the offset and length of every record."""
    records = RecordFile(file, name)
    while (length := records.next_length()) is not None:
        yield records.offset, length
        records.skip(length)
