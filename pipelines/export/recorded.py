"""Write vectors with joints in the unit `travel` as they were recorded, so that the arm understands an export.

A dataset stores a share of a joint's travel as -1 to 1, and LeRobot's software expects -100 to 100. The exported
declaration has the ops that lead from the recorded numbers to the stored ones, so reading it back gives the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas.declarations import expr
from schemas.episode import Episode
from schemas.source import Array
from schemas.store.dataset import Dataset

INVERSES: Mapping[str, Callable[..., Array]] = {  # ops that convert each number by itself
    "scale": lambda x, *factors: x / np.array(factors, np.float32),
    "shift": lambda x, offset: x - np.float32(offset),
    "deg2rad": lambda x: x / np.float32(np.pi / 180),
    "invert": lambda x: 1 - x,
    "clip": lambda x, *_: x,
    "wrap_pi": lambda x: x,
}
NEIGHBOURS = 12  # quarters of the last digit by which a number is varied until it converts to the stored one


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPart:
    """One part of an exported vector: its columns, how it was read from the source, and the ops after that."""

    columns: slice  # columns of the stored vector
    source: expr.Expr  # reads the recorded numbers
    ops: str  # from the recorded to the stored numbers, such as `scale(1/100)`; empty: none
    is_raw: bool  # whether the dataset keeps the recorded numbers

    def values(self, episode: Episode, stored: Array, prefix: str) -> Array:
        """Return the recorded numbers [T, k]."""
        if not self.ops:
            return stored[:, self.columns]
        if self.is_raw:
            return self.source({self.source.source.path: episode.raw[self.source.source.path.removeprefix(prefix)]})
        return inverse(stored[:, self.columns], self.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedVector:
    """A state or an action that an export writes as it was recorded."""

    which: Literal["state", "action"]
    parts: Mapping[str, RecordedPart]
    prefix: str  # the prefix of the fields that the dataset keeps as `raw.*`

    def expressions(self, path: str) -> dict[str, str]:
        """Return the expressions that read the exported vector at `path`."""
        texts = {}
        for name, part in self.parts.items():
            text = f"{path}[{part.columns.start}:{part.columns.stop}]"
            texts[name] = f"{text} | {part.ops}" if part.ops else text
        return texts

    def values(self, episode: Episode) -> Array:
        """Return the exported vector [T, k]."""
        stored = np.asarray(episode.action if self.which == "action" else episode.state)
        return np.concatenate([part.values(episode, stored, self.prefix) for part in self.parts.values()], axis=1)


def recorded_vector(
    dataset: Dataset, which: Literal["state", "action"], *, view: str | None = None
) -> RecordedVector | None:
    """Return how to write a vector as it was recorded; None if it is written as it is stored.

    That is so unless it has the unit `travel`, and if a view has other parts than the stored vector.
    """
    spec, columns = dataset.spec, dataset.columns
    space = spec.embodiment.action if which == "action" else spec.embodiment.state
    if space is None or not any(part.unit == "travel" for part in space.parts.values()):
        return None
    shown = dataset.action_space(view) if which == "action" else dataset.state_space(view)
    if shown is None or shown.digest() != space.space(which).digest():
        return None
    expressions = spec.state_parts if which == "state" or spec.derived == "next_state" else spec.action_parts
    if not expressions:
        return None
    prefix = f"{spec.raw}." if spec.raw else ""
    kept = {field.path for field in columns.raw}
    is_stored = not (view or spec.derived) if which == "action" else not (view and dataset.view(view).has_state)
    parts = {
        name: _part(expression, columns=span, is_raw=is_stored and expression.source.path.removeprefix(prefix) in kept)
        for (name, span), expression in zip(space.columns().items(), expressions, strict=True)
    }
    return RecordedVector(which=which, parts=parts, prefix=prefix)


def _part(expression: expr.Expr, *, columns: slice, is_raw: bool) -> RecordedPart:
    """Divide an expression into what selects the recorded numbers and the ops that convert each of them."""
    first = next((i for i, op in enumerate(expression.ops) if op.op != "permute"), len(expression.ops))
    ops: Sequence[expr.Call] = expression.ops[first:]
    is_plain = all(op.op in INVERSES and not op.paths() for op in ops)
    source = expr.Expr(str(expression.source), expression.source, expression.ops[:first])
    return RecordedPart(
        columns=columns, source=source, ops=" | ".join(map(str, ops)) if is_plain else "", is_raw=is_raw
    )


def inverse(stored: Array, ops: str) -> Array:
    """Return the numbers that ops convert to the stored ones, bit for bit where there are such numbers."""
    convert, ulp = expr.parse(f"v | {ops}"), np.spacing(stored).astype(np.float64)

    def before(values: Array) -> Array:
        for op in reversed(convert.ops):
            values = INVERSES[op.op](values, *op.values({}))
        return values.astype(np.float32)

    best = before(stored.astype(np.float64))
    for quarters in range(1, NEIGHBOURS + 1):
        for moved in (stored + quarters / 4 * ulp, stored - quarters / 4 * ulp):
            near = before(moved)
            is_better = (convert({"v": best}) != stored) & (convert({"v": near}) == stored)
            best = np.where(is_better, near, best)
    return best
