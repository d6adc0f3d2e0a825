"""What a file of messages is, whatever its format; damage to one; and compressed bytes, never more than are allowed."""

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

LIMIT = 1 << 30  # bytes of one record, and of what one inflates to
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
    """The text that says what a message type holds."""

    form: str  # msg, idl, json; "": there is none
    text: str


@dataclass(frozen=True, slots=True)
class Channel:
    """One connection of a topic; a topic may have several."""

    topic: str
    type: str
    encoding: str  # cdr, ros1, json, or what else the file says
    definition: Definition
    count: int | None  # messages; None: the file does not say


class Message(NamedTuple):
    """One message as it was logged."""

    topic: str
    time: int  # nanoseconds
    data: bytes


class Storage(Protocol):
    """One opened file."""

    channels: tuple[Channel, ...]

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Give the messages of some topics, in the order in which they were stored."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make a SourceError of whatever the libraries raise for a damaged file; none names a place of this machine."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except (EndOfFile, InvalidMagic) as error:
        message = (
            "ends before it should: it was not closed or not copied to its end; 'mcap recover' saves what is there"
        )
        raise SourceError(message, reason="truncated", file=path) from error
    except DAMAGE as error:
        if isinstance(error, Bag1Error) and "not indexed" in str(error):
            message = "was not closed, so it has no index; 'rosbag reindex' makes one"
            raise SourceError(message, reason="truncated", file=path) from error
        why = type(error).__name__ if isinstance(error, OSError) else str(error).replace(path, "").strip("'\": ")
        raise SourceError(f"cannot be read ({why or type(error).__name__})", file=path) from error


def inflated(data: bytes, how: str, *, limit: int = LIMIT) -> bytes:
    """Inflate one piece; one that becomes larger than `limit` is a SourceError."""
    if how in {"", "none"}:
        out = data
    elif how == "zstd":
        out = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(limit + 1)
    elif how == "lz4":
        out = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1)
    elif how == "bz2":
        out = bz2.BZ2Decompressor().decompress(data, max_length=limit + 1)
    else:
        raise SourceError(f"compressed as '{how}', which is not known", reason="unreadable")
    if len(out) > limit:
        raise SourceError(f"{len(data)} bytes inflate to more than {limit}", reason="too_large")
    return out


class Bounded:
    """A file that gives all the bytes asked for, and never more than fit into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read from `file`."""
        self.file = file

    def seekable(self) -> bool:
        """Say so."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Say where it is."""
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        """Give `size` bytes; a size beyond reason is a SourceError."""
        if not 0 <= size <= LIMIT:
            raise SourceError(f"a record of {size} bytes; the limit is {LIMIT}", reason="too_large")
        data = self.file.read(size)
        if len(data) < size:
            raise EndOfFile
        return data
