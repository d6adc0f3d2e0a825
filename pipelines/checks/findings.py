"""What `oxe check` found: findings of rules, and what could not be assessed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFinding:
    """What a rule found in one episode, in a pair of episodes, or in a dataset as a whole."""

    member: int  # index of the dataset among those that are checked together
    rule: str
    episode: int = -1  # position of the episode among the kept ones; -1: the dataset as a whole
    other: tuple[int, int] | None = None  # the other episode of a pair: its dataset and position
    steps: tuple[tuple[int, int], ...] = ()  # ranges of steps: the first, and one past the last
    dims: tuple[str, ...] = ()  # names of dimensions such as `action.x`, or of columns and cameras
    value: float | None = None  # the number that was compared with the threshold
    message: str

    def order(self) -> tuple[Any, ...]:
        """Return the key by which findings are sorted: by dataset, rule and episode."""
        return (self.member, self.rule, self.episode, self.other or (-1, -1), self.steps, self.dims, self.message)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that workers send and that the cache has."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        other, steps = data["other"], tuple((first, stop) for first, stop in data["steps"])
        pair = None if other is None else (int(other[0]), int(other[1]))
        return cls(**{**data, "other": pair, "steps": steps, "dims": tuple(data["dims"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAssessable:
    """A rule that cannot say anything about a dataset, with the reason."""

    member: int
    rule: str
    why: str
