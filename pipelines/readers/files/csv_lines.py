"""Split a CSV file into named columns of cells; a first line of numbers is not taken for names."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from itertools import chain

from schemas.errors import SourceError
from schemas.limits import MAX_FIELDS, check_limit

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
WHOLE = re.compile(r"\d+", re.ASCII)
SEPARATORS = re.compile(r"[\s;,|]+")
HEADERLESS = "values_{}"  # name of a column without a name; numbered columns become one vector, `values`


def csv_columns(text: str, is_read: Callable[[str], bool], header: bool | None) -> dict[str, list[str]]:  # noqa: FBT001
    """Return the cells of each column by name.

    `header` is the declared `source.header`. Raises SourceError if the lines do not have the same number of cells, or
    if the first line holds numbers and `header` is None.
    """
    rows = _rows(text)
    if header is None and rows and _holds_numbers(rows[0], rows[1:]):
        message = (
            f"the first line holds numbers ({', '.join(rows[0])[:60]}), not the names of the columns; declare "
            "source.header = false to read it as a row, or true if these are the names"
        )
        raise SourceError(message, reason="bad_table")
    if header is False:
        names = [HEADERLESS.format(i) for i in range(len(rows[0]))] if rows else []
        lines = rows
    else:
        names, lines = [name.strip() or "index" for name in rows[0]] if rows else [], rows[1:]
    if not names or len(set(names)) < len(names):
        raise SourceError("the first line must contain a different name for each column", reason="bad_table")
    for number, row in enumerate(lines):
        if len(row) != len(names):
            message = f"row {number}: {len(row)} cells, but the first line names {len(names)} columns"
            raise SourceError(message, reason="bad_table")
    return {name: [row[i] for row in lines] for i, name in enumerate(names) if is_read(name)}


def _rows(text: str) -> list[list[str]]:
    """Split a text into rows of cells; empty lines are left out."""
    delimiter = _delimiter(text)
    if delimiter == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        first = next((row for row in rows if row), [])
        check_limit(len(first), MAX_FIELDS, "columns")
        return [row for row in chain([first], rows) if row]
    except csv.Error as error:
        raise SourceError(f"line {rows.line_num}: {error}", reason="bad_table") from error


def _delimiter(text: str) -> str:
    """Return the character between the cells: a comma, or, if the first line has none, a tab, a semicolon or a space.

    Spaces separate the cells only if all words of the line after the first one are numbers, because a name may contain
    spaces.
    """
    lines = [line for line in text[: 1 << 16].splitlines() if line.strip()][:2]
    first = lines[0] if lines else ""
    if "," in first and not ("\t" in first and first.count("\t") >= first.count(",")):
        return ","
    for delimiter in "\t;":
        if delimiter in first:
            return delimiter
    words = [line.split() for line in lines]
    is_spaced = bool(words) and len(words[0]) == len(words[-1]) > 1 and all(map(NUMBER.fullmatch, words[-1]))
    return " " if is_spaced else ","


def _holds_numbers(first: Sequence[str], lines: Sequence[Sequence[str]]) -> bool:
    """Whether the first line of a table is a row of values and not of names.

    Columns may be called 0, 1, ...: beside other names, or after the empty name of an index.
    """
    cells = [cell.strip() for cell in first]
    filled = [cell for cell in cells if cell]
    numbers = [cell for cell in filled if _is_number(cell)]
    if not numbers:
        return False
    if len(numbers) == len(filled):
        counted = [str(i) for i in range(len(cells) - 1)]
        index = [line[0].strip() for line in lines if line]
        return not (cells == ["", *counted] and index == [str(i) for i in range(len(lines))])
    below = lines[0] if lines else ()
    repeats = any(
        cell and cell == under.strip() and not _is_number(cell) for cell, under in zip(cells, below, strict=False)
    )
    return repeats or not all(WHOLE.fullmatch(cell) for cell in numbers)


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number, or several between which another delimiter stands."""
    words = [word for word in SEPARATORS.split(cell) if word]
    return bool(words) and all(map(NUMBER.fullmatch, words))
