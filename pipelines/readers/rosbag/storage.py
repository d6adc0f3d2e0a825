"""Types shared by the kinds of bag files, the handling of errors in damaged files, and decompression with a limit."""

import bz2
import io
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol

import apsw
import lz4.frame
import zstandard
from mcap.exceptions import EndOfFile, InvalidMagic, McapError
from rosbags.rosbag1 import ReaderError as Bag1Error
from rosbags.rosbag2 import ReaderError as Bag2Error

from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, above_limit

DAMAGE = (
    AssertionError,
    Bag1Error,
    Bag2Error,
    EOFError,
    LookupError,
    McapError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    apsw.Error,
    struct.error,
    zstandard.ZstdError,
)


@dataclass(frozen=True, slots=True)
class Definition:
    """The text that defines a message type."""

    form: str  # msg, idl, json or protobuf; "" if there is no definition
    text: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A connection of a topic; a topic may have several."""

    topic: str
    type: str
    encoding: str  # as the file names it: cdr, ros1, json or another
    definition: Definition
    count: int | None  # number of messages; None if unknown


class Message(NamedTuple):
    """One logged message, still encoded."""

    topic: str
    time: int  # nanoseconds
    data: bytes


class Storage(Protocol):
    """An open bag file."""

    channels: tuple[Channel, ...]

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of the given topics, in an order that depends on the kind of file."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn the libraries' errors for a damaged file into SourceErrors; local paths are removed."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except (EndOfFile, InvalidMagic) as error:
        message = (
            "the file is incomplete: it was not closed or not fully copied; 'mcap recover' saves what is there, "
            "which is then only a part of the episode"
        )
        raise SourceError(message, reason="truncated", file=path) from error
    except DAMAGE as error:
        if isinstance(error, Bag1Error) and "not indexed" in str(error):
            message = "the file was not closed, so it has no index; 'rosbag reindex' creates one"
            raise SourceError(message, reason="truncated", file=path) from error
        why = type(error).__name__ if isinstance(error, OSError) else str(error).replace(path, "").strip("'\": ")
        raise SourceError(f"cannot be read ({why or type(error).__name__})", file=path) from error


def inflate(data: bytes, compression: str, *, limit: int = COLUMN_BYTES) -> bytes:
    """Decompress `data`; raise SourceError if it inflates to more than `limit` bytes."""
    if compression in {"", "none"}:
        plain = data
    elif compression == "zstd":
        plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(limit + 1)
    elif compression == "lz4":
        plain = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1)
    elif compression == "bz2":
        plain = bz2.BZ2Decompressor().decompress(data, max_length=limit + 1)
    else:
        raise SourceError(f"unknown compression '{compression}'", reason="unreadable")
    if len(plain) > limit:
        raise above_limit(limit, "bytes", what=f"{len(data)} compressed bytes")
    return plain


class BoundedFile:
    """A file whose `read` returns exactly as many bytes as requested, or raises an error."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read from `file`."""
        self.file = file

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes; raise SourceError if `size` exceeds the limit, and EndOfFile if the file is too short."""
        if not 0 <= size <= COLUMN_BYTES:
            raise SourceError(f"a record of {size} bytes; the limit is {COLUMN_BYTES}", reason="too_large")
        data = self.file.read(size)
        if len(data) < size:
            raise EndOfFile
        return data
