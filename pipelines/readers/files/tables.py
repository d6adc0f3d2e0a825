"""CSV, JSON Lines and JSON as columns and values: a missing cell is an error, never a number."""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.readers.fields import MAX_STEPS, Leaf
from pipelines.readers.files.piece import Piece
from pipelines.readers.names import covers
from schemas.errors import SourceError
from schemas.source import Array, Field

TABLE_LIMIT = 64 << 20  # bytes of one file
EXACT = 1 << 53  # whole numbers up to here are exact as float64
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
WORDS = {int: "numbers", float: "numbers", str: "texts", bool: "truth values", type(None): "null", dict: "objects"}
BOOLS = {"true": True, "false": False}
NUMBERED = re.compile(r"(?P<base>.+?)(_|\.|\[)(?P<number>\d+)\]?")  # `joint_0`, `joint.0`, `joint[0]`


def table(data: bytes, name: str, *, prefix: str = "", ignore: Collection[str] = ()) -> dict[str, Piece]:
    """Read the columns of a CSV or JSON Lines file, but for those whose paths are in `ignore`."""

    def is_read(path: str) -> bool:
        return not covers(ignore, f"{prefix}{path}")

    columns = _csv(data, is_read) if name.endswith(".csv") else _json_lines(data, is_read)
    if not any(columns.values()):
        raise SourceError("holds no rows, so what its columns are cannot be seen", reason="bad_table")
    pieces = {path: _column(path, cells) for path, cells in columns.items()}
    return {f"{prefix}{path}": _named(piece, f"{prefix}{path}") for path, piece in _vectors(pieces).items()}


def values(data: bytes, *, prefix: str, ignore: Collection[str]) -> dict[str, Piece]:
    """Read the values of a JSON file, which are those of the whole episode; null is no value."""
    held = _flat(_text(data), where="the file")
    named = {f"{prefix}{path}": value for path, value in held.items() if value is not None}
    return {path: _value(path, value) for path, value in named.items() if not covers(ignore, path)}


def _value(path: str, value: Any) -> Piece:
    made = _typed(path, [value])
    if isinstance(made, list):
        return Piece(leaf=Leaf(Field(path=path, kind="text", per_step=False), "value"), read=lambda _: value)
    field = Field(path=path, kind="number", dtype=made.dtype.name, shape=made.shape[1:], per_step=False)
    return Piece(leaf=Leaf(field, "value"), read=lambda _: made[0].tolist())


def _csv(data: bytes, is_read: Callable[[str], bool]) -> dict[str, list[str]]:
    rows = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    try:
        header = [name.strip() or "index" for name in next(rows, [])]
        lines = [row for row in rows if row]
    except csv.Error as error:
        raise SourceError(f"line {rows.line_num}: {error}", reason="bad_table") from error
    if not header or len(set(header)) < len(header):
        raise SourceError("the first line does not name the columns, each by another name", reason="bad_table")
    for number, row in enumerate(lines):
        if len(row) != len(header):
            message = f"row {number}: {len(row)} cells, and the first line names {len(header)} columns"
            raise SourceError(message, reason="bad_table")
    return {name: [row[i] for row in lines] for i, name in enumerate(header) if is_read(name)}


def _json_lines(data: bytes, is_read: Callable[[str], bool]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    lines = [line for line in _text(data).split("\n") if line.strip()]
    for number, line in enumerate(lines):
        held = {path: value for path, value in _flat(line, where=f"row {number}").items() if is_read(path)}
        if number and held.keys() != columns.keys():
            other = min(held.keys() ^ columns.keys())
            raise SourceError(f"row {number}: '{other}' is not in every row", reason="bad_table")
        for path, value in held.items():
            columns.setdefault(path, []).append(value)
    return columns


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise SourceError("not UTF-8", reason="bad_utf8") from error


def _flat(text: str, *, where: str) -> dict[str, Any]:
    """Read a JSON object; what lies in nested ones is named by dotted paths, none of them twice."""
    try:
        held = json.loads(text, object_pairs_hook=_unique)
        if isinstance(held, dict):
            return _unique(list(_named_values(held)))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not JSON ({error})", reason="bad_table") from error
    raise SourceError(f"{where} is no JSON object", reason="bad_table")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise ValueError("a key stands there twice")
    return held


def _named_values(held: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in held.items():
        if isinstance(value, dict):
            yield from _named_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _column(path: str, cells: Sequence[Any]) -> Piece:
    if len(cells) > MAX_STEPS:
        raise SourceError(f"{path}: more than {MAX_STEPS} steps", reason="too_large")
    texts = [cell.encode() for cell in cells if isinstance(cell, str)]
    cells = _parsed(path, cells) if len(texts) == len(cells) else cells
    made = _typed(path, cells)
    if isinstance(made, list):
        field = Field(path=path, kind="text")
        return Piece(leaf=Leaf(field, "texts"), count=len(cells), read=lambda rows: texts[:rows], cells=texts)
    field = Field(path=path, kind="number", dtype=made.dtype.name, shape=made.shape[1:])
    return Piece(leaf=Leaf(field, "numbers"), count=len(cells), read=lambda rows: made[:rows], cells=texts)


def _parsed(path: str, texts: Sequence[str]) -> Sequence[Any]:
    """Read cells of text as numbers or truth values, where all of them are."""
    cells = [text.strip() for text in texts]
    if cells and all(cell.lower() in BOOLS for cell in cells):
        return [BOOLS[cell.lower()] for cell in cells]
    are = [bool(NUMBER.fullmatch(cell)) for cell in cells]
    if cells and all(are):
        return [int(cell) if WHOLE.fullmatch(cell) else float(cell) for cell in cells]
    if any(are) and all(number or not cell for number, cell in zip(are, cells, strict=True)):
        raise SourceError(f"{path}: row {are.index(False)} has no value", reason="bad_table")
    return texts


def _typed(path: str, items: Sequence[Any]) -> Array | list[str]:
    """Give texts, truth values, or numbers of one shape: float64, or int64 where float64 could not hold them."""
    kinds = set().union(*map(_kinds, items))
    if kinds <= {str} and all(isinstance(item, str) for item in items):
        return list(items)
    if kinds == {bool}:
        return np.array(items)
    if not kinds or not kinds <= {int, float}:
        words = ", ".join(sorted({WORDS.get(kind, kind.__name__) for kind in kinds}))
        message = f"{path} holds {words or 'empty lists'}: neither numbers of one shape, nor texts, nor truth values"
        raise SourceError(message, reason="bad_table")
    try:
        exact = np.array(items, np.int64) if kinds == {int} else None
        made = np.array(items, np.float64)
    except (ValueError, OverflowError) as error:
        message = f"{path} holds lists of unequal length, or numbers of more than 64 bits"
        raise SourceError(message, reason="bad_table") from error
    if not (np.abs(made) >= EXACT).any() or all(abs(whole) <= EXACT for whole in _whole([*items])):
        return made
    if exact is None:
        message = f"{path} mixes fractions and whole numbers above 2**53, which no one type holds"
        raise SourceError(message, reason="bad_table")
    return exact


def _whole(item: Any) -> Iterator[int]:
    """Find the whole numbers in nested lists."""
    for inner in item if isinstance(item, list) else [item]:
        if isinstance(inner, list):
            yield from _whole(inner)
        elif isinstance(inner, int):
            yield inner


def _kinds(item: Any) -> set[type]:
    return set().union(*map(_kinds, item)) if isinstance(item, list) else {type(item)}


def _vectors(pieces: Mapping[str, Piece]) -> dict[str, Piece]:
    """Put columns that are numbered from 0 on, such as `joint_0` and `joint_1`, together as one of vectors."""
    runs: dict[str, dict[int, str]] = {}
    for path, piece in pieces.items():
        found = NUMBERED.fullmatch(path)
        if found and piece.leaf.field.dtype == "float64" and not piece.leaf.field.shape:
            runs.setdefault(found["base"], {})[int(found["number"])] = path
    whole = {base: run for base, run in runs.items() if len(run) > 1 and sorted(run) == [*range(len(run))]}
    whole = {base: run for base, run in whole.items() if base not in pieces}
    taken = {path for run in whole.values() for path in run.values()}
    out = {path: piece for path, piece in pieces.items() if path not in taken}
    for base, run in whole.items():
        out[base] = _stacked(base, [pieces[run[i]] for i in range(len(run))])
    return out


def _stacked(path: str, parts: Sequence[Piece]) -> Piece:
    field = Field(path=path, kind="number", dtype="float64", shape=(len(parts),))
    count = parts[0].count
    return Piece(
        leaf=Leaf(field, "numbers"),
        count=count,
        read=lambda rows: np.stack([part.read(rows) for part in parts], axis=-1),
    )


def _named(piece: Piece, path: str) -> Piece:
    return replace(piece, leaf=Leaf(replace(piece.leaf.field, path=path), piece.leaf.form))
