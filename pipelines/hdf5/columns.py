"""Datasets and attributes of HDF5 as columns and values: never an object, never more than fits."""

from collections.abc import Collection, Iterator
from math import prod
from typing import Any

import h5py
import numpy as np

from pipelines.frames import encode
from pipelines.readers.leaves import BLOCK, LIMIT, NUMBERS, VALUE_LIMIT, Leaf, check_size, encoded_leaf
from pipelines.readers.names import covers
from schemas.errors import SourceError
from schemas.images import PNG
from schemas.source import Array, Column, Field


def leaf_of(path: str, dataset: h5py.Dataset, per_episode: Collection[str]) -> Leaf:
    """Describe a dataset; one whose content is no numbers, texts or images is a SourceError."""
    shape, kind = dataset.shape, dataset.dtype
    if dataset.is_virtual or dataset.external:
        raise SourceError(f"{path} keeps its values in other files: refused", reason="unsafe_link")
    if dataset.chunks and prod(dataset.chunks) * kind.itemsize > LIMIT:
        raise SourceError(f"{path}: chunks of more than {LIMIT} bytes", reason="too_large")
    if not shape or covers(per_episode, path):
        if kind.itemsize * prod(shape or ()) > VALUE_LIMIT:
            raise SourceError(f"{path}: more than {VALUE_LIMIT} bytes for one value of an episode", reason="too_large")
        return Leaf(value_field(path, kind, shape), "value")
    name, rest = kind.name, shape[1:]
    if name == "uint8" and len(rest) == 3 and rest[-1] in {1, 3} and prod(rest):
        return Leaf(
            Field(path=path, kind="image", dtype="uint8", shape=(None, None, rest[-1]), encoding="raw"), "frames"
        )
    is_blob = not rest and (h5py.check_string_dtype(kind) or h5py.check_vlen_dtype(kind) == np.uint8)
    if is_blob or (name == "uint8" and len(rest) == 1):
        start = _bytes(dataset[0, : len(PNG)] if rest else dataset[0]) if shape[0] and 0 not in rest else b""
        if encoded := encoded_leaf(path, start, "padded" if rest else "blobs"):
            return encoded
    if name in NUMBERS:
        return Leaf(Field(path=path, kind="number", dtype=name, shape=rest), "numbers")
    if h5py.check_string_dtype(kind) and not rest:
        return Leaf(Field(path=path, kind="text"), "texts")
    raise _unsupported(path, kind)


def value_field(path: str, kind: Any, shape: tuple[int, ...] | None) -> Field:
    """Describe what there is once an episode: a dataset or an attribute."""
    if kind.name in NUMBERS:
        return Field(path=path, kind="number", dtype=kind.name, shape=shape or (), per_step=False)
    if h5py.check_string_dtype(kind) and len(shape or ()) < 2:
        return Field(path=path, kind="text", ragged=len(shape or ()), per_step=False)
    raise _unsupported(path, kind)


def _unsupported(path: str, kind: Any) -> SourceError:
    held = "references, or lists of unequal length" if kind.kind == "O" else f"'{kind}'"
    return SourceError(
        f"{path} holds {held}: neither numbers nor texts nor images, and what may be a pickle is never read; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def column(leaf: Leaf, dataset: h5py.Dataset, *, rows: int, images: str) -> Column:
    """Read the first `rows` rows; raw frames are encoded as `images` says: `png`, or `jpeg` and a quality."""
    size = dataset.dtype.itemsize * rows * prod(dataset.shape[1:])
    check_size(leaf, rows=rows, size=size)
    if leaf.form == "numbers":
        return _native(dataset[:rows], leaf.field.dtype)
    if leaf.form == "frames":
        return [encode(frame, images) for block in _blocks(dataset, rows) for frame in block]
    items: list[bytes] = []
    held = 0
    for block in _blocks(dataset, rows):
        items += [_bytes(item) for item in block]
        held += sum(map(len, items[-len(block) :]))
        if held > LIMIT:
            raise SourceError(f"{leaf.field.path}: more than {LIMIT} bytes in one episode", reason="too_large")
    return items if leaf.form == "texts" else [item.rstrip(b"\0") for item in items]


def _blocks(dataset: h5py.Dataset, rows: int) -> Iterator[Array]:
    """Read some whole chunks at a time: each is inflated once."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    row = dataset.dtype.itemsize * prod(dataset.shape[1:])
    count = max(1, BLOCK // (max(row, 1 << 14) * chunk)) * chunk
    for start in range(0, rows, count):
        yield dataset[start : min(start + count, rows)]


def value(field: Field, held: Any) -> Any:
    """Give a value as plain Python: numbers, str, and lists of them; None where it is empty."""
    if isinstance(held, h5py.Empty):
        return None
    if field.kind == "number":
        return _native(np.asarray(held), field.dtype).tolist()
    try:
        texts = [_bytes(item).decode() for item in np.atleast_1d(np.asarray(held, object))]
    except UnicodeError as error:
        raise SourceError(f"{field.path} is not UTF-8", reason="bad_utf8") from error
    return texts if field.ragged else texts[0]


def _native(values: Array, dtype: str) -> Array:
    return values.astype(np.dtype(dtype), copy=False)


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    return item.tobytes() if isinstance(item, np.ndarray) else bytes(item)
