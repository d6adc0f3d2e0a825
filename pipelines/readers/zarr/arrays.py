"""Open the arrays of a Zarr store and read them in blocks of whole chunks."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import zarr

from pipelines.readers.fields import BLOCK, Leaf, array_leaf, check_size, encoded_leaf
from pipelines.readers.pixels import PixelLayout, collect_bytes, encode, strip_padding
from pipelines.readers.zarr.codecs import register_image_codecs, with_bounded_codecs
from pipelines.readers.zarr.store import DAMAGE, METADATA, SourceStore
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, check_limit
from schemas.source import Array, Column, Field

MAX_NODES, MAX_DEPTH = 10_000, 8
MAX_CACHED = 256 << 20  # bytes; a block up to this size is cached, because the next episode often starts in it
SHARD_LIMIT = 8 << 30  # bytes of a shard; its chunks are read one by one


def open_root(store: SourceStore) -> Any:
    """Open the group of a whole store; raise SourceError if the store is not a Zarr group."""
    register_image_codecs()
    listable = bool(store.files.names(""))
    try:
        return zarr.open_group(store, mode="r", use_consolidated=False if listable else None)
    except FileNotFoundError as error:
        message = "no Zarr group here: neither zarr.json nor .zgroup"
        raise SourceError(message, reason="no_episodes") from error


def names_in(store: SourceStore, group: Any) -> list[str]:
    """Return the names of the arrays and groups directly in a group; files may be among them."""
    names = store.files.names(group.path) if store.files.names("") else [name for name, _ in group.members()]
    return [name for name in names if name not in METADATA and not name.startswith(".")]


def arrays_of(store: SourceStore, group: Any, is_ignored: Callable[[str], bool]) -> dict[str, Any]:
    """Return every array in and below a group by its path in the store, except those that are ignored.

    Raises SourceError if the group contains a folder with files that is neither an array nor a group.
    """
    arrays: dict[str, Any] = {}
    stack: list[tuple[str, Any]] = [(group.path, group)]
    while stack:
        path, group = stack.pop()
        for name in names_in(store, group):
            below = f"{path}/{name}".lstrip("/")
            node = None if is_ignored(below) else open_node(group, name, below)
            if node is None:
                continue
            if isinstance(node, zarr.Group):
                stack.append((below, node))
            else:
                arrays[below] = node
            if len(arrays) + len(stack) > MAX_NODES or below.count("/") > MAX_DEPTH:
                raise SourceError(f"more than {MAX_NODES} arrays, or groups nested too deeply", reason="too_large")
    return dict(sorted(arrays.items()))


def open_node(group: Any, name: str, path: str) -> Any:
    """Open an array or a group in a group; None for a file or an empty folder."""
    try:
        return group[name]
    except KeyError as error:
        if not group.store.files.names(path):  # a file such as a README, or an empty folder
            return None
        message = f"{path} is neither an array nor a group: its metadata is missing"
        raise SourceError(message, reason="missing_chunk") from error
    except ValueError as error:
        if "imagecodecs_" in str(error):
            message = f"{path} requires the package 'imagecodecs' ({error}): pip install imagecodecs"
            raise SourceError(message, reason="unsupported_field") from error
        raise


class ZarrRows:
    """The rows of an array, read in blocks of whole chunks; the last block is cached for the next read."""

    def __init__(self, array: Any, path: str, pixels: str | None = None) -> None:
        """Check the size of the chunks; no values are read."""
        self.path, self.pixels = path, PixelLayout.of(pixels or "hwc")
        self.count = array.shape[0] if array.shape else 0
        self.shape, self.dtype = tuple(array.shape), array.dtype
        row = array.dtype.itemsize * prod(array.shape[1:])
        chunk = (array.chunks or (1,))[0]
        padded = array.dtype.itemsize * prod(
            -(-s // c) * c for s, c in zip(self.shape[1:], array.chunks[1:], strict=True)
        )
        check_limit(chunk * padded, COLUMN_BYTES, "bytes in a chunk", what=path)
        check_limit(prod(array.shards or ()) * array.dtype.itemsize, SHARD_LIMIT, "bytes in a shard", what=path)
        self.rows = chunk * max(1, BLOCK // max(chunk * row, 1 << 14))
        stored = array.async_array
        metadata = with_bounded_codecs(stored.metadata, path)
        self.array: Any = zarr.Array(zarr.AsyncArray(metadata, stored.store_path, stored.config))
        self._cached: tuple[int, Array] | None = None

    def leaf(self, *, is_value: bool, is_declared: bool) -> Leaf:
        """Describe the field; raise SpecError if an array that is declared as images does not hold images."""
        if not is_value and self.dtype == np.uint8 and len(self.shape) == 2 and 0 not in self.shape:
            (first,) = self.blocks(0, 1)
            if encoded := encoded_leaf(self.path, first.tobytes(), "padded"):
                return encoded
        if not is_declared:
            return array_leaf(
                self.path, self.dtype, self.shape[is_value:] if is_value else self.shape, is_value=is_value
            )
        channels = self.pixels.declared_channels(self.dtype, () if is_value else self.shape, path=self.path)
        field = Field(path=self.path, kind="image", dtype="uint8", shape=(None, None, channels), encoding="raw")
        return Leaf(field, "frames")

    def blocks(self, start: int, end: int) -> Iterator[Array]:
        """Yield the rows from `start` up to, but not including, `end`, in blocks."""
        for first in range(start - start % self.rows, end, self.rows) if start < end else ():
            yield self._block(first, max(start, first), min(end, first + self.rows))

    def _block(self, first: int, start: int, end: int) -> Array:
        if self._cached is None or self._cached[0] != first:
            try:
                block = np.asarray(self.array[first : min(first + self.rows, self.count)])
            except (SourceError, *DAMAGE):  # only the requested rows, since the damage may be elsewhere
                return np.asarray(self.array[start:end])
            if block.nbytes > MAX_CACHED:
                return block[start - first : end - first]
            self._cached = first, block
        return self._cached[1][start - first : end - first]

    def column(self, leaf: Leaf, start: int, end: int, *, images: str) -> Column:
        """Read one episode's rows."""
        size = self.dtype.itemsize * (end - start) * prod(self.shape[1:])
        check_size(leaf, rows=end - start, size=size)
        blocks = self.blocks(start, end)
        if leaf.form == "frames":
            encoded = (encode(frame, images) for block in blocks for frame in self.pixels(block, self.path))
            return collect_bytes(encoded, self.path, limit=COLUMN_BYTES)
        if leaf.form == "padded":
            rows = (row.tobytes() for block in blocks for row in block)
            return collect_bytes(strip_padding(rows, self.path), self.path, limit=COLUMN_BYTES)
        if leaf.form == "texts":
            return collect_bytes(
                (as_bytes(item) for block in blocks for item in block.tolist()), self.path, limit=COLUMN_BYTES
            )
        column = np.empty((end - start, *self.shape[1:]), leaf.field.dtype)
        filled = 0
        for block in blocks:
            column[filled : filled + len(block)] = block
            filled += len(block)
        return column

    def whole(self) -> Any:
        """Return the whole array as plain Python."""
        return _plain(np.asarray(self.array[...]).tolist())

    def value(self, index: int) -> Any:
        """Return one row as plain Python."""
        (block,) = self.blocks(index, index + 1)
        return _plain(block[0].tolist() if isinstance(block[0], np.ndarray) else block.tolist()[0])


def as_bytes(text: str | bytes) -> bytes:
    """Return a text as UTF-8."""
    return text.encode() if isinstance(text, str) else bytes(text)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeError as error:
        raise SourceError("a text is not UTF-8", reason="bad_utf8") from error
