"""Hold out episodes for validation by a hash, and compare the share that is reached with the one asked for."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.mixture.lock import VALIDATION, Lock
from schemas.mixture.spec import Holdout

MOST = 2  # a share that is larger than the asked one by this factor is pointed out
OTHERS = ("instruction", "id")  # columns of a lock's table that may be used instead


def is_held_out(holdout: Holdout, value: str) -> bool:
    """Whether episodes with this value in the column `holdout.by` are held out.

    The hash of the value decides, so it is the same in every mixture with the same `holdout`.
    """
    hashed = hashlib.sha256(f"{holdout.by}\0{value}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") < holdout.share * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The share of the episodes of a source that is held out, next to the share that was asked for."""

    by: str
    share: float
    reached: float
    episodes: int
    advice: str | None  # what to change if the share is 0 or more than double

    @classmethod
    def of(cls, holdout: Holdout, rows: Sequence[Mapping[str, Any]]) -> "HeldOut":
        """Count the episodes of a lock's table that are held out."""
        reached = sum(row["part"] == VALIDATION for row in rows) / len(rows)
        return cls(
            by=holdout.by,
            share=holdout.share,
            reached=reached,
            episodes=len(rows),
            advice=None if _is_near(reached, holdout.share) else _advice(holdout, rows),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a phrase with both shares."""
        return f"{self.reached:.1%} of {self.episodes} episodes are held out by {self.by} ({self.share:.1%} asked for)"


def held_out(lock: Lock, table: pa.Table) -> dict[str, HeldOut]:
    """Return what is held out of each source of a lock; empty if the mixture has no holdout."""
    if not lock.spec.get("holdout"):
        return {}
    holdout = Holdout(**lock.spec["holdout"])
    shown = table.filter(pc.greater(table["steps"], 0)).select(["source", "part", *OTHERS])
    return {name: HeldOut.of(holdout, rows) for name, rows in _by_source(shown)}


def _by_source(table: pa.Table) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in dict.fromkeys(table["source"].to_pylist()):
        yield name, table.filter(pc.equal(table["source"], name)).to_pylist()


def _is_near(reached: float, share: float) -> bool:
    return 0 < reached <= MOST * share


def _advice(holdout: Holdout, rows: Sequence[Mapping[str, Any]]) -> str:
    for column in OTHERS:
        other = Holdout(by=column, share=holdout.share)
        reached = sum(is_held_out(other, row[column]) for row in rows) / len(rows)
        if column != holdout.by and _is_near(reached, holdout.share):
            shared = "" if column == "instruction" else ", also of instructions that are trained on"
            return f'[holdout] by = "{column}" would hold out {reached:.1%}{shared}'
    return f"{len(rows)} episodes are too few for this share: use another share"
