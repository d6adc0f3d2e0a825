"""The statistics of a dataset, or of several as one: what was counted, from what, and what came out."""

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
    """One dataset that was counted."""

    dataset: str
    manifest: str  # xxh3-128, as its meta/manifest.json states it
    view_digest: str | None
    episodes: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The statistics under one key: datasets, view, split and filters."""

    name: str  # of the dataset; of several, of their embodiment
    members: tuple[Member, ...]
    view: str | None  # None: as stored
    split: str | None  # None: all
    filters: str | None  # schemas.mixture.filters, in its one spelling
    robot: str
    controller: str
    control_hz: float | None
    vectors: Mapping[str, Summary]  # action, state; with chunks action_chunk, action_relative

    @property
    def episodes(self) -> int:
        """Count the episodes."""
        return sum(member.episodes for member in self.members)

    @property
    def steps(self) -> int:
        """Count the steps that the view keeps."""
        return sum(member.steps for member in self.members)

    def norm(self, vector: str = "action") -> NormStats:
        """Give what one vector is normalized with; one that is not there is a UsageError."""
        if vector not in self.vectors:
            raise UsageError(f"{self.name}: no statistics of '{vector}'{did_you_mean(vector, self.vectors)}")
        return NormStats.of(self.vectors[vector])

    @property
    def key(self) -> tuple[Any, ...]:
        """Give what two statistics of one dataset differ in."""
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
        """Give the native form; its last entry is the digest of itself without that entry."""
        content = self._content()
        return {**content, "xxh3_128": _digest(content)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """Read `to_json` back; what is damaged, or of another version, is a StatsError."""
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise StatsError(f"{where}: no statistics of version {VERSION}: compute them again")
        try:
            found = cls(
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
        if not data.get("xxh3_128") == _digest(content) == found.digest():
            raise StatsError(f"{where}: its content does not have the digest that it states")
        return found


def _digest(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
