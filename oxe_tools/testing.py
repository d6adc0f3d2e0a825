"""A test for readers of this and of other packages: `check_reader` checks the contract of `Reader`."""

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipelines.readers.bounded import BoundedReader
from pipelines.readers.history import History
from pipelines.readers.reader import FilePart, Reader, ShardRef, plan
from pipelines.readers.registry import open_with
from schemas.declarations.formats import BUILT_IN, PluginSource, SourceSpec
from schemas.errors import OxeError, SourceError
from schemas.files.folder import absolute
from schemas.source import Field, Ragged, RawEpisode, Unreadable

MISSING = {"missing_file", "missing_shard"}  # quarantine reasons
Plain = dict[str, Any]  # an episode as plain Python: path of a field -> its values


def check_reader(reader: Reader, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Check that a reader keeps the contract of `Reader`; raises AssertionError at the first violation.

    `episodes` has one mapping per episode, in order. It maps the path of a field to the expected values: T values for
    a field with one value per step. Fields that are not in the mapping are only checked against `Reader.fields`.

    The source must be local and undamaged. It is copied, and one file of the copy is removed to test how the reader
    reports a missing file.
    """
    reader = reader.inner if isinstance(reader, BoundedReader) else reader  # its errors must not be hidden
    _check_description(reader)
    _check_files(reader, len(episodes))
    refs = plan(reader.files())
    whole = _read_all(reader, refs)
    for index, expected in enumerate(episodes):
        _check_expected(reader, index, actual=whole[index], expected=expected)
    _require(_same(_read_all(reader, refs), whole), "reading twice returns different values")
    _check_runs(reader, refs, whole)
    _check_columns(reader, refs, whole)
    _check_wrong_count(reader, refs[-1])
    _check_history(reader)
    _check_layout(reader, whole)
    _check_missing_file(reader, whole)


def _require(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(f"the reader: {message}")


def _check_description(reader: Reader) -> None:
    _require(isinstance(reader.format, str) and isinstance(reader.uri, str), "`format` and `uri` must be texts")
    paths = [field.path for field in reader.fields]
    _require(
        paths and all(isinstance(field, Field) for field in reader.fields), "`fields` must contain at least one Field"
    )
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    _require(not repeated, f"`fields` contains {repeated} twice")
    for name, value in (("description", reader.description()), ("layout", reader.layout())):
        _require(json.loads(json.dumps(value)) == value, f"`{name}()` is not plain JSON: {value!r}")
    _require(reader.description().get("format") == reader.format, "`description()` must contain the format")
    taken = sorted(reader.description().keys() & {"files", "generations"})
    _require(not taken, f"`description()` contains {taken}, which are reserved for the history of the files")
    notes = list(reader.notes())
    _require(not notes, f"`notes()` of an undamaged source must be empty, got {notes}")
    _require(isinstance(reader.declaration(), str | None), "`declaration()` must be a text or None")


def _check_files(reader: Reader, count: int) -> None:
    files = reader.files()
    _require(reader.files() == files, "`files()` returns different values each time")
    first = 0
    for split, parts in files.items():
        for part in parts:
            where = f"`files()`: {split}: {part.name}"
            _require(part.first == first, f"{where} starts at episode {part.first}, expected {first}")
            _require(part.size is not None, f"{where} has no size, which means that it is missing")
            _require(reader.place(part.name), f"{where} has no `place`")
            first += part.count
    _require(first == count, f"`files()` has {first} episodes, expected {count}")


def _values(reader: Reader, refs: Iterable[ShardRef], columns: Collection[str] | None = None) -> Iterator[Any]:
    """Read episodes, and copy each before the next one is read, because a reader may reuse its memory."""
    fields = {field.path: field for field in reader.fields}
    for ref in refs:
        for value in _read(reader, ref, columns):
            _require(isinstance(value, RawEpisode | Unreadable), f"`read` yields {value!r}")
            _require(
                value.split == ref.split, f"`read` of the split '{ref.split}' yields an episode of '{value.split}'"
            )
            yield value if isinstance(value, Unreadable) else (value.index, _plain(value, fields, columns))


def _read(reader: Reader, ref: ShardRef, columns: Collection[str] | None) -> Iterator[Any]:
    try:
        yield from reader.read(ref, columns)
    except (OxeError, OSError) as error:
        message = (
            f"the reader: `read` raises {error!r}; an episode that cannot be read must be yielded as an `Unreadable`"
        )
        raise AssertionError(message) from error


def _read_all(reader: Reader, refs: Iterable[ShardRef], columns: Collection[str] | None = None) -> list[Plain]:
    """Read all planned episodes in order; raises AssertionError if one is unreadable."""
    values = list(_values(reader, refs, columns))
    for value in values:
        _require(not isinstance(value, Unreadable), f"`read` of an undamaged source yields {value}")
    indices = [index for index, _ in values]
    planned = [part.first + i for ref in refs for part in ref.parts for i in range(part.count)]
    _require(indices == planned, f"`read` yields the episodes {indices}, expected {planned}")
    return [episode for _, episode in values]


def _plain(episode: RawEpisode, fields: Mapping[str, Field], columns: Collection[str] | None) -> Plain:
    """Check an episode against the fields that the reader declares, and return it as plain Python."""
    where = f"episode {episode.index}: "
    requested = {path for path in fields if columns is None or path in columns}
    for values, per_step, name in ((episode.steps, True, "steps"), (episode.metadata, False, "metadata")):
        wanted = {path for path in requested if fields[path].per_step == per_step}
        _require(
            {*values} == wanted, f"{where}`{name}` has {sorted(values)}, the requested fields are {sorted(wanted)}"
        )
    _require(episode.file, f"{where}`file` is empty")
    try:
        episode.n_steps()
    except SourceError as error:
        raise AssertionError(f"the reader: {where}{error}") from error
    for path, column in episode.steps.items():
        _check_column(fields[path], column, where=f"{where}{path}: ")
    plain = {path: _to_plain(column) for path, column in episode.steps.items()}
    for path, value in episode.metadata.items():
        plain[path] = _to_plain(value)
        _check_value(fields[path], plain[path], where=f"{where}{path}: ")
    return plain


def _check_column(field: Field, column: Any, *, where: str) -> None:
    if field.ragged or None in field.shape:
        _require(
            isinstance(column, Ragged) or field.kind == "image", f"{where}expected a Ragged, as its field declares"
        )
    elif field.kind == "number":
        _require(isinstance(column, np.ndarray), f"{where}expected an array, got {type(column).__name__}")
        declared = f"{field.dtype} {list(field.shape)}"
        actual = f"{column.dtype.name} {list(column.shape[1:])}"
        _require(actual == declared, f"{where}contains {actual} per step, its field declares {declared}")
    else:
        for item in column if not field.shape else ():
            _require(isinstance(item, bytes | memoryview), f"{where}expected bytes, got {type(item).__name__}")


def _check_value(field: Field, value: Any, *, where: str) -> None:
    kinds: dict[str, Any] = {"number": bool | int | float | list, "text": str | list, "bytes": bytes | list}
    many = field.ragged or (field.kind == "number" and field.shape)
    is_right = isinstance(value, kinds.get(field.kind, bytes | list)) and isinstance(value, list) == bool(many)
    _require(value is None or is_right, f"{where}{value!r} is not a value of {field}")


def _check_expected(reader: Reader, index: int, *, actual: Plain, expected: Mapping[str, Any]) -> None:
    fields = {field.path: field for field in reader.fields}
    for path, value in expected.items():
        where = f"episode {index}: {path}"
        _require(path in fields, f"`fields` does not contain the expected {path}")
        field = fields[path]
        if isinstance(value, np.ndarray) and field.kind == "number":
            _require(value.dtype.name == field.dtype, f"{where} is {field.dtype}, expected {value.dtype.name}")
        got, wanted = _to_plain(actual[path]), _to_plain(value)
        if field.kind == "text":
            got, wanted = _texts(got), _texts(wanted)
        elif field.kind == "number" and field.dtype in {"float16", "float32"} and not field.ragged:
            wanted = _to_plain(np.asarray(value, field.dtype))
        _require(_same(got, wanted), f"{where} is {_short(got)}, expected {_short(wanted)}")


def _check_runs(reader: Reader, refs: Sequence[ShardRef], whole: Sequence[Plain]) -> None:
    """Check that an episode has the same values when it is read alone as when it is read with the others.

    Episodes of a large file are read this way when the file is divided among workers.
    """
    for ref in refs:
        for part in ref.parts:
            for i in range(part.count):
                is_tail = part.is_tail and i == part.count - 1
                one = replace(part, first=part.first + i, skip=part.skip + i, count=1, is_tail=is_tail)
                (alone,) = _read_all(reader, [replace(ref, parts=(one,))])
                message = f"episode {part.first + i} differs when it is read alone"
                _require(_same(alone, whole[part.first + i]), message)
    limit = len(whole) - 1
    _require(
        _same(_read_all(reader, plan(reader.files(), limit=limit)), whole[:limit]),
        "with a limit, other episodes are read",
    )


def _check_columns(reader: Reader, refs: Sequence[ShardRef], whole: Sequence[Plain]) -> None:
    for field in reader.fields:
        alone = _read_all(reader, refs, {field.path})
        wanted = [{field.path: episode[field.path]} for episode in whole]
        _require(_same(alone, wanted), f"`read` of the column {field.path} alone gives other values")


def _check_wrong_count(reader: Reader, ref: ShardRef) -> None:
    """Check that the reader reports it if a file has fewer or more episodes than planned.

    Each missing and each additional episode must be yielded as an Unreadable.
    """
    last = next(part for part in reversed(ref.parts) if part.count)
    wanted = list(range(last.first, last.first + last.count + 1))
    values = list(_values(reader, [replace(ref, parts=(replace(last, count=last.count + 1),))]))
    indices = [value.index if isinstance(value, Unreadable) else value[0] for value in values]
    is_reported = indices == wanted and isinstance(values[-1], Unreadable)
    _require(is_reported, f"{last.name}: `read` must yield an `Unreadable` for a planned episode that is missing")
    values = list(_values(reader, [replace(ref, parts=(replace(last, count=last.count - 1),))]))
    more = [value for value in values if isinstance(value, Unreadable) and value.index is None]
    _require(
        more, f"{last.name}: `read` must yield an `Unreadable` without an index for an episode that was not planned"
    )


def _check_history(reader: Reader) -> None:
    files = History.of(reader).files
    _require(History.of(reader).files == files, "`tails` returns different values each time")
    for file in files:
        _require(file.tail_xxh3_64, f"`tails` has no bytes of {file.path}")
    _require(not reader.tails(["no such file"], 8), "`tails` has bytes of a file that does not exist")


def _check_layout(reader: Reader, whole: Sequence[Plain]) -> None:
    again = _reopened(reader, reader.uri)
    for name, one, other in (
        ("fields", again.fields, reader.fields),
        ("files()", again.files(), reader.files()),
        ("layout()", again.layout(), reader.layout()),
        ("description()", again.description(), reader.description()),
    ):
        _require(one == other, f"opened again with `layout()`, `{name}` is {one}, expected {other}")
    _require(_same(_read_all(again, plan(again.files())), whole), "opened again with `layout()`, it reads other values")


def _check_missing_file(reader: Reader, whole: Sequence[Plain]) -> None:
    """Check that the episodes of a missing file, and only these, are reported as unreadable with a reason."""
    home = Path(absolute(reader.uri))
    lost: FilePart = next(part for parts in reader.files().values() for part in parts if part.count)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / home.name
        (shutil.copytree if home.is_dir() else shutil.copy2)(home, copy)
        damaged = _reopened(reader, str(copy))
        refs = plan(damaged.files())
        (copy / Path(absolute(reader.place(lost.name))).relative_to(home)).unlink()
        values = list(_values(damaged, refs))
    indices = [value.index if isinstance(value, Unreadable) else value[0] for value in values]
    _require(indices == list(range(len(whole))), f"without {lost.name}, `read` yields the episodes {indices}")
    for value in values:
        if not isinstance(value, Unreadable):
            _require(_same(value[1], whole[value[0]]), f"without {lost.name}, episode {value[0]} has other values")
        elif value.index in range(lost.first, lost.first + lost.count):
            _require(
                value.reason in MISSING, f"without {lost.name}, the reason is '{value.reason}', expected 'missing_file'"
            )
            _require(value.file and value.detail, f"without {lost.name}, an `Unreadable` has no file or no detail")
    count = sum(isinstance(value, Unreadable) for value in values)
    _require(count == lost.count, f"without {lost.name}, {count} episodes are unreadable, expected {lost.count}")


def _reopened(reader: Reader, uri: str) -> Reader:
    """Open a URI with the source options that the reader's `layout()` returns."""
    layout = reader.layout()
    table = BUILT_IN.get(reader.format)
    source: SourceSpec = (
        table(format=reader.format, **layout) if table else PluginSource(format=reader.format, options=layout)
    )
    try:
        return open_with(type(reader), uri, source)
    except OxeError as error:
        raise AssertionError(f"the reader: it cannot be opened with `layout()`: {error}") from error


def _to_plain(value: Any) -> Any:
    """Copy a column or a value to plain Python: a number, a text, bytes, or a list of these."""
    if isinstance(value, Ragged):
        nested = _to_plain(value.values)
        for lengths in reversed(value.lengths):
            ends = np.cumsum(lengths)
            nested = [nested[end - n : end] for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)]
        return nested
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _same(one: Any, other: Any) -> bool:
    """Whether two plain Python values are equal; NaN counts as equal to NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _short(value: Any, most: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
