"""What a reader promises, as one check: our own readers pass it in their tests, and those of other packages can."""

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipelines.readers.history import History
from pipelines.readers.reader import FilePart, Reader, ShardRef, plan
from pipelines.readers.registry import open_with
from schemas.declarations.formats import OURS, PluginSource, SourceSpec
from schemas.errors import OxeError, SourceError
from schemas.files.folder import absolute
from schemas.source import Field, Ragged, RawEpisode, Unreadable

GONE = {"missing_file", "missing_shard"}  # reasons
Plain = dict[str, Any]  # what an episode holds by path, as plain Python


def check_reader(reader: Reader, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Check what a reader promises; an AssertionError says what it does not keep.

    `episodes` says what the source holds, in order: for each episode the values by the paths of their fields, T of them
    for a field of steps. Fields that it does not name are compared with `fields` alone. The source must be local and
    sound: it is copied, and the copy is damaged.
    """
    _check_description(reader)
    _check_files(reader, len(episodes))
    refs = plan(reader.files())
    whole = _sound(reader, refs)
    for index, wanted in enumerate(episodes):
        _check_expected(reader, index, found=whole[index], wanted=wanted)
    _require(_same(_sound(reader, refs), whole), "reading twice gives different values")
    _check_runs(reader, refs, whole)
    _check_columns(reader, refs, whole)
    _check_planned_otherwise(reader, refs[-1])
    _check_history(reader)
    _check_layout(reader, whole)
    _check_missing_file(reader, whole)


def _require(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(f"the reader: {message}")


def _check_description(reader: Reader) -> None:
    _require(isinstance(reader.format, str) and isinstance(reader.uri, str), "`format` and `uri` are texts")
    paths = [field.path for field in reader.fields]
    _require(paths and all(isinstance(field, Field) for field in reader.fields), "`fields` names at least one Field")
    twice = sorted({path for path in paths if paths.count(path) > 1})
    _require(not twice, f"`fields` names {twice} twice")
    for name, value in (("description", reader.description()), ("layout", reader.layout())):
        _require(json.loads(json.dumps(value)) == value, f"`{name}()` is not plain JSON: {value!r}")
    _require(reader.description().get("format") == reader.format, "`description()` does not name the format")
    taken = sorted(reader.description().keys() & {"files", "generations"})
    _require(not taken, f"`description()` has {taken}, which the manifest has for the history of the files")
    notes = list(reader.notes())
    _require(not notes, f"`notes()` of a sound source are {notes}")
    _require(isinstance(reader.declaration(), str | None), "`declaration()` is neither a text nor None")


def _check_files(reader: Reader, count: int) -> None:
    files = reader.files()
    _require(reader.files() == files, "`files()` is not the same every time")
    first = 0
    for split, parts in files.items():
        for part in parts:
            where = f"`files()`: {split}: {part.name}"
            _require(part.first == first, f"{where} begins at episode {part.first}, the files before it end at {first}")
            _require(part.size is not None, f"{where} has no size, as if it were missing")
            _require(reader.place(part.name), f"{where} has no `place`")
            first += part.count
    _require(first == count, f"`files()` counts {first} episodes, expected are {count}")


def _values(reader: Reader, refs: Iterable[ShardRef], columns: Collection[str] | None = None) -> Iterator[Any]:
    """Read, and copy each episode at once: a reader may use its memory again."""
    fields = {field.path: field for field in reader.fields}
    for ref in refs:
        for value in _read(reader, ref, columns):
            _require(isinstance(value, RawEpisode | Unreadable), f"`read` yields {value!r}")
            _require(value.split == ref.split, f"`read` of the split '{ref.split}' yields one of '{value.split}'")
            yield value if isinstance(value, Unreadable) else (value.index, _plain(value, fields, columns))


def _read(reader: Reader, ref: ShardRef, columns: Collection[str] | None) -> Iterator[Any]:
    try:
        yield from reader.read(ref, columns)
    except (OxeError, OSError) as error:
        message = f"the reader: `read` raises {error!r}; an episode that cannot be read is yielded as an `Unreadable`"
        raise AssertionError(message) from error


def _sound(reader: Reader, refs: Iterable[ShardRef], columns: Collection[str] | None = None) -> list[Plain]:
    """Read episodes, of which none may be unreadable, from the first on and in order."""
    values = list(_values(reader, refs, columns))
    for value in values:
        _require(not isinstance(value, Unreadable), f"`read` of a sound source yields {value}")
    indices = [index for index, _ in values]
    planned = [part.first + i for ref in refs for part in ref.parts for i in range(part.count)]
    _require(indices == planned, f"`read` yields the episodes {indices}, planned were {planned}")
    return [episode for _, episode in values]


def _plain(episode: RawEpisode, fields: Mapping[str, Field], columns: Collection[str] | None) -> Plain:
    """Check an episode against the fields, and take it as plain Python."""
    where = f"episode {episode.index}: "
    asked = {path for path in fields if columns is None or path in columns}
    for held, per_step, name in ((episode.steps, True, "steps"), (episode.metadata, False, "metadata")):
        wanted = {path for path in asked if fields[path].per_step == per_step}
        _require({*held} == wanted, f"{where}`{name}` has {sorted(held)}, the fields asked for are {sorted(wanted)}")
    _require(episode.file, f"{where}`file` is empty")
    try:
        episode.n_steps()
    except SourceError as error:
        raise AssertionError(f"the reader: {where}{error}") from error
    for path, column in episode.steps.items():
        _check_column(fields[path], column, where=f"{where}{path}: ")
    found = {path: _listed(column) for path, column in episode.steps.items()}
    for path, value in episode.metadata.items():
        found[path] = _listed(value)
        _check_value(fields[path], found[path], where=f"{where}{path}: ")
    return found


def _check_column(field: Field, column: Any, *, where: str) -> None:
    if field.ragged or None in field.shape:
        _require(isinstance(column, Ragged) or field.kind == "image", f"{where}not a Ragged, as its field says")
    elif field.kind == "number":
        _require(isinstance(column, np.ndarray), f"{where}{type(column).__name__} instead of an array")
        says = f"{field.dtype} {list(field.shape)}"
        found = f"{column.dtype.name} {list(column.shape[1:])}"
        _require(found == says, f"{where}holds {found} a step, its field says {says}")
    else:
        for item in column if not field.shape else ():
            _require(isinstance(item, bytes | memoryview), f"{where}{type(item).__name__} instead of bytes")


def _check_value(field: Field, value: Any, *, where: str) -> None:
    kinds: dict[str, Any] = {"number": bool | int | float | list, "text": str | list, "bytes": bytes | list}
    many = field.ragged or (field.kind == "number" and field.shape)
    is_right = isinstance(value, kinds.get(field.kind, bytes | list)) and isinstance(value, list) == bool(many)
    _require(value is None or is_right, f"{where}{value!r} is not a value of {field}")


def _check_expected(reader: Reader, index: int, *, found: Plain, wanted: Mapping[str, Any]) -> None:
    fields = {field.path: field for field in reader.fields}
    for path, value in wanted.items():
        where = f"episode {index}: {path}"
        _require(path in fields, f"`fields` does not name {path}, which is expected")
        field = fields[path]
        if isinstance(value, np.ndarray) and field.kind == "number":
            _require(value.dtype.name == field.dtype, f"{where} is {field.dtype}, expected is {value.dtype.name}")
        held, right = _listed(found[path]), _listed(value)
        if field.kind == "text":
            held, right = _texts(held), _texts(right)
        elif field.kind == "number" and field.dtype in {"float16", "float32"} and not field.ragged:
            right = _listed(np.asarray(value, field.dtype))
        _require(_same(held, right), f"{where} is {_short(held)}, expected is {_short(right)}")


def _check_runs(reader: Reader, refs: Sequence[ShardRef], whole: Sequence[Plain]) -> None:
    """Each episode alone, as where a large file is divided, is what it is among the others."""
    for ref in refs:
        for part in ref.parts:
            for i in range(part.count):
                is_tail = part.is_tail and i == part.count - 1
                one = replace(part, first=part.first + i, skip=part.skip + i, count=1, is_tail=is_tail)
                (alone,) = _sound(reader, [replace(ref, parts=(one,))])
                message = f"episode {part.first + i} read alone is not what it is among the others"
                _require(_same(alone, whole[part.first + i]), message)
    limit = len(whole) - 1
    _require(_same(_sound(reader, plan(reader.files(), limit=limit)), whole[:limit]), "with a limit, others are read")


def _check_columns(reader: Reader, refs: Sequence[ShardRef], whole: Sequence[Plain]) -> None:
    for field in reader.fields:
        alone = _sound(reader, refs, {field.path})
        wanted = [{field.path: episode[field.path]} for episode in whole]
        _require(_same(alone, wanted), f"`read` of the column {field.path} alone gives other values")


def _check_planned_otherwise(reader: Reader, ref: ShardRef) -> None:
    """A file that holds fewer episodes than were planned, or more, loses none of them in silence."""
    last = next(part for part in reversed(ref.parts) if part.count)
    wanted = list(range(last.first, last.first + last.count + 1))
    found = list(_values(reader, [replace(ref, parts=(replace(last, count=last.count + 1),))]))
    indices = [value.index if isinstance(value, Unreadable) else value[0] for value in found]
    is_told = indices == wanted and isinstance(found[-1], Unreadable)
    _require(is_told, f"of {last.name}, an episode that was planned and is not there yields no `Unreadable`")
    found = list(_values(reader, [replace(ref, parts=(replace(last, count=last.count - 1),))]))
    more = [value for value in found if isinstance(value, Unreadable) and value.index is None]
    _require(more, f"of {last.name}, an episode that was not planned yields no `Unreadable` without an index")


def _check_history(reader: Reader) -> None:
    files = History.of(reader).files
    _require(History.of(reader).files == files, "`tails` is not the same every time")
    for file in files:
        _require(file.tail_xxh3_64, f"`tails` has nothing of {file.path}")
    _require(not reader.tails(["no such file"], 8), "`tails` has bytes of a file that is not there")


def _check_layout(reader: Reader, whole: Sequence[Plain]) -> None:
    again = _reopened(reader, reader.uri)
    for name, one, other in (
        ("fields", again.fields, reader.fields),
        ("files()", again.files(), reader.files()),
        ("layout()", again.layout(), reader.layout()),
        ("description()", again.description(), reader.description()),
    ):
        _require(one == other, f"opened again with what `layout()` says, `{name}` is {one}, not {other}")
    _require(_same(_sound(again, plan(again.files())), whole), "opened again with `layout()`, it reads other values")


def _check_missing_file(reader: Reader, whole: Sequence[Plain]) -> None:
    """A file that is gone loses its own episodes, each with a reason, and no others."""
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
            _require(_same(value[1], whole[value[0]]), f"without {lost.name}, episode {value[0]} is another")
        elif value.index in range(lost.first, lost.first + lost.count):
            _require(value.reason in GONE, f"without {lost.name}, its reason is '{value.reason}', not 'missing_file'")
            _require(value.file and value.detail, f"without {lost.name}, an `Unreadable` has no file or no detail")
    count = sum(isinstance(value, Unreadable) for value in values)
    _require(count == lost.count, f"without {lost.name}, {count} episodes are unreadable, and it held {lost.count}")


def _reopened(reader: Reader, uri: str) -> Reader:
    """Open a place as the reader says that its own is opened."""
    layout = reader.layout()
    table = OURS.get(reader.format)
    source: SourceSpec = (
        table(format=reader.format, **layout) if table else PluginSource(format=reader.format, options=layout)
    )
    try:
        return open_with(type(reader), uri, source)
    except OxeError as error:
        raise AssertionError(f"the reader: what `layout()` says does not open it: {error}") from error


def _listed(value: Any) -> Any:
    """Copy a column or a value as plain Python: numbers, texts, bytes, and lists of them."""
    if isinstance(value, Ragged):
        nested = _listed(value.values)
        for lengths in reversed(value.lengths):
            ends = np.cumsum(lengths)
            nested = [nested[end - n : end] for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)]
        return nested
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _same(one: Any, other: Any) -> bool:
    """Whether two values of plain Python are equal; NaN is equal to itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _short(value: Any, most: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
