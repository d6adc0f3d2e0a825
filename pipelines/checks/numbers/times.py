"""`timestamp_jitter` and `timestamp_gap`: irregular times, and missing steps.

Steps that were lost before the times were written leave regular times; then the state moves several steps at once.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.spikes import SMOOTH
from schemas.source import Array
from schemas.views.resample import TIMES

FEWEST = 5  # steps of an episode whose times are judged
ALIGNED, SMALL = 0.8, 0.005  # cosine of two motions with one direction; least motion, as a share of the usual range
RARER = 1.8  # a jump must be this much larger than nearly all others, by ratio to the motion around it


def computed_clock(about: About) -> str | None:
    """Return a reason if the times were not recorded."""
    return None if about.is_clock else "the times were computed from the rate"


def no_times_and_no_state(about: About) -> str | None:
    """Return a reason if neither times nor states were recorded."""
    return None if about.is_clock or about.state else "the times were computed from the rate, and there are no states"


def _medians(batch: NumberBatch, values: Array, counts: Array) -> Array:
    """Return the median of each episode's first `counts` values, [E]; NaN for an episode without any."""
    rows = np.arange(len(values)) - batch.starts[batch.owner] < counts[batch.owner]
    order = np.lexsort((values[rows], batch.owner[rows]))
    ordered = values[rows][order]
    starts = np.cumsum(counts) - counts
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    out = np.full(len(counts), np.nan)
    some = counts > 0
    out[some] = (ordered[low[some]] + ordered[high[some]]) / 2
    return out


def _intervals(batch: NumberBatch) -> tuple[Array, Array, Array] | None:
    """Return the time to the next step [N], and its median and deviation in each episode [E]; None without times.

    All are NaN for an episode with a time that is not finite.
    """
    times = batch.columns.get(TIMES)
    if times is None:
        return None
    is_known = batch.per_episode(np.logical_and, np.isfinite(times))
    intervals, counts = batch.changes(np.where(is_known[batch.owner], times, np.nan)), batch.lengths - 1
    median = _medians(batch, intervals, counts)
    deviation = 1.4826 * _medians(batch, np.abs(intervals - median[batch.owner]), counts)
    return intervals, median, deviation


def jitter_of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find episodes whose intervals deviate from their median."""
    measured = _intervals(batch)
    if measured is None:
        return
    _, median, deviation = measured
    share = np.divide(deviation, median, out=np.zeros(len(median)), where=median > 0)
    for i in np.flatnonzero((share > batch.about.rules.timestamp_jitter.share) & (batch.lengths >= FEWEST)).tolist():
        yield RuleFinding(
            member=batch.about.member,
            rule="timestamp_jitter",
            episode=int(batch.episodes[i]),
            value=float(share[i]),
            message=f"the time between steps deviates by {share[i]:.0%} of its median, {median[i]:.4g} s",
        )


def gaps_of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find steps after which time or motion jumps."""
    for number, steps, ratio in _time_gaps(batch):
        if ratio <= 0:
            yield _gap(batch, (number, steps, ratio), f"the time does not increase after step {steps[0]}")
        else:
            what = f"the time after step {steps[0]} is {ratio:.3g} times the usual one"
            yield _gap(batch, (number, steps, ratio), what)
    if batch.state is not None:
        for number, steps, ratio in _jumps(batch):
            times = f"{ratio:.3g} times its motion before and after"
            what = f"after step {steps[0]}, the state moves {times}: steps are missing"
            yield _gap(batch, (number, steps, ratio), what)


def _gap(batch: NumberBatch, jump: tuple[int, list[int], float], message: str) -> RuleFinding:
    number, steps, ratio = jump
    return RuleFinding(
        member=batch.about.member,
        rule="timestamp_gap",
        episode=int(batch.episodes[number]),
        steps=tuple((step, step + 2) for step in steps),
        value=ratio,
        message=message,
    )


def _time_gaps(batch: NumberBatch) -> Iterator[tuple[int, list[int], float]]:
    measured = _intervals(batch)
    if measured is None:
        return
    intervals, median, deviation = measured
    limit = np.maximum(batch.about.rules.timestamp_gap.ratio * median, median + 6 * deviation)
    is_gap = ((intervals > limit[batch.owner]) | (intervals <= 0)) & ~batch.is_last
    ratio = np.divide(intervals, median[batch.owner], out=np.zeros(len(intervals)), where=median[batch.owner] > 0)
    yield from _by_episode(batch, is_gap, ratio)


def _jumps(batch: NumberBatch) -> Iterator[tuple[int, list[int], float]]:
    """Find motions in the direction of their neighbours that are much larger than both of them.

    Sensors that repeat a value now and then also jump, so a jump counts only if it is rare in this data.
    """
    ratio = _jump_ratio(batch)
    limit = max(batch.about.rules.timestamp_gap.jump, RARER * float(batch.about.usual["jump"]))
    is_jump = ratio > limit
    yield from _by_episode(batch, is_jump, ratio)


def _jump_ratio(batch: NumberBatch) -> Array:
    """Return the motion of each step along its neighbours, relative to the larger of the two, [N]; 0: not judged."""
    space = batch.about.state
    dims = [i for i, dim in enumerate(space.dims) if dim.kind in SMOOTH] if space else []
    moved = batch.moved[:, dims]  # a hand closes at once
    ratio = np.zeros(len(moved))
    if len(moved) < FEWEST:
        return ratio
    size = np.sqrt(np.einsum("nd,nd->n", moved, moved))
    inner = slice(2, -2)
    beside = moved[1:-3] + moved[3:-1]
    length = np.sqrt(np.einsum("nd,nd->n", beside, beside))
    faster = np.maximum(size[1:-3], size[3:-1])
    inside = (batch.owner[:-4] == batch.owner[4:]) & ~batch.is_last[4:] & (faster > SMALL) & (length > 0)
    along = np.einsum("nd,nd->n", moved[inner], beside) / np.where(inside, length, 1)
    inside &= along >= ALIGNED * size[inner]
    np.divide(along, faster, out=ratio[inner], where=inside)
    return ratio


def learn(batch: NumberBatch) -> Measures:
    """Return the ratio that 1 % of the judged motions exceed, a scalar; 0 without any."""
    if batch.state is None:
        return {"jump": np.zeros(())}
    ratio = _jump_ratio(batch)
    return {"jump": np.asarray(np.quantile(ratio[ratio > 0], 0.99) if ratio.any() else 0.0)}


def _by_episode(batch: NumberBatch, mask: Array, ratio: Array) -> Iterator[tuple[int, list[int], float]]:
    """Yield each episode with rows in the mask: its number, the steps, and the ratio with the largest deviation."""
    rows = np.flatnonzero(mask)
    for number in np.unique(batch.owner[rows]).tolist():
        own = rows[batch.owner[rows] == number]
        values = ratio[own]
        worst = float(values.min() if values.min() <= 0 else values.max())
        yield number, (own - int(batch.starts[number])).tolist(), worst


JITTER = Check(rule="timestamp_jitter", why_not=computed_clock, of_episodes=jitter_of_episodes)
GAP = Check(rule="timestamp_gap", why_not=no_times_and_no_state, learn=learn, of_episodes=gaps_of_episodes)
