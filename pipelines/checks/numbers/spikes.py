"""`spike`: a state that jumps away and is back within two steps."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.pairs import no_state
from schemas.source import Array

WIDTHS = {1: 1.25, 2: 2.0}  # steps -> least size, as a multiple of the motion of one step nearby
LEAST = 8  # steps, that show a smooth path
SMOOTH = {"position", "rotation", "joint", "base"}  # kinds of dimensions


def of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find values that are far from the smooth path through the two values before and the two after them."""
    about, limits = batch.about, batch.about.rules.spike
    dims = _judged(about)
    if about.state is None or not dims or len(batch.owner) <= LEAST:
        return
    values, noise = _scaled(batch, dims), about.usual["spike_noise"]
    deviates = np.zeros(values.shape)
    for width in WIDTHS:
        away, is_back = _deviations(batch, values, width)
        is_spike = is_back & (np.abs(away) > np.maximum(limits.size, limits.z * noise))
        for ahead in range(width):
            place = deviates[2 + ahead : 2 + ahead + len(away)]
            np.maximum(place, np.abs(away) * is_spike, out=place)
    is_spike = deviates > 0
    for number in np.unique(batch.owner[is_spike.any(axis=1)]).tolist():
        start = int(batch.starts[number])
        own = is_spike[start : start + int(batch.lengths[number])]
        names = tuple(f"state.{about.state.dims[dims[k]].name}" for k in np.flatnonzero(own.any(axis=0)).tolist())
        largest = float(deviates[start : start + len(own)].max())
        yield RuleFinding(
            member=about.member,
            rule="spike",
            episode=int(batch.episodes[number]),
            steps=tuple((step, step + 1) for step in np.flatnonzero(own.any(axis=1)).tolist()),
            dims=names,
            value=largest,
            message=f"{', '.join(names)} jumps by up to {largest:.0%} of its usual range and returns at once",
        )


def learn(batch: NumberBatch) -> Measures:
    """Return the robust deviation of each judged dimension from its smooth path, [D]; 0 if the sample is short."""
    dims = _judged(batch.about)
    if not dims or len(batch.owner) <= LEAST:
        return {"spike_noise": np.zeros(len(dims))}
    away, _ = _deviations(batch, _scaled(batch, dims), 1)
    return {"spike_noise": 1.4826 * np.median(np.abs(away), axis=0)}


def _judged(about: About) -> list[int]:
    """Return the dimensions of the state that move smoothly: no grippers and no flags."""
    if about.state is None:
        return []
    usable = about.ranges["state"].per_usual > 0
    return [i for i, dim in enumerate(about.state.dims) if dim.kind in SMOOTH and usable[i]]


def _scaled(batch: NumberBatch, dims: list[int]) -> Array:
    """Return the states as shares of their usual range, [N, D] float64."""
    return np.asarray(batch.smooth[:, dims].astype(np.float64) * batch.about.ranges["state"].per_usual[dims])


def _deviations(batch: NumberBatch, values: Array, width: int) -> tuple[Array, Array]:
    """Return how far `width` values deviate from the cubic through their neighbours, [M, D], and whether they return.

    Row m is about the steps from m + 2 on; it is 0 where the neighbours are not in one episode. A jump to another level
    does not return: it changes the neighbours as well.
    """
    after = width + 2
    inside = batch.owner[: -after - 1] == batch.owner[after + 1 :]
    size = len(inside)
    nodes = [values[at : at + size] for at in (0, 1, width + 2, width + 3)]
    places = np.array([-2, -1, width, width + 1], np.float64)
    away = np.zeros((width, size, values.shape[1]))
    for ahead in range(width):
        predicted = sum(_lagrange(places, k, ahead) * node for k, node in enumerate(nodes))
        away[ahead] = values[2 + ahead : 2 + ahead + size] - predicted
    least = np.where(np.abs(away).argmin(axis=0) == 0, away[0], away[-1])
    drift = (nodes[2] - nodes[1]) / (width + 1) - (nodes[3] - nodes[0]) / (width + 3)
    is_back = np.abs(drift) * (width + 1) < 0.5 * np.abs(least)
    speed = np.maximum(np.abs(nodes[1] - nodes[0]), np.abs(nodes[3] - nodes[2]))
    is_back &= np.abs(least) > WIDTHS[width] * speed
    is_back &= (np.sign(away) == np.sign(away[0])).all(axis=0)
    return least * inside[:, None], is_back


def _lagrange(places: Array, k: int, at: float) -> float:
    """Return the weight of the k-th place in the polynomial through all places, at a place."""
    others = np.delete(places, k)
    return float(np.prod((at - others) / (places[k] - others)))


CHECK = Check(rule="spike", why_not=no_state, learn=learn, of_episodes=of_episodes)
