"""`oxe inspect`: summarize the contents of a source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from pipelines.beam.progress import Progress, silent
from pipelines.readers.boundary import source_errors
from pipelines.readers.coverage import Coverage
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.errors import SourceError
from schemas.images import sniff
from schemas.limits import MAX_PIXELS
from schemas.source import Column, Field, Ragged, Unreadable

SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """Summary of one field; images are described by their headers."""

    dtype: str  # dtype of numbers and images, otherwise the kind of field
    shape: tuple[int | None, ...]
    range: tuple[float, float] | None
    encoding: str | None
    samples: tuple[Any, ...]  # the first distinct values, as JSON
    per_step: bool
    sizes: tuple[tuple[int, int, int], ...]  # height, width, channels of images
    ragged: int
    depths: tuple[str, ...] = ()  # bit depths of images other than 8 bit, such as "16 bit" or "palette of 4 bit"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON.

        `per` is "step" or "episode". `sizes` is included only if the images differ in size, `depths` only if they do
        not have 8 bits per channel, and `ragged` only if the field is ragged.
        """
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "range": None if self.range is None else list(self.range),
            "encoding": self.encoding,
            "samples": list(self.samples),
            "per": "step" if self.per_step else "episode",
            **({"sizes": [list(size) for size in self.sizes]} if len(self.sizes) > 1 else {}),
            **({"depths": list(self.depths)} if self.depths else {}),
            **({"ragged": self.ragged} if self.ragged else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The summary of a source."""

    format: str
    source: Mapping[str, Any]  # the reader's description, which a conversion writes to the manifest
    splits: Mapping[str, Mapping[str, int]]  # split -> numbers of episodes and steps
    episodes: int  # episodes in the source; if not all files were counted, there are at least so many
    files: int  # files with episodes
    files_counted: int  # files whose number of episodes is known
    steps: int  # steps in the episodes that were read
    total_steps: int | None  # steps in the source; None if only reading all episodes would give it
    features: Mapping[str, FieldSummary]  # path -> summary
    read: int  # episodes that were read
    unreadable: dict[str, int]  # reason -> episodes
    first_unreadable: str | None  # the first unreadable episode and the reason
    declaration: bool  # whether the source contains its own declaration
    coverage: Coverage
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object printed by `oxe inspect --json`."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "coverage"}
        values["features"] = {path: summary.to_json() for path, summary in self.features.items()}
        return values | self.coverage.to_json()


class FieldScan:
    """The range and first values of one field, over the episodes added so far."""

    def __init__(self, field: Field) -> None:
        """Start without episodes."""
        self.field = field
        self.low: float | None = None
        self.high: float | None = None
        self.samples: list[Any] = []
        self.sizes: set[tuple[int, int, int]] = set()
        self.formats: set[str] = set()
        self.dtypes: set[str] = set()
        self.depths: set[str] = set()

    def add(self, column: Column) -> None:
        """Add one episode's values."""
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
                header = sniff(item, MAX_PIXELS)
                self.sizes.add((header.height, header.width, header.channels))
                self.formats.add(header.format)
                self.dtypes.add(header.dtype)
                self.depths.add(f"palette of {header.bits} bit" if header.is_palette else f"{header.bits} bit")
        else:
            self._sample(
                [_text(item) if self.field.kind == "text" else bytes(item[:16]).hex() for item in values[:SAMPLES]]
            )

    def _sample(self, values: list[Any]) -> None:
        for value in map(_plain, values):
            if value not in self.samples and len(self.samples) < SAMPLES:
                self.samples.append(value)

    def summary(self) -> FieldSummary:
        """Return the summary of all added episodes."""
        field, sizes = self.field, tuple(sorted(self.sizes))
        return FieldSummary(
            dtype="/".join(sorted(self.dtypes)) or (field.dtype if field.kind in {"number", "image"} else field.kind),
            shape=sizes[0] if len(sizes) == 1 else tuple(field.shape),
            range=None if self.low is None or self.high is None else (self.low, self.high),
            encoding="/".join(sorted(self.formats)) or field.encoding,
            samples=tuple(self.samples),
            per_step=field.per_step,
            sizes=sizes,
            ragged=field.ragged,
            depths=() if self.depths <= {"8 bit"} else tuple(sorted(self.depths)),
        )


def _text(item: Any) -> str:
    return bytes(item).decode(errors="replace")


def inspect(
    uri: str, *, limit: int | None = None, follow_links: bool = False, progress: Progress = silent
) -> Inspection:
    """Summarize a source: splits, counts, and every field's dtype, shape, range, encoding and first values.

    Reads at most `limit` episodes, or all if it is None. Unreadable episodes are counted by reason. The numbers of
    episodes and files are those of the whole source, whatever the limit. With `follow_links`, links that leave the
    source are followed.
    """
    reader = open_source(uri, follow_links=follow_links)
    scans = {field.path: FieldScan(field) for field in reader.fields}
    episodes = {name: sum(part.count for part in parts) for name, parts in reader.files().items()}
    counted = {part.name: part.is_counted for parts in reader.files().values() for part in parts}
    steps = dict.fromkeys(episodes, 0)
    unreadable: dict[str, int] = {}
    first_unreadable = None
    read = 0
    for ref in plan(reader.files(), limit=limit):
        for raw in reader.read(ref):
            try:
                if isinstance(raw, Unreadable):
                    raise raw.error()
                with source_errors(raw.file):
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
    is_whole = read == sum(episodes.values()) and not unreadable and all(counted.values())
    return Inspection(
        format=reader.format,
        source=reader.description(),
        splits={name: {"episodes": count, "steps": steps[name]} for name, count in episodes.items()},
        episodes=sum(episodes.values()),
        files=len(counted),
        files_counted=sum(counted.values()),
        steps=sum(steps.values()),
        total_steps=sum(steps.values()) if is_whole else reader.total_steps(),
        features={path: scan.summary() for path, scan in scans.items()},
        read=read,
        unreadable=unreadable,
        first_unreadable=first_unreadable,
        declaration=reader.declaration() is not None,
        coverage=Coverage.of(reader),
        notes=tuple(reader.notes()),
    )


def _metadata_column(value: Any, field: Field) -> Column:
    """Convert one per-episode value to a column; nested lists are flattened."""
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
    """Return a value that JSON can represent; NaN, infinities and complex numbers become text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)) else str(value)
