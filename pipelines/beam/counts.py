"""The function that counts one part, its results and its failure; used by the plain loop and by Beam."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

from schemas.errors import OxeError

FAILED = "failed"


class Mergeable(Protocol):
    """An aggregate that can be merged with another one."""

    def merge(self, other: Self) -> Self:
        """Return the aggregate of both."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that workers send back."""
        ...


class CountFunction(Protocol):
    """A picklable function that counts one part."""

    def __call__(self, part: Any) -> Iterable[tuple[str, Mergeable]]:
        """Count one part; each result comes with the key under which it is merged."""
        ...


class Failure:
    """An OxeError as a value; the alphabetically first message wins, so that all engines report the same."""

    def __init__(self, message: str) -> None:
        """Store the message."""
        self.message = message

    def merge(self, other: "Failure") -> "Failure":
        """Return the alphabetically first."""
        return min(self, other, key=lambda failure: failure.message)

    def to_json(self) -> dict[str, Any]:
        """Return the message."""
        return {"message": self.message}


def count_part(count: CountFunction, part: Any) -> Iterator[tuple[str, Mergeable]]:
    """Count one part; an OxeError becomes one more result."""
    try:
        yield from count(part)
    except OxeError as error:
        yield FAILED, Failure(str(error))
