"""Compare the declared control rate with the recorded times."""

import numpy as np

from schemas.source import Array
from schemas.store.columns import Span, episodes
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES

TOLERANCE = 0.02  # relative


def rate_mismatch(control_hz: float | None, times: Array | None) -> str | None:
    """Return a message if the times do not fit the declared rate, else None.

    `times` are [T] in seconds; their median difference is compared with `1 / control_hz`.
    """
    if not control_hz or times is None or len(times) < 2:
        return None
    recorded_hz = 1 / float(np.median(np.diff(times)))
    if abs(recorded_hz / control_hz - 1) <= TOLERANCE:
        return None
    return f"control_hz is {control_hz:g}, but the recorded times have {recorded_hz:.4g} steps per second"


def rate_note(dataset: Dataset) -> str | None:
    """Compare the declared rate with the recorded times of the first episode with more than one step.

    Returns a message if they do not fit, else None.
    """
    if not dataset.spec.timestamp or not dataset.spec.control_hz:
        return None
    for i in range(len(dataset)):
        file, row, length = dataset.where(i)
        if length > 1:
            span = Span(file=file, starts=np.array([row]), lengths=np.array([length]))
            (steps,) = episodes(dataset, [span], more=[TIMES])
            problem = rate_mismatch(dataset.spec.control_hz, steps.columns.get(TIMES))
            return problem and f"{dataset.spec.name}: episode {i}: {problem}"
    return None
