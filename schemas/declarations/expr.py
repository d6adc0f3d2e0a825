"""The expression language of declarations, parsed and never evaluated as Python.

    expression := path [slice] { "|" op }        observation.state[3:6] | deg2rad | permute(2, 1, 0)
    op         := name [ "(" argument { "," argument } ")" ]
    argument   := number | number "/" number | path [slice]
    slice      := "[" [i] ":" [j] "]" | "[" i "]"       of the last axis, with Python's meaning

Paths are dotted; keys may hold "/". Everything a text can get wrong is a SpecError at load time, except a path that the
source does not have, which `Binding` finds before the first episode is read.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.declarations.ops import ROW, Steps
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS
from schemas.errors import SpecError, did_you_mean
from schemas.source import Array

TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<path>[A-Za-z_][\w./]*)|(?P<sign>[|()\[\],:/]))"
)


@dataclass(frozen=True, slots=True)
class Path:
    """A column and the part of its last axis that is meant."""

    path: str
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        """Give the text."""
        bounds = ["" if bound is None else str(bound) for bound in (self.start, self.stop)]
        return f"{self.path}[{':'.join(bounds)}]" if any(bounds) else self.path

    def read(self, steps: Mapping[str, Any]) -> Array:
        """Take the column as [T, k] float32, its further axes flattened; a path that is not there is a SpecError."""
        column = steps.get(self.path)
        if column is None:
            known = [path for path in steps if path != ROW]
            raise SpecError(f"unknown key '{self.path}'{did_you_mean(self.path, known)}")
        if not isinstance(column, np.ndarray) or column.dtype.kind not in "fiub":
            raise SpecError(f"'{self.path}' is not a vector of numbers per step")
        values = column.astype(np.float32, copy=False)
        if values.ndim != 2:
            values = values.reshape(len(values), math.prod(values.shape[1:]))
        return values[:, self.start : self.stop]


@dataclass(frozen=True, slots=True)
class Call:
    """One op with its arguments."""

    op: str
    args: tuple[float | Path, ...] = ()

    def __str__(self) -> str:
        """Give the text.

        >>> str(parse_step_op("drop_first( 1 )"))
        'drop_first(1)'
        """
        words = [str(arg) if isinstance(arg, Path) else repr(arg).removesuffix(".0") for arg in self.args]
        return f"{self.op}({', '.join(words)})" if words else self.op

    def values(self, steps: Steps) -> list[float | Array]:
        """Read the arguments that are paths."""
        return [arg.read(steps) if isinstance(arg, Path) else arg for arg in self.args]

    def paths(self) -> frozenset[str]:
        """Name the columns that the arguments read."""
        return frozenset(arg.path for arg in self.args if isinstance(arg, Path))


@dataclass(frozen=True, slots=True)
class Expr:
    """A parsed expression; `str()` gives its text back."""

    text: str
    source: Path
    ops: tuple[Call, ...]

    def __str__(self) -> str:
        """Give the text."""
        return self.text

    def paths(self) -> frozenset[str]:
        """Name the columns that it reads."""
        return frozenset({self.source.path}).union(*(op.paths() for op in self.ops))

    def __call__(self, steps: Mapping[str, Any]) -> Array:
        """Compute [T, k] float32; an op that does not fit the columns it gets is a SpecError."""
        values = self.source.read(steps)
        for op in self.ops:
            try:
                values = ARRAY_OPS[op.op](values, *op.values(steps))
            except (IndexError, ValueError) as error:
                raise SpecError(f"'{self}': {op.op} of {values.shape[1]} columns: {error}") from error
        return values.astype(np.float32, copy=False)


def parse(text: str) -> Expr:
    """Parse an expression.

    >>> parse("action[-1:] | clip(0, 1) | invert").paths()
    frozenset({'action'})
    """
    tokens = _Tokens(text)
    source = tokens.path()
    ops = []
    while tokens.take("|"):
        ops.append(tokens.call(ARRAY_OPS))
    tokens.end()
    return Expr(text, source, tuple(ops))


def parse_step_op(text: str) -> Call:
    """Parse one step op.

    >>> parse_step_op("drop_first(1)")
    Call(op='drop_first', args=(1.0,))
    """
    tokens = _Tokens(text)
    call = tokens.call(STEP_OPS)
    tokens.end()
    return call


class _Tokens:
    """The text, cut into words, and a place in it."""

    def __init__(self, text: str) -> None:
        self.text, self.words, position, end = text, list[tuple[str, str]](), 0, len(text.rstrip())
        while position < end:
            match = TOKEN.match(text, position)
            if not match:
                raise SpecError(f"'{text}': cannot read '{text[position:].strip()}'")
            self.words.append((str(match.lastgroup), match[match.lastgroup or 0]))
            position = match.end()
        self.next = 0

    def peek(self) -> tuple[str, str]:
        return self.words[self.next] if self.next < len(self.words) else ("end", "")

    def take(self, word: str) -> bool:
        found = self.peek()[1] == word
        self.next += found
        return found

    def word(self, kind: str) -> str:
        found, word = self.peek()
        if found != kind:
            raise SpecError(f"'{self.text}': expected a {kind}, found '{word or 'the end'}'")
        self.next += 1
        return word

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise SpecError(f"'{self.text}': expected '{word}', found '{self.peek()[1] or 'the end'}'")

    def end(self) -> None:
        if self.peek()[0] != "end":
            raise SpecError(f"'{self.text}': cannot read '{self.peek()[1]}' here")

    def path(self) -> Path:
        path = self.word("path")
        return Path(path, *self.slice()) if self.take("[") else Path(path)

    def slice(self) -> tuple[int | None, int | None]:
        start = self.index()
        if start is not None and self.take("]"):
            return start, start + 1 or None
        self.expect(":")
        stop = self.index()
        self.expect("]")
        return start, stop

    def index(self) -> int | None:
        if self.peek()[0] != "number":
            return None
        word = self.word("number")
        if not word.lstrip("-").isdigit() or len(word) > 18:
            raise SpecError(f"'{self.text}': '{word}' is not a whole number, or too large")
        return int(word)

    def call(self, known: Mapping[str, Callable[..., Any]]) -> Call:
        name = self.word("path")
        if name not in known:
            raise SpecError(f"unknown op '{name}'{did_you_mean(name, known)}")
        args: list[float | Path] = []
        if self.take("(") and not self.take(")"):
            args.append(self.argument())
            while self.take(","):
                args.append(self.argument())
            self.expect(")")
        _check_arguments(name, known[name], args)
        return Call(name, tuple(args))

    def argument(self) -> float | Path:
        if self.peek()[0] == "path":
            return self.path()
        value = float(self.word("number"))
        divisor = float(self.word("number")) if self.take("/") else 1.0
        if not divisor:
            raise SpecError(f"'{self.text}': division by zero")
        if not math.isfinite(value / divisor):
            raise SpecError(f"'{self.text}': a number that is too large")
        return value / divisor


def _check_arguments(name: str, function: Callable[..., Any], args: list[float | Path]) -> None:
    signature = inspect.signature(function)
    first, *rest = signature.parameters.values()
    words = [str(p).split(":")[0] if p.default is p.empty else f"[{p.name}]" for p in rest]
    usage = f"{name}({', '.join(words)})"
    try:
        bound = signature.bind(first.name, *args)
    except TypeError:
        raise SpecError(f"op '{name}' is used as {usage}, got {len(args)} arguments") from None
    for parameter in rest:
        values = bound.arguments.get(parameter.name, ())
        for value in values if isinstance(values, tuple) else (values,):
            if not _fits(value, parameter.annotation):
                wanted = {Array: "a path", float: "a number", int: "a whole number from 0"}[parameter.annotation]
                raise SpecError(f"op '{name}' is used as {usage}: {parameter.name} is {wanted}")


def _fits(value: float | Path, annotation: object) -> bool:
    if isinstance(value, Path) or annotation == Array:
        return isinstance(value, Path) and annotation == Array
    return annotation is float or (value >= 0 and value.is_integer())
