"""The types that every reader returns: fields, raw episodes, and unreadable episodes.

The path of a field has its keys joined by dots. It starts at the step (`observation.state`) or, for per-episode fields,
at the episode (`episode_metadata.file_path`). The expressions of a declaration use the same paths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from schemas.errors import SourceError

Array: TypeAlias = NDArray[Any]
Bytes: TypeAlias = bytes | memoryview
FieldKind: TypeAlias = Literal["number", "text", "bytes", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a source: its path and the type of one value."""

    path: str
    kind: FieldKind
    dtype: str = "object"  # numpy's name of the type, if the values are numbers
    shape: tuple[int | None, ...] = ()  # shape of one value; [H, W, C] for images
    ragged: int = 0  # number of sequence levels between a step and a value
    encoding: str | None = None  # encoding in the source: jpeg, png, zlib, ...
    per_step: bool = True
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Nested sequences of unequal length, one outer sequence per step.

    `lengths[0]` has T entries, `lengths[k + 1]` has `lengths[k].sum()` entries, and `values` has `lengths[-1].sum()`.
    """

    values: Array | list[Bytes]
    lengths: tuple[Array, ...]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.lengths[0])


Column: TypeAlias = Array | Ragged | Sequence[Bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEpisode:
    """One episode exactly as its source stores it."""

    index: int  # position in the source, counted over all splits
    split: str
    steps: Mapping[str, Column]  # path -> T values
    metadata: Mapping[str, Any] = field(default_factory=dict)  # path -> value
    file: str = ""
    offset: int | None = None  # byte position of the start of the episode's record

    def n_steps(self) -> int:
        """Return the number of steps. Raises SourceError if the columns have unequal lengths."""
        lengths = {path: len(column) for path, column in self.steps.items()}
        if len(set(lengths.values())) > 1:
            message = f"columns of unequal length: {_by_length(lengths)}"
            raise SourceError(message, reason="unequal_lengths", file=self.file, offset=self.offset)
        return next(iter(lengths.values()), 0)


def _by_length(lengths: Mapping[str, int], shown: int = 5) -> str:
    """List the lengths, longest first, each with one of the columns that have it and the number of the others."""
    named: dict[int, list[str]] = {}
    for path in sorted(lengths, key=lambda path: -lengths[path]):
        named.setdefault(lengths[path], []).append(path)
    groups = [
        f"{first} and {len(more)} more have {length} steps" if more else f"{first} has {length} steps"
        for length, (first, *more) in named.items()
    ]
    return ", ".join([*groups[:shown], *(["..."] if len(groups) > shown else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """One unreadable episode, with the reason that the manifest counts it under."""

    index: int | None  # None: it is not among the episodes that the source declares
    split: str
    file: str
    reason: str
    detail: str
    offset: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Unreadable":
        """Read the result of `to_json`."""
        return cls(**data)

    @classmethod
    def of(cls, error: SourceError, *, index: int | None, split: str, file: str = "") -> "Unreadable":
        """Build it from an error."""
        return cls(
            index=index,
            split=split,
            file=error.file or file,
            reason=error.reason,
            detail=error.message,
            offset=error.offset,
        )

    def error(self) -> SourceError:
        """Return the error it was built from."""
        return SourceError(self.detail, reason=self.reason, file=self.file, offset=self.offset)
