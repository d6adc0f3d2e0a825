"""Normalize actions with OpenVLA's formulas, and find dimensions that would be divided by almost 0."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np

from schemas.errors import StatsError, UsageError, did_you_mean
from schemas.source import Array
from schemas.spaces import Space
from stats.summary import Summary, is_narrow

Method: TypeAlias = Literal["bounds_q99", "bounds", "normal"]
Constant: TypeAlias = Literal["keep", "zero"]
METHOD: Method = "bounds_q99"  # OpenVLA's, and the default
EPS = 1e-8
NEEDS = {"bounds_q99": ("q01", "q99"), "bounds": ("min", "max"), "normal": ("mean", "std")}
KNOWN = ("mean", "std", "min", "max", "q01", "q99")


class Figures(NamedTuple):
    """The statistics that one method uses: [D] for one vector, or [B, 1, D] for several sources."""

    first: Array  # float32: the lower bound, or the mean
    second: Array  # float32: the upper bound, or the standard deviation
    mask: Array  # bool: dimensions where it is false are unchanged
    fixed: Array  # bool: dimensions where it is true become 0


def normalized(x: Array, figures: Figures, method: Method) -> Array:
    """Normalize [..., D] float32; see `NormStats.normalize`."""
    first, second, mask, fixed = figures
    if method == "normal":
        scaled = (x - first) / (second + np.float32(EPS))
    else:
        scaled = np.clip(2 * (x - first) / (second - first + np.float32(EPS)) - 1, -1, 1)
    return np.where(fixed, np.float32(0), np.where(mask, scaled, x))


@dataclass(frozen=True, slots=True, kw_only=True)
class NormStats:
    """The statistics that one vector is normalized with, float64: [D], or [H, D] for each step of an action chunk.

    Statistics that a file does not have are None. `constant` is what becomes of a dimension outside the mask whose
    values are all equal: it keeps them, or becomes 0, as in OpenVLA. `pinned` dimensions are always 0; see `safe`.
    `method` is used where a function is called without one.

    >>> norm = NormStats(names=("x",), mask=np.array([True]), q01=np.array([-2.0]), q99=np.array([2.0]))
    >>> norm.normalize(np.float32([[1.0], [5.0]])).ravel().tolist()
    [0.5, 1.0]
    """

    names: tuple[str, ...]
    mask: Array  # [D] bool: dimensions where it is false are unchanged
    mean: Array | None = None
    std: Array | None = None
    min: Array | None = None
    max: Array | None = None
    q01: Array | None = None
    q99: Array | None = None
    space: Space | None = None
    pinned: frozenset[str] = frozenset()
    constant: Constant = "zero"
    method: Method = METHOD

    def __post_init__(self) -> None:
        """Raise StatsError for arrays of the wrong length, numbers that are not finite, and a minimum above a maximum.

        The message names the array and the dimension.
        """
        for name in ("mask", *KNOWN):
            figures = getattr(self, name)
            if figures is not None and figures.shape[-1:] != (len(self.names),):
                raise StatsError(f"{name}: expected {len(self.names)} finite numbers, got {figures.tolist()}")
            if figures is not None and not np.isfinite(figures).all():
                where = self._first(~np.isfinite(figures), figures)
                raise StatsError(f"{name}: expected {len(self.names)} finite numbers, but dimension {where}")
        for lower, upper in (("q01", "q99"), ("min", "max")):
            low, high = getattr(self, lower), getattr(self, upper)
            if low is not None and high is not None and (low > high).any():
                bound = high[low > high][0]
                raise StatsError(
                    f"{lower}: dimension {self._first(low > high, low)}, above {upper}, which is {bound:g}"
                )
        if self.std is not None and (self.std < 0).any():
            raise StatsError(f"std: dimension {self._first(self.std < 0, self.std)}, below 0")

    def _first(self, is_wrong: Array, figures: Array) -> str:
        """Return a phrase with the first dimension that is wrong, and its number. Both arrays are [..., D]."""
        return f"{self.names[int(np.argwhere(is_wrong)[0][-1])]} is {figures[is_wrong][0]:g}"

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Build it from exact statistics."""
        names = tuple(dim.name for dim in summary.space.dims)
        figures = {name: getattr(summary, name) for name in KNOWN}
        return cls(names=names, mask=summary.mask, space=summary.space, **figures)

    def normalize(self, x: Array, method: Method | None = None) -> Array:
        """Normalize [..., D] as OpenVLA does in training, in float32.

        The bounds are mapped to [-1, 1], and values outside are clipped. If a dimension's min equals its max, it
        becomes 0, even if its mask is false, unless `constant` is "keep".
        """
        return normalized(np.asarray(x, np.float32), self.figures(method), method or self.method)

    def normalize_proprio(self, x: Array, method: Method | None = None) -> Array:
        """Normalize states [..., D] at inference, as OpenVLA-OFT does: all dimensions are clipped to [-1, 1]."""
        return np.clip(self.normalize(x, method), -1, 1)

    def figures(self, method: Method | None = None) -> Figures:
        """Return the statistics that `normalized` needs, so that they are computed only once."""
        method = method or self.method
        first, second = (figures.astype(np.float32) for figures in self._pair(method))
        constant = self._constant() & (self.mask | (self.constant == "zero"))
        fixed = self._pinned_dims() if method == "normal" else self._pinned_dims() | constant
        return Figures(first, second, self.mask, fixed)

    def unnormalize(self, x: Array, method: Method | None = None, *, eps: float = EPS) -> Array:
        """Invert `normalize` as OpenVLA-OFT does at inference, in float64. Set `eps` to 0 to do it as OpenVLA does.

        Clipped values stay clipped. A constant dimension becomes the middle of its bounds, but is unchanged if its mask
        is false. A pinned dimension always becomes the middle of its bounds.
        """
        method = method or self.method
        first, second = self._pair(method)
        x = np.asarray(x)
        scaled = x * (second + eps) + first if method == "normal" else 0.5 * (x + 1) * (second - first + eps) + first
        return np.where(self._pinned_dims(), self.middle(method), np.where(self.mask, scaled, x))

    def middle(self, method: Method | None = None) -> Array:
        """Return the middle of each dimension's bounds, or its mean, float64 [D]."""
        method = method or self.method
        first, second = self._pair(method)
        return first if method == "normal" else (first + second) / 2

    def degenerate(self, method: Method | None = None) -> dict[str, str]:
        """Return a description, by name, of each dimension that the method would divide by almost 0."""
        method = method or self.method
        first, second = self._pair(method)
        low, high = (first, first + second) if method == "normal" else (first, second)
        narrow = is_narrow(low, high, scale=0.0 if self.std is None else self.std) & self.mask
        spans = np.atleast_2d(high - low).min(axis=0)
        what, gain = ("std", 1) if method == "normal" else (" to ".join(NEEDS[method]), 2)
        return {
            name: f"{name}: {what} spans {span:.3g}, so a difference of 1 becomes {gain / (span + EPS):.3g}"
            for name, span, flag in zip(self.names, spans, narrow, strict=True)
            if flag
        }

    def safe(self, method: Method | None = None, *, pin: Collection[str] = ()) -> Self:
        """Return statistics in which constant dimensions and those in `pin` are pinned.

        A pinned dimension is 0 when normalized, and the middle of its bounds when unnormalized. Raises StatsError if
        the method would divide any other dimension by almost 0; see `degenerate`.
        """
        for name in pin:
            if name not in self.names:
                raise UsageError(f"no dimension '{name}' to pin{did_you_mean(name, self.names)}")
        degenerate = self.degenerate(method)
        constant = {name for name, fixed in zip(self.names, self._constant(), strict=True) if fixed}
        refused = [text for name, text in degenerate.items() if name not in constant | set(pin)]
        if refused:
            raise StatsError(
                f"{'; '.join(refused)}; use another method, or pin or mask such dimensions, which then do not move"
            )
        return replace(self, pinned=self.pinned | constant | set(pin))

    def _pair(self, method: Method) -> tuple[Array, Array]:
        if method not in NEEDS:
            raise UsageError(f"unknown method '{method}'{did_you_mean(method, NEEDS)}")
        first, second = (getattr(self, name) for name in NEEDS[method])
        if first is None or second is None:
            raise StatsError(
                f"method '{method}' needs {' and '.join(NEEDS[method])}, which these statistics do not have"
            )
        return first, second

    def constants(self) -> dict[str, float]:
        """Return the dimensions whose values are all equal, with their values."""
        low = np.zeros(len(self.names)) if self.min is None else np.atleast_2d(self.min)[0]
        return {name: float(low[i]) for i, name in enumerate(self.names) if self._constant()[i]}

    def _constant(self) -> Array:
        """Whether the values of a dimension are all equal, [D]; False if its range is unknown."""
        if self.min is None or self.max is None:
            return np.zeros(len(self.names), bool)
        return np.asarray(np.atleast_2d(self.min == self.max).all(axis=0))

    def _pinned_dims(self) -> Array:
        return np.array([name in self.pinned for name in self.names])
