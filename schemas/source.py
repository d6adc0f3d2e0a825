"""The types that every reader returns: fields, raw episodes, and unreadable episodes.

Paths are dotted, relative to one step (`observation.state`) or, for per-episode fields, to the episode
(`episode_metadata.file_path`). A declaration's expressions use the same paths.
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
    dtype: str = "object"  # numpy's name, for numbers
    shape: tuple[int | None, ...] = ()  # shape of one value; [H, W, C] for images
    ragged: int = 0  # number of sequence levels between a step and a value
    encoding: str | None = None  # encoding in the source: jpeg, png, zlib, ...
    per_step: bool = True
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Nested sequences of unequal length, one outer sequence per step.

    `lengths[0]` has T entries; `lengths[k + 1]` has `lengths[k].sum()`; `values` has `lengths[-1].sum()`.
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

    index: int  # ordinal in the source over all splits
    split: str
    steps: Mapping[str, Column]  # path -> T values
    metadata: Mapping[str, Any] = field(default_factory=dict)  # path -> value
    file: str = ""
    offset: int | None = None  # start of the episode's record in bytes

    def n_steps(self) -> int:
        """Return the number of steps. Raises SourceError if the columns have unequal lengths."""
        lengths = {path: len(column) for path, column in self.steps.items()}
        if len(set(lengths.values())) > 1:
            message = f"columns of unequal length: {_by_length(lengths)}"
            raise SourceError(message, reason="unequal_lengths", file=self.file, offset=self.offset)
        return next(iter(lengths.values()), 0)


def _by_length(lengths: Mapping[str, int], shown: int = 5) -> str:
    """List the lengths, longest first, each with one of its columns and the number of others."""
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

    index: int | None  # None: a record past those that the source declares
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
        """Read `to_json` back."""
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
