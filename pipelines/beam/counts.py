"""What is counted part by part, and how its failures travel: the words that the plain loop and the Beam graph share."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

from schemas.errors import OxeError

FAILED = "failed"


class Mergeable(Protocol):
    """An aggregate."""

    def merge(self, other: Self) -> Self:
        """Join two."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Give the form that travels."""
        ...


class Work(Protocol):
    """What is done with one part; picklable."""

    def __call__(self, part: Any) -> Iterable[tuple[str, Mergeable]]:
        """Count; each result has the key under which it is merged."""
        ...


class Failure:
    """An error of ours, as a value; of several the alphabetically first wins, so that all engines say the same."""

    def __init__(self, message: str) -> None:
        """Keep the message."""
        self.message = message

    def merge(self, other: "Failure") -> "Failure":
        """Keep one."""
        return min(self, other, key=lambda failure: failure.message)

    def to_json(self) -> dict[str, Any]:
        """Give the message."""
        return {"message": self.message}


def results(work: Work, part: Any) -> Iterator[tuple[str, Mergeable]]:
    """Do the work on one part; an error of ours is one more result."""
    try:
        yield from work(part)
    except OxeError as error:
        yield FAILED, Failure(str(error))
