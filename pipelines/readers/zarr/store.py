"""Read Zarr stores in a folder or a zip file of a source; a missing chunk is an error."""

import re
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NoReturn, Protocol

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.names import covers
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, check_limit

METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
ZIP_NAMES = (".zarr.zip", ".zip")
ADDRESS = re.compile(r"0x[0-9a-f]+")  # memory addresses in errors differ in every run
CHUNK = re.compile(r"(/c)?/[0-9]+([./][0-9]+)*$")  # the end of a chunk's path, after the path of its array
DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn the errors that Zarr and its codecs raise for a damaged store into a SourceError."""
    try:
        yield
    except DAMAGE as error:
        why = ADDRESS.sub("...", str(error).replace(path, "")) or type(error).__name__
        raise SourceError(f"cannot be read ({why})", file=path) from error


class StoreFiles(Protocol):
    """The keys and values of one store."""

    def open(self, key: str) -> IO[bytes] | None:
        """Open a value for reading; None if it does not exist."""

    def names(self, below: str) -> tuple[str, ...]:
        """List the names directly below a key; empty if they cannot be listed."""


class FolderFiles:
    """A store in a folder; the keys are the paths of its files."""

    def __init__(self, folder: SourceFolder) -> None:
        """Read from `folder`."""
        self.folder = folder

    def open(self, key: str) -> IO[bytes] | None:
        """Open a file."""
        try:
            return self.folder.open_parts(key)
        except SourceError as error:
            if error.reason == "missing_file" or isinstance(error.__cause__, NotADirectoryError):
                return None
            raise

    def names(self, below: str) -> tuple[str, ...]:
        """List a folder."""
        return self.folder.names(below)


class ZipFiles:
    """A store in a zip file; the keys are the names of its members."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Index the members by their folders."""
        self.archive = archive
        self.below: dict[str, set[str]] = {}
        for name in archive.namelist():
            words = name.strip("/").split("/")
            for depth, word in enumerate(words):
                self.below.setdefault("/".join(words[:depth]), set()).add(word)

    def open(self, key: str) -> IO[bytes] | None:
        """Open a member; its checksum is verified when its end is read."""
        try:
            return self.archive.open(key)
        except KeyError:
            return None

    def names(self, below: str) -> tuple[str, ...]:
        """List members."""
        return tuple(sorted(self.below.get(below, ())))


@contextmanager
def open_store(folder: SourceFolder, name: str) -> Iterator[StoreFiles]:
    """Open the store `name` in a folder; an empty name is the folder itself."""
    if not name.endswith(ZIP_NAMES):
        yield FolderFiles(folder.child(name) if name else folder)
        return
    with ExitStack() as stack:
        with reading(folder.path(name)):
            file = stack.enter_context(folder.open_parts(name))
            if file.read(len(LFS_MARK)) == LFS_MARK:
                raise lfs_pointer_error(folder.path(name))
            try:
                archive = stack.enter_context(zipfile.ZipFile(file))
            except zipfile.BadZipFile as error:
                message = "the zip file is incomplete: it was not fully written or copied"
                raise SourceError(message, reason="truncated", file=folder.path(name)) from error
        yield ZipFiles(archive)


class SourceStore(Store):
    """A store for the Zarr library; a missing chunk raises SourceError unless its array is in `fill`."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, files: StoreFiles, *, path_of: Callable[[str], str], fill: Collection[str] = ()) -> None:
        """Read from `files`; `path_of` returns an array's field path, and `fill` lists fields that may lack chunks."""
        super().__init__(read_only=True)
        self.files, self.path_of, self.fill = files, path_of, fill

    def __eq__(self, other: object) -> bool:
        """Whether `other` is the same object."""
        return self is other

    def __hash__(self) -> int:
        """Return the hash of the object."""
        return id(self)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a value or a range of its bytes."""
        file = self.files.open(key)
        if file is None:
            path = self.path_of(CHUNK.sub("", key))
            if key.rpartition("/")[2] in METADATA or covers(self.fill, path):
                return None
            raise _missing_chunk_error(key, path)
        with file:
            data = _read_range(file, byte_range)
        check_limit(len(data), COLUMN_BYTES, "bytes in a chunk", what=key)
        if data.startswith(LFS_MARK):
            raise lfs_pointer_error(key)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read ranges of several values."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether a value exists."""
        return self.files.open(key) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List the names directly below a key."""
        for name in self.files.names(prefix.strip("/")):
            yield name

    def list(self) -> Any:
        """Not supported; the reader does not need it."""
        self._refuse()

    def list_prefix(self, prefix: str) -> Any:
        """Not supported; the reader does not need it."""
        self._refuse(prefix)

    async def set(self, key: str, value: Buffer) -> None:
        """Not supported; the store is read-only."""
        self._refuse(key, value)

    async def delete(self, key: str) -> None:
        """Not supported; the store is read-only."""
        self._refuse(key)

    def _refuse(self, *arguments: object) -> NoReturn:
        raise NotImplementedError(arguments)


def _read_range(file: IO[bytes], byte_range: ByteRequest | None) -> bytes:
    count = COLUMN_BYTES + 1
    if isinstance(byte_range, RangeByteRequest):
        file.seek(byte_range.start)
        count = min(count, byte_range.end - byte_range.start)
    elif isinstance(byte_range, OffsetByteRequest):
        file.seek(byte_range.offset)
    elif isinstance(byte_range, SuffixByteRequest):
        file.seek(max(0, file.seek(0, 2) - byte_range.suffix))
    return file.read(count)


def _missing_chunk_error(key: str, path: str) -> SourceError:
    return SourceError(
        f"the chunk {key} is missing: it was lost, or left out because it only had the fill value; if you know that it "
        f"was left out, declare source.fill = ['{path}']",
        reason="missing_chunk",
    )
