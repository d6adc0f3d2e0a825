"""`noop_first`: a first step that commands no motion, as every episode of BridgeData V2 has."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import CHANGES, About, NumberBatch
from pipelines.checks.check import Check
from pipelines.checks.findings import RuleFinding


def why_not(about: About) -> str | None:
    """Return a reason unless some dimension of the action, besides grippers, is a delta or a velocity."""
    return None if _moving(about) else "no dimension of the action is a delta or a velocity"


def _moving(about: About) -> list[int]:
    return [i for i, dim in enumerate(about.action.dims) if dim.mode in CHANGES and dim.kind != "gripper"]


def of_episodes(batch: NumberBatch) -> Iterator[RuleFinding]:
    """Find episodes of which only the first step commands no motion."""
    limit, dims = batch.about.rules.noop_first.motion, _moving(batch.about)
    still = np.abs(batch.action[:, dims]).max(axis=1) <= limit
    first, moves = still[batch.starts], batch.per_episode(np.logical_or, ~still)
    for i in np.flatnonzero(first & moves).tolist():
        yield RuleFinding(
            member=batch.about.member,
            rule="noop_first",
            episode=int(batch.episodes[i]),
            steps=((0, 1),),
            value=float(np.abs(batch.action[batch.starts[i], dims]).max()),
            message="the first step commands no motion",
        )


CHECK = Check(rule="noop_first", why_not=why_not, of_episodes=of_episodes)
