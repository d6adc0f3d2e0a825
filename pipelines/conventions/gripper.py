"""Judge the sense of grippers: whether a hand opens when that is commanded."""

import numpy as np

from pipelines.conventions.moments import SecondMoments, moments
from pipelines.conventions.trajectories import Trajectories
from pipelines.conventions.verdicts import Verdict, undetermined, verdict
from schemas.source import Array
from schemas.spaces import Space

DELAYS = range(-4, 11)  # steps after which a hand follows; before, if its command was recorded late
MIN_CORRELATION = 0.35
SENSES = {"open_is_1": 1, "closed_is_1": -1}


class GripperJudge:
    """The sense of one gripper."""

    def __init__(self, steps: Trajectories, pair: tuple[int, int], *, action: Space, state: Space) -> None:
        """Take the dimensions of its command and its measurement."""
        self.steps, self.pair = steps, pair
        self.senses = SENSES.get(action.gripper), SENSES.get(state.gripper)
        self.is_change = action.dims[pair[0]].mode in {"delta", "velocity"}

    def verdict(self, weights: Array) -> Verdict:
        """Judge the sense, with resampled sets of episodes `weights` [B, E]."""
        command, opening = (
            values[:, [i]] for values, i in zip((self.steps.action, self.steps.state), self.pair, strict=True)
        )
        for name, values in (("command", command), ("measurement", opening)):
            if not len(values) or not np.ptp(values):
                return undetermined(f"the {name} never changes")
        motion = self.steps.to_next(opening) if self.is_change else opening
        delay, whole = strongest(self.steps, command, motion)
        drawn = _moments(self.steps, command, motion, delay=delay).weighted(weights).correlations[:, 0, 0]
        evidence = f"command and opening correlate by {whole:+.2f} at a delay of {delay} steps"
        ours, theirs = self.senses
        if ours is None or theirs is None:
            return undetermined(f"the sense is declared unknown; {evidence}")
        share = float((np.sign(drawn) == np.sign(whole)).mean())
        return verdict(share, evidence, agrees=whole * ours * theirs > 0, is_clear=abs(whole) >= MIN_CORRELATION)


def strongest(steps: Trajectories, command: Array, opening: Array) -> tuple[int, float]:
    """Return the delay at which a command [N, 1] and an opening [N, 1] correlate most, and the correlation."""
    by_delay = {
        delay: float(_moments(steps, command, opening, delay=delay).total.correlations[0, 0]) for delay in DELAYS
    }
    best = max(by_delay, key=lambda delay: abs(by_delay[delay]))
    return best, by_delay[best]


def _moments(steps: Trajectories, command: Array, opening: Array, *, delay: int) -> SecondMoments:
    return moments(steps, command - np.nanmean(command), opening - np.nanmean(opening), delay=delay)
