"""`rest_offset`: command and state that differ by a constant while the robot rests.

A leader arm that is calibrated differently from its follower commands poses that the follower never shows:
lerobot#3762 reports 17 degrees that nobody saw.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.pairs import no_pairs, pairs
from pipelines.conventions.trajectories import wrapped

SLOWEST, LEAST = 0.2, 4  # share of an episode's steps, the slowest ones; their least number
STILL = 0.02  # largest motion of their median step, as a share of the usual range
FEWEST = 3  # episodes with a rest
ABSOLUTE = frozenset({"absolute"})


def why_not(about: About) -> str | None:
    """Return a reason if command and state cannot be subtracted."""
    return no_pairs(about) or (None if pairs(about, modes=ABSOLUTE) else "the commands are changes, not positions")


def measures(batch: NumberBatch) -> Measures:
    """Return the median of command minus state at rest, `rest` [E, P] float32 for P pairs; NaN without a rest."""
    chosen = pairs(batch.about, modes=ABSOLUTE)
    actions, states = ([pair[side] for pair in chosen] for side in (0, 1))
    out = np.full((len(batch.lengths), len(chosen)), np.nan, np.float32)
    if batch.state is None or batch.about.state is None:
        return {"rest": out}
    motion = np.abs(batch.moved[:, states]).max(axis=1, initial=0)
    command = np.abs(batch.commanded[:, actions]).max(axis=1, initial=0)
    size = np.maximum(motion, command)
    size[batch.is_last] = np.inf  # nothing is known of the motion after it
    turns = [k for k, i in enumerate(states) if batch.about.state.dims[i].unit == "rad"]
    difference = (batch.action[:, actions] - batch.state[:, states]).astype(np.float64)
    difference[:, turns] = wrapped(difference[:, turns])
    order = np.lexsort((size, batch.owner))  # the slowest steps of each episode first
    for number, (start, length) in enumerate(zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)):
        count = int(SLOWEST * length)
        if count >= LEAST:
            rows = order[start : start + count]
            if np.median(size[rows]) < STILL:
                out[number] = np.median(difference[rows], axis=0)
    return {"rest": out}


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Find offsets of the whole dataset, and episodes that differ from it."""
    rest = measured["rest"].astype(np.float64)
    known = np.isfinite(rest).all(axis=1)
    if known.sum() < FEWEST or about.state is None:
        return
    usual = np.median(rest[known], axis=0)
    deviation = 1.4826 * np.median(np.abs(rest[known] - usual), axis=0)
    unusual: dict[int, list[tuple[str, float]]] = {}
    for k, (_, i) in enumerate(pairs(about, modes=ABSOLUTE)):
        dim, limits = about.state.dims[i], about.rules.rest_offset
        limit = limits.radians if dim.unit == "rad" else limits.share * float(about.ranges["state"].usual[i])
        if abs(usual[k]) > max(limit, 2 * deviation[k]):
            dims = (f"action.{dim.name}", f"state.{dim.name}")
            message = f"{dim.name}: at rest, the command is {usual[k]:+.3g} {dim.unit} from the state"
            yield RuleFinding(
                member=about.member, rule="rest_offset", dims=dims, value=float(usual[k]), message=message
            )
        away = np.abs(rest[:, k] - usual[k]) > max(limit, 6 * deviation[k])
        for row in np.flatnonzero(known & away).tolist():
            unusual.setdefault(row, []).append((dim.name, float(rest[row, k] - usual[k])))
    for row, entries in unusual.items():
        named = ", ".join(f"{name} {value:+.3g}" for name, value in entries)
        yield RuleFinding(
            member=about.member,
            rule="rest_offset",
            episode=int(measured["episode"][row]),
            dims=tuple(f"action.{name}" for name, _ in entries),
            value=max((value for _, value in entries), key=abs),
            message=f"at rest, command and state differ otherwise than in other episodes: {named}",
        )


CHECK = Check(rule="rest_offset", why_not=why_not, measures=measures, of_dataset=of_dataset)
