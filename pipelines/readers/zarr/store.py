"""Where Zarr's keys are: a folder or a zip file of a source, read only, in which a lost chunk does not go unnoticed."""

import re
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NoReturn, Protocol

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from pipelines.readers.fields import LIMIT
from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer
from pipelines.readers.names import covers
from schemas.errors import SourceError

METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
ZIP_NAMES = (".zarr.zip", ".zip")
ADDRESS = re.compile(r"0x[0-9a-f]+")  # different in every run
CHUNK = re.compile(r"(/c)?/[0-9]+([./][0-9]+)*$")  # what a chunk adds to the path of its array
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
    """Make a SourceError of whatever Zarr and its codecs raise for a damaged store."""
    try:
        yield
    except DAMAGE as error:
        why = ADDRESS.sub("...", str(error).replace(path, "")) or type(error).__name__
        raise SourceError(f"cannot be read ({why})", file=path) from error


class Files(Protocol):
    """The keys of one store."""

    def open(self, key: str) -> IO[bytes] | None:
        """Open a value for reading; None where there is none."""

    def names(self, below: str) -> tuple[str, ...]:
        """List what lies directly below a key; nothing where listing is not possible."""


class InFolder:
    """Keys as files of a folder."""

    def __init__(self, folder: SourceFolder) -> None:
        """Keep the folder."""
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


class InZip:
    """Keys as members of a zip file."""

    def __init__(self, held: zipfile.ZipFile) -> None:
        """Sort the members by their folders."""
        self.held = held
        self.below: dict[str, set[str]] = {}
        for name in held.namelist():
            words = name.strip("/").split("/")
            for depth, word in enumerate(words):
                self.below.setdefault("/".join(words[:depth]), set()).add(word)

    def open(self, key: str) -> IO[bytes] | None:
        """Open a member; its checksum is verified at its end."""
        try:
            return self.held.open(key)
        except KeyError:
            return None

    def names(self, below: str) -> tuple[str, ...]:
        """List members."""
        return tuple(sorted(self.below.get(below, ())))


@contextmanager
def opened(folder: SourceFolder, name: str) -> Iterator[Files]:
    """Open the store `name` of a folder; an empty name is the folder itself."""
    if not name.endswith(ZIP_NAMES):
        yield InFolder(folder.child(name) if name else folder)
        return
    with ExitStack() as stack:
        with reading(folder.path(name)):
            file = stack.enter_context(folder.open_parts(name))
            if file.read(len(LFS_MARK)) == LFS_MARK:
                raise lfs_pointer(folder.path(name))
            try:
                held = stack.enter_context(zipfile.ZipFile(file))
            except zipfile.BadZipFile as error:
                message = "not a whole zip file: it was not written or not copied to its end"
                raise SourceError(message, reason="truncated", file=folder.path(name)) from error
        yield InZip(held)


class SourceStore(Store):
    """A store for Zarr's library; a chunk that is not there is a SourceError, unless its array is in `fill`."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, files: Files, *, path_of: Callable[[str], str], fill: Collection[str] = ()) -> None:
        """Keep where the keys are; `path_of` gives the field of an array, and `fill` has paths of fields."""
        super().__init__(read_only=True)
        self.files, self.path_of, self.fill = files, path_of, fill

    def __eq__(self, other: object) -> bool:
        """Say whether it is the same one."""
        return self is other

    def __hash__(self) -> int:
        """Hash the object."""
        return id(self)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a value, or a part of it."""
        file = self.files.open(key)
        if file is None:
            path = self.path_of(CHUNK.sub("", key))
            if key.rpartition("/")[2] in METADATA or covers(self.fill, path):
                return None
            raise _lost(key, path)
        with file:
            data = _part(file, byte_range)
        if len(data) > LIMIT:
            raise SourceError(f"{key}: a chunk of more than {LIMIT} bytes", reason="too_large")
        if data.startswith(LFS_MARK):
            raise lfs_pointer(key)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of values."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Say whether there is such a value."""
        return self.files.open(key) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List what lies directly below a key."""
        for name in self.files.names(prefix.strip("/")):
            yield name

    def list(self) -> Any:
        """Refuse: nobody asks for all keys."""
        self._refuse()

    def list_prefix(self, prefix: str) -> Any:
        """Refuse: nobody asks for all keys below one."""
        self._refuse(prefix)

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse(key, value)

    async def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse(key)

    def _refuse(self, *asked: object) -> NoReturn:
        raise NotImplementedError(asked)


def _part(file: IO[bytes], wanted: ByteRequest | None) -> bytes:
    count = LIMIT + 1
    if isinstance(wanted, RangeByteRequest):
        file.seek(wanted.start)
        count = min(count, wanted.end - wanted.start)
    elif isinstance(wanted, OffsetByteRequest):
        file.seek(wanted.offset)
    elif isinstance(wanted, SuffixByteRequest):
        file.seek(max(0, file.seek(0, 2) - wanted.suffix))
    return file.read(count)


def _lost(key: str, path: str) -> SourceError:
    return SourceError(
        f"the chunk {key} is not there: it was lost, or left out because it held the fill value alone; if you know "
        f"that it was left out, declare source.fill = ['{path}']",
        reason="missing_chunk",
    )
