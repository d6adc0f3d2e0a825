"""Which episodes: conditions over the columns of `meta/episodes.parquet`, parsed and never evaluated as Python.

    condition  := all { "or" all }                      length >= 20 and split == "train"
    all        := one { "and" one }                     not (instructions contains "drawer" or length in [1, 2])
    one        := "not" one | "(" condition ")" | column comparison
    comparison := ("==" | "!=" | "<" | "<=" | ">" | ">=" | "contains") value | "in" "[" value { "," value } "]"
    value      := number | "text" | 'text' | true | false

A comparison of a column that holds lists is true where it is true of any entry; one with a missing value is false.
`contains` looks for a part of a text. Everything a text can get wrong is a UsageError that points at the word.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from schemas.errors import UsageError, did_you_mean
from schemas.source import Array

TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>"[^"]*"|'[^']*')
    |(?P<word>[A-Za-z_][\w./]*)|(?P<sign>==|!=|<=|>=|[<>()\[\],]))""",
    re.VERBOSE,
)
DEEPEST = 50  # conditions inside one another
KEYWORDS = {"and", "or", "not", "in", "contains", "true", "false"}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "contains": lambda text, part: part in text,
    "in": lambda value, values: value in values,
}

Value = str | float | int | bool
Columns = Mapping[str, Sequence[Any]]  # of the episode table, as Python values


class Condition(Protocol):
    """What an episode must be; `str()` gives its one spelling, which is part of the key of statistics."""

    def columns(self) -> frozenset[str]:
        """Name the columns that it reads."""
        ...

    def mask(self, table: Columns) -> Array:
        """Say for each row whether it holds, [N] bool; a column that does not fit is a UsageError."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column against a value, or several for `in`."""

    column: str
    op: str
    value: Value | tuple[Value, ...]

    def __str__(self) -> str:
        """Give the one spelling."""
        if isinstance(self.value, tuple):
            return f"{self.column} {self.op} [{', '.join(map(_spelled, self.value))}]"
        return f"{self.column} {self.op} {_spelled(self.value)}"

    def columns(self) -> frozenset[str]:
        """Name the column."""
        return frozenset({self.column})

    def mask(self, table: Columns) -> Array:
        """Compare each row."""
        if self.column not in table:
            raise UsageError(f"'{self}': no column '{self.column}'{did_you_mean(self.column, table)}")
        holds = COMPARE[self.op]
        try:
            return np.array(
                [any(holds(entry, self.value) for entry in _entries(cell)) for cell in table[self.column]], bool
            )
        except TypeError as error:
            raise UsageError(f"'{self}': column '{self.column}' does not hold such values") from error


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    part: Condition

    def __str__(self) -> str:
        """Give the one spelling."""
        return f"not {_inner(self.part)}"

    def columns(self) -> frozenset[str]:
        """Name the columns that it reads."""
        return self.part.columns()

    def mask(self, table: Columns) -> Array:
        """Turn the mask around."""
        return ~self.part.mask(table)


@dataclass(frozen=True, slots=True)
class Joined:
    """Several conditions, of which all or any must hold."""

    word: str  # "and" or "or"
    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        """Give the one spelling."""
        return f" {self.word} ".join(map(_inner, self.parts))

    def columns(self) -> frozenset[str]:
        """Name the columns that they read."""
        return frozenset().union(*(part.columns() for part in self.parts))

    def mask(self, table: Columns) -> Array:
        """Join the masks."""
        masks = [part.mask(table) for part in self.parts]
        join = np.logical_and if self.word == "and" else np.logical_or
        return np.asarray(join.reduce(masks))


def parse(text: str) -> Condition:
    """Parse a condition.

    >>> str(parse("length>=20 and split == 'train'"))
    'length >= 20 and split == "train"'
    >>> parse("length > 2").mask({"length": [1, 3]}).tolist()
    [False, True]
    """
    words = _Words(text)
    found = words.condition()
    if words.kind != "end":
        raise words.error("'and', 'or' or the end")
    return found


def _entries(cell: Any) -> Sequence[Any]:
    return cell if isinstance(cell, list) else () if cell is None else (cell,)


def _spelled(value: Value) -> str:
    if isinstance(value, str):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _inner(part: Condition) -> str:
    return f"({part})" if isinstance(part, Joined) else str(part)


class _Words:
    """The text, cut into words, and a place in it."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.depth = text, 0, 0
        self.advance()

    def advance(self) -> None:
        self.start = self.position + len(self.text[self.position :]) - len(self.text[self.position :].lstrip())
        match = TOKEN.match(self.text, self.position)
        if match:
            self.kind, self.word, self.position = str(match.lastgroup), match[match.lastgroup or 0], match.end()
        elif self.start == len(self.text):
            self.kind, self.word = "end", ""
        else:
            self.kind, self.word = "unknown", self.text[self.start]

    def error(self, wanted: str) -> UsageError:
        found = f"'{self.word}'" if self.word else "the end"
        return UsageError(f"filter: expected {wanted}, found {found}\n  {self.text}\n  {' ' * self.start}^")

    def take(self, word: str) -> bool:
        found = self.word == word and self.kind in {"word", "sign"}
        if found:
            self.advance()
        return found

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.error(f"'{word}'")

    def condition(self) -> Condition:
        return self.joined("or", lambda: self.joined("and", self.one))

    def joined(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self.take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def one(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UsageError(f"filter: nested more than {DEEPEST} deep")
        found = self.bare()
        self.depth -= 1
        return found

    def bare(self) -> Condition:
        if self.take("not"):
            return Not(self.one())
        if self.take("("):
            inner = self.condition()
            self.expect(")")
            return inner
        if self.kind != "word" or self.word in KEYWORDS:
            raise self.error("a column")
        column = self.word
        self.advance()
        if self.word not in COMPARE:
            raise self.error(f"one of {' '.join(COMPARE)}")
        op = self.word
        self.advance()
        return Comparison(column, op, self.values() if op == "in" else self.value())

    def values(self) -> tuple[Value, ...]:
        self.expect("[")
        values = [self.value()]
        while self.take(","):
            values.append(self.value())
        self.expect("]")
        return tuple(values)

    def value(self) -> Value:
        kind, word = self.kind, self.word
        if kind == "text":
            value: Value = word[1:-1]
        elif kind == "number":
            value = int(word) if re.fullmatch(r"-?\d+", word) else float(word)
        elif word in {"true", "false"}:
            value = word == "true"
        else:
            raise self.error("a number, a text in quotes, true or false")
        self.advance()
        return value
