"""`quantile_collapse`, `saturation` and `constant_dim`: dimensions whose values are distributed badly."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import CHANGES, About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from schemas.spaces import Space

DISCRETE = 0.9  # share of rows with the smallest or largest value or 0 from which a command is that of keys


def _vectors(about: About) -> Iterator[tuple[str, Space]]:
    yield "action", about.action
    if about.state is not None:
        yield "state", about.state


def collapses_of_dataset(about: About, _measured: Measures) -> Iterator[RuleFinding]:
    """Find dimensions that vary, but whose range from q01 to q99 is tiny: dividing by it gives huge numbers."""
    for name, space in _vectors(about):
        ranges = about.ranges[name]
        whole = np.maximum(ranges.high - ranges.low, ranges.std)
        share = np.divide(ranges.q99 - ranges.q01, whole, out=np.ones(len(whole)), where=whole > 0)
        for i in np.flatnonzero(share < about.rules.quantile_collapse.share).tolist():
            if space.dims[i].kind != "gripper":
                yield RuleFinding(
                    member=about.member,
                    rule="quantile_collapse",
                    dims=(f"{name}.{space.dims[i].name}",),
                    value=float(share[i]),
                    message=f"{name}.{space.dims[i].name}: q01 to q99 is {share[i]:.2g} of the whole range",
                )


def constants_of_dataset(about: About, _measured: Measures) -> Iterator[RuleFinding]:
    """Name the dimensions that never change."""
    for name, space in _vectors(about):
        ranges = about.ranges[name]
        dims = tuple(f"{name}.{space.dims[i].name}" for i in np.flatnonzero(ranges.low == ranges.high).tolist())
        if dims:
            named = ", ".join(dims)
            yield RuleFinding(member=about.member, rule="constant_dim", dims=dims, message=f"constant: {named}")


def no_changes(about: About) -> str | None:
    """Return a reason if no dimension of the action is a change."""
    if about.is_derived:
        return "the actions were computed from the states"
    return None if any(dim.mode in CHANGES for dim in about.action.dims) else "the actions are not changes"


def bounds(batch: NumberBatch) -> Measures:
    """Return how many steps of each episode are at the bounds, and at a bound or 0: `bound`, `key` [E, A] int64."""
    ranges = batch.about.ranges["action"]
    at_bound = (batch.action == ranges.low.astype(np.float32)) | (batch.action == ranges.high.astype(np.float32))
    at_key = at_bound | (batch.action == 0)
    return {
        "bound": batch.per_episode(np.add, at_bound.astype(np.int64)),
        "key": batch.per_episode(np.add, at_key.astype(np.int64)),
    }


def saturation_of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Find commanded changes that are often the smallest or the largest one."""
    steps = measured["length"].sum()
    at_bound, at_key = (measured[name].sum(axis=0) / steps for name in ("bound", "key"))
    ranges = about.ranges["action"]
    for i, dim in enumerate(about.action.dims):
        is_varying = ranges.high[i] > ranges.low[i] and dim.mode in CHANGES and dim.kind != "gripper"
        if is_varying and at_key[i] < DISCRETE and at_bound[i] >= about.rules.saturation.share:
            yield RuleFinding(
                member=about.member,
                rule="saturation",
                dims=(f"action.{dim.name}",),
                value=float(at_bound[i]),
                message=f"action.{dim.name} is at its bounds in {at_bound[i]:.0%} of the steps",
            )


COLLAPSE: Check[NumberBatch] = Check(rule="quantile_collapse", of_dataset=collapses_of_dataset)
CONSTANT: Check[NumberBatch] = Check(rule="constant_dim", of_dataset=constants_of_dataset)
SATURATION = Check(rule="saturation", why_not=no_changes, measures=bounds, of_dataset=saturation_of_dataset)
