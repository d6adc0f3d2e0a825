"""Read HDF5 datasets and attributes as columns and values, within size limits; Python objects are refused."""

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import Any

import h5py
import numpy as np

from pipelines.readers.fields import BLOCK, NUMBERS, Leaf, check_size, encoded_leaf
from pipelines.readers.hdf5.chunks import check_chunks
from pipelines.readers.hdf5.tree import REFUSED
from pipelines.readers.names import covers
from pipelines.readers.pixels import PixelLayout, collect_bytes, encode, strip_padding
from schemas.errors import SourceError
from schemas.images import PNG
from schemas.limits import COLUMN_BYTES, SPARSE_BYTES, SPARSE_RATIO, VALUE_BYTES, check_limit
from schemas.source import Array, Column, Field


def leaf_of(path: str, dataset: h5py.Dataset, per_episode: Collection[str], *, frames: Mapping[str, str]) -> Leaf:
    """Describe a dataset.

    `frames` says how the datasets that it names store images. Raises SpecError if such a dataset does not hold images,
    and SourceError if a dataset holds neither numbers, texts nor images.
    """
    shape, kind = dataset.shape, dataset.dtype
    check_storage(path, dataset)
    if (not shape or covers(per_episode, path)) and path not in frames:
        check_limit(kind.itemsize * prod(shape or ()), VALUE_BYTES, "bytes for one value", what=path)
        return Leaf(value_field(path, kind, shape), "value")
    name, value_shape = kind.name, shape[1:]
    if channels := _channels(path, dataset, frames.get(path)):
        field = Field(path=path, kind="image", dtype="uint8", shape=(None, None, channels), encoding="raw")
        return Leaf(field, "frames")
    is_blob = not value_shape and (h5py.check_string_dtype(kind) or h5py.check_vlen_dtype(kind) == np.uint8)
    if is_blob or (name == "uint8" and len(value_shape) == 1):
        start = (
            _bytes(dataset[0, : len(PNG)] if value_shape else dataset[0]) if shape[0] and 0 not in value_shape else b""
        )
        if encoded := encoded_leaf(path, start, "padded" if value_shape else "blobs"):
            return encoded
    if name in NUMBERS:
        return Leaf(Field(path=path, kind="number", dtype=name, shape=value_shape), "numbers")
    if h5py.check_string_dtype(kind) and not value_shape:
        return Leaf(Field(path=path, kind="text"), "texts")
    raise _unsupported(path, kind)


def byte_size(dataset: h5py.Dataset) -> int:
    """Return the bytes that a dataset's values take in memory; a text of any length counts as a pointer."""
    return int(dataset.dtype.itemsize * prod(dataset.shape or ()))


def check_stored(path: str, dataset: h5py.Dataset) -> None:
    """Raise SourceError if a dataset would take much more memory than it stores; HDF5 fills in what was not written."""
    if (declared := byte_size(dataset)) > SPARSE_BYTES:
        stored = dataset.id.get_storage_size()
        check_limit(
            declared, max(SPARSE_BYTES, SPARSE_RATIO * stored), f"bytes, of which {stored} are stored", what=path
        )


def _channels(path: str, dataset: h5py.Dataset, words: str | None) -> int | None:
    if words is None:
        return PixelLayout.of().channels(dataset.dtype, dataset.shape)
    return PixelLayout.of(words).declared_channels(dataset.dtype, dataset.shape, path=path)


def check_storage(path: str, dataset: h5py.Dataset) -> None:
    """Raise SourceError if a dataset stores values in other files, or if a chunk is too large once it is inflated."""
    if dataset.is_virtual or dataset.external:
        raise SourceError(f"{path} stores its values in other files: {REFUSED}", reason="unsafe_link")
    check_chunks(path, dataset)


def value_field(path: str, kind: Any, shape: tuple[int, ...] | None) -> Field:
    """Describe a dataset or an attribute that is a per-episode value; raise SourceError if its type is unsupported."""
    if kind.name in NUMBERS:
        return Field(path=path, kind="number", dtype=kind.name, shape=shape or (), per_step=False)
    if h5py.check_string_dtype(kind) and len(shape or ()) < 2:
        return Field(path=path, kind="text", ragged=len(shape or ()), per_step=False)
    raise _unsupported(path, kind)


def _unsupported(path: str, kind: Any) -> SourceError:
    content = "references, or lists of unequal length" if kind.kind == "O" else f"'{kind}'"
    return SourceError(
        f"{path} contains {content}: expected numbers, texts or images, and data that may be a pickle is never read; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def column(
    leaf: Leaf, dataset: h5py.Dataset, *, start: int, rows: int, images: str, frames: Mapping[str, str]
) -> Column:
    """Read `rows` rows from `start` on; raw frames are encoded as `images`, which is `png` or such as `jpeg 95`."""
    path = leaf.field.path
    if leaf.form != "frames":  # frames are read in blocks
        check_stored(path, dataset)
    check_size(leaf, rows=rows, size=dataset.dtype.itemsize * rows * prod(dataset.shape[1:]))
    if leaf.form == "numbers":
        return _native(dataset[start : start + rows], leaf.field.dtype)
    blocks = row_blocks(dataset, start, start + rows)
    if leaf.form == "frames":
        pixels = PixelLayout.of(frames.get(path, "hwc"))
        encoded = (encode(frame, images) for block in blocks for frame in pixels(block, path))
        return collect_bytes(encoded, path, limit=COLUMN_BYTES)
    items: Iterator[bytes] = (_bytes(item) for block in blocks for item in block)
    if leaf.form == "padded":
        items = strip_padding(items, path)
    elif leaf.form == "blobs":
        items = (item.rstrip(b"\0") for item in items)
    return collect_bytes(items, path, limit=COLUMN_BYTES)


def row_blocks(dataset: h5py.Dataset, start: int, end: int) -> Iterator[Array]:
    """Yield the rows from `start` up to, but not including, `end`, in blocks that end where a chunk does."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    row = dataset.dtype.itemsize * prod(dataset.shape[1:])
    count = max(1, BLOCK // (max(row, 1 << 14) * chunk)) * chunk
    for first in range(start - start % count, end, count):
        yield dataset[max(start, first) : min(first + count, end)]


def value(field: Field, stored: Any) -> Any:
    """Return a stored value as a number, str or list of these; None if it is empty."""
    if isinstance(stored, h5py.Empty):
        return None
    if field.kind == "number":
        return _native(np.asarray(stored), field.dtype).tolist()
    try:
        texts = [_bytes(item).decode() for item in np.atleast_1d(np.asarray(stored, object))]
    except UnicodeError as error:
        raise SourceError(f"{field.path} is not UTF-8", reason="bad_utf8") from error
    return texts if field.ragged else texts[0]


def _native(values: Array, dtype: str) -> Array:
    return values.astype(np.dtype(dtype), copy=False)


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    return item.tobytes() if isinstance(item, np.ndarray) else bytes(item)
