"""TFRecord framing: length (u64), masked crc32c of it, data, masked crc32c of the data. Both are always verified.

Source: the comment at the head of TensorFlow's `tensorflow/core/lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator
from typing import IO

from crc32c import crc32c

from schemas.errors import SourceError

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
LFS_MARK = b"version https://git-lfs"


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


def read_length(file: IO[bytes], name: str, offset: int, size: int) -> int | None:
    """Read the header at `offset` of a file of `size` bytes; None at its end."""
    header = file.read(HEADER.size)
    if not header and offset == size:
        return None
    if offset == 0 and header.startswith(LFS_MARK[: HEADER.size]):
        raise SourceError(
            "a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned", reason="lfs_pointer", file=name
        )
    if len(header) < HEADER.size:
        raise SourceError("the file ends inside a record's header", reason="truncated", file=name, offset=offset)
    length, crc = HEADER.unpack(header)
    if crc != masked_crc(header[:8]):
        raise SourceError(
            "the record's length has a wrong CRC: nothing after it can be found",
            reason="wrong_crc",
            file=name,
            offset=offset,
        )
    if offset + HEADER.size + length + FOOTER.size > size:
        raise SourceError(
            f"the record says {length} bytes, the file ends before them", reason="truncated", file=name, offset=offset
        )
    return int(length)


def read_data(file: IO[bytes], name: str, offset: int, length: int) -> memoryview:
    """Read and check the data of the record at `offset`, whose header has just been read."""
    data = memoryview(file.read(length + FOOTER.size))
    if len(data) < length + FOOTER.size:
        raise SourceError("the file ends inside a record", reason="truncated", file=name, offset=offset)
    if FOOTER.unpack(data[length:])[0] != masked_crc(data[:length]):
        raise SourceError("the record's data has a wrong CRC", reason="wrong_crc", file=name, offset=offset)
    return data[:length]


def offsets(file: IO[bytes], name: str, size: int) -> Iterator[tuple[int, int]]:
    """Walk the headers alone: the offset and length of every record."""
    offset = 0
    while (length := read_length(file, name, offset, size)) is not None:
        yield offset, length
        offset += HEADER.size + length + FOOTER.size
        file.seek(offset)
