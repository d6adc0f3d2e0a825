"""Read and write TFRecord framing; both checksums of a record are always verified.

A record is its length (u64), the masked crc32c of the length, the data, and the masked crc32c of the data.

Source: the comment at the head of TensorFlow's `tensorflow/core/lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator
from typing import IO

from crc32c import crc32c

from pipelines.readers.folder import LFS_MARK, lfs_pointer_error
from schemas.errors import SourceError

COMPRESSED = {  # first two bytes of a compressed file -> how to decompress it
    b"\x1f\x8b": "compressed with gzip; decompress it first: gunzip < FILE > NEW_FILE",
    **dict.fromkeys((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), "compressed with zlib; decompress it first"),
}
HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")


def masked_crc(data: bytes | memoryview) -> int:
    """Return TFRecord's checksum: crc32c, rotated right by 15 bits, plus a constant.

    >>> hex(masked_crc(b""))
    '0xa282ead8'
    """
    crc: int = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Frame the data of one record."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, FOOTER.pack(masked_crc(length)), data, FOOTER.pack(masked_crc(data))))


class BufferPool:
    """Memory for records; a buffer is reused when no view of it is left.

    Allocating new memory for every record would take longer than reading the record, because the kernel clears each
    page of new memory.
    """

    def __init__(self) -> None:
        """Start with no buffers."""
        self._buffers: list[bytearray] = []

    def take(self, size: int) -> memoryview:
        """Return `size` bytes of memory that nothing else uses."""
        idle = [buffer for buffer in self._buffers if _is_idle(buffer)]
        for buffer in idle:
            if len(buffer) >= size:
                return memoryview(buffer)[:size]
        if idle:
            self._buffers.remove(idle[0])  # too small; a larger one replaces it
        self._buffers.append(bytearray(size + size // 4))
        return memoryview(self._buffers[-1])[:size]


def _is_idle(buffer: bytearray) -> bool:
    """Whether a buffer has no views; Python can only resize a buffer without views."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


class RecordFile:
    """An open TFRecord file, positioned at the start of a record."""

    def __init__(self, file: IO[bytes], name: str, buffers: BufferPool | None = None) -> None:
        """Start at the first record; errors show `name`. Several files may share `buffers`."""
        self.file, self.name = file, name
        self.buffers = buffers or BufferPool()
        self.size = file.seek(0, 2)
        self.offset = file.seek(0)

    def next_length(self) -> int | None:
        """Read a record's header and return the length of its data in bytes; None at the end of the file."""
        header = self.file.read(HEADER.size)
        if not header and self.offset == self.size:
            return None
        if self.offset == 0 and header.startswith(LFS_MARK[: HEADER.size]):
            raise lfs_pointer_error(self.name)
        if len(header) < HEADER.size:
            raise self._error("the file ends inside a record's header", "truncated")
        length, crc = HEADER.unpack(header)
        if crc != masked_crc(header[:8]):
            if self.offset == 0 and header[:2] in COMPRESSED:
                raise self._error(COMPRESSED[header[:2]], "compressed_file")
            raise self._error("the record's length has a wrong CRC, so no record after it can be found", "wrong_crc")
        if self.offset + HEADER.size + length + FOOTER.size > self.size:
            raise self._error(f"the record declares {length} bytes, but the file ends before that", "truncated")
        return int(length)

    def data(self, length: int) -> memoryview:
        """Read and verify the data after a header, and move to the next record."""
        data = self.buffers.take(length + FOOTER.size)
        if self.file.readinto(data) < len(data):  # type: ignore[attr-defined]
            raise self._error("the file ends inside a record", "truncated")
        right = FOOTER.unpack(data[length:])[0] == masked_crc(data[:length])
        error = None if right else self._error("the record's data has a wrong CRC", "wrong_crc")
        self.offset += HEADER.size + length + FOOTER.size
        if error:
            raise error
        return data[:length]

    def skip(self, length: int) -> None:
        """Move to the next record without reading this one's data."""
        self.offset = self.file.seek(self.offset + HEADER.size + length + FOOTER.size)

    def _error(self, message: str, reason: str) -> SourceError:
        return SourceError(message, reason=reason, file=self.name, offset=self.offset)


def offsets(file: IO[bytes], name: str) -> Iterator[tuple[int, int]]:
    """Yield the offset and length of every record, reading only the headers."""
    records = RecordFile(file, name)
    while (length := records.next_length()) is not None:
        yield records.offset, length
        records.skip(length)
