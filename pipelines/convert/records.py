"""The options of a conversion, and the record of each converted shard."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pipelines.convert.parquet import FileRecord
from schemas.source import Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a conversion reads and stores. The options are part of the dataset's identity."""

    split: str | None = None
    limit: int | None = None
    keep_raw: bool = True
    materialize: tuple[str, ...] = ()
    follow_links: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry; `follow_links` is included only if it is true."""
        entry = {**asdict(self), "materialize": list(self.materialize)}
        return entry if self.follow_links else {key: value for key, value in entry.items() if key != "follow_links"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(**{**data, "materialize": tuple(data["materialize"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """The outcome of every episode of one shard."""

    file: FileRecord | None
    episodes: tuple[dict[str, Any], ...]  # rows of meta/episodes.parquet
    dropped: tuple[tuple[int, str], ...]  # episode index, reason
    quarantined: tuple[Unreadable, ...]
