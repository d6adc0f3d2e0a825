"""Measures of single episodes that `look_at.py` compares: they rank, and are no rules."""

import numpy as np

from pipelines.checks.batch import NumberBatch
from pipelines.checks.check import Measures
from pipelines.checks.numbers.idle import is_idle


def measures(batch: NumberBatch) -> Measures:
    """Return the share of idle steps and the jerk of each episode, `idle_share` and `jerk` [E] float64.

    The jerk is the mean size of the third difference of the state, divided by that of the first one.
    """
    moved = batch.commanded if batch.state is None else batch.moved
    bends = batch.changes(batch.changes(moved))
    jerk, motion = (
        batch.per_episode(np.add, np.abs(values).sum(axis=1)).astype(np.float64) for values in (bends, moved)
    )
    return {
        "idle_share": batch.per_episode(np.add, is_idle(batch).astype(np.float64)) / batch.lengths,
        "jerk": np.divide(jerk, motion, out=np.zeros(len(jerk)), where=motion > 0),
    }
