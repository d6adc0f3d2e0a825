"""`frozen_state`: a dimension of the state that stands still while its motion is commanded."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import CHANGES, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.pairs import UNSCALED, no_state, pairs
from schemas.source import Array
from schemas.store.columns import STATE

DELAY = 0.25  # seconds after which a command is obeyed
CATCHES_UP = 0.5  # least motion at once after a freeze, as a multiple of the motion that was commanded
RARE = 0.02  # share of equal neighbours below which a dimension has the noise of a sensor and never stands still


def _repeats(batch: NumberBatch, state: Array) -> Array:
    """Return whether the next step of the episode has the same value, [N, S]."""
    is_equal = np.zeros(state.shape, bool)
    is_equal[:-1] = state[1:] == state[:-1]
    is_equal[batch.is_last] = False
    return is_equal


def learn(batch: NumberBatch) -> Measures:
    """Return the share of steps after which each dimension keeps its value, [S]; 1 without two neighbours."""
    state, inner = batch.columns[STATE], ~batch.is_last
    usual = _repeats(batch, state)[inner].mean(axis=0) if inner.any() else np.ones(state.shape[1])
    return {"state_repeats": usual}


def of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find runs of equal values of one dimension that a command or the rest of the robot contradicts."""
    about, limits, state = batch.about, batch.about.rules.frozen_state, batch.state
    if state is None or about.state is None:
        return
    at_least = batch.steps_in(limits.seconds, at_least=3)
    is_equal = _repeats(batch, state)
    delay = batch.steps_in(DELAY)
    commands = {i: a for a, i in pairs(about)}
    noisy = about.usual["state_repeats"] < RARE
    of_episode: dict[int, tuple[set[tuple[int, int]], set[str]]] = {}
    for i, dim in enumerate(about.state.dims):
        if dim.kind == "gripper" or not about.ranges["state"].per_usual[i]:
            continue
        for number, first, stop in batch.runs(is_equal[:, i], at_least=at_least):
            start = int(batch.starts[number])
            rows = slice(start + first, start + stop)
            others = np.delete(np.abs(batch.moved[rows]).sum(axis=0), i)
            contradicts = noisy[i] and others.max(initial=0) > limits.motion
            if i in commands and not contradicts:
                obeyed = slice(rows.start, max(rows.start, rows.stop - delay))
                ignores = _travel(batch, (commands[i], i), obeyed) > limits.motion
                lasts = start + stop + 1 >= start + int(batch.lengths[number])
                contradicts = ignores and (lasts or abs(batch.moved[start + stop, i]) > CATCHES_UP * limits.motion)
            if contradicts:
                spans, dims = of_episode.setdefault(number, (set(), set()))
                spans.add((first, stop + 1))
                dims.add(f"state.{dim.name}")
    for number, (spans, dims) in of_episode.items():
        longest = max(stop - first for first, stop in spans)
        named = ", ".join(sorted(dims))
        yield RuleFinding(
            member=about.member,
            rule="frozen_state",
            episode=int(batch.episodes[number]),
            steps=tuple(sorted(spans)),
            dims=tuple(sorted(dims)),
            value=float(longest),
            message=f"{named} stands still for up to {longest} steps while the robot moves or a motion is commanded",
        )


def _travel(batch: NumberBatch, pair: tuple[int, int], rows: slice) -> float:
    """Return how far a pair of command and state is commanded to move, as a share of the state's usual range."""
    about, (command, state) = batch.about, pair
    dim = about.action.dims[command]
    values = batch.action[rows, command].astype(np.float64)
    if dim.mode not in CHANGES:
        return float(np.ptp(values) * about.ranges["state"].per_usual[state])
    if dim.unit in UNSCALED or dim.mode == "velocity":  # a tenth of the usual command, on average, is a motion
        return float(abs(values.mean()) * about.ranges["action"].per_usual[command])
    return float(abs(values.sum()) * about.ranges["state"].per_usual[state])


CHECK = Check(rule="frozen_state", why_not=no_state, learn=learn, of_episodes=of_episodes)
