"""Measures by which `duplicates.py` finds episodes that were recorded once: a hash of the motion, and its path."""

import numpy as np

from pipelines.checks.batch import CHANGES, NumberBatch
from pipelines.checks.check import Measures
from pipelines.statistics.motion import motion_hash
from schemas.source import Array
from schemas.store.columns import STATE

POINTS = 16  # number of points of a path, evenly spread over the episode's time


def measures(batch: NumberBatch) -> Measures:
    """Return of each episode its `hash` [E], its number of steps `length` [E], and its `path` [E, POINTS, D] float32.

    The path is the state, or without states the position that the actions lead to.
    """
    names = [name for name in ("action", STATE) if name in batch.columns]
    starts, stops = batch.starts.tolist(), (batch.starts + batch.lengths).tolist()
    hashes = [
        motion_hash({name: batch.columns[name][start:stop] for name in names})
        for start, stop in zip(starts, stops, strict=True)
    ]
    return {"hash": np.array(hashes, "S32"), "length": batch.lengths, "path": _path(batch)}


def _path(batch: NumberBatch) -> Array:
    values = _accumulated(batch) if batch.state is None else batch.state
    at = batch.starts[:, None] + np.linspace(0, 1, POINTS) * (batch.lengths[:, None] - 1)  # [E, POINTS]
    first = np.floor(at).astype(np.int64)
    weight = (at - first)[..., None].astype(np.float32)
    after = np.minimum(first + 1, (batch.starts + batch.lengths - 1)[:, None])
    return np.asarray(values[first] * (1 - weight) + values[after] * weight, np.float32)


def _accumulated(batch: NumberBatch) -> Array:
    """Return the actions, with the sum of all earlier ones for dimensions that are changes, [N, A]."""
    is_change = np.array([dim.mode in CHANGES for dim in batch.about.action.dims])
    total = np.cumsum(batch.action, axis=0, dtype=np.float64)
    total -= (total[batch.starts] - batch.action[batch.starts])[batch.owner]
    return np.where(is_change, total, batch.action)
