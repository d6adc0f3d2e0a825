"""Rank the episodes that a person should watch first. A rank is never an error: unusual is not wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.checks.batch import About
from schemas.source import Array

SHOWN = 20  # number of episodes
UNUSUAL = 3.5  # robust z from which an episode is unusual, as Iglewicz and Hoaglin (1993) recommend
FEWEST = 8  # episodes of a task, below which they are not compared
LOGARITHMS = ("length", "jerk")
# Measure -> its least deviation, and what is said of large and of small values; None: not worth a look. A deviation
# below the least one is not noticed: lengths and jerk are logarithms, the end is a share of the usual range.
MEASURES = {
    "length": (0.05, "longer than", "shorter than"),
    "idle_share": (0.03, "rests more than", None),
    "jerk": (0.05, "jerkier than", None),
    "end": (0.03, "ends elsewhere than", None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAt:
    """An episode that is worth a look."""

    member: int
    episode: int
    score: float  # the largest robust z
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the report, without the dataset's name."""
        return {"episode": self.episode, "score": round(self.score, 2), "reason": self.reason}


def look_at(about: About, measures: Mapping[str, Array], tasks: Sequence[str]) -> list[LookAt]:
    """Compare each episode with the others of its task, by robust z: (value - median) / (1.4826 MAD).

    `tasks` has the first instruction of each of the measured episodes.
    """
    names = np.unique(np.array(tasks, object), return_inverse=True)[1] if len(tasks) else np.zeros(0, np.int64)
    best: dict[int, tuple[float, str]] = {}
    for task in range(int(names.max(initial=-1)) + 1):
        rows = np.flatnonzero(names == task)
        if len(rows) < FEWEST:
            continue
        for measure, values in _compared(measures, rows).items():
            least, more, less = MEASURES[measure]
            scores = _robust_z(values, least=least)
            for row, score, value in zip(rows.tolist(), scores.tolist(), values.tolist(), strict=True):
                words = more if score > 0 else less
                if words and abs(score) > max(UNUSUAL, best.get(row, (0.0, ""))[0]):
                    reason = f"{words} the {len(rows) - 1} other episodes of its task"
                    shown = np.array([value, np.median(values)])
                    own, usual = np.exp(shown) if measure in LOGARITHMS else shown
                    best[row] = abs(score), f"{reason} ({measure} {own:.3g}, median {usual:.3g})"
    order = sorted(best, key=lambda row: (-best[row][0], row))[:SHOWN]
    episodes = measures["episode"]
    return [
        LookAt(member=about.member, episode=int(episodes[row]), score=best[row][0], reason=best[row][1])
        for row in order
    ]


def _compared(measures: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    """Return what is compared, [R] each: the end is the distance of the last state from the task's median one."""
    chosen = {name: measures[name][rows].astype(np.float64) for name in ("length", "idle_share", "jerk")}
    for name in LOGARITHMS:
        chosen[name] = np.log(np.maximum(chosen[name], 1e-12))
    end = measures["path"][rows, -1].astype(np.float64)
    usual = np.ptp(measures["path"].astype(np.float64), axis=(0, 1))
    scaled = np.divide(end - np.median(end, axis=0), usual, out=np.zeros_like(end), where=usual > 0)
    chosen["end"] = np.linalg.norm(scaled, axis=1)
    return chosen


def _robust_z(values: Array, *, least: float) -> Array:
    """Return the robust z of each value; the deviation is at least `least`."""
    centre = np.median(values)
    return np.asarray((values - centre) / max(1.4826 * np.median(np.abs(values - centre)), least))
