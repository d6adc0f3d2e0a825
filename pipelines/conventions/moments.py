"""Second moments of commands and motions, from which fits of all hypotheses and their uncertainty are computed.

A motion y[t+k] is fitted to a command x[t] that came k steps earlier: y = x @ B. Moments are sums over the steps of an
episode, so a resampled set of episodes costs one product of matrices.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.conventions.trajectories import Trajectories
from schemas.source import Array

RIDGE = 1e-9  # relative to the mean of the diagonal, for commands of which some never change


@dataclass(frozen=True, kw_only=True)
class SecondMoments:
    """Sums of products of commands x and motions y, for each of some sets of steps: episodes, or many of them."""

    xx: Array  # [..., D, D]
    xy: Array  # [..., D, K]
    yy: Array  # [..., K]
    count: Array  # [...] number of steps

    def weighted(self, weights: Array) -> "SecondMoments":
        """Return the moments of sets of episodes, [B]; `weights` [B, E] says how often each has an episode."""
        flat = {name: getattr(self, name) for name in ("xx", "xy", "yy", "count")}
        return SecondMoments(**{name: np.tensordot(weights, values, axes=1) for name, values in flat.items()})

    @cached_property
    def total(self) -> "SecondMoments":
        """The moments of all episodes together."""
        return self.weighted(np.ones(len(self.count)))

    @cached_property
    def matrix(self) -> Array:
        """The matrix B that fits best, [..., D, K]."""
        size = np.trace(self.xx, axis1=-2, axis2=-1)[..., None, None] / self.xx.shape[-1]
        ridge = (RIDGE * size + np.finfo(float).tiny) * np.eye(self.xx.shape[-1])
        return np.asarray(np.linalg.solve(self.xx + ridge, self.xy))

    @property
    def r2(self) -> Array:
        """The share of the motion that B explains, [...]; 0 without motion."""
        explained = (self.matrix * self.xy).sum(axis=(-2, -1))
        total = self.yy.sum(axis=-1)
        return _ratio(explained, total)

    @property
    def r2_of_factor(self) -> Array:
        """The share of the motion that one factor for all dimensions explains, [...], if D equals K."""
        both = np.trace(self.xx, axis1=-2, axis2=-1) * self.yy.sum(axis=-1)
        return _ratio(self._trace**2, both)

    @property
    def factor(self) -> Array:
        """The one factor for all dimensions, [...]; NaN without commands."""
        commands = np.trace(self.xx, axis1=-2, axis2=-1)
        return _ratio(self._trace, commands, empty=np.nan)

    @property
    def _trace(self) -> Array:
        return np.asarray(np.trace(self.xy, axis1=-2, axis2=-1))

    @property
    def shares(self) -> Array:
        """B in units of the usual command and motion, [..., D, K]: the share of each motion that a command explains."""
        usual = np.diagonal(self.xx, axis1=-2, axis2=-1)[..., :, None]
        moved = self.yy[..., None, :]
        return np.asarray(self.matrix * np.sqrt(_ratio(usual, moved)))

    @property
    def correlations(self) -> Array:
        """The correlation of each command with each motion, [..., D, K]; 0 without one of them."""
        size = np.sqrt(np.diagonal(self.xx, axis1=-2, axis2=-1)[..., :, None] * self.yy[..., None, :])
        return _ratio(self.xy, size)


def _ratio(above: Array, below: Array, *, empty: float = 0.0) -> Array:
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    return np.asarray(np.divide(above, below, out=np.full(shape, empty), where=np.asarray(below) > 0))


def moments(steps: Trajectories, x: Array, y: Array, *, delay: int) -> SecondMoments:
    """Return the moments of each episode for commands x [N, D] and motions y [N, K] that come `delay` steps later.

    Rows with NaN are left out.
    """
    count = len(x)
    ahead = min(abs(delay), count)
    early, late = slice(0, count - ahead), slice(ahead, count)
    ours, theirs = (early, late) if delay >= 0 else (late, early)
    left, right = np.zeros_like(x), np.zeros_like(y)
    fine = (
        (steps.owner[early] == steps.owner[late])
        & np.isfinite(x[ours]).all(axis=1)
        & np.isfinite(y[theirs]).all(axis=1)
    )
    rows = np.arange(count)[ours][fine]
    left[rows], right[rows] = x[ours][fine], y[theirs][fine]
    is_used = np.zeros(count)
    is_used[rows] = 1
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers have no fit, and other rules name them
        return SecondMoments(
            xx=steps.summed(left[:, :, None] * left[:, None, :]),
            xy=steps.summed(left[:, :, None] * right[:, None, :]),
            yy=steps.summed(right**2),
            count=steps.summed(is_used),
        )
