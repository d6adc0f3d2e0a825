"""`copied_field`: a command that equals a state, or another dimension, in every step (lerobot#4402).

Columns of the source are compared as well, if their names say that they are different things.
"""

import re
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from schemas.source import Array, Field
from schemas.store.arrow import RAW

FEWEST = 8  # steps of an episode, below which equal columns may be chance
COMMAND = frozenset({"action", "actions", "command", "commands", "cmd", "control", "ctrl", "target", "goal", "leader"})
QUANTITIES = (  # words that name one quantity
    frozenset({"position", "positions", "pos", "qpos", "pose"}),
    frozenset({"velocity", "velocities", "vel", "qvel", "twist"}),
    frozenset({"effort", "efforts", "torque", "torques", "force"}),
    frozenset({"acceleration", "accelerations", "acc", "qacc"}),
)


def why_not(about: About) -> str | None:
    """Return a reason if the actions are expected to equal the states."""
    if about.is_derived:
        return "the actions were computed from the states"
    return "the actions are measured states" if about.action.origin == "achieved" else None


def measures(batch: NumberBatch) -> Measures:
    """Return sums that are equal for equal columns, `copy_sum` [E, A + S], and whether a column varies, `copy_varies`.

    The sums have a weight for each row of an episode, so that equal sums mean equal values.
    """
    joined = batch.action if batch.state is None else np.concatenate([batch.action, batch.state], axis=1)
    rows = np.arange(len(joined)) - batch.starts[batch.owner]
    weights = 0.5 + np.modf(rows * 0.6180339887498949)[0]
    low, high = batch.per_episode(np.minimum, joined), batch.per_episode(np.maximum, joined)
    raw = _raw_pairs(batch.about)
    equal = np.zeros((len(batch.lengths), 2, len(raw)), bool)
    for k, pair in enumerate(raw):
        ours, theirs = (batch.columns[RAW + field.path].reshape(len(rows), -1) for field in pair)
        equal[:, 0, k] = batch.per_episode(np.logical_and, (ours == theirs).all(axis=1))
        equal[:, 1, k] = (batch.per_episode(np.maximum, ours) > batch.per_episode(np.minimum, ours)).any(axis=1)
    return {
        "copy_sum": batch.per_episode(np.add, joined.astype(np.float64) * weights[:, None]),
        "copy_varies": high > low,
        "copy_raw": equal,  # [E, 2, P]: whether two columns of the source are equal, and whether they vary
    }


def _raw_pairs(about: About) -> list[tuple[Field, Field]]:
    """Return the pairs of columns of the source that have one shape, and whose names say that they differ."""
    pairs = combinations(about.raw, 2)
    return [(first, second) for first, second in pairs if first.shape == second.shape and _differ(first, second)]


def _differ(first: Field, second: Field) -> bool:
    """Return whether one is a command and the other is not, or whether they are different quantities."""
    ours, theirs = (set(re.split(r"[^a-z]+", field.path.lower())) for field in (first, second))
    if bool(ours & COMMAND) != bool(theirs & COMMAND):
        return True
    named = [{k for k, quantity in enumerate(QUANTITIES) if words & quantity} for words in (ours, theirs)]
    return bool(named[0] and named[1] and not named[0] & named[1])


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Name the columns that are equal in all episodes, and the episodes in which others are."""
    sums, varies = measured["copy_sum"], measured["copy_varies"]
    long = measured["length"] >= FEWEST
    names = [f"action.{dim.name}" for dim in about.action.dims]
    kinds = [dim.kind for dim in about.action.dims]
    if about.state is not None:
        names += [f"state.{dim.name}" for dim in about.state.dims]
        kinds += [dim.kind for dim in about.state.dims]
    usable = [i for i, kind in enumerate(kinds) if kind != "gripper"]
    of_episode: dict[int, list[tuple[int, int]]] = {}
    for place, i in enumerate(usable):
        for k in usable[place + 1 :]:
            is_equal = (sums[:, i] == sums[:, k]) & varies[:, i] & varies[:, k] & long
            if not is_equal.any():
                continue
            if _whole(is_equal, varies[:, i] & varies[:, k] & long):
                message = f"{names[i]} equals {names[k]} in every step"
                yield RuleFinding(member=about.member, rule="copied_field", dims=(names[i], names[k]), message=message)
            else:
                for row in np.flatnonzero(is_equal).tolist():
                    of_episode.setdefault(row, []).append((i, k))
    yield from _of_raw(about, measured)
    for row, equal in of_episode.items():
        dims = tuple(dict.fromkeys(names[i] for pair in equal for i in pair))
        named = ", ".join(f"{names[i]} and {names[k]}" for i, k in equal)
        episode = int(measured["episode"][row])
        message = f"equal in every step of this episode: {named}"
        yield RuleFinding(member=about.member, rule="copied_field", episode=episode, dims=dims, message=message)


def _of_raw(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Name the columns of the source that are equal in all episodes, and the episodes in which others are."""
    of_episode: dict[int, list[str]] = {}
    for k, (first, second) in enumerate(_raw_pairs(about)):
        equal, varies = measured["copy_raw"][:, 0, k], measured["copy_raw"][:, 1, k]
        is_judged = varies & (measured["length"] >= FEWEST)
        is_equal, dims = equal & is_judged, (RAW + first.path, RAW + second.path)
        if is_equal.any() and _whole(is_equal, is_judged):
            message = f"{dims[0]} equals {dims[1]} in every step"
            yield RuleFinding(member=about.member, rule="copied_field", dims=dims, message=message)
        else:
            for row in np.flatnonzero(is_equal).tolist():
                of_episode.setdefault(row, []).extend(dims)
    for row, paths in of_episode.items():
        named = tuple(dict.fromkeys(paths))
        message = f"columns of the source are equal in every step of this episode: {', '.join(named)}"
        episode = int(measured["episode"][row])
        yield RuleFinding(member=about.member, rule="copied_field", episode=episode, dims=named, message=message)


def _whole(is_equal: Array, is_judged: Array) -> bool:
    return bool(is_equal.sum() >= 0.9 * is_judged.sum())


CHECK = Check(rule="copied_field", why_not=why_not, measures=measures, of_dataset=of_dataset)
