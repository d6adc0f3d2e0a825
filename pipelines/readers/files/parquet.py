"""Read Parquet files as tables, one column at a time."""

import re
from collections.abc import Collection, Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.readers.fields import Leaf, check_size, encoded_leaf
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.columns import (
    ParquetRows,
    field_of,
    is_image,
    is_list,
    numbers,
    open_parquet,
    storage_type,
    texts,
    to_array,
)
from pipelines.readers.names import covers
from pipelines.readers.pixels import collect_bytes
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, MAX_STEPS
from schemas.source import Field

LEROBOT = re.compile(r"(.*/)?chunk-\d+/(file[-_]\d+|episode[-_]\d+)\.parquet")


def parquet_fields(folder: SourceFolder, name: str, *, prefix: str, ignore: Collection[str]) -> dict[str, LazyField]:
    """Describe the columns of a Parquet file, except those whose paths are in `ignore`.

    The fields of a struct become columns with dotted paths. Lists must all be as long as that in the first row. Raises
    SourceError if a column holds neither numbers, texts nor images.
    """
    if LEROBOT.fullmatch(folder.path(name)):
        message = "a data file of a LeRobotDataset without its folder 'meta': copy that too, and name the folder above"
        raise SourceError(message, reason="unsupported_field", file=folder.path(name))
    fields: dict[str, LazyField] = {}
    with open_parquet(folder, name) as file:
        count = file.metadata.num_rows
        for column, kind in _columns(file.schema_arrow):
            path = f"{prefix}{column}"
            if not covers(ignore, path):
                first = ParquetRows(file, [column], folder.path(name)).read(0, min(1, count))
                leaf = _leaf(path, kind, _values(first, column))
                fields[path] = _column(folder, name, column, leaf=leaf, count=count)
    if count > MAX_STEPS:
        raise SourceError(f"more than {MAX_STEPS} rows", reason="too_large")
    if not count:
        raise SourceError("contains no rows", reason="bad_table")
    return fields


def _columns(fields: Any, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Yield the path and type of each column; those of a struct's fields are dotted."""
    for field in fields:
        if pa.types.is_struct(field.type) and not is_image(field.type):
            yield from _columns(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


def _values(table: pa.Table, column: str) -> pa.ChunkedArray:
    """Return a column of a table in which it is the only one."""
    values = table.column(0)
    name = table.column_names[0]
    for field in column.removeprefix(name).split(".")[1:] if column != name else ():
        values = pc.struct_field(values, field)
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _leaf(path: str, kind: pa.DataType, first: pa.ChunkedArray) -> Leaf:
    """Describe a column by its type and its first value."""
    stored = storage_type(kind)
    if is_image(stored) or pa.types.is_binary(stored) or pa.types.is_large_binary(stored):
        if leaf := encoded_leaf(path, next(_bytes(first), b""), "blobs"):
            return leaf
        message = f"{path} contains bytes, but not of JPEG or PNG files; leave it out with source.ignore = ['{path}']"
        raise SourceError(message, reason="unsupported_field")
    field = field_of(path, kind, None)
    if field.kind == "text":
        return Leaf(field, "texts")
    shape = field.shape or tuple(_lengths(to_array(first))[: field.ragged])
    return Leaf(Field(path=path, kind="number", dtype=field.dtype, shape=shape), "numbers")


def _lengths(array: pa.Array) -> list[int]:
    """Return the lengths of the nested lists of the first value."""
    if not is_list(array.type) or not len(array):
        return []
    first = to_array(pa.chunked_array([array[0].values])) if array[0].is_valid else pa.array([])
    return [len(first), *_lengths(first)]


def _bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Yield the encoded image of each row; an empty one for a null."""
    array = to_array(column)
    array = pc.struct_field(array, "bytes") if pa.types.is_struct(array.type) else array
    yield from (item or b"" for item in array.to_pylist())


def _column(folder: SourceFolder, name: str, column: str, *, leaf: Leaf, count: int) -> LazyField:
    def span(start: int, end: int) -> Any:
        if leaf.form == "numbers":
            size = np.dtype(leaf.field.dtype).itemsize * prod(side or 1 for side in leaf.field.shape)
            check_size(leaf, rows=end - start, size=size * (end - start))
        with open_parquet(folder, name) as file:
            values = _values(ParquetRows(file, [column], folder.path(name)).read(start, end), column)
        if leaf.form == "numbers":
            return numbers(values, leaf.field)
        if leaf.form == "texts":
            return _texts(values, leaf.field.path)
        return collect_bytes(_images(values, leaf.field.path), leaf.field.path, limit=COLUMN_BYTES)

    is_image_column = leaf.form == "blobs"
    return LazyField(leaf=leaf, count=count, read=partial(span, 0), span=span if is_image_column else None)


def _texts(column: pa.ChunkedArray, path: str) -> list[bytes]:
    if column.null_count:
        raise SourceError(f"{path}: a text is missing", reason="bad_table")
    return texts(column)


def _images(column: pa.ChunkedArray, path: str) -> Iterator[bytes]:
    for number, image in enumerate(_bytes(column)):
        if not image:
            raise SourceError(f"{path}: the image in row {number} is missing", reason="bad_image")
        yield image
