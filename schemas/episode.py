"""`Episode`: one demonstration in the unified schema."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash

from schemas.declarations.success import OUTCOMES, Outcome
from schemas.errors import SourceError
from schemas.source import Array, Bytes, Column, Ragged
from schemas.spaces import Space

Frames = Sequence[Bytes | None]  # T encoded images; None where the source has no image
# The per-step fields of an Episode: those with one column, and those with several columns by name.
COLUMNS = ("action", "state", "timestamp", "instruction_index", "is_first", "is_last", "is_terminal", "reward")
NAMED_COLUMNS = ("images", "depth", "raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One demonstration: T steps of one embodiment that follows one or several instructions.

    Images have the encoding that they have in the source. `raw` has all other fields of the source by their paths.
    """

    id: str
    dataset: str
    embodiment: str
    instructions: tuple[str, ...]  # distinct, in order of appearance; empty if the source has none
    control_hz: float | None
    action: Array  # [T, A] float32
    action_space: Space
    state: Array | None = None  # [T, S] float32
    state_space: Space | None = None
    images: Mapping[str, Frames] = field(default_factory=dict)
    depth: Mapping[str, Frames] = field(default_factory=dict)
    timestamp: Array | None = None  # [T] float64, seconds
    raw: Mapping[str, Column] = field(default_factory=dict)
    index: int = 0  # position in the source, counted over all splits
    split: str = "train"
    outcome: Outcome = "unknown"
    instruction_index: Array | None = None  # [T] int32: the position in `instructions` of each step's instruction
    is_first: Array | None = None  # [T] bool
    is_last: Array | None = None  # [T] bool
    is_terminal: Array | None = None  # [T] bool; None: unknown
    reward: Array | None = None  # [T] float32
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise SourceError for vectors of the wrong shape, columns of unequal length and non-finite numbers."""
        if self.outcome not in OUTCOMES:
            raise SourceError(
                f"episode {self.id}: unknown outcome '{self.outcome}' (known: {', '.join(OUTCOMES)})",
                reason="bad_success",
            )
        self._check_vector("action", self.action, self.action_space)
        if self.state is not None and self.state_space is not None:
            self._check_vector("state", self.state, self.state_space)
        for name, column in self.columns().items():
            if len(column) != len(self.action):
                raise SourceError(
                    f"episode {self.id}: {name} has {len(column)} steps, action has {len(self.action)}",
                    reason="unequal_lengths",
                )

    def _check_vector(self, name: str, vector: Array, space: Space) -> None:
        if vector.ndim != 2 or vector.shape[1] != len(space) or vector.dtype != np.float32:
            raise SourceError(
                f"episode {self.id}: {name} must be [T, {len(space)}] float32, got {vector.dtype} {list(vector.shape)}",
                reason="wrong_shape",
            )
        if not np.isfinite(vector).all():
            step, dim = np.argwhere(~np.isfinite(vector))[0]
            raise SourceError(
                f"episode {self.id}: {name} is {vector[step, dim]} at step {step}, dimension '{space.dims[dim].name}'",
                reason=f"non_finite_{name}",
            )

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.action)

    @property
    def instruction(self) -> str | None:
        """The first instruction."""
        return self.instructions[0] if self.instructions else None

    def columns(self) -> dict[str, Column | Frames]:
        """Return everything with one value per step, by column name."""
        named: dict[str, Column | Frames | None] = {
            "action": self.action,
            "observation.state": self.state,
            "timestamp": self.timestamp,
            "instruction": self.instruction_index,
            "is_first": self.is_first,
            "is_last": self.is_last,
            "is_terminal": self.is_terminal,
            "reward": self.reward,
            **{f"observation.images.{leaf}": frames for leaf, frames in self.images.items()},
            **{f"observation.depth.{leaf}": frames for leaf, frames in self.depth.items()},
            **{f"raw.{path}": column for path, column in self.raw.items()},
        }
        return {name: column for name, column in named.items() if column is not None}

    def select(self, mask: Array, **changes: Any) -> "Episode":
        """Keep the steps where `mask` [T] is true; `changes` are fields to replace, which must have the new length."""
        values = {name: getattr(self, name) for name in (*COLUMNS, *NAMED_COLUMNS)}
        return replace(self, **{**selected(values, mask), **changes})

    def content_hash(self) -> str:
        """Hash every stored value (xxh3-128). The hash does not depend on where or how the episode is stored."""
        digest = xxhash.xxh3_128()
        header = [
            self.id,
            self.split,
            list(self.instructions),
            self.control_hz,
            self.outcome,
            {k: repr(v) for k, v in self.metadata.items()},
        ]
        digest.update(json.dumps(header).encode())
        for name, column in sorted(self.columns().items()):
            digest.update(f"\n{name} {len(column)}\n".encode())
            for chunk in _chunks(column):
                digest.update(chunk)
        return digest.hexdigest()


def selected(values: Mapping[str, Any], mask: Array) -> dict[str, Any]:
    """Return `values`, the fields of an episode by name, with only the steps where `mask` [T] is true."""
    if mask.all():
        return dict(values)
    rows = np.flatnonzero(mask)
    columns = {name: values[name][rows] for name in COLUMNS if values.get(name) is not None}
    named = {name: {key: take(column, rows) for key, column in values[name].items()} for name in NAMED_COLUMNS}
    return {**values, **columns, **named}


def take(column: Column, rows: Array) -> Column:
    """Select the steps `rows` of a column."""
    if isinstance(column, Ragged):
        return _take_ragged(column, rows)
    return column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows]


def _take_ragged(column: Ragged, rows: Array) -> Ragged:
    outer, *inner = column.lengths
    ends = np.cumsum(outer)
    taken = [np.arange(ends[i] - outer[i], ends[i]) for i in rows]
    items = np.concatenate([np.zeros(0, np.int64), *taken]).astype(np.int64)
    if inner:
        below = _take_ragged(Ragged(column.values, tuple(inner)), items)
        return Ragged(below.values, (outer[rows], *below.lengths))
    values = column.values[items] if isinstance(column.values, np.ndarray) else [column.values[i] for i in items]
    return Ragged(values, (outer[rows],))


def _chunks(column: Column | Frames) -> "list[Any]":
    """Return the bytes that are hashed for a column; columns with different values have different bytes."""
    if isinstance(column, Ragged):
        return [part for lengths in column.lengths for part in _chunks(lengths.astype(np.int64))] + _chunks(
            column.values
        )
    if isinstance(column, np.ndarray):
        return [f"{column.dtype.str}{column.shape}".encode(), np.ascontiguousarray(column).view(np.uint8).data]
    sizes = np.array([-1 if item is None else len(item) for item in column], np.int64)
    return [sizes.data, *(item for item in column if item is not None)]
