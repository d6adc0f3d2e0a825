"""Does a declared rate fit the times that were recorded? Who counts steps by it would get a wrong clock."""

import numpy as np

from schemas.source import Array
from schemas.store.columns import Span, episodes
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES

NEAR = 0.02  # of the rate


def other_rate(control_hz: float | None, times: Array | None) -> str | None:
    """Say which rate recorded times [T], in seconds, have by their median step, where it is another than declared."""
    if not control_hz or times is None or len(times) < 2:
        return None
    found = 1 / float(np.median(np.diff(times)))
    if abs(found / control_hz - 1) <= NEAR:
        return None
    return f"control_hz is {control_hz:g}, the recorded times have {found:.4g} steps a second"


def rate_note(dataset: Dataset) -> str | None:
    """Compare a dataset's declared rate with the recorded times of its first episode of several steps."""
    if not dataset.spec.timestamp or not dataset.spec.control_hz:
        return None
    for i in range(len(dataset)):
        file, row, length = dataset.where(i)
        if length > 1:
            span = Span(file=file, starts=np.array([row]), lengths=np.array([length]))
            (steps,) = episodes(dataset, [span], more=[TIMES])
            problem = other_rate(dataset.spec.control_hz, steps.columns.get(TIMES))
            return problem and f"{dataset.spec.name}: episode {i}: {problem}"
    return None
