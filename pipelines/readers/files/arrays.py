"""Arrays as NumPy writes them, `npy` and `npz`: never an object, and read in blocks whatever they would inflate to."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from pipelines.readers.fields import BLOCK, LIMIT, Leaf, array_leaf, check_size
from pipelines.readers.files.piece import Piece
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import covers
from pipelines.readers.pixels import encode, gathered
from schemas.errors import SourceError
from schemas.source import Array

MAX_MEMBERS = 10_000
Opened = Callable[[], Any]  # a context with the open file of one array


@dataclass(frozen=True, slots=True)
class Header:
    """What an array says of itself."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Count the bytes."""
        return self.dtype.itemsize * prod(self.shape)


def npy_piece(folder: SourceFolder, name: str, path: str, **told: Any) -> Piece:
    """Describe the array of an `npy` file."""

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with folder.open(name) as file:
            yield file

    return _piece(opened, path, held=folder.size(name) or 0, **told)


def npz_pieces(folder: SourceFolder, name: str, prefix: str, **told: Any) -> dict[str, Piece]:
    """Describe the arrays of an `npz` file."""
    with _zip(folder, name) as file:
        members = file.infolist()
    if len(members) > MAX_MEMBERS or any(not member.filename.endswith(".npy") for member in members):
        raise SourceError("holds something else than arrays, or too many", reason="unsupported_field")
    pieces: dict[str, Piece] = {}
    for member in members:
        path = prefix + member.filename.removesuffix(".npy").replace("/", ".")
        if covers(told["ignore"], path):
            continue

        @contextmanager
        def opened(member: zipfile.ZipInfo = member) -> Iterator[IO[bytes]]:
            with _zip(folder, name) as file, file.open(member) as stream:
                yield stream

        if path in pieces:
            raise SourceError(f"two arrays are called {path}", reason="unsupported_field")
        pieces[path] = _piece(opened, path, held=member.file_size, **told)
    return pieces


@contextmanager
def _zip(folder: SourceFolder, name: str) -> Iterator[zipfile.ZipFile]:
    with folder.open_parts(name) as file:
        try:
            held = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            message = "not a whole npz file: it was not written or not copied to its end"
            raise SourceError(message, reason="truncated") from error
        with held:
            yield held


def _piece(opened: Opened, path: str, *, held: int, per_episode: Any, images: str, **_: Any) -> Piece:
    with opened() as stream:
        header = _header(stream, path)
        begins = stream.tell()
    is_value = not header.shape or covers(per_episode, path)
    leaf = array_leaf(path, header.dtype, header.shape, is_value=is_value)
    if held != begins + header.size:
        message = f"{path} is {held - begins} bytes, and says that it has {header.size}"
        raise SourceError(message, reason="truncated")

    def read(rows: int) -> Any:
        size = header.dtype.itemsize * rows * prod(header.shape[1:])
        check_size(leaf, rows=rows, size=header.size if header.is_fortran else size)
        with opened() as stream:
            _header(stream, path)
            return _read(stream, header, leaf, rows=rows, images=images)

    return Piece(leaf=leaf, count=1 if is_value else header.shape[0], read=read)


def _header(stream: IO[bytes], path: str) -> Header:
    version = npy.read_magic(stream)
    if version != (1, 0):  # the others are for structured types
        raise SourceError(f"{path}: version {version} of npy is not read", reason="unsupported_field")
    shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
    if any(side < 0 for side in shape):
        raise SourceError(f"{path} has the shape {shape}", reason="unsupported_field")
    return Header(shape, is_fortran, dtype)


def _read(stream: IO[bytes], header: Header, leaf: Leaf, *, rows: int, images: str) -> Any:
    if leaf.form == "value":
        return _plain(_whole(stream, header).tolist())
    if header.is_fortran and len(header.shape) > 1:
        if header.size > LIMIT:
            raise SourceError(f"{leaf.field.path}: more than {LIMIT} bytes in Fortran's order", reason="too_large")
        blocks = iter([_whole(stream, header)[:rows]])
    else:
        blocks = _blocks(stream, header, rows)
    if leaf.form == "frames":
        encoded = (encode(np.ascontiguousarray(frame), images) for block in blocks for frame in block)
        return gathered(encoded, leaf.field.path, limit=LIMIT)
    if leaf.form == "texts":
        return [item.encode() if isinstance(item, str) else item for block in blocks for item in block.tolist()]
    parts = [block.astype(leaf.field.dtype, copy=False) for block in blocks]
    return np.concatenate(parts) if parts else np.empty((0, *header.shape[1:]), leaf.field.dtype)


def _blocks(stream: IO[bytes], header: Header, rows: int) -> Iterator[Array]:
    """Read some rows at a time, and in the end what is left: a checksum stands behind it."""
    row = header.dtype.itemsize * prod(header.shape[1:])
    count = max(1, BLOCK // max(1, row))
    for start in range(0, rows, count):
        some = min(count, rows - start)
        data = stream.read(some * row)
        if len(data) < some * row:
            raise SourceError("an array ends early", reason="truncated")
        yield np.frombuffer(data, header.dtype).reshape(some, *header.shape[1:])
    while stream.read(BLOCK):
        pass


def _whole(stream: IO[bytes], header: Header) -> Array:
    data = stream.read(header.size)
    if len(data) < header.size:
        raise SourceError("an array ends early", reason="truncated")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
