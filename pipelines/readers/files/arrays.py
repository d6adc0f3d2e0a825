"""Read NumPy's `npy` and `npz` files block by block, within size limits; arrays of Python objects are refused."""

import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from pipelines.readers.fields import BLOCK, Leaf, array_leaf, check_size
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import covers
from pipelines.readers.pixels import collect_bytes, encode
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, EPISODE_BYTES, check_limit
from schemas.source import Array

MAX_MEMBERS = 10_000
OpenArray = Callable[[], Any]  # a context manager that opens the file of one array


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """The header of an `npy` file."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """The size of the array in bytes."""
        return self.dtype.itemsize * prod(self.shape)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file."""

    path: str
    stored: int  # bytes of its `npy` file or member
    open: OpenArray

    def header(self) -> NpyHeader:
        """Read the header."""
        with self.open() as stream:
            return _read_header(stream, self.path)

    def check(self) -> None:
        """Raise SourceError unless the header matches the size of the file."""
        with self.open() as stream:
            header = _read_header(stream, self.path)
            size = self.stored - stream.tell()
        if size != header.size:
            message = f"{self.path} has {size} bytes, but its header declares {header.size}"
            raise SourceError(message, reason="truncated")

    def read(self) -> Array:
        """Read the whole array."""
        with self.open() as stream:
            return _read_array(stream, _read_header(stream, self.path))


def stored_arrays(folder: SourceFolder, name: str, *, ignore: Collection[str] = ()) -> dict[str, StoredArray]:
    """List the arrays of an `npz` file by name, or the array of an `npy` file, `values`."""
    if name.lower().endswith(".npz"):
        return _members(folder, name, "", ignore=ignore)
    return {} if covers(ignore, "values") else {"values": _npy(folder, name, "values")}


def npy_field(folder: SourceFolder, name: str, path: str, **options: Any) -> LazyField:
    """Describe the array of an `npy` file."""
    return _array_field(_npy(folder, name, path), **options)


def npz_fields(folder: SourceFolder, name: str, prefix: str, **options: Any) -> dict[str, LazyField]:
    """Describe the arrays of an `npz` file."""
    arrays = _members(folder, name, prefix, ignore=options["ignore"])
    return {path: _array_field(array, **options) for path, array in arrays.items()}


def _npy(folder: SourceFolder, name: str, path: str) -> StoredArray:
    @contextmanager
    def open_array() -> Iterator[IO[bytes]]:
        with folder.open(name) as file:
            yield file

    return StoredArray(path, folder.size(name) or 0, open_array)


def _members(folder: SourceFolder, name: str, prefix: str, *, ignore: Collection[str]) -> dict[str, StoredArray]:
    with _zip(folder, name) as file:
        members = file.infolist()
    stored = sum(member.compress_size for member in members)
    check_limit(stored, folder.size(name) or 0, "bytes are said to be stored, more than the file has")
    check_limit(sum(member.file_size for member in members), EPISODE_BYTES, "bytes in all arrays")
    if len(members) > MAX_MEMBERS or any(not member.filename.endswith(".npy") for member in members):
        raise SourceError(f"expected only arrays, at most {MAX_MEMBERS}", reason="unsupported_field")
    arrays: dict[str, StoredArray] = {}
    for member in members:
        path = prefix + member.filename.removesuffix(".npy").replace("/", ".")
        if covers(ignore, path):
            continue

        @contextmanager
        def open_array(member: zipfile.ZipInfo = member) -> Iterator[IO[bytes]]:
            with _zip(folder, name) as file, file.open(member) as stream:
                yield stream

        if path in arrays:
            raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
        arrays[path] = StoredArray(path, member.file_size, open_array)
    return arrays


@contextmanager
def _zip(folder: SourceFolder, name: str) -> Iterator[zipfile.ZipFile]:
    with folder.open_parts(name) as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            message = "the npz file is incomplete: it was not fully written or copied"
            raise SourceError(message, reason="truncated") from error
        with archive:
            yield archive


def _array_field(array: StoredArray, *, per_episode: Any, images: str, **_: Any) -> LazyField:
    header, path = array.header(), array.path
    is_value = not header.shape or covers(per_episode, path)
    leaf = array_leaf(path, header.dtype, header.shape, is_value=is_value)
    array.check()

    def span(start: int, end: int) -> Any:
        rows = end - start
        size = header.dtype.itemsize * rows * prod(header.shape[1:])
        check_size(leaf, rows=rows, size=header.size if header.is_fortran else size)
        with array.open() as stream:
            _read_header(stream, path)
            return _read(stream, header, leaf, start=start, end=end, images=images)

    count = 1 if is_value else header.shape[0]
    return LazyField(leaf=leaf, count=count, read=lambda rows: span(0, rows), span=span)


def _read_header(stream: IO[bytes], path: str) -> NpyHeader:
    version = npy.read_magic(stream)
    if version != (1, 0):  # NumPy writes other versions only for structured types
        raise SourceError(f"{path}: version {version} of npy is not supported", reason="unsupported_field")
    shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
    if any(side < 0 for side in shape):
        raise SourceError(f"{path} has the impossible shape {shape}", reason="unsupported_field")
    return NpyHeader(shape, is_fortran, dtype)


def _read(stream: IO[bytes], header: NpyHeader, leaf: Leaf, *, start: int, end: int, images: str) -> Any:
    if leaf.form == "value":
        return _plain(_read_array(stream, header).tolist())
    if header.is_fortran and len(header.shape) > 1:
        check_limit(header.size, COLUMN_BYTES, "bytes in Fortran order", what=leaf.field.path)
        blocks = iter([_read_array(stream, header)[start:end]])
    else:
        blocks = _blocks(stream, header, start=start, end=end)
    if leaf.form == "frames":
        encoded = (encode(np.ascontiguousarray(frame), images) for block in blocks for frame in block)
        return collect_bytes(encoded, leaf.field.path, limit=COLUMN_BYTES)
    if leaf.form == "texts":
        return [item.encode() if isinstance(item, str) else item for block in blocks for item in block.tolist()]
    parts = [block.astype(leaf.field.dtype, copy=False) for block in blocks]
    return np.concatenate(parts) if parts else np.empty((0, *header.shape[1:]), leaf.field.dtype)


def _blocks(stream: IO[bytes], header: NpyHeader, *, start: int, end: int) -> Iterator[Array]:
    """Yield the rows from `start` up to, but not including, `end`, in blocks.

    The rest of a zip member is read as well, because its checksum is verified at its end.
    """
    row = header.dtype.itemsize * prod(header.shape[1:])
    count = max(1, BLOCK // max(1, row))
    is_member = isinstance(stream, zipfile.ZipExtFile)
    if is_member:
        for first in range(0, start, count):
            stream.read(min(count, start - first) * row)
    elif start:
        stream.seek(start * row, 1)
    for first in range(start, end, count):
        block = min(count, end - first)
        data = stream.read(block * row)
        if len(data) < block * row:
            raise SourceError("the array ends early", reason="truncated")
        yield np.frombuffer(data, header.dtype).reshape(block, *header.shape[1:])
    while is_member and stream.read(BLOCK):
        pass


def _read_array(stream: IO[bytes], header: NpyHeader) -> Array:
    data = stream.read(header.size)
    if len(data) < header.size:
        raise SourceError("the array ends early", reason="truncated")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
