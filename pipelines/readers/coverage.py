"""What a reader guessed about its source, and what it does not read: shown by commands and kept in the manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.readers.reader import LeftOut, Reader


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a reader guessed, by key of `source`, and what it leaves out."""

    guessed: Mapping[str, str]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, reader: Reader) -> "Coverage":
        """Ask a reader; one of another package that has no such methods guesses nothing and reads everything."""
        guesses, left_out = getattr(reader, "guesses", dict), getattr(reader, "left_out", tuple)
        return cls(dict(guesses()), tuple(left_out()))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Coverage":
        """Read the keys `guessed` and `left_out` of a manifest, both of which may be missing."""
        return cls(stored.get("guessed", {}), tuple(LeftOut(**each) for each in stored.get("left_out", ())))

    def to_json(self) -> dict[str, Any]:
        """Return the keys `guessed` and `left_out`, each only if there is something to say."""
        stored = {"guessed": dict(self.guessed), "left_out": [each.to_json() for each in self.left_out]}
        return {key: value for key, value in stored.items() if value}

    def sentences(self) -> Iterator[str]:
        """Yield a sentence for each guess and for each kind of thing that is left out."""
        yield from (f"source.{key} was guessed: {phrase}" for key, phrase in self.guessed.items())
        yield from (f"not read: {each}" for each in self.left_out)
