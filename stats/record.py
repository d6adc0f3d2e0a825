"""`Statistics`: the statistics of one or several datasets, with a record of what they were computed from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import xxhash

from schemas.errors import OxeError, StatsError, UsageError, did_you_mean
from stats.norm import NormStats
from stats.summary import Summary

FORMAT = "oxe-tools statistics"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One dataset that the statistics were computed from."""

    dataset: str
    manifest: str  # xxh3-128, from its meta/manifest.json
    view_digest: str | None
    episodes: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The statistics of a view, a split and filters of one or several datasets."""

    name: str  # name of the dataset; for several datasets, of their embodiment
    members: tuple[Member, ...]
    view: str | None  # None: the stored actions
    split: str | None  # None: all splits
    filters: str | None  # normalized by schemas.mixture.filters
    robot: str
    controller: str
    control_hz: float | None
    vectors: Mapping[str, Summary]  # action and state; for action chunks also action_chunk and action_relative

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return sum(member.episodes for member in self.members)

    @property
    def steps(self) -> int:
        """The number of steps that the view keeps."""
        return sum(member.steps for member in self.members)

    def norm(self, vector: str = "action") -> NormStats:
        """Return the normalization of one vector. Raises UsageError if it has no statistics."""
        if vector not in self.vectors:
            raise UsageError(f"{self.name}: no statistics of '{vector}'{did_you_mean(vector, self.vectors)}")
        return NormStats.of(self.vectors[vector])

    @property
    def key(self) -> tuple[Any, ...]:
        """The view, split, filters and chunk size, which distinguish statistics of the same dataset."""
        chunk = self.vectors["action_chunk"].mean.shape[0] if "action_chunk" in self.vectors else 0
        return (self.view or "", self.split or "", self.filters or "", chunk)

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "members": [asdict(member) for member in self.members],
            "view": self.view,
            "split": self.split,
            "filters": self.filters,
            "robot": self.robot,
            "controller": self.controller,
            "control_hz": self.control_hz,
            "episodes": self.episodes,
            "steps": self.steps,
            "vectors": {name: summary.to_json() for name, summary in self.vectors.items()},
        }

    def digest(self) -> str:
        """Hash the content (xxh3-128)."""
        return _digest(self._content())

    def to_json(self) -> dict[str, Any]:
        """Return the native JSON form. Its last entry is the digest of all other entries."""
        content = self._content()
        return {**content, "xxh3_128": _digest(content)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """Read the result of `to_json`. Raises StatsError if it is damaged or has another version."""
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise StatsError(f"{where}: expected statistics of version {VERSION}; compute them again")
        try:
            statistics = cls(
                members=tuple(Member(**member) for member in data["members"]),
                vectors={name: Summary.from_json(summary) for name, summary in data["vectors"].items()},
                **{
                    name: data[name]
                    for name in ("name", "view", "split", "filters", "robot", "controller", "control_hz")
                },
            )
        except (LookupError, TypeError, ValueError, OxeError) as error:
            raise StatsError(f"{where}: damaged ({error!r})") from error
        content = {key: value for key, value in data.items() if key != "xxh3_128"}
        if not data.get("xxh3_128") == _digest(content) == statistics.digest():
            raise StatsError(f"{where}: its content does not match its digest; compute the statistics again")
        return statistics


def _digest(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
