"""`spike`: a state that jumps away and is back within two steps."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import Batch, wrapped
from pipelines.checks.check import Check
from pipelines.checks.findings import Finding
from pipelines.checks.numbers.pairs import no_state
from schemas.source import Array

WIDTHS = (1, 2)  # steps


def of_episodes(batch: Batch) -> Iterator[Finding]:
    """Find values that are far from both their neighbours, while these are close to each other."""
    about, limits, state = batch.about, batch.about.rules.spike, batch.state
    if state is None or about.state is None or len(state) < 4:
        return
    dims = [
        i
        for i, dim in enumerate(about.state.dims)
        if dim.kind != "gripper"
        and about.ranges["state"].per_usual[i]
        and not (dim.unit == "1" and dim.kind == "rotation")
    ]
    if not dims:
        return
    values = state[:, dims].astype(np.float64)
    scale = about.ranges["state"].per_usual[dims].astype(np.float64)
    turns = [k for k, i in enumerate(dims) if about.state.dims[i].unit == "rad"]
    deviates = np.zeros(values.shape)
    for width in WIDTHS:
        if len(values) < width + 2:
            continue
        base, after = values[: -width - 1], values[width + 1 :]
        back = _apart(after, base, turns) * scale
        inside = batch.owner[: -width - 1] == batch.owner[width + 1 :]
        for ahead in range(1, width + 1):
            away = _apart(values[ahead : len(base) + ahead], base + (after - base) * ahead / (width + 1), turns) * scale
            is_spike = inside[:, None] & (np.abs(away) > limits.size) & (np.abs(back) < 0.5 * np.abs(away))
            place = deviates[ahead : len(base) + ahead]
            np.maximum(place, np.abs(away) * is_spike, out=place)
    if not deviates.any():
        return
    noise = 1.4826 * np.median(np.abs(_bends(batch, values, turns) * scale), axis=0)
    is_spike = deviates > np.maximum(limits.size, limits.z * noise)
    for number in np.unique(batch.owner[is_spike.any(axis=1)]).tolist():
        start = int(batch.starts[number])
        own = is_spike[start : start + int(batch.lengths[number])]
        names = tuple(f"state.{about.state.dims[dims[k]].name}" for k in np.flatnonzero(own.any(axis=0)).tolist())
        spans = tuple((step, step + 1) for step in np.flatnonzero(own.any(axis=1)).tolist())
        largest = float(deviates[start : start + len(own)].max())
        yield Finding(
            member=about.member,
            rule="spike",
            episode=int(batch.episodes[number]),
            steps=spans,
            dims=names,
            value=largest,
            message=f"{', '.join(names)} jumps by up to {largest:.0%} of its usual range and returns at once",
        )


def _apart(values: Array, others: Array, turns: list[int]) -> Array:
    """Return differences, those of angles between -pi and pi."""
    difference = values - others
    if turns:
        difference[:, turns] = wrapped(difference[:, turns])
    return np.asarray(difference)


def _bends(batch: Batch, values: Array, turns: list[int]) -> Array:
    """Return the second differences inside episodes, [M, D]."""
    first = _apart(values[1:], values[:-1], turns)
    inside = batch.owner[2:] == batch.owner[:-2]
    bends = (first[1:] - first[:-1])[inside]
    return np.asarray(bends) if len(bends) else np.zeros((1, values.shape[1]))


CHECK = Check(rule="spike", why_not=no_state, of_episodes=of_episodes)
