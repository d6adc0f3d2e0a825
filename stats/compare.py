"""Compare two statistics, such as the statistics of a dataset with those that a model was trained with."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import pi
from typing import Any, Self

import numpy as np

from schemas.errors import StatsError
from schemas.source import Array
from schemas.spaces import Space
from stats.norm import NormStats

OUTSIDE = 0.05  # a finding matters if a larger share of the values is out of range
USUAL = 0.02  # share of values that are outside the q01 to q99 of their own data
SHIFT = 1.0  # maximum distance between the means, in standard deviations
SPREAD = 3.0  # maximum ratio of the standard deviations
Q99, EXTREMES = "q01 to q99", "min to max"
UNITS = {1000.0: "millimetres for metres", 100.0: "centimetres for metres", 180 / pi: "degrees for radians"}
LIKE = 1.25  # a ratio within this factor of a key of UNITS counts as that key


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """How many values of N vectors are below `low` or above `high`, and the smallest and largest values; all exact."""

    low: Array  # [D] float64
    high: Array
    count: int
    below: Array  # [D] int64
    above: Array
    min: Array  # [D] float64
    max: Array

    @classmethod
    def of(cls, x: Array, *, low: Array, high: Array) -> Self:
        """Count the values of [N, D] float32."""
        wide = x.astype(np.float64)
        first, last = wide.min(axis=0, initial=np.inf), wide.max(axis=0, initial=-np.inf)
        below, above = (wide < low).sum(axis=0), (wide > high).sum(axis=0)
        return cls(low=low, high=high, count=len(x), below=below, above=above, min=first, max=last)

    def merge(self, other: Self) -> Self:
        """Return the counts of both together."""
        return type(self)(
            low=self.low,
            high=self.high,
            count=self.count + other.count,
            below=self.below + other.below,
            above=self.above + other.above,
            min=np.minimum(self.min, other.min),
            max=np.maximum(self.max, other.max),
        )

    @property
    def share(self) -> Array:
        """The share of values outside `low` to `high`, [D]."""
        return (self.below + self.above) / max(1, self.count)

    @property
    def matters(self) -> Array:
        """Whether more values are outside than expected for bounds that are the data's q01 and q99, [D] bool."""
        expected = USUAL * self.count
        return np.asarray((self.share > OUTSIDE) & (self.share * self.count > expected + 3 * np.sqrt(expected)))

    @property
    def farthest(self) -> Array:
        """The most extreme value, scaled so that `low` is -1 and `high` is 1, [D]; NaN if they are equal."""
        span = np.where(self.high > self.low, self.high - self.low, np.nan)
        ends = [2 * (edge - self.low) / span - 1 for edge in (self.min, self.max)]
        return np.where(np.abs(ends[0]) > np.abs(ends[1]), *ends)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form to exchange between processes."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        arrays = {name: np.array(value) for name, value in data.items() if name != "count"}
        return cls(count=data["count"], **arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference between two statistics."""

    vector: str
    dimension: str | None  # None: the whole vector
    what: str  # one word: the kind of difference
    detail: str  # the difference, as a sentence
    matters: bool  # whether it is likely to harm a policy


def bounds(norm: NormStats, *, kinds: tuple[str, ...] = (Q99, EXTREMES)) -> tuple[str, Array, Array]:
    """Return the kind of range, the lower and the upper bounds: q01 to q99, or min to max if there are no quantiles."""
    for name, low, high in ((Q99, norm.q01, norm.q99), (EXTREMES, norm.min, norm.max)):
        if name in kinds and low is not None and high is not None and low.ndim == 1:
            return name, low, high
    raise StatsError(f"statistics have no range ({' or '.join(kinds)} is required)")


def compare(
    ours: Mapping[str, NormStats], theirs: Mapping[str, NormStats], outside: Mapping[str, Outside]
) -> list[Finding]:
    """List how `ours`, the statistics of the data, differ from `theirs`. Differences that matter come first."""
    findings = [
        finding for name in ours for finding in _vector(name, ours[name], theirs.get(name), outside=outside.get(name))
    ]
    return sorted(findings, key=lambda finding: not finding.matters)


def _vector(name: str, ours: NormStats, theirs: NormStats | None, *, outside: Outside | None) -> Iterator[Finding]:
    def finding(what: str, detail: str, *, matters: bool, dimension: str | None = None) -> Finding:
        return Finding(vector=name, dimension=dimension, what=what, detail=detail, matters=matters)

    if theirs is None:
        yield finding("missing", f"the other statistics do not have the {name}", matters=False)
        return
    if len(ours.names) != len(theirs.names):
        yield finding("size", f"{len(ours.names)} dimensions, the other has {len(theirs.names)}", matters=True)
        return
    if _is_placeholder(theirs):
        yield finding(
            "placeholder", "the other statistics are all 0: they were computed without this vector", matters=False
        )
        return
    if ours.space and theirs.space and (words := meaning(ours.space, theirs.space)):
        yield finding("space", f"the numbers have different meanings: {words}", matters=True)
    for i, dimension in enumerate(ours.names):
        for what, detail, matters in _dimension(i, ours, theirs, outside=outside):
            yield finding(what, detail, matters=matters, dimension=dimension)


def meaning(ours: Space, theirs: Space) -> str | None:
    """Describe how two Spaces differ, each difference as `OURS for THEIRS`; None if they have the same meaning."""
    if len(ours) != len(theirs):
        return f"{len(ours)} dimensions for {len(theirs)}"
    words = [
        f"{word} {getattr(ours, word)} for {getattr(theirs, word)}"
        for word in ("frame", "rotation", "gripper", "origin")
        if getattr(ours, word) != getattr(theirs, word)
    ]
    words += [
        f"{a.name} [{a.unit}, {a.mode}, {a.kind}] for {b.name} [{b.unit}, {b.mode}, {b.kind}]"
        for a, b in zip(ours.dims, theirs.dims, strict=True)
        if a != b
    ]
    return ", ".join(words) or None


def _is_placeholder(norm: NormStats) -> bool:
    """Whether all statistics are 0, which OpenVLA writes if it did not load the proprio."""
    return not any(figures is not None and figures.any() for figures in (norm.mean, norm.std, norm.min, norm.max))


def _dimension(
    i: int, ours: NormStats, theirs: NormStats, *, outside: Outside | None
) -> Iterator[tuple[str, str, bool]]:
    """Compare one dimension. Yields, for each difference, its kind, its detail and whether it matters."""
    label, low, high = bounds(theirs)
    _, first, last = bounds(ours, kinds=(label,))
    span, reference = last[i] - first[i], high[i] - low[i]
    if reference == 0:
        if not np.allclose((first[i], last[i]), (low[i], high[i]), rtol=1e-5):
            varies = theirs.min is not None and theirs.max is not None and theirs.min[i] != theirs.max[i]
            there = f"{label} is {low[i]:.4g} there" if varies else f"always {low[i]:.4g} there"
            yield "constant", f"{there}; here it is {first[i]:.4g} .. {last[i]:.4g}", True
        return
    if outside is not None and outside.matters[i]:
        share = f"{outside.share[i]:.1%} of the values are outside {low[i]:.4g} .. {high[i]:.4g} ({label})"
        yield "range", f"{share}; the most extreme is {outside.farthest[i]:.4g} when normalized", True
    if refused := theirs.degenerate("bounds_q99" if label == Q99 else "bounds").get(theirs.names[i]):
        yield "degenerate", refused, True
    if span:
        yield from _suspicions(i, ours, theirs, ratio=span / reference)
    else:
        yield "constant", f"always {first[i]:.4g} here", False


def _suspicions(i: int, ours: NormStats, theirs: NormStats, *, ratio: float) -> Iterator[tuple[str, str, bool]]:
    for factor, words in UNITS.items():
        if 1 / LIKE < ratio / factor < LIKE or 1 / LIKE < ratio * factor < LIKE:
            yield "unit", f"the range is {ratio:.3g} times the other's: {words}, or the reverse?", True
    if _mirrored(i, ours, theirs):
        yield (
            "polarity",
            "the distribution mirrors the other's: is the sign or the gripper's sense inverted?",
            True,
        )
    if ours.mean is None or theirs.mean is None or ours.std is None or theirs.std is None or not theirs.std[i]:
        return
    shift, spread = (ours.mean[i] - theirs.mean[i]) / theirs.std[i], ours.std[i] / theirs.std[i]
    if abs(shift) > SHIFT:
        yield (
            "shift",
            f"the mean is {shift:+.2f} of the other's standard deviations from its mean",
            bool(theirs.mask[i]),
        )
    if not 1 / SPREAD < spread < SPREAD:
        is_wider = spread > 1  # a narrower distribution does less harm: it only wastes resolution
        yield "spread", f"the standard deviation is {spread:.3g} times the other's", is_wider and bool(theirs.mask[i])


def _mirrored(i: int, ours: NormStats, theirs: NormStats) -> bool:
    """Whether one distribution looks like the other mirrored about 0, or about the middle of a shared range."""
    label, low, high = bounds(theirs)
    _, first, last = bounds(ours, kinds=(label,))
    span = high[i] - low[i]
    if ours.mean is None or theirs.mean is None:
        return False
    same_range = max(abs(first[i] - low[i]), abs(last[i] - high[i])) < 0.1 * span
    centre = low[i] + high[i] if same_range else 0.0  # twice the centre, about which one distribution is mirrored
    is_mirror = (
        abs(first[i] + high[i] - centre) < 0.1 * span
        and abs(last[i] + low[i] - centre) < 0.1 * span
        and abs(ours.mean[i] + theirs.mean[i] - centre) < 0.1 * span
    )
    return bool(is_mirror and abs(ours.mean[i] - theirs.mean[i]) > 0.2 * span)
