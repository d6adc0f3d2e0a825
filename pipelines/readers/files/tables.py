"""Read CSV, JSON Lines and JSON files as columns and values; a missing cell is an error, not a number."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.readers.fields import Leaf
from pipelines.readers.files.csv_lines import NUMBER, csv_columns
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.names import covers
from schemas.errors import SourceError
from schemas.limits import MAX_FIELDS, MAX_STEPS, check_limit
from schemas.parsing import parse_json
from schemas.source import Array, Field

TABLE_LIMIT = 64 << 20  # bytes of one file
EXACT = 1 << 53  # float64 represents every integer up to this one exactly
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
TYPE_NAMES = {int: "numbers", float: "numbers", str: "texts", bool: "booleans", type(None): "null", dict: "objects"}
BOOLS = {"true": True, "false": False}
NUMBERED = re.compile(r"(?P<base>.+?)(_|\.|\[)(?P<number>\d+)\]?")  # `joint_0`, `joint.0`, `joint[0]`


@dataclass(frozen=True, slots=True)
class JsonFields:
    """The fields of a JSON file, and the paths that have no value in any step."""

    fields: dict[str, LazyField]
    empty: tuple[str, ...]


def table_fields(
    data: bytes, name: str, *, prefix: str = "", ignore: Collection[str] = (), header: bool | None = None
) -> dict[str, LazyField]:
    """Read the columns of a CSV or JSON Lines file, except those whose paths are in `ignore`.

    `header` is whether the first line of a CSV file names its columns; None: it must, and it must not hold numbers.
    """

    def is_read(path: str) -> bool:
        return not covers(ignore, f"{prefix}{path}")

    columns = csv_columns(_text(data), is_read, header) if name.endswith(".csv") else _json_lines(data, is_read)
    if not any(columns.values()):
        raise SourceError("contains no rows, so the types of its columns are unknown", reason="bad_table")
    fields = {path: _column(path, cells) for path, cells in columns.items()}
    return {f"{prefix}{path}": _renamed(field, f"{prefix}{path}") for path, field in _merge_numbered(fields).items()}


def json_fields(data: bytes, *, prefix: str, ignore: Collection[str]) -> JsonFields:
    """Read a JSON file: values of the episode, and lists of objects, each of which is a table with a row per step.

    Nulls and paths in `ignore` are left out. So are the columns of a list of objects that have no value in any row.
    """
    content = _json(_text(data), where="the file")
    if not isinstance(content, dict | list) or (isinstance(content, list) and not _is_table(content)):
        raise SourceError("the file is neither a JSON object nor a list of objects", reason="bad_table")
    named = {prefix.rstrip("."): content} if isinstance(content, list) else _flat(content, prefix, where="the file")
    fields: dict[str, LazyField] = {}
    empty: list[str] = []
    for path, value in named.items():
        if value is None or covers(ignore, path):
            continue
        if not _is_table(value):
            fields[path] = _value(path, value)
            continue
        start = f"{path}." if path else ""
        rows = [_flat(row, start, where=f"{path}: row {i}") for i, row in enumerate(value)]
        columns = _by_column(rows, lambda name: not covers(ignore, name))
        unused = [name for name, cells in columns.items() if all(cell in (None, []) for cell in cells)]
        empty += unused
        used = {name: _column(name, cells) for name, cells in columns.items() if name not in unused}
        fields |= _merge_numbered(used)
    return JsonFields(fields, tuple(empty))


def object_columns(objects: Sequence[bytes], ignore: Collection[str]) -> dict[str, LazyField]:
    """Read the columns of JSON objects, each of which is one step, except those whose paths are in `ignore`."""
    rows = [_flat_object(_text(data), where=f"step {number}") for number, data in enumerate(objects)]
    columns = _by_column(rows, lambda path: not covers(ignore, path))
    return _merge_numbered({path: _column(path, cells) for path, cells in columns.items()})


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _value(path: str, value: Any) -> LazyField:
    is_list = isinstance(value, list)
    if isinstance(value, str) or (is_list and all(isinstance(item, str) for item in value)):
        field = Field(path=path, kind="text", ragged=int(is_list), per_step=False)
        return LazyField(leaf=Leaf(field, "value"), read=lambda _: value)
    array = np.asarray(_to_array(path, [value]))
    field = Field(path=path, kind="number", dtype=array.dtype.name, shape=array.shape[1:], per_step=False)
    return LazyField(leaf=Leaf(field, "value"), read=lambda _: array[0].tolist())


def _json_lines(data: bytes, is_read: Callable[[str], bool]) -> dict[str, list[Any]]:
    lines = [line for line in _text(data).split("\n") if line.strip()]
    return _by_column([_flat_object(line, where=f"row {number}") for number, line in enumerate(lines)], is_read)


def _by_column(rows: Sequence[Mapping[str, Any]], is_read: Callable[[str], bool]) -> dict[str, list[Any]]:
    """Return the values of each column; raise SourceError if a row does not have all of them."""
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        values = {path: value for path, value in row.items() if is_read(path)}
        if number and values.keys() != columns.keys():
            other = min(values.keys() ^ columns.keys())
            raise SourceError(f"row {number}: '{other}' is not in every row", reason="bad_table")
        for path, value in values.items():
            columns.setdefault(path, []).append(value)
    return columns


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise SourceError("not UTF-8", reason="bad_utf8") from error


def _flat_object(text: str, *, where: str) -> dict[str, Any]:
    """Parse a JSON object and flatten it to values by dotted path; raise SourceError if a path occurs twice."""
    content = _json(text, where=where)
    if not isinstance(content, dict):
        raise SourceError(f"{where} is not a JSON object", reason="bad_table")
    return _flat(content, "", where=where)


def _json(text: str, *, where: str) -> Any:
    try:
        return parse_json(text, pairs=_unique)
    except ValueError as error:
        raise SourceError(f"{where} is not JSON ({error})", reason="bad_table") from error


def _flat(content: Mapping[str, Any], prefix: str, *, where: str) -> dict[str, Any]:
    try:
        return _unique(list(_named_values(content, prefix)))
    except ValueError as error:
        raise SourceError(f"{where} is not JSON ({error})", reason="bad_table") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    check_limit(len(pairs), MAX_FIELDS, "keys")
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _named_values(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _named_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _column(path: str, cells: Sequence[Any]) -> LazyField:
    if len(cells) > MAX_STEPS:
        raise SourceError(f"{path}: more than {MAX_STEPS} steps", reason="too_large")
    texts = [cell.encode() for cell in cells if isinstance(cell, str)]
    cells = _parsed(path, cells) if len(texts) == len(cells) else cells
    array = _to_array(path, cells)
    if isinstance(array, list):
        field = Field(path=path, kind="text")
        return LazyField(leaf=Leaf(field, "texts"), count=len(cells), read=lambda rows: texts[:rows], cells=texts)
    field = Field(path=path, kind="number", dtype=array.dtype.name, shape=array.shape[1:])
    return LazyField(leaf=Leaf(field, "numbers"), count=len(cells), read=lambda rows: array[:rows], cells=texts)


def _parsed(path: str, texts: Sequence[str]) -> Sequence[Any]:
    """Parse the cells if all are numbers or all are booleans; otherwise return the texts.

    Raises SourceError if some cells are numbers and all others are empty.
    """
    cells = [text.strip() for text in texts]
    if cells and all(cell.lower() in BOOLS for cell in cells):
        return [BOOLS[cell.lower()] for cell in cells]
    is_number = [bool(NUMBER.fullmatch(cell)) for cell in cells]
    if cells and all(is_number):
        return [int(cell) if WHOLE.fullmatch(cell) else float(cell) for cell in cells]
    if any(is_number) and all(numeric or not cell for numeric, cell in zip(is_number, cells, strict=True)):
        raise SourceError(f"{path}: row {is_number.index(False)} has no value", reason="bad_table")
    return texts


def _to_array(path: str, items: Sequence[Any]) -> Array | list[str]:
    """Return texts as a list, and booleans or numbers as an array.

    Numbers become float64, or int64 if they are integers too large to be exact as float64. Raises SourceError if no
    single type fits.
    """
    types = set().union(*map(_types, items))
    if types <= {str} and all(isinstance(item, str) for item in items):
        return list(items)
    if types == {bool}:
        return np.array(items)
    if not types or not types <= {int, float}:
        names = ", ".join(sorted({TYPE_NAMES.get(kind, kind.__name__) for kind in types}))
        message = f"{path} contains {names or 'empty lists'}: expected numbers of one shape, texts or booleans"
        raise SourceError(message, reason="bad_table")
    try:
        integers = np.array(items, np.int64) if types == {int} else None
        array = np.array(items, np.float64)
    except (ValueError, OverflowError) as error:
        message = f"{path} contains lists of unequal length, or numbers of more than 64 bits"
        raise SourceError(message, reason="bad_table") from error
    if not (np.abs(array) >= EXACT).any() or all(abs(whole) <= EXACT for whole in _integers([*items])):
        return array
    if integers is None:
        message = f"{path} mixes fractions with integers above 2**53, and no single type can hold both"
        raise SourceError(message, reason="bad_table")
    return integers


def _integers(item: Any) -> Iterator[int]:
    """Yield the integers in nested lists."""
    for inner in item if isinstance(item, list) else [item]:
        if isinstance(inner, list):
            yield from _integers(inner)
        elif isinstance(inner, int):
            yield inner


def _types(item: Any) -> set[type]:
    return set().union(*map(_types, item)) if isinstance(item, list) else {type(item)}


def _merge_numbered(columns: Mapping[str, LazyField]) -> dict[str, LazyField]:
    """Merge columns that are numbered from 0 on, such as `joint_0` and `joint_1`, into one column of vectors."""
    runs: dict[str, dict[int, str]] = {}
    for path, column in columns.items():
        match = NUMBERED.fullmatch(path)
        if match and column.leaf.field.dtype == "float64" and not column.leaf.field.shape:
            runs.setdefault(match["base"], {})[int(match["number"])] = path
    complete = {base: run for base, run in runs.items() if len(run) > 1 and sorted(run) == [*range(len(run))]}
    complete = {base: run for base, run in complete.items() if base not in columns}
    merged = {path for run in complete.values() for path in run.values()}
    result = {path: column for path, column in columns.items() if path not in merged}
    for base, run in complete.items():
        result[base] = _stacked(base, [columns[run[i]] for i in range(len(run))])
    return result


def _stacked(path: str, columns: Sequence[LazyField]) -> LazyField:
    field = Field(path=path, kind="number", dtype="float64", shape=(len(columns),))
    count = columns[0].count
    return LazyField(
        leaf=Leaf(field, "numbers"),
        count=count,
        read=lambda rows: np.stack([column.read(rows) for column in columns], axis=-1),
    )


def _renamed(field: LazyField, path: str) -> LazyField:
    return replace(field, leaf=Leaf(replace(field.leaf.field, path=path), field.leaf.form))
