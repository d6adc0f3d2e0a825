"""`inspect`: what a source holds, told by its own files and by reading the numbers once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from pipelines.beam.progress import Progress, silent
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.errors import SourceError
from schemas.images import sniff
from schemas.source import Column, Field, Ragged, Unreadable

SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """What one field holds; of images, as their headers say."""

    dtype: str  # of numbers and images; otherwise the kind of field
    shape: tuple[int | None, ...]
    range: tuple[float, float] | None
    encoding: str | None
    samples: tuple[Any, ...]  # the first values, as JSON has them
    per_step: bool
    sizes: tuple[tuple[int, int, int], ...]  # height, width, channels of images
    ragged: int

    def to_json(self) -> dict[str, Any]:
        """Give `{"dtype", "shape", "range", "encoding", "samples", "per"}`, and what only some fields have."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "range": None if self.range is None else list(self.range),
            "encoding": self.encoding,
            "samples": list(self.samples),
            "per": "step" if self.per_step else "episode",
            **({"sizes": [list(size) for size in self.sizes]} if len(self.sizes) > 1 else {}),
            **({"ragged": self.ragged} if self.ragged else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a source holds."""

    format: str
    source: Mapping[str, Any]  # what the manifest of its conversion will say of it
    splits: Mapping[str, Mapping[str, int]]  # their episodes and steps
    episodes: int
    steps: int  # of the episodes that were read
    features: Mapping[str, FieldSummary]  # by path
    read: int  # episodes
    unreadable: dict[str, int]  # episodes by reason
    first_unreadable: str | None  # where and why
    declaration: bool  # it carries its own
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe inspect --json`."""
        features = {path: summary.to_json() for path, summary in self.features.items()}
        return {name: getattr(self, name) for name in self.__slots__} | {"features": features}


class FieldScan:
    """The range and first values of one field, over the episodes seen so far."""

    def __init__(self, field: Field) -> None:
        """Start empty."""
        self.field = field
        self.low: float | None = None
        self.high: float | None = None
        self.samples: list[Any] = []
        self.sizes: set[tuple[int, int, int]] = set()
        self.formats: set[str] = set()

    def add(self, column: Column) -> None:
        """Look at one episode's values."""
        values = column.values if isinstance(column, Ragged) else column
        if isinstance(values, np.ndarray):
            finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            if finite.size and values.dtype.kind != "c":
                low, high = finite.min().item(), finite.max().item()
                self.low = low if self.low is None else min(self.low, low)
                self.high = high if self.high is None else max(self.high, high)
            self._sample(values[:SAMPLES].tolist())
        elif self.field.kind == "image":
            for item in filter(len, values[:1]):
                header = sniff(item)
                self.sizes.add((header.height, header.width, header.channels))
                self.formats.add(header.format)
        else:
            self._sample(
                [_text(item) if self.field.kind == "text" else bytes(item[:16]).hex() for item in values[:SAMPLES]]
            )

    def _sample(self, values: list[Any]) -> None:
        for value in map(_plain, values):
            if value not in self.samples and len(self.samples) < SAMPLES:
                self.samples.append(value)

    def summary(self) -> FieldSummary:
        """Say what was seen."""
        field, sizes = self.field, tuple(sorted(self.sizes))
        return FieldSummary(
            dtype=field.dtype if field.kind in {"number", "image"} else field.kind,
            shape=sizes[0] if len(sizes) == 1 else tuple(field.shape),
            range=None if self.low is None or self.high is None else (self.low, self.high),
            encoding="/".join(sorted(self.formats)) or field.encoding,
            samples=tuple(self.samples),
            per_step=field.per_step,
            sizes=sizes,
            ragged=field.ragged,
        )


def _text(item: Any) -> str:
    return bytes(item).decode(errors="replace")


def inspect(uri: str, *, limit: int | None = None, progress: Progress = silent) -> Inspection:
    """Summarize a source: splits, counts, and every field's dtype, shape, range, encoding and first values.

    All episodes are read (at most `limit` with it); those that cannot be are counted under `unreadable`.
    """
    reader = open_source(uri)
    scans = {field.path: FieldScan(field) for field in reader.fields}
    declared = {name: sum(part.count for part in parts) for name, parts in reader.files().items()}
    steps = dict.fromkeys(declared, 0)
    unreadable: dict[str, int] = {}
    first_unreadable = None
    read = 0
    for ref in plan(reader.files(), limit=limit):
        for raw in reader.read(ref):
            try:
                if isinstance(raw, Unreadable):
                    raise raw.error()
                count = raw.n_steps()
                for path, column in raw.steps.items():
                    scans[path].add(column)
                for path, value in raw.metadata.items():
                    scans[path].add(_metadata_column(value, scans[path].field))
                steps[raw.split] += count
                read += 1
            except SourceError as error:
                unreadable[error.reason] = unreadable.get(error.reason, 0) + 1
                first_unreadable = first_unreadable or f"episode {raw.index}: {error}"
            progress(1, 0)
        progress(0, sum(part.size or 0 for part in ref.parts))
    return Inspection(
        format=reader.format,
        source=reader.description(),
        splits={name: {"episodes": count, "steps": steps[name]} for name, count in declared.items()},
        episodes=sum(declared.values()),
        steps=sum(steps.values()),
        features={path: scan.summary() for path, scan in scans.items()},
        read=read,
        unreadable=unreadable,
        first_unreadable=first_unreadable,
        declaration=reader.declaration() is not None,
        notes=tuple(reader.notes()),
    )


def _metadata_column(value: Any, field: Field) -> Column:
    """Take one per-episode value as a column of one, its lists as one vector."""
    flat = list(_flat(value))
    if field.kind == "number":
        return np.asarray([flat] if isinstance(value, list) else flat)
    return [item.encode() if isinstance(item, str) else item for item in flat]


def _flat(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            yield from _flat(item)
        elif item is not None:
            yield item


def _plain(value: Any) -> Any:
    """Give a value that JSON has; NaN, infinities and complex numbers as text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)) else str(value)
