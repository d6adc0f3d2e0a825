"""What the plain loop and Beam have in common: how one part is counted, and how a failure is returned."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

from schemas.errors import OxeError

FAILED = "failed"


class Mergeable(Protocol):
    """An aggregate that can be merged with another one."""

    def merge(self, other: Self) -> Self:
        """Return the aggregate of both together."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that workers send back."""
        ...


class CountFunction(Protocol):
    """A picklable function that counts one part."""

    def __call__(self, part: Any) -> Iterable[tuple[str, Mergeable]]:
        """Count one part and return pairs of a key and a result; results with the same key are merged."""
        ...


class Failure:
    """An OxeError as a value. Of several, the alphabetically first message is kept, so all engines report the same."""

    def __init__(self, message: str) -> None:
        """Store the message."""
        self.message = message

    def merge(self, other: "Failure") -> "Failure":
        """Return the failure whose message is alphabetically first."""
        return min(self, other, key=lambda failure: failure.message)

    def to_json(self) -> dict[str, Any]:
        """Return the message."""
        return {"message": self.message}


def count_part(count: CountFunction, part: Any) -> Iterator[tuple[str, Mergeable]]:
    """Count one part; if an OxeError is raised, it is yielded as a Failure."""
    try:
        yield from count(part)
    except OxeError as error:
        yield FAILED, Failure(str(error))
