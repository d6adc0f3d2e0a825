"""Count, range, mean and standard deviation of float32 vectors, from exact sums.

Every float32 is a multiple of 2**-149, and its square is a multiple of 2**-298. Sums are therefore kept as Python
integers in these units, which are exact and have no limit. The result does not depend on the order of adding, or on how
the data is sharded and merged. The state takes a few hundred bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import frexp, sqrt
from typing import Any, Self

import numpy as np

from schemas.source import Array

ROWS = 1 << 16  # rows per block, which fits into the cache; 2**16 numbers of 36 bits add up exactly in float64
UNIT = 149  # float32 numbers are multiples of 2**-149
PART = 36  # bits of each number that one round of `exact_sum` adds up


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Exact moments of N vectors of D float32 numbers.

    >>> Moments.of(np.float32([[1], [3]])).merge(Moments.of(np.float32([[5]]))).mean.tolist()
    [3.0]
    """

    count: int
    low: Array  # [D] float32, inf if N is 0
    high: Array  # [D] float32
    sums: tuple[int, ...]  # D, in units of 2**-149
    squares: tuple[int, ...]  # D, in units of 2**-298

    @classmethod
    def of(cls, x: Array) -> Self:
        """Compute the moments of [N, D] finite float32."""
        dims = x.shape[1]
        low, high = np.full(dims, np.inf, np.float32), np.full(dims, -np.inf, np.float32)
        sums, squares = [0] * dims, [0] * dims
        for block in blocks(x):
            low, high = np.minimum(low, block.min(axis=1)), np.maximum(high, block.max(axis=1))
            for d, column in enumerate(block):
                wide = column.astype(np.float64)
                sums[d] += exact_sum(wide, UNIT)
                squares[d] += exact_sum(wide * wide, 2 * UNIT)  # the product of two float32 is exact in float64
        return cls(count=len(x), low=low, high=high, sums=tuple(sums), squares=tuple(squares))

    def merge(self, other: Self) -> Self:
        """Return the moments of both sets of vectors together."""
        return type(self)(
            count=self.count + other.count,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            sums=tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            squares=tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    @property
    def mean(self) -> Array:
        """The mean, [D] float64. It is computed exactly and rounded only at the end."""
        return np.array([total / (self.count << UNIT) for total in self.sums])

    @property
    def std(self) -> Array:
        """The standard deviation with ddof 0, [D] float64. It is the root of the exact variance."""
        pairs = zip(self.sums, self.squares, strict=True)
        return np.array([sqrt((self.count * q - s * s) / (self.count**2 << 2 * UNIT)) for s, q in pairs])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form to exchange between processes."""
        bounds = {"low": self.low.tolist(), "high": self.high.tolist()}
        return {"count": self.count, **bounds, "sums": list(self.sums), "squares": list(self.squares)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        low, high = np.array(data["low"], np.float32), np.array(data["high"], np.float32)
        sums, squares = tuple(data["sums"]), tuple(data["squares"])
        return cls(count=data["count"], low=low, high=high, sums=sums, squares=squares)


def blocks(x: Array, rows: int = ROWS) -> Iterator[Array]:
    """Split [N, D] into blocks [D, rows], in which the values of each dimension are contiguous in memory."""
    return (np.ascontiguousarray(x[start : start + rows].T) for start in range(0, len(x), rows))


def exact_sum(x: Array, unit: int) -> int:
    """Add at most 2**16 finite float64 numbers that are multiples of 2**-unit; the result is in that unit.

    In each round, the numbers are rounded to multiples of a power of two that is 36 bits below the largest possible
    number. The rounded numbers add up without an error. What rounding removed is exact, and is added in the next round.
    """
    total, exponent = 0, frexp(max(x.max(), -x.min()))[1] if len(x) else 0
    while x.any():  # all numbers are below 2**exponent
        step = exponent - PART
        shift = 1.5 * 2.0 ** (step + 52)  # adding it rounds to multiples of 2**step
        part = x + shift
        part -= shift
        x = x - part
        whole = int(part.sum() * 2.0**-step)
        total += whole << (step + unit) if step + unit >= 0 else whole >> -(step + unit)
        exponent = step
    return total
