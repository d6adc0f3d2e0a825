"""`MeasureTable`: what was measured of each episode of a dataset, as one array per measure."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from schemas.source import Array


@dataclass(slots=True)
class MeasureTable:
    """Measures of E episodes. Workers each send a table of their episodes; merged, they are sorted by `episode`."""

    chunks: list[Mapping[str, Array]] = field(default_factory=list)  # each has `episode` and the same other names

    def merge(self, other: Self) -> Self:
        """Return a table with the episodes of both."""
        self.chunks += other.chunks
        return self

    def columns(self) -> dict[str, Array]:
        """Return the measures, [E, ...] each, sorted by `episode` (int64, [E]); empty if there are no episodes."""
        if not self.chunks:
            return {}
        joined = {name: np.concatenate([chunk[name] for chunk in self.chunks]) for name in self.chunks[0]}
        order = np.argsort(joined["episode"], kind="stable")
        return {name: values[order] for name, values in joined.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the measures as base64."""
        return {
            name: {
                "dtype": values.dtype.str,
                "shape": values.shape,
                "data": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode(),
            }
            for name, values in self.columns().items()
        }


def columns_of(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    """Read the result of `MeasureTable.to_json`."""
    return {
        name: np.frombuffer(base64.b64decode(column["data"]), np.dtype(column["dtype"])).reshape(column["shape"])
        for name, column in data.items()
    }


def select(columns: Mapping[str, Array], rows: Sequence[int] | Array) -> dict[str, Array]:
    """Return some rows of the measures."""
    return {name: values[rows] for name, values in columns.items()}
