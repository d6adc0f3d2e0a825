"""What a draft says about one thing: a word, how sure it is, and why."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from schemas.declarations.spec import TODO

Confidence: TypeAlias = Literal["high", "medium", "low", "none"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A word of the declaration with its evidence; of what is not known, `TODO` and what speaks for which answer."""

    value: str
    confidence: Confidence
    evidence: str

    @property
    def is_open(self) -> bool:
        """Say whether somebody must still decide."""
        return TODO in self.value

    def to_json(self) -> dict[str, Any]:
        """Give its fields."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        """Give the comment that stands behind the line."""
        return f"{TODO if self.is_open else self.confidence}: {self.evidence}"


def todo(evidence: str, value: str = TODO) -> Claim:
    """Leave something to a person."""
    return Claim(value, "none", evidence)
