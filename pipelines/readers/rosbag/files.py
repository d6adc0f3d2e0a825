"""Read the three kinds of bag files: MCAP, sqlite3 (`.db3`) and ROS 1 (`.bag`)."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import quote

import zstandard
from mcap.exceptions import EndOfFile
from mcap.reader import make_reader
from mcap.records import Channel as McapChannel
from mcap.records import Chunk, DataEnd, McapRecord, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Bag1
from rosbags.rosbag1.reader import decompressors
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.rosbag.storage import BoundedFile, Channel, Definition, Message, Storage, inflate, reading
from schemas.errors import SourceError
from schemas.files import durable
from schemas.limits import COLUMN_BYTES

MCAP, SQLITE, BAG1, ZSTD = b"\x89MCAP0\r\n", b"SQLite format 3\0", b"#ROSBAG V2.0", b"\x28\xb5\x2f\xfd"
COPY_LIMIT = 16 << 30  # bytes of the copy of a remote or compressed file
FORMS = {
    "ros2msg": "msg",
    "ros1msg": "msg",
    "ros2idl": "idl",
    "omgidl": "idl",
    "jsonschema": "json",
    "protobuf": "protobuf",
}
ROS_FORMS = {MessageDefinitionFormat.MSG: "msg", MessageDefinitionFormat.IDL: "idl", MessageDefinitionFormat.NONE: ""}


@contextmanager
def open_storage(folder: SourceFolder, name: str) -> Iterator[Storage]:
    """Open a bag file, whose kind is detected from its first bytes; raise SourceError if it is not a bag."""
    path = folder.path(name)
    with ExitStack() as stack:
        with reading(path):
            with folder.open(name) as file:
                start = file.read(len(LFS_MARK))
            if start.startswith(LFS_MARK):
                raise lfs_pointer_error(path)
            own = folder.local_path(name)
            local = Path(own) if own else None
            if start.startswith(ZSTD):
                local = _copy(folder, name, stack, is_compressed=True)
                start = _first_bytes(local)
            if start.startswith(MCAP):
                file = stack.enter_context(local.open("rb") if local else folder.open_parts(name))
                storage: Storage = McapFile(file)
            elif start.startswith((SQLITE, BAG1)):
                local = local or _copy(folder, name, stack)
                storage_class: type[SqliteFile | Bag1File] = SqliteFile if start.startswith(SQLITE) else Bag1File
                bag = storage_class(local)
                stack.callback(bag.close)
                storage = bag
            else:
                message = "expected MCAP, rosbag2's sqlite3 or a ROS 1 bag" if start else "the file is empty"
                raise SourceError(message, reason="not_rosbag", file=path)
        yield storage


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(LFS_MARK))


def _copy(folder: SourceFolder, name: str, stack: ExitStack, *, is_compressed: bool = False) -> Path:
    """Copy a file to a temporary file, which is removed when `stack` is closed."""
    size = folder.size(name) or 0
    target = stack.enter_context(durable.scratch_folder()) / "bag"
    with folder.open(name) as file, target.open("wb") as out:
        source: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(file) if is_compressed else file
        if size <= COPY_LIMIT:
            shutil.copyfileobj(_LimitedStream(source, COPY_LIMIT), out, 1 << 20)
            return target
    raise _too_large_error(folder.path(name))


def _too_large_error(path: str) -> SourceError:
    message = (
        f"requires a local, uncompressed copy of more than {COPY_LIMIT >> 30} GiB: make one and use it as the source"
    )
    return SourceError(message, reason="too_large", file=path)


class _LimitedStream:
    """A stream that raises SourceError after `limit` bytes."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.remaining = file, limit

    def read(self, size: int = -1, /) -> bytes:
        data = self.file.read(size)
        self.remaining -= len(data)
        if self.remaining < 0:
            raise _too_large_error("")
        return data


class McapFile:
    """An MCAP file; messages are read from start to end, without the index, and all checksums are verified."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read the file's summary; if there is no usable one, read the whole file to count its messages."""
        self.file = BoundedFile(file)
        self.file.seek(max(self.file.seek(0, os.SEEK_END) - len(MCAP), 0))
        if self.file.read(len(MCAP)) != MCAP:
            raise EndOfFile
        self.file.seek(0)
        summary = make_reader(self.file, validate_crcs=True).get_summary()  # type: ignore[arg-type]
        if summary and summary.statistics and (summary.channels or not summary.statistics.message_count):
            counts = summary.statistics.channel_message_counts
            schemas, channels = summary.schemas, summary.channels
        else:
            schemas, channels, counts = self._scan()
        self.channels = tuple(
            _channel(channel, schemas, counts.get(id_, 0)) for id_, channel in sorted(channels.items())
        )

    def _scan(self) -> tuple[dict[int, Schema], dict[int, McapChannel], dict[int, int]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, McapChannel] = {}
        counts = Counter[int]()
        for record in self._records():
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, McapChannel):
                channels[record.id] = record
            elif isinstance(record, McapMessage):
                counts[record.channel_id] += 1
        return schemas, channels, counts

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of some topics, in the order of the file."""
        channels: dict[int, str] = {}
        for record in self._records():
            if isinstance(record, McapChannel):
                channels[record.id] = record.topic
            elif isinstance(record, McapMessage) and channels[record.channel_id] in topics:
                yield Message(channels[record.channel_id], record.log_time, record.data)

    def _records(self) -> Iterator[McapRecord]:
        """Yield every record up to the end of the data, including those inside chunks."""
        self.file.seek(0)
        limits = {"validate_crcs": True, "record_size_limit": COLUMN_BYTES}
        for record in StreamReader(self.file, emit_chunks=True, **limits).records:  # type: ignore[arg-type]
            if isinstance(record, DataEnd):
                return
            if isinstance(record, Chunk):
                if record.uncompressed_size > COLUMN_BYTES:
                    message = f"a chunk of {record.uncompressed_size} bytes; the limit is {COLUMN_BYTES}"
                    raise SourceError(message, reason="too_large")
                plain = inflate(record.data, record.compression, limit=record.uncompressed_size)
                yield from breakup_chunk(replace(record, compression="", data=plain), validate_crc=True)
            else:
                yield record


def _channel(channel: McapChannel, schemas: dict[int, Schema], count: int) -> Channel:
    schema = schemas.get(channel.schema_id)
    form = schema.encoding if schema else ""
    text = ""
    if schema and form in FORMS:  # a schema of protobuf is bytes
        text = schema.data.decode("latin-1") if form == "protobuf" else schema.data.decode(errors="replace")
    definition = Definition(FORMS.get(form, form), text)
    return Channel(channel.topic, schema.name if schema else "", channel.message_encoding, definition, count)


class SqliteFile:
    """A sqlite3 file of rosbag2."""

    def __init__(self, path: Path) -> None:
        """Read the topics; raise SourceError if the file was not closed or is truncated."""
        for ending in ("-wal", "-journal"):
            leftover = path.with_name(path.name + ending)
            if leftover.is_file() and leftover.stat().st_size:
                message = (
                    f"the file was not closed: '{leftover.name}' has the rest; open it once with the command sqlite3"
                )
                raise SourceError(message, reason="truncated")
        with path.open("rb") as file:
            header = file.read(32)
        page, pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
        if path.stat().st_size < (65536 if page == 1 else page) * pages:
            message = "the file is incomplete: it was not fully written or copied"
            raise SourceError(message, reason="truncated")
        self.reader = Sqlite3Reader(Path(quote(str(path))))  # quoted, because the library puts it into a URI
        self.reader.open()
        self.channels = tuple(
            Channel(
                c.topic,
                c.msgtype,
                getattr(c.ext, "serialization_format", "cdr"),
                Definition(ROS_FORMS[c.msgdef.format], c.msgdef.data),
                c.msgcount,
            )
            for c in self.reader.connections
        )

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of some topics, in the order in which they were written."""
        names = {c.id: c.topic for c in self.reader.connections if c.topic in topics}
        placeholders = ",".join("?" * len(names))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({placeholders}) ORDER BY id"  # noqa: S608 - only question marks
        assert self.reader.dbconn  # noqa: S101 - it is open
        for topic, time, data in self.reader.dbconn.execute(query, tuple(names)):
            if type(time) is not int or type(data) is not bytes:
                raise SourceError("a message has no time or no bytes", reason="malformed_record")
            yield Message(names[topic], time, data)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


class Bag1File:
    """A ROS 1 bag, read in the order of log times."""

    def __init__(self, path: Path) -> None:
        """Read the index."""
        self.reader = Bag1(path)
        self.reader.open()
        names: dict[Callable[[bytes], bytes], str] = {function: name for name, function in decompressors.items()}
        for offset, chunk in self.reader.chunks.items():
            bounded = partial(inflate, compression=names[chunk.decompressor])
            self.reader.chunks[offset] = chunk._replace(decompressor=bounded)
        self.channels = tuple(
            Channel(c.topic, c.msgtype, "ros1", Definition(ROS_FORMS[c.msgdef.format], c.msgdef.data), c.msgcount)
            for c in self.reader.connections
        )

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of some topics, in the order of their log times."""
        connections = [c for c in self.reader.connections if c.topic in topics]
        for connection, time, data in self.reader.messages(connections) if connections else ():
            yield Message(connection.topic, time, data)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()
