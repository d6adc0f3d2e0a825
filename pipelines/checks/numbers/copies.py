"""`copied_field`: a command that equals a state, or another dimension, in every step (lerobot#4402)."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from schemas.source import Array

FEWEST = 8  # steps of an episode, below which equal columns may be chance


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
    return {
        "copy_sum": batch.per_episode(np.add, joined.astype(np.float64) * weights[:, None]),
        "copy_varies": high > low,
    }


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
    for row, equal in of_episode.items():
        dims = tuple(dict.fromkeys(names[i] for pair in equal for i in pair))
        named = ", ".join(f"{names[i]} and {names[k]}" for i, k in equal)
        episode = int(measured["episode"][row])
        message = f"equal in every step of this episode: {named}"
        yield RuleFinding(member=about.member, rule="copied_field", episode=episode, dims=dims, message=message)


def _whole(is_equal: Array, is_judged: Array) -> bool:
    return bool(is_equal.sum() >= 0.9 * is_judged.sum())


CHECK = Check(rule="copied_field", why_not=why_not, measures=measures, of_dataset=of_dataset)
