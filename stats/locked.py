"""The statistics with which a locked mixture normalizes its sources, in the dimensions of the mixture."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.mixture.lock import Lock
from schemas.source import Array
from stats.norm import KNOWN, NormStats
from stats.record import Statistics

RANGE = 1.0  # numbers that are not normalized have tokens in [-1, 1]


def locked_statistics(lock: Lock, source: str) -> Statistics:
    """Return the statistics that normalize a source of a lock. Raises StatsError if they are damaged."""
    key = lock.sources[source].statistics
    return Statistics.from_json(lock.statistics[key], where=f"{lock.name}: statistics of {key}")


def locked_norm(lock: Lock, source: str) -> NormStats:
    """Return the normalization of a source's actions. Dimensions that the source lacks are not normalized."""
    norm, places = locked_statistics(lock, source).norm(), lock.places(source)
    valid = places >= 0
    mask = valid if lock.grippers == "normalize" else valid & norm.mask[places]
    figures: dict[str, Array] = {name: values for name in KNOWN if (values := getattr(norm, name)) is not None}
    placed: dict[str, Any] = {name: np.where(valid, values[..., places], 0.0) for name, values in figures.items()}
    return NormStats(names=lock.dims, mask=mask, constant=lock.constant, method=lock.method, **placed)


def locked_state_norm(lock: Lock, source: str) -> NormStats | None:
    """Return the normalization of the states of a source's view, or None if it has no states.

    Its `names` and its `space` say what the numbers of a state are.
    """
    statistics = locked_statistics(lock, source)
    return replace(statistics.norm("state"), method=lock.method) if "state" in statistics.vectors else None


def constants(lock: Lock, source: str) -> dict[str, float]:
    """Return the dimensions that never change in a source of a lock, with their values."""
    known = dict(zip(lock.dims, (lock.places(source) >= 0).tolist(), strict=True))
    return {name: value for name, value in locked_norm(lock, source).constants().items() if known[name]}


def constant_warnings(lock: Lock, source: str) -> Iterator[str]:
    """Yield a warning for each constant dimension of a source that a policy will not reproduce."""
    norm = locked_norm(lock, source)
    masked = dict(zip(norm.names, norm.mask.tolist(), strict=True))
    for name, value in constants(lock, source).items():
        if masked[name] or lock.method == "normal":
            continue  # it becomes 0, or its mean, and 0 is un-normalized to the constant
        if lock.constant == "zero" and value:
            yield (
                f'{source}: {name} is always {value:g}, but is taught as 0 ([normalize] constant = "zero", OpenVLA\'s '
                'rule): a policy will not do what was recorded; constant = "keep" teaches the recorded value'
            )
        elif abs(value) > RANGE:
            yield f"{source}: {name} is always {value:g}, but is taught as {np.sign(value):g}, where the tokens end"
