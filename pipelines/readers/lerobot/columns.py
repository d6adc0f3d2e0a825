"""The Parquet files of a LeRobotDataset: rows of one episode after the other, their columns as numbers and bytes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer
from pipelines.readers.lerobot.info import Feature
from schemas.errors import SourceError
from schemas.source import Array, Field, Ragged

BATCH = 256  # rows that are decoded at a time
BUFFER = 1 << 20  # bytes that are read of a column at a time
LIMIT = 1 << 30  # bytes of one column of an episode


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make a SourceError of whatever Arrow says of a damaged file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = type(error).__name__ if isinstance(error, UnicodeDecodeError) else str(error).partition("\n")[0]
        raise SourceError(f"cannot be read ({why.replace(path, '')})", reason="bad_parquet", file=path) from error


@contextmanager
def opened(folder: SourceFolder, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; one that is none, or was cut off, is a SourceError."""
    path, here = folder.path(name), folder.files.local
    with (folder.open if here else folder.open_parts)(name) as file:
        try:
            held = pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
            held.schema_arrow  # noqa: B018 - damaged names are found here
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            file.seek(0)
            if file.read(len(LFS_MARK)) == LFS_MARK:
                raise lfs_pointer(path) from error
            message = "not a whole Parquet file: it was not written or not copied to its end"
            raise SourceError(message, reason="bad_parquet", file=path) from error
        yield held


def field_of(path: str, kind: pa.DataType, feature: Feature | None) -> Field:
    """Describe a column; one that holds neither numbers nor texts nor images is a SourceError."""
    doc = ", ".join(feature.names) if feature else ""
    kind = stored(kind)
    if is_image(kind):
        deep = feature is not None and feature.is_depth
        return Field(path=path, kind="image", dtype="uint16" if deep else "uint8", shape=(None, None, 1 if deep else 3))
    sizes: list[int | None] = []
    while is_list(kind):
        sizes.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = stored(kind.value_type)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        dtype = np.dtype(kind.to_pandas_dtype()).name
        told = (
            feature.shape
            if feature and len(feature.shape) == len(sizes) and min(feature.shape, default=1) > 0
            else None
        )
        shape = [size or (told[i] if told else None) for i, size in enumerate(sizes)]
        if None in shape and set(shape) == {None}:
            return Field(path=path, kind="number", dtype=dtype, ragged=len(shape), doc=doc)
        if None not in shape:
            return Field(path=path, kind="number", dtype=dtype, shape=tuple(shape), doc=doc)
    elif not sizes and is_text(kind):
        return Field(path=path, kind="text", doc=doc)
    raise SourceError(
        f"{path} holds '{kind}'{' in lists' if sizes else ''}: neither numbers nor texts nor images; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def stored(kind: pa.DataType) -> pa.DataType:
    """Give the type under an extension (`datasets` brings some for arrays) or a dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        return stored(kind.storage_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Say whether it is a list of any sort."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Say whether it is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_image(kind: pa.DataType) -> bool:
    """Say whether it is a struct of bytes and path, as `datasets` has images."""
    return bool(pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"})


def plain(column: pa.ChunkedArray) -> pa.Array:
    """Make one array of a column, of the type under extensions and dictionaries."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def numbers(column: pa.ChunkedArray, field: Field) -> Array | Ragged:
    """Take numbers as they are stored; a null is NaN, as pandas writes it, and an error where there is no NaN."""
    array, lengths = plain(column), []
    rows = len(array)
    while is_list(array.type):
        if array.null_count:
            raise _wrong(field, "a list is missing")
        lengths.append(pc.list_value_length(array).to_numpy().astype(np.int64))
        array = array.flatten()
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if array.null_count and not pa.types.is_floating(array.type):
        raise _wrong(field, "a value is missing")
    values: Array = array.to_numpy(zero_copy_only=False)
    if not np.can_cast(values.dtype, field.dtype, "safe") or values.dtype.kind != np.dtype(field.dtype).kind:
        raise _wrong(field, f"numbers of {values.dtype}, not of {field.dtype}")
    values = values.astype(field.dtype, copy=False)
    if field.ragged:
        return Ragged(values, tuple(lengths))
    sizes = [int(size) for size in field.shape if size is not None]
    if len(lengths) != len(sizes) or any((length != size).any() for length, size in zip(lengths, sizes, strict=True)):
        raise _wrong(field, f"values of another shape than {sizes}")
    return values.reshape(rows, *sizes)


def texts(column: pa.ChunkedArray) -> list[bytes]:
    """Take texts; a missing one is empty."""
    return [item or b"" for item in plain(column).cast(pa.binary()).to_pylist()]


def images(column: pa.ChunkedArray) -> Iterator[tuple[bytes | None, str | None]]:
    """Take encoded images, or the paths of files that hold them."""
    array = plain(column)
    parts = (pc.struct_field(array, name).to_pylist() for name in ("bytes", "path"))
    return zip(*parts, strict=True)


def _wrong(field: Field, what: str) -> SourceError:
    return SourceError(f"{field.path}: {what}", reason="contradicts_fields")


class Rows:
    """The rows of one file, read from its start to its end; what is asked for should lie in that order."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str], path: str) -> None:
        """Read nothing yet."""
        self.file, self.columns, self.path = file, list(columns), path
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self._at = -1  # the row that the batches go on with; -1: there are none
        self._rest: pa.Table | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, start: int, stop: int) -> pa.Table:
        """Give some rows."""
        with reading(self.path):
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> pa.Table:
        group = int(np.searchsorted(self.starts, start, side="right")) - 1
        if self._at < 0 or start < self._at or self.starts[group] > self._at:
            self._at, self._rest = int(self.starts[group]), None
            groups = range(group, self.file.num_row_groups)
            self._batches = self.file.iter_batches(BATCH, row_groups=groups, columns=self.columns, use_threads=False)
        taken: list[pa.Table] = []
        while self._at < stop:
            table = self._rest if self._rest is not None else self._batch()
            end = self._at + len(table)
            first, last = max(start, self._at), min(stop, end)
            taken.append(table.slice(first - self._at, max(0, last - first)))
            self._rest = table.slice(stop - self._at) if end > stop else None
            self._at = last
            if sum(part.nbytes for part in taken) > LIMIT * len(self.columns):
                raise SourceError(f"more than {LIMIT} bytes a column", reason="too_large", file=self.path)
        return pa.concat_tables(taken) if taken else self.file.schema_arrow.empty_table()

    def _batch(self) -> pa.Table:
        batch = next(self._batches, None)
        if batch is None:
            raise SourceError("holds fewer rows than it says", reason="bad_parquet", file=self.path)
        return pa.Table.from_batches([batch])

    def runs(self, column: str) -> dict[int, tuple[int, int]]:
        """Find the rows of each episode: where the numbers in `column` change; one that comes back is an error."""
        found: dict[int, tuple[int, int]] = {}
        at, last = 0, None
        with reading(self.path):
            for batch in self.file.iter_batches(1 << 16, columns=[column], use_threads=False):
                values = batch.column(column).to_numpy(zero_copy_only=False)
                bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
                for start, stop in pairwise(bounds):
                    if start == stop:
                        continue
                    index = int(values[start])
                    if index in found and index != last:
                        message = f"the rows of episode {index} do not lie together"
                        raise SourceError(message, reason="bad_parquet", file=self.path)
                    found[index] = (found[index][0] if index == last else at + start, at + stop)
                    last = index
                at += len(values)
        return found


def check_size(rows: int, fields: Iterable[Field]) -> None:
    """Refuse columns that would not fit into memory, before they are read."""
    for field in fields:
        if field.kind == "number":
            size = rows * prod(size or 1 for size in field.shape) * np.dtype(field.dtype).itemsize
            if size > LIMIT:
                message = f"{field.path}: {rows} steps of {size} bytes together; the limit is {LIMIT}"
                raise SourceError(message, reason="too_large")
