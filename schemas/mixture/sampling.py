"""The sampling law: which step of which source draw k is, as a function of (mixture, seed, k) alone.

Draw k picks its source by a hash of (seed, k) under the shares, and its step by a keyed permutation at that source's
own counter: the c-th draw of a source with n steps is step `permutation(c mod n)` of pass `c // n`. So every step
comes once before any comes again, in an order that is shuffled over the whole source without a buffer, and that does
not depend on how many processes share the draws, or on where they stopped and went on.

The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014); the permutation a Feistel network of eight rounds
(Luby, Rackoff 1988) over the next power of four, walked until it lands below n (Black, Rogaway 2002).
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
BLOCK = 1 << 16  # draws that are hashed at a time


@dataclass(frozen=True)
class Law:
    """What is drawn from, in which shares, and the seed; shares are above 0 and add up to 1, sizes count steps."""

    seed: int
    names: tuple[str, ...]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def count(self) -> None:
        """Count the draws until the end: there is none."""
        return

    def __post_init__(self) -> None:
        """Refuse what nothing can be drawn from."""
        for name, share, size in zip(self.names, self.shares, self.sizes, strict=True):
            if not 0 < share <= 1 or size < 1:
                raise SpecError(f"{name}: a share of {share} of {size} steps cannot be drawn from")
        if not self.names:
            raise SpecError("nothing to draw from: the mixture has no source")

    def to_json(self) -> dict[str, Any]:
        """Say what the order depends on."""
        return asdict(self)

    @cached_property
    def _bounds(self) -> Array:
        """The hashes at which each source but the last one ends, in proportion to the shares."""
        parts = [Fraction(share) for share in self.shares]
        total, ends, end = sum(parts), [], Fraction()
        for part in parts[:-1]:
            end += part / total
            ends.append(min(int(end * 2**64), 2**64 - 1))
        return np.array(ends, np.uint64)

    def sources(self, start: int, stop: int) -> Array:
        """Give the source of each draw in [start, stop), [N] int64."""
        key = _key(self.seed, "draw")
        k = np.arange(start, stop, dtype=np.uint64)
        return np.searchsorted(self._bounds, _mixed(k * GOLDEN + key), "right")

    def counters(self, k: int) -> Array:
        """Count how many of the draws before k each source has had, [S] int64."""
        counts = np.zeros(len(self.names), np.int64)
        for start in range(0, k, BLOCK):
            counts += np.bincount(self.sources(start, min(k, start + BLOCK)), minlength=len(self.names))
        return counts

    def steps(self, sources: Array | int, counters: Array) -> Array:
        """Give the steps of draws by their sources (or the one source of all) and counters, [N] int64 in [0, size)."""
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
        """Derive the keys of one pass over one source."""
        hashed = _hashed(self.seed, "pass", self.names[source], str(number), size=8 * ROUNDS)
        return np.frombuffer(hashed, np.uint64)

    def draws(self, start: int, stop: int, counters: Array | None = None) -> tuple[Array, Array, Array]:
        """Give source and step of each draw in [start, stop), and the counters at `stop`.

        `counters` are those at `start`; without them, all earlier draws are hashed to count them.
        """
        before = self.counters(start) if counters is None else counters
        sources, turns, after = self.turns(start, stop, before)
        return sources, self.steps(sources, turns), after

    def turns(self, start: int, stop: int, counters: Array) -> tuple[Array, Array, Array]:
        """Give source and that source's own counter of each draw in [start, stop), and the counters at `stop`."""
        sources = self.sources(start, stop)
        order = np.argsort(sources, kind="stable")
        counts = np.bincount(sources, minlength=len(self.names))
        turns = np.empty(stop - start, np.int64)
        turns[order] = np.arange(stop - start) - np.repeat(np.cumsum(counts) - counts - counters, counts)
        return sources, turns, counters + counts

    def stream(self, k: int = 0, *, counters: Array | None = None, block: int = 4096) -> Iterator[tuple[int, int]]:
        """Give (source, step) of draw k and of all after it, without end."""
        before = self.counters(k) if counters is None else counters
        while True:
            sources, steps, before = self.draws(k, k + block, before)
            yield from zip(sources.tolist(), steps.tolist(), strict=True)
            k += block


def permuted(places: Array, size: Array | int, keys: Array) -> Array:
    """Permute places [N] uint64 in [0, size) by a Feistel network under `keys` [8] uint64, or [8, N], one for each.

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
    """Finalize SplitMix64: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def _key(seed: int, use: str) -> np.uint64:
    return np.uint64(int.from_bytes(_hashed(seed, use, size=8), "little"))


def _hashed(seed: int, *words: str, size: int) -> bytes:
    content = "\0".join([str(seed), *words]).encode()
    return hashlib.blake2b(content, digest_size=size, person=b"oxe-tools law 1").digest()
