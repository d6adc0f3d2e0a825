"""`lag`: an episode in which the state follows its command later or earlier than in the other episodes.

A constant lag is the delay of a controller, and right. A lag that differs between episodes is a fault of the recorder.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.pairs import no_pairs, pairs
from schemas.source import Array

LAGS = np.arange(-6, 11)  # steps by which the state may follow the command
FEWEST = 5  # episodes with a clear lag, below which none is called unusual
SIXTHS = 2.07  # standard deviations of a normal distribution between its quantiles of 0.15 and 0.85
LARGEST = 4  # motions count with at most this multiple of the mean one, so that a jump does not decide


def measures(batch: NumberBatch) -> Measures:
    """Return of each episode the correlation of command and state change at each of LAGS, `lag_fit` [E, 17] float32."""
    commands, changes = _paired(batch)
    for values, name in ((commands, "lag_command"), (changes, "lag_change")):
        limit = LARGEST * batch.about.usual[name]
        np.clip(values, -limit, limit, out=values)
    power = np.zeros((len(commands), 2))
    power[:, 0], power[:, 1] = (np.einsum("nd,nd->n", values, values) for values in (commands, changes))
    total = np.sqrt(batch.per_episode(np.add, power).prod(axis=1))
    fit = np.zeros((len(batch.lengths), len(LAGS)), np.float32)
    for column, lag in enumerate(LAGS.tolist()):
        products = np.zeros(len(commands))
        size = len(commands) - abs(lag)
        if size <= 0:
            continue
        early, late = slice(0, size), slice(abs(lag), None)
        ours, theirs = (early, late) if lag >= 0 else (late, early)
        inside = batch.owner[early] == batch.owner[late]
        products[ours] = np.einsum("nd,nd->n", commands[ours], changes[theirs]) * inside
        sums = batch.per_episode(np.add, products)
        fit[:, column] = np.divide(sums, total, out=np.zeros(len(sums)), where=total > 0)
    return {"lag_fit": fit}


def learn(batch: NumberBatch) -> Measures:
    """Return the mean size of each dimension of the commanded and the real change, [P] each."""
    commands, changes = _paired(batch)
    return {"lag_command": np.abs(commands).mean(axis=0), "lag_change": np.abs(changes).mean(axis=0)}


def _paired(batch: NumberBatch) -> tuple[Array, Array]:
    """Return the commanded and the real change of the paired dimensions, [N, P] each."""
    chosen = pairs(batch.about)
    return batch.commanded[:, [i for i, _ in chosen]], batch.moved[:, [i for _, i in chosen]]


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Compare the lag of each episode with the median one."""
    limits = about.rules.lag
    fit = measured["lag_fit"].astype(np.float64)
    best = fit.argmax(axis=1)
    rows = np.arange(len(fit))
    is_clear = (fit[rows, best] >= limits.fit) & (best > 0) & (best < len(LAGS) - 1)
    if is_clear.sum() < FEWEST:
        return
    usual = int(np.median(best[is_clear]))
    gain = fit[rows, best] - fit[:, usual]
    lags = _refined(fit, best)
    middle = float(np.median(lags[is_clear]))
    edges = (fit[rows, best] >= limits.fit) & ~is_clear  # at the end of what is searched, so at least that much
    low, high = np.quantile(lags[is_clear], [0.15, 0.85])
    spread = max(1.4826 * float(np.median(np.abs(lags[is_clear] - middle))), float(high - low) / SIXTHS)
    is_far = np.abs(lags - middle) > max(limits.steps, limits.seconds * (about.control_hz or 0), 4 * spread)
    unusual = (is_clear | edges) & is_far & (gain > limits.gain)
    for row in np.flatnonzero(unusual).tolist():
        steps = lags[row] - middle
        yield RuleFinding(
            member=about.member,
            rule="lag",
            episode=int(measured["episode"][row]),
            value=float(steps),
            message=f"the state follows its command {abs(steps):.1f} steps "
            f"{'later' if steps > 0 else 'earlier'} than in other episodes, {middle:.1f} steps",
        )


def _refined(fit: Array, best: Array) -> Array:
    """Return the lag at the peak of a parabola through the best value and its neighbours, in steps."""
    inner = np.clip(best, 1, fit.shape[1] - 2)
    rows = np.arange(len(fit))
    before, here, after = (fit[rows, inner + shift] for shift in (-1, 0, 1))
    bend = before - 2 * here + after
    offset = np.divide(before - after, 2 * bend, out=np.zeros(len(fit)), where=bend < 0)
    return np.asarray(LAGS[best] + np.where(best == inner, np.clip(offset, -0.5, 0.5), 0))


CHECK = Check(rule="lag", why_not=no_pairs, learn=learn, measures=measures, of_dataset=of_dataset)
