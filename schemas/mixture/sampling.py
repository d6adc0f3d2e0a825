"""The order of draws: draw k has a source and a step that depend only on the mixture, the seed and k.

A hash of (seed, k) chooses the source, with the shares as probabilities. A keyed permutation chooses the step. Let c
count the draws of one source from 0, and let n be its number of steps. Draw c then belongs to pass `c // n` over the
source and is step `permutation(c mod n)`. Each pass has its own permutation. Every step is therefore drawn once before
any step is drawn again. The order is shuffled over the whole source without a buffer. It does not depend on the number
of processes, or on where a run stopped and resumed.

The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014). The permutation is a Feistel network of eight rounds
(Luby, Rackoff 1988) over the next power of four. It is applied again until the result is below n (Black, Rogaway 2002).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from schemas.errors import SpecError
from schemas.source import Array

ROUNDS = 8
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 1 << 16  # number of draws that are hashed at once


@dataclass(frozen=True)
class Law:
    """The order of draws: a seed, and for each source its share (above 0; all add up to 1) and its number of steps."""

    seed: int
    names: tuple[str, ...]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def count(self) -> None:
        """The number of draws, which is None because the draws never end."""
        return

    def __post_init__(self) -> None:
        """Raise SpecError if there are no sources, or if a source has no steps or an invalid share."""
        for name, share, size in zip(self.names, self.shares, self.sizes, strict=True):
            if not 0 < share <= 1 or size < 1:
                raise SpecError(f"{name}: cannot draw a share of {share} from {size} steps")
        if not self.names:
            raise SpecError("the mixture has no sources to draw from")

    def to_json(self) -> dict[str, Any]:
        """Return everything that the order depends on, as JSON."""
        return asdict(self)

    @cached_property
    def _bounds(self) -> Array:
        """The upper bound of the range of hashes that choose a source, for each source but the last.

        The sizes of the ranges are in proportion to the shares.
        """
        parts = [Fraction(share) for share in self.shares]
        total, ends, end = sum(parts), [], Fraction()
        for part in parts[:-1]:
            end += part / total
            ends.append(min(int(end * 2**64), 2**64 - 1))
        return np.array(ends, np.uint64)

    def sources(self, start: int, stop: int) -> Array:
        """Return the source of each draw in [start, stop), [N] int64."""
        key = _key(self.seed, "draw")
        k = np.arange(start, stop, dtype=np.uint64)
        return np.searchsorted(self._bounds, _mixed(k * GOLDEN + key), "right")

    def counters(self, k: int) -> Array:
        """Count the draws of each source before draw k, [S] int64."""
        counts = np.zeros(len(self.names), np.int64)
        for start in range(0, k, BLOCK):
            counts += np.bincount(self.sources(start, min(k, start + BLOCK)), minlength=len(self.names))
        return counts

    def steps(self, sources: Array | int, counters: Array) -> Array:
        """Return the step of each draw, [N] int64 in [0, size), from its source and counter.

        `sources` may be a single source that all draws are from.
        """
        sizes = np.array(self.sizes)[sources]
        passes, places = np.divmod(counters, sizes)
        if not len(passes):
            return passes
        pairs, which = np.unique(
            np.stack([np.broadcast_to(sources, passes.shape), passes]), axis=1, return_inverse=True
        )
        keys = np.stack([self._keys(source, number) for source, number in pairs.T.tolist()], axis=1)
        return permuted(places.astype(np.uint64), sizes.astype(np.uint64), keys[:, which])

    def _keys(self, source: int, number: int) -> Array:
        """Derive the keys of the permutation for one pass over one source."""
        hashed = _hashed(self.seed, "pass", self.names[source], str(number), size=8 * ROUNDS)
        return np.frombuffer(hashed, np.uint64)

    def draws(self, start: int, stop: int, counters: Array | None = None) -> tuple[Array, Array, Array]:
        """Return the source and step of each draw in [start, stop), and the counters at `stop`.

        `counters` are the counters at `start`. If None, they are computed by hashing all earlier draws.
        """
        before = self.counters(start) if counters is None else counters
        sources, turns, after = self.turns(start, stop, before)
        return sources, self.steps(sources, turns), after

    def turns(self, start: int, stop: int, counters: Array) -> tuple[Array, Array, Array]:
        """Return each draw's source and its counter in that source, for [start, stop), and the counters at `stop`."""
        sources = self.sources(start, stop)
        order = np.argsort(sources, kind="stable")
        counts = np.bincount(sources, minlength=len(self.names))
        turns = np.empty(stop - start, np.int64)
        turns[order] = np.arange(stop - start) - np.repeat(np.cumsum(counts) - counts - counters, counts)
        return sources, turns, counters + counts

    def stream(self, k: int = 0, *, counters: Array | None = None, block: int = 4096) -> Iterator[tuple[int, int]]:
        """Yield (source, step) of draw k and all later draws, without end."""
        before = self.counters(k) if counters is None else counters
        while True:
            sources, steps, before = self.draws(k, k + block, before)
            yield from zip(sources.tolist(), steps.tolist(), strict=True)
            k += block


def chosen(seed: int, draws: Array, counts: Array, *, use: str) -> Array:
    """Choose one of `counts` [N] things for each of `draws` [N], with equal probability, [N] int64.

    The choice depends only on the seed, the draw, the count and the text `use`. Each use gets other numbers.
    """
    hashed = _mixed(draws.astype(np.uint64) * GOLDEN + _key(seed, use))
    return (hashed % counts.astype(np.uint64)).astype(np.int64)


def permuted(places: Array, size: Array | int, keys: Array) -> Array:
    """Permute places [N] uint64 in [0, size) by a Feistel network.

    `keys` are [8] uint64 for all places, or [8, N] with different keys for each place.

    >>> permuted(np.arange(5, dtype=np.uint64), 5, np.arange(8, dtype=np.uint64)).tolist()
    [1, 0, 4, 2, 3]
    """
    sizes = np.broadcast_to(np.asarray(size, np.uint64), places.shape)
    keys = np.broadcast_to(keys[:, None] if keys.ndim == 1 else keys, (ROUNDS, len(places)))
    bits = np.frexp(np.maximum(sizes - np.uint64(1), 1).astype(np.float64))[1]
    halves = ((bits + 1) // 2).astype(np.uint64)
    out = places.copy()
    walking = np.arange(len(out))
    while len(walking):
        half, rounds = halves[walking], keys[:, walking]
        mask = (np.uint64(1) << half) - np.uint64(1)
        left, right = out[walking] >> half, out[walking] & mask
        for key in rounds:
            left, right = right, left ^ (_mixed(right + key) & mask)
        out[walking] = (left << half) | right
        walking = walking[out[walking] >= sizes[walking]]
    return out.astype(np.int64)


def _mixed(x: Array) -> Array:
    """Apply the finalizer of SplitMix64: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def _key(seed: int, use: str) -> np.uint64:
    return np.uint64(int.from_bytes(_hashed(seed, use, size=8), "little"))


def _hashed(seed: int, *words: str, size: int) -> bytes:
    content = "\0".join([str(seed), *words]).encode()
    return hashlib.blake2b(content, digest_size=size, person=b"oxe-tools law 1").digest()
