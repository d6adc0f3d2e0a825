"""The expression language of declarations, parsed and never evaluated as Python.

    expression := path [slice] { "|" op }        observation.state[3:6] | deg2rad | permute(2, 1, 0)
    op         := name [ "(" argument { "," argument } ")" ]
    argument   := number | number "/" number | path [slice]
    slice      := "[" [i] ":" [j] "]" | "[" i "]"       of the last axis, with Python's meaning

The keys of a path are joined by dots; a key may contain "/". An invalid expression raises SpecError when the
declaration is loaded. A path that is not in the source raises SpecError before the first episode is read, when the
declaration is compared with the source.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.declarations.ops import ROW, VIEW_STATE, Steps
from schemas.declarations.parser import Parser
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS
from schemas.errors import SpecError, did_you_mean
from schemas.source import Array

WORDS = r"(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<path>[A-Za-z_][\w./]*)|(?P<sign>[|()\[\],:/])"


@dataclass(frozen=True, slots=True)
class Path:
    """A column, or a slice of its last axis."""

    path: str
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        """Return the text."""
        bounds = ["" if bound is None else str(bound) for bound in (self.start, self.stop)]
        return f"{self.path}[{':'.join(bounds)}]" if any(bounds) else self.path

    def read(self, steps: Mapping[str, Any]) -> Array:
        """Return the column as [T, k] float32, its inner axes flattened. Raises SpecError if it does not exist."""
        column = steps.get(self.path)
        if column is None:
            known = [path for path in steps if path not in {ROW, VIEW_STATE}]
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
        """Return the text.

        >>> str(parse_step_op("drop_first( 1 )"))
        'drop_first(1)'
        """
        words = [str(arg) if isinstance(arg, Path) else repr(arg).removesuffix(".0") for arg in self.args]
        return f"{self.op}({', '.join(words)})" if words else self.op

    def values(self, steps: Steps) -> list[float | Array]:
        """Return the arguments, with each path replaced by its column."""
        return [arg.read(steps) if isinstance(arg, Path) else arg for arg in self.args]

    def paths(self) -> frozenset[str]:
        """Return the columns that the arguments read."""
        return frozenset(arg.path for arg in self.args if isinstance(arg, Path))


@dataclass(frozen=True, slots=True)
class Expr:
    """A parsed expression; `str()` returns its text."""

    text: str
    source: Path
    ops: tuple[Call, ...]

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def paths(self) -> frozenset[str]:
        """Return the columns that the expression reads."""
        return frozenset({self.source.path}).union(*(op.paths() for op in self.ops))

    def __call__(self, steps: Mapping[str, Any]) -> Array:
        """Evaluate the expression to [T, k] float32. Raises SpecError if an op does not fit its columns."""
        values = self.source.read(steps)
        for op in self.ops:
            try:
                values = ARRAY_OPS[op.op](values, *op.values(steps))
            except (IndexError, ValueError) as error:
                raise SpecError(f"'{self}': {op.op} fails on {values.shape[1]} columns: {error}") from error
        return values.astype(np.float32, copy=False)


def parse(text: str) -> Expr:
    """Parse an expression.

    >>> parse("action[-1:] | clip(0, 1) | invert").paths()
    frozenset({'action'})
    """
    parser = _ExpressionParser(text)
    source = parser.path()
    ops = parser.listed(lambda: parser.call(ARRAY_OPS), "|") if parser.take("|") else []
    parser.end()
    return Expr(text, source, tuple(ops))


def parse_step_op(text: str) -> Call:
    """Parse one step op.

    >>> parse_step_op("drop_first(1)")
    Call(op='drop_first', args=(1.0,))
    """
    parser = _ExpressionParser(text)
    call = parser.call(STEP_OPS)
    parser.end()
    return call


class _ExpressionParser(Parser):
    """The grammar of expressions and step ops."""

    def __init__(self, text: str) -> None:
        super().__init__(text, WORDS)
        for token in self.tokens:
            if token.kind == "unknown":
                raise SpecError(f"'{text}': cannot read '{text[token.start :].strip()}'")

    def error(self, wanted: str) -> SpecError:
        return SpecError(f"'{self.text}': expected {wanted}, found '{self.next.word or 'the end'}'")

    def word(self, kind: str) -> str:
        if self.next.kind != kind:
            raise self.error(f"a {kind}")
        return self.advance()

    def end(self) -> None:
        if self.next.kind != "end":
            raise SpecError(f"'{self.text}': cannot read '{self.next.word}' here")

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
        if self.next.kind != "number":
            return None
        word = self.advance()
        if not word.lstrip("-").isdigit() or len(word) > 18:
            raise SpecError(f"'{self.text}': '{word}' is not a whole number or is too large")
        return int(word)

    def call(self, known: Mapping[str, Callable[..., Any]]) -> Call:
        name = self.word("path")
        if name not in known:
            raise SpecError(f"unknown op '{name}'{did_you_mean(name, known)}")
        args: list[float | Path] = []
        if self.take("(") and not self.take(")"):
            args = self.listed(self.argument, ",")
            self.expect(")")
        _check_arguments(name, known[name], args)
        return Call(name, tuple(args))

    def argument(self) -> float | Path:
        if self.next.kind == "path":
            return self.path()
        value = float(self.word("number"))
        divisor = float(self.word("number")) if self.take("/") else 1.0
        if not divisor:
            raise SpecError(f"'{self.text}': division by zero")
        if not math.isfinite(value / divisor):
            raise SpecError(f"'{self.text}': a number is too large")
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
                raise SpecError(f"op '{name}' is used as {usage}: {parameter.name} must be {wanted}")


def _fits(value: float | Path, annotation: object) -> bool:
    if isinstance(value, Path) or annotation == Array:
        return isinstance(value, Path) and annotation == Array
    return annotation is float or (value >= 0 and value.is_integer())
