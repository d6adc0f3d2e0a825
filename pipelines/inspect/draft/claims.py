"""A claim: one value of a drafted declaration, with its confidence and evidence."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from schemas.declarations.spec import TODO

Confidence: TypeAlias = Literal["high", "medium", "low", "none"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One value of the declaration, with its evidence; the value of an open claim is `TODO`."""

    value: str
    confidence: Confidence
    evidence: str

    @property
    def is_open(self) -> bool:
        """Whether the user must decide."""
        return TODO in self.value

    def to_json(self) -> dict[str, Any]:
        """Return value, confidence and evidence."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        """Return the comment at the end of the line, such as `high: the name contains 'wrist'`."""
        return f"{TODO if self.is_open else self.confidence}: {self.evidence}"


def todo(evidence: str, value: str = TODO) -> Claim:
    """Return an open claim, which the user must decide."""
    return Claim(value, "none", evidence)
