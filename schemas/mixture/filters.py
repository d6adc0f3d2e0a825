"""Conditions that select episodes by the columns of `meta/episodes.parquet`, parsed and never evaluated as Python.

    condition  := all { "or" all }                      length >= 20 and split == "train"
    all        := one { "and" one }                     not (instructions contains "drawer" or length in [1, 2])
    one        := "not" one | "(" condition ")" | column comparison | "finding" "(" text ")"
    comparison := ("==" | "!=" | "<" | "<=" | ">" | ">=" | "contains") value | "in" "[" value { "," value } "]"
    value      := number | "text" | 'text' | true | false

On a column of lists, a comparison is true if it is true for any entry. If the value is missing, it is false.
`contains` is true if the text in the column has the value as a part. `finding("idle")` is true if `oxe check` found
something in the episode by that rule. An invalid condition raises UsageError, whose message points at the wrong word.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from schemas.declarations.parser import Parser
from schemas.errors import UsageError, did_you_mean
from schemas.source import Array

WORDS = (
    r"""(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>"[^"]*"|'[^']*')"""
    r"|(?P<word>[A-Za-z_][\w./]*)|(?P<sign>==|!=|<=|>=|[<>()\[\],])"
)
DEEPEST = 50  # maximum nesting of conditions
FINDING = "finding"  # the name of the column with the rules that found something in each episode
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
Columns = Mapping[str, Sequence[Any]]  # columns of the episode table as Python values
Condition: TypeAlias = "Comparison | Found | Not | Joined"  # `str()` is its canonical spelling, used as a key


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of one column with a value, or with several values for `in`."""

    column: str
    op: str
    value: Value | tuple[Value, ...]

    def __str__(self) -> str:
        """Return the canonical spelling."""
        if isinstance(self.value, tuple):
            return f"{self.column} {self.op} [{', '.join(map(_spelled, self.value))}]"
        return f"{self.column} {self.op} {_spelled(self.value)}"

    def columns(self) -> frozenset[str]:
        """Return the column that it compares."""
        return frozenset({self.column})

    def mask(self, table: Columns) -> Array:
        """Return the result for each row, [N] bool. Raises UsageError if the column does not fit the value."""
        if self.column not in table:
            raise UsageError(f"'{self}': no column '{self.column}'{did_you_mean(self.column, table)}")
        holds = COMPARE[self.op]
        try:
            return np.array(
                [any(holds(entry, self.value) for entry in _entries(cell)) for cell in table[self.column]], bool
            )
        except TypeError as error:
            raise UsageError(f"'{self}': the values of column '{self.column}' cannot be compared with it") from error


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a rule of `oxe check` found something in the episode."""

    rule: str

    def __str__(self) -> str:
        """Return the canonical spelling."""
        return f"{FINDING}({_spelled(self.rule)})"

    def columns(self) -> frozenset[str]:
        """Return the column of findings."""
        return frozenset({FINDING})

    def mask(self, table: Columns) -> Array:
        """Return the result for each row, [N] bool. Raises UsageError if the table has no findings."""
        if FINDING not in table:
            raise UsageError(f"'{self}': the findings are not known here")
        return np.array([self.rule in rules for rules in table[FINDING]], bool)


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that must be false."""

    part: Condition

    def __str__(self) -> str:
        """Return the canonical spelling."""
        return f"not {_inner(self.part)}"

    def columns(self) -> frozenset[str]:
        """Return the columns that it reads."""
        return self.part.columns()

    def mask(self, table: Columns) -> Array:
        """Return the inverted mask."""
        return ~self.part.mask(table)


@dataclass(frozen=True, slots=True)
class Joined:
    """Several conditions joined by one word: `and` if all must be true, `or` if one of them must be."""

    word: str  # "and" or "or"
    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        """Return the canonical spelling."""
        return f" {self.word} ".join(map(_inner, self.parts))

    def columns(self) -> frozenset[str]:
        """Return the columns that they read."""
        return frozenset().union(*(part.columns() for part in self.parts))

    def mask(self, table: Columns) -> Array:
        """Return the combined mask."""
        masks = [part.mask(table) for part in self.parts]
        join = np.logical_and if self.word == "and" else np.logical_or
        return np.asarray(join.reduce(masks))


def parse(text: str) -> Condition:
    """Parse a condition.

    >>> str(parse("length>=20 and split == 'train'"))
    'length >= 20 and split == "train"'
    >>> parse("length > 2").mask({"length": [1, 3]}).tolist()
    [False, True]
    >>> parse("not finding('idle')").mask({"finding": [["idle"], []]}).tolist()
    [False, True]
    """
    parser = _ConditionParser(text, WORDS)
    condition = parser.condition()
    if parser.next.kind != "end":
        raise parser.error("'and', 'or' or the end")
    return condition


def rules(condition: Condition) -> list[str]:
    """Return the ids of the rules whose findings a condition reads, sorted.

    >>> rules(parse("length > 2 and not (finding('idle') or finding('lag'))"))
    ['idle', 'lag']
    """
    match condition:
        case Found(rule):
            return [rule]
        case Not(part):
            return rules(part)
        case Joined(_, parts):
            return sorted({rule for part in parts for rule in rules(part)})
    return []


def _entries(cell: Any) -> Sequence[Any]:
    return cell if isinstance(cell, list) else () if cell is None else (cell,)


def _spelled(value: Value) -> str:
    if isinstance(value, str):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _inner(part: Condition) -> str:
    return f"({part})" if isinstance(part, Joined) else str(part)


class _ConditionParser(Parser):
    """The grammar of conditions."""

    depth = 0

    def error(self, wanted: str) -> UsageError:
        word = f"'{self.next.word}'" if self.next.word else "the end"
        return UsageError(f"filter: expected {wanted}, found {word}", f"  {self.text}", f"  {' ' * self.next.start}^")

    def condition(self) -> Condition:
        return self.joined("or", lambda: self.joined("and", self.one))

    def joined(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = self.listed(part, word)
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def one(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UsageError(f"filter: nested more than {DEEPEST} levels deep")
        condition = self.bare()
        self.depth -= 1
        return condition

    def bare(self) -> Condition:
        if self.take("not"):
            return Not(self.one())
        if self.take("("):
            inner = self.condition()
            self.expect(")")
            return inner
        if self.next.kind != "word" or self.next.word in KEYWORDS:
            raise self.error("a column")
        column = self.advance()
        if column == FINDING and self.take("("):
            if self.next.kind != "text":
                raise self.error("the id of a rule in quotes")
            rule = self.advance()[1:-1]
            self.expect(")")
            return Found(rule)
        if self.next.word not in COMPARE:
            raise self.error(f"one of {' '.join(COMPARE)}")
        op = self.advance()
        return Comparison(column, op, self.values() if op == "in" else self.value())

    def values(self) -> tuple[Value, ...]:
        self.expect("[")
        values = self.listed(self.value, ",")
        self.expect("]")
        return tuple(values)

    def value(self) -> Value:
        if self.next.kind == "text":
            return self.advance()[1:-1]
        if self.next.kind == "number":
            word = self.advance()
            return int(word) if word.lstrip("-").isdigit() else float(word)
        if self.next.word in {"true", "false"}:
            return self.advance() == "true"
        raise self.error("a number, a text in quotes, true or false")
