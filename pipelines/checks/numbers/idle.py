"""`idle`: steps at which the robot rests and no motion is commanded.

openpi cuts runs of small joint velocities out of DROID. A step counts only if state, command and gripper all rest, so
that a slow motion and a hand that closes are not idle.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import CHANGES, About, NumberBatch
from pipelines.checks.check import Check
from pipelines.checks.findings import RuleFinding
from schemas.source import Array

WINDOW, SETTLES = 0.5, 1.0  # seconds: in which motions are measured; that a gripper takes after its command


def why_not(about: About) -> str | None:
    """Return a reason if no motion can be seen."""
    return None if about.state or _changes(about) else "there are no states, and the actions are not changes"


def _changes(about: About) -> list[int]:
    return [i for i, dim in enumerate(about.action.dims) if dim.mode in CHANGES]


def is_idle(batch: NumberBatch) -> Array:
    """Return whether each step rests, [N] bool."""
    about, limits = batch.about, batch.about.rules.idle
    window = batch.steps_in(WINDOW)
    changes = _changes(about)
    others = [i for i in range(len(about.action)) if i not in changes]
    rests = np.ones(len(batch.action), bool)
    if changes:
        rests &= (np.abs(batch.commanded[:, changes]) <= limits.command).all(axis=1)
    still = np.ones(len(batch.action), bool)
    for values, ranges, dims in (
        (batch.action, about.ranges["action"], others),
        (None if batch.state is None else batch.smooth, about.ranges.get("state"), slice(None)),
    ):
        if values is not None and ranges is not None:
            still &= _is_still(batch, values[:, dims] * ranges.per_usual[dims], window=window, limit=limits.motion)
    idle = rests & _spread(batch, still & _fits(batch, window), window=window)
    grippers = [i for i, dim in enumerate(about.action.dims) if dim.kind == "gripper"]
    if grippers and not _shows_gripper(about):  # the hand closes unseen
        toggles = np.abs(batch.changes(batch.action[:, grippers]) * about.ranges["action"].per_usual[grippers]) > 0.1
        idle &= ~_spread(batch, toggles.any(axis=1), window=batch.steps_in(SETTLES, at_least=3))
    return idle


def _shows_gripper(about: About) -> bool:
    return about.state is not None and any(dim.kind == "gripper" for dim in about.state.dims)


def _fits(batch: NumberBatch, window: int) -> Array:
    """Return whether the window that begins at a row ends in the same episode, [N]."""
    fits = np.zeros(len(batch.owner), bool)
    if window < len(fits):
        fits[:-window] = batch.owner[window:] == batch.owner[:-window]
    return fits


def _is_still(batch: NumberBatch, values: Array, *, window: int, limit: float) -> Array:
    """Return whether no dimension changes by more than `limit` in the window that begins at a row, [N]."""
    still = np.ones(len(batch.owner), bool)
    for ahead in {window, -(-window // 2)}:
        if ahead < len(values):
            still[:-ahead] &= (np.abs(values[ahead:] - values[:-ahead]) <= limit).all(axis=1)
    return still


def _spread(batch: NumberBatch, mask: Array, *, window: int) -> Array:
    """Return whether a row or one of the `window` rows before it, in the same episode, is in the mask, [N]."""
    counts = np.concatenate([[0], np.cumsum(mask)])
    rows = np.arange(len(mask))
    first = np.maximum(rows - window, batch.starts[batch.owner])
    return np.asarray(counts[rows + 1] - counts[first] > 0)


def of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find the idle steps of each episode that last long enough."""
    at_least = batch.steps_in(batch.about.rules.idle.seconds, at_least=4)
    spans: dict[int, list[tuple[int, int]]] = {}
    for number, first, stop in batch.runs(is_idle(batch), at_least=at_least):
        spans.setdefault(number, []).append((first, stop))
    for number, ranges in spans.items():
        count = sum(stop - first for first, stop in ranges)
        length = int(batch.lengths[number])
        yield RuleFinding(
            member=batch.about.member,
            rule="idle",
            episode=int(batch.episodes[number]),
            steps=tuple(ranges),
            value=count / length,
            message=f"{count} of {length} steps are idle, in {len(ranges)} rests",
        )


CHECK = Check(rule="idle", why_not=why_not, of_episodes=of_episodes)
