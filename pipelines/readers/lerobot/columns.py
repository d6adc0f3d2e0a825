"""Read the rows of a LeRobotDataset's Parquet files as columns of numbers and bytes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.lerobot.info import FeatureInfo
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, above_limit
from schemas.source import Array, Field, Ragged

EPISODE = "episode_index"
BATCH = 256  # rows decoded at a time
BUFFER = 1 << 20  # bytes of a column read at a time


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn Arrow's errors for a damaged file into a SourceError."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = type(error).__name__ if isinstance(error, UnicodeDecodeError) else str(error).partition("\n")[0]
        raise SourceError(f"cannot be read ({why.replace(path, '')})", reason="bad_parquet", file=path) from error


@contextmanager
def open_parquet(folder: SourceFolder, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; raise SourceError if it is truncated or not a Parquet file."""
    path = folder.path(name)
    with (folder.open if folder.is_local else folder.open_parts)(name) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
            parquet.schema_arrow  # noqa: B018 - detects damaged names
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            file.seek(0)
            if file.read(len(LFS_MARK)) == LFS_MARK:
                raise lfs_pointer_error(path) from error
            message = "not a complete Parquet file: it was not fully written or copied"
            raise SourceError(message, reason="bad_parquet", file=path) from error
        yield parquet


def value_range(file: pq.ParquetFile, column: str) -> tuple[int, int] | None:
    """Return the smallest and the largest value of a column of numbers from the footer; None if it does not say."""
    number = next(i for i in range(len(file.schema)) if file.schema.column(i).path == column)
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    statistics = [group.column(number).statistics for group in groups if group.num_rows]
    if not statistics or not all(group is not None and group.has_min_max for group in statistics):
        return None
    return min(group.min for group in statistics), max(group.max for group in statistics)


def field_of(path: str, kind: pa.DataType, feature: FeatureInfo | None) -> Field:
    """Describe a column; raise SourceError if it holds neither numbers, texts nor images."""
    doc = ", ".join(feature.names) if feature else ""
    kind = storage_type(kind)
    if is_image(kind):
        is_depth = feature is not None and feature.is_depth
        return Field(
            path=path, kind="image", dtype="uint16" if is_depth else "uint8", shape=(None, None, 1 if is_depth else 3)
        )
    sizes: list[int | None] = []
    while is_list(kind):
        sizes.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = storage_type(kind.value_type)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        dtype = np.dtype(kind.to_pandas_dtype()).name
        declared = (
            feature.shape
            if feature and len(feature.shape) == len(sizes) and min(feature.shape, default=1) > 0
            else None
        )
        shape = [size or (declared[i] if declared else None) for i, size in enumerate(sizes)]
        if None in shape and set(shape) == {None}:
            return Field(path=path, kind="number", dtype=dtype, ragged=len(shape), doc=doc)
        if None not in shape:
            return Field(path=path, kind="number", dtype=dtype, shape=tuple(shape), doc=doc)
    elif not sizes and is_text(kind):
        return Field(path=path, kind="text", doc=doc)
    raise SourceError(
        f"{path} contains '{kind}'{' in lists' if sizes else ''}: expected numbers, texts or images; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the storage type of an extension type, such as the array types of `datasets`.

    For a dictionary, return the type of its values; return any other type unchanged.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is any kind of list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_image(kind: pa.DataType) -> bool:
    """Whether a type is a struct of bytes and path, as `datasets` stores images."""
    return bool(pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"})


def to_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; extension types and dictionaries are converted to plain types."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def numbers(column: pa.ChunkedArray, field: Field) -> Array | Ragged:
    """Return the numbers of a column; a null becomes NaN in floats, and raises SourceError in integers and booleans."""
    array, lengths = to_array(column), []
    rows = len(array)
    while is_list(array.type):
        if array.null_count:
            raise _column_error(field, "a list is missing")
        lengths.append(pc.list_value_length(array).to_numpy().astype(np.int64))
        array = array.flatten()
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if array.null_count and not pa.types.is_floating(array.type):
        raise _column_error(field, "a value is missing")
    values: Array = array.to_numpy(zero_copy_only=False)
    if not np.can_cast(values.dtype, field.dtype, "safe") or values.dtype.kind != np.dtype(field.dtype).kind:
        raise _column_error(field, f"the numbers are {values.dtype}, expected {field.dtype}")
    values = values.astype(field.dtype, copy=False)
    if field.ragged:
        return Ragged(values, tuple(lengths))
    sizes = [int(size) for size in field.shape if size is not None]
    if len(lengths) != len(sizes) or any((length != size).any() for length, size in zip(lengths, sizes, strict=True)):
        raise _column_error(field, f"the values do not have the shape {sizes}")
    return values.reshape(rows, *sizes)


def texts(column: pa.ChunkedArray) -> list[bytes]:
    """Return the texts of a column; a null becomes an empty text."""
    return [item or b"" for item in to_array(column).cast(pa.binary()).to_pylist()]


def images(column: pa.ChunkedArray) -> Iterator[tuple[bytes | None, str | None]]:
    """Yield the encoded image and the path of the image file in each row; either may be None."""
    array = to_array(column)
    parts = (pc.struct_field(array, name).to_pylist() for name in ("bytes", "path"))
    return zip(*parts, strict=True)


def _column_error(field: Field, message: str) -> SourceError:
    return SourceError(f"{field.path}: {message}", reason="contradicts_fields")


class ParquetRows:
    """The rows of a Parquet file; each row is decoded only once if the rows are read in order."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str], path: str) -> None:
        """Keep the file; nothing is read yet."""
        self.file, self.columns, self.path = file, list(columns), path
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self._position = -1  # the next row to take from the batches; -1: no batches yet
        self._remainder: pa.Table | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, start: int, stop: int) -> pa.Table:
        """Read rows `start` to `stop`."""
        with reading(self.path):
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> pa.Table:
        group = int(np.searchsorted(self.starts, start, side="right")) - 1
        if self._position < 0 or start < self._position or self.starts[group] > self._position:
            self._position, self._remainder = int(self.starts[group]), None
            groups = range(group, self.file.num_row_groups)
            self._batches = self.file.iter_batches(BATCH, row_groups=groups, columns=self.columns, use_threads=False)
        parts: list[pa.Table] = []
        while self._position < stop:
            table = self._remainder if self._remainder is not None else self._batch()
            end = self._position + len(table)
            first, last = max(start, self._position), min(stop, end)
            parts.append(table.slice(first - self._position, max(0, last - first)))
            self._remainder = table.slice(stop - self._position) if end > stop else None
            self._position = last
            if sum(part.nbytes for part in parts) > COLUMN_BYTES * len(self.columns):
                raise above_limit(COLUMN_BYTES, "bytes per column", where=self.path)
        return pa.concat_tables(parts) if parts else self.file.schema_arrow.empty_table()

    def _batch(self) -> pa.Table:
        batch = next(self._batches, None)
        if batch is None:
            raise SourceError("contains fewer rows than its footer declares", reason="bad_parquet", file=self.path)
        return pa.Table.from_batches([batch])

    def runs(self, column: str) -> dict[int, tuple[int, int]]:
        """Return the first row of each episode and one past its last, by the episode's number in `column`.

        Raises SourceError if the rows of an episode are not consecutive.
        """
        runs: dict[int, tuple[int, int]] = {}
        offset, last = 0, None
        with reading(self.path):
            for batch in self.file.iter_batches(1 << 16, columns=[column], use_threads=False):
                values = batch.column(column).to_numpy(zero_copy_only=False)
                bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
                for start, stop in pairwise(bounds):
                    if start == stop:
                        continue
                    index = int(values[start])
                    if index in runs and index != last:
                        message = f"the rows of episode {index} are not consecutive"
                        raise SourceError(message, reason="bad_parquet", file=self.path)
                    runs[index] = (runs[index][0] if index == last else offset + start, offset + stop)
                    last = index
                offset += len(values)
        return runs


def check_size(rows: int, fields: Iterable[Field]) -> None:
    """Raise SourceError if a column would be too large, before it is read."""
    for field in fields:
        if field.kind == "number":
            size = rows * prod(size or 1 for size in field.shape) * np.dtype(field.dtype).itemsize
            if size > COLUMN_BYTES:
                message = f"{field.path}: {rows} steps with {size} bytes in total; the limit is {COLUMN_BYTES} bytes"
                raise SourceError(message, reason="too_large")
