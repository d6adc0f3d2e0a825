"""Exact quantiles of any number of float32 vectors, with a small, mergeable state.

The bits of float32 numbers can be mapped to unsigned integers with the same order. A first pass counts how often each
pattern of the leading 16 bits occurs. The counts show which pattern (the bucket) each order statistic has. Later passes
count only the numbers in these buckets, by their leading 24 bits or all 32 bits, until the exact numbers are known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schemas.errors import UsageError
from schemas.source import Array
from stats.moments import blocks

FIRST, MIDDLE, ALL = 16, 24, 32  # number of leading bits that a pass counts by
LIMIT = 1 << 18  # if the buckets have at most this many patterns, one pass counts all bits (4 MB)
BLOCK = 1 << 18  # number of rows that are counted at once
FEW = 1 << 13  # with fewer rows, sorting is faster than reading 2**16 counters
HALF = 1 << FIRST - 1  # the first pattern with the sign bit
DIMENSION = np.uint64(32)  # the lowest bit of a key that is part of the dimension


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each pattern of leading bits occurs, for D dimensions."""

    bits: int
    keys: Array  # uint64, ascending: dimension << 32 | the leading `bits` of the ordered pattern
    counts: Array  # int64

    @classmethod
    def of(cls, x: Array, search: "Search") -> Self:
        """Count [N, D] finite float32 for the next pass of `search`: by the bits and in the buckets that it needs."""
        return cls(search.next_bits, *(_inside(x, search) if search.bits else _leading(x)))

    def merge(self, other: Self) -> Self:
        """Return the counts of both together."""
        return type(self)(self.bits, *_added([(self.keys, self.counts), (other.keys, other.counts)]))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form to exchange between processes."""
        return {"bits": self.bits, "keys": self.keys.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        return cls(data["bits"], np.array(data["keys"], np.uint64), np.array(data["counts"], np.int64))


@dataclass(frozen=True, slots=True)
class Search:
    """The state of a search for order statistics, with the bucket of each and its rank inside the bucket."""

    bits: int  # number of leading bits that are known
    keys: Array  # [D, R] uint64, as in Histogram
    ranks: Array  # [D, R] int64: ranks in the bucket, from 0
    inside: int = 0  # upper bound of the number of patterns in all buckets

    @classmethod
    def of(cls, ranks: Sequence[int], *, dims: int) -> Self:
        """Start a search for the order statistics of these ranks (0: the smallest) in D dimensions."""
        keys = np.arange(dims, dtype=np.uint64)[:, None] << DIMENSION
        return cls(0, np.repeat(keys, len(ranks), axis=1), np.tile(np.array(ranks, np.int64), (dims, 1)))

    @property
    def next_bits(self) -> int:
        """The number of bits that the next pass counts by."""
        if self.bits == 0:
            return FIRST
        return MIDDLE if self.bits == FIRST and self.inside > LIMIT else ALL

    def wanted(self, dimension: int) -> Array:
        """Return the leading bits of one dimension's buckets, ascending, uint32."""
        return np.unique(self.keys[dimension].astype(np.uint32))

    def narrowed(self, counted: Histogram) -> Self:
        """Return the search after its next pass; `counted` are the counts of that pass."""
        ends = np.cumsum(counted.counts)
        starts = ends - counted.counts
        dimension, prefix = self.keys >> DIMENSION << DIMENSION, self.keys & np.uint64(0xFFFFFFFF)
        first = np.searchsorted(counted.keys, dimension | prefix << np.uint64(counted.bits - self.bits))
        target = starts[first] + self.ranks
        place = np.searchsorted(ends, target, "right")
        inside = int(np.minimum(counted.counts[np.unique(place)], 1 << ALL - counted.bits).sum())
        return type(self)(counted.bits, counted.keys[place], target - starts[place], inside)

    @property
    def values(self) -> Array:
        """The order statistics, [D, R] float32, once all bits are known."""
        return numbers(self.keys.astype(np.uint32))


def numbers(ordered: Array) -> Array:
    """Convert uint32 from `_ordered` back to float32."""
    positive = ordered >> np.uint32(31) == 1
    return np.where(positive, ordered ^ np.uint32(1 << 31), ~ordered).view(np.float32)


def _ordered(x: Array) -> Array:
    """Convert float32 to uint32 with the same order."""
    bits = x.view(np.int32)
    return (bits ^ (bits >> 31 | np.int32(-(1 << 31)))).view(np.uint32)


def _leading(x: Array) -> tuple[Array, Array]:
    """Count all values by their leading 16 bits."""
    if len(x) < FEW:
        ordered = (_ordered(block) >> np.uint32(FIRST) for block in blocks(x))
        return _added([_counted(column, d) for block in ordered for d, column in enumerate(block)])
    counts = np.zeros((x.shape[1], 1 << FIRST), np.int64)
    for block in blocks(x, BLOCK):
        for d, column in enumerate(block):
            counts[d] += np.bincount(_upper(column), minlength=1 << FIRST)
    counts = np.concatenate([counts[:, HALF:][:, ::-1], counts[:, :HALF]], axis=1)  # negative numbers first
    place = np.flatnonzero(counts)
    return _key(place >> FIRST, place & 0xFFFF), counts.ravel()[place]


def _inside(x: Array, search: Search) -> tuple[Array, Array]:
    """Count the values in the buckets of `search` by the bits of the next pass."""
    wanted = [search.wanted(d) for d in range(x.shape[1])]
    counts = list[tuple[Array, Array]]()
    for block in blocks(x, BLOCK):
        for d, column in enumerate(block):
            values = _ordered(column[_among(column, np.unique(wanted[d] >> np.uint32(search.bits - FIRST)))])
            if search.bits > FIRST:
                values = values[np.isin(values >> np.uint32(ALL - search.bits), wanted[d])]
            counts.append(_counted(values >> np.uint32(ALL - search.next_bits), d))
    return _added(counts)


def _among(column: Array, buckets: Array) -> Array:
    """Whether the leading 16 bits of each value are in `buckets`; if these are few, comparing is the fastest way."""
    upper = np.ascontiguousarray(_upper(column))
    stored = np.where(buckets >= HALF, buckets - HALF, (1 << FIRST) - 1 - buckets).astype(np.uint16)
    mask: Array = upper == stored[0]
    for pattern in stored[1:]:
        mask |= upper == pattern
    return mask


def _upper(column: Array) -> Array:
    """Return the leading 16 bits of each float32; they are its second half in memory, because it is little endian."""
    return column.view(np.uint16)[1::2]


def _counted(prefixes: Array, dimension: int) -> tuple[Array, Array]:
    """Count how often each prefix occurs: frequent ones, such as a gripper's, in a pass each, the rest by sorting."""
    frequent = list[tuple[Array, Array]]()
    while len(prefixes) > FEW:
        same = prefixes == prefixes[0]
        count = np.count_nonzero(same)
        if count < len(prefixes) // 8:
            break
        frequent.append((prefixes[:1], np.array([count])))
        prefixes = prefixes[~same]
    parts = [*frequent, np.unique(prefixes, return_counts=True)]
    keys, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _key(np.uint64(dimension), keys), counts


def _key(dimension: Any, prefix: Array) -> Array:
    return np.asarray(dimension).astype(np.uint64) << DIMENSION | prefix.astype(np.uint64)


def _added(parts: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Add the counts of equal keys."""
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    keys, counts = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    if not len(keys):
        return keys, counts
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


def ranks(quantiles: Sequence[float], count: int) -> list[int]:
    """Return the ranks of the order statistics on both sides of each quantile of `count` values.

    >>> ranks([0.5], 4)
    [1, 2]
    """
    return sorted({rank for q in quantiles for rank in _between(q, count)[:2]})


def _between(q: float, count: int) -> tuple[int, int, float]:
    """Return the ranks on both sides of a quantile and its place between them (0 to 1), as numpy's `linear` does."""
    virtual = (count - 1) * q
    if virtual >= count - 1:
        return count - 1, count - 1, 0.0
    return int(virtual), int(virtual) + 1, virtual - int(virtual)


def interpolated(search: Search, quantiles: Sequence[float], count: int) -> Array:
    """Return the quantiles, [Q, D] float64, from the order statistics of `ranks(quantiles, count)`."""
    place = {rank: i for i, rank in enumerate(ranks(quantiles, count))}
    values = search.values.astype(np.float64)
    rows = []
    for q in quantiles:
        low, high, part = _between(q, count)
        a, b = values[:, place[low]], values[:, place[high]]
        rows.append(a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part))
    return np.array(rows) + 0.0  # no negative zero


def quantiles(x: Array, wanted: Sequence[float]) -> Array:
    """Return the quantiles of [N, D] float32 as [Q, D] float64, equal to numpy's on the same numbers in float64.

    >>> quantiles(np.float32([[1], [2], [4]]), [0.5, 0.75]).tolist()
    [[2.0], [3.0]]
    """
    if not len(x):
        raise UsageError("quantiles need at least one vector, got none")
    search = Search.of(ranks(wanted, len(x)), dims=x.shape[1])
    while search.bits < ALL:
        search = search.narrowed(Histogram.of(x, search))
    return interpolated(search, wanted, len(x))
