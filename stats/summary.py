"""`Summary`: the statistics of one vector by dimension, with its Space."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from schemas.errors import StatsError
from schemas.source import Array
from schemas.spaces import Space
from stats.moments import Moments
from stats.quantiles import ALL, DIMENSION, FIRST, Histogram, numbers

QUANTILES = {"q01": 0.01, "q02": 0.02, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q98": 0.98, "q99": 0.99}
FIGURES = ("mean", "std", "min", "max", *QUANTILES)
BINS = 12  # number of bins in the sketch
NARROW = 1e-2  # relative range below which a dimension is narrow; in openpi#814, 0.001 at 1.6 normalized 0 to -3200
Flag: TypeAlias = Literal["constant", "narrow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The statistics of N vectors in one Space; arrays are float64, [D], or [H, D] for action chunks."""

    space: Space
    count: int
    mean: Array
    std: Array  # ddof 0
    min: Array
    max: Array
    q01: Array
    q02: Array
    q10: Array
    q50: Array
    q90: Array
    q98: Array
    q99: Array
    mask: Array  # bool: whether trainers normalize the dimension; False for an action's gripper, as in OpenVLA
    sketch: Array  # [..., BINS]: approximate histogram from q01 to q99; the end bins also count values outside

    @classmethod
    def of(cls, space: Space, moments: Moments, *, quantiles: Array, histogram: Histogram, is_action: bool) -> Self:
        """Build it from moments, `quantiles` [7, D or H * D] and the `histogram` of the first pass over the data."""
        shape = (-1, len(space)) if len(moments.low) > len(space) else (len(space),)
        figures = {
            "mean": moments.mean,
            "std": moments.std,
            "min": moments.low.astype(np.float64) + 0.0,
            "max": moments.high.astype(np.float64) + 0.0,
            **dict(zip(QUANTILES, quantiles, strict=True)),
        }
        sketch = _sketch(histogram, figures["q01"], figures["q99"])
        return cls(
            space=space,
            count=moments.count,
            mask=np.array([not (is_action and dim.kind == "gripper") for dim in space.dims]),
            sketch=sketch.reshape(*shape, BINS),
            **{name: values.reshape(shape) for name, values in figures.items()},
        )

    def __post_init__(self) -> None:
        """Raise StatsError for arrays that do not fit the Space or are not finite."""
        for name in (*FIGURES, "mask"):
            figures = getattr(self, name)
            if figures.shape[-1:] != (len(self.space),) or not np.isfinite(figures).all():
                raise StatsError(f"{name}: expected {len(self.space)} finite numbers, got {figures.tolist()}")

    @property
    def flags(self) -> dict[str, Flag]:
        """The dimensions that are hard to normalize: `constant`, or with a `narrow` range from q01 to q99."""
        is_constant = np.atleast_2d(self.min == self.max).all(axis=0)
        narrow = is_narrow(self.q01, self.q99, scale=self.std)
        flags = np.where(is_constant, "constant", np.where(narrow, "narrow", ""))
        return {dim.name: flag for dim, flag in zip(self.space.dims, flags.tolist(), strict=True) if flag}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form used in `meta/stats.json`."""
        arrays = {name: getattr(self, name).tolist() for name in (*FIGURES, "mask", "sketch")}
        head = {"space": self.space.to_json(), "space_digest": self.space.digest(), "count": self.count}
        return {**head, **arrays, "flags": self.flags}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        arrays = {
            field.name: np.array(data[field.name]) for field in fields(cls) if field.name not in {"space", "count"}
        }
        return cls(space=Space.from_json(data["space"]), count=data["count"], **arrays)


def is_narrow(low: Array, high: Array, *, scale: Array | float) -> Array:
    """Whether the range of each dimension, [D], is tiny compared to the size of its bounds or to `scale`."""
    size = np.maximum(np.maximum(np.abs(low), np.abs(high)), scale)
    return np.asarray(np.atleast_2d(high - low <= NARROW * size).any(axis=0))


def _sketch(histogram: Histogram, low: Array, high: Array) -> Array:
    """Compute an approximate histogram, [D, BINS], from that of the first pass.

    All values in a bucket are counted as if they were at its middle.
    """
    dimension = (histogram.keys >> DIMENSION).astype(np.int64)
    middle = histogram.keys.astype(np.uint32) << np.uint32(ALL - FIRST) | np.uint32(1 << 15)
    values = numbers(middle).astype(np.float64)
    width = np.where(high > low, high - low, 1)[dimension]
    place = (values - low[dimension]) / width * BINS
    out = np.zeros((len(low), BINS), np.int64)
    np.add.at(out, (dimension, place.clip(0, BINS - 1).astype(np.int64)), histogram.counts)
    return out
