"""Judge the frame of the changes of an arm, by its position and rotation together."""

from collections.abc import Sequence

import numpy as np

from pipelines.conventions.aspects import FRAMES, MIN_R2, PartJudge, moves, scores
from pipelines.conventions.hypotheses import Frame
from pipelines.conventions.verdicts import Verdict, undetermined, verdict
from schemas.source import Array

GAIN = 0.03  # least difference of the scores of two frames
CLOSE = 0.03  # a frame explains the motion as well as other axes do, if its score is at most this much smaller


def judge_frame(judges: Sequence[PartJudge], weights: Array) -> Verdict:
    """Compare the frame of the tool with that of the base for the parts of one arm, whose axes have the declared names.

    A hand that points down has axes that look exchanged and negated in the frame of the base. The frame is wrong if the
    other one explains the motion as well as any exchange of axes does.
    """
    declared = FRAMES.get(judges[0].action.frame)
    compared = [judge for judge in judges if not judge.is_target and len(judge.motion.changes) > 1]
    if any(judge.is_target for judge in judges):
        return undetermined("targets have an origin that the numbers do not show")
    if not compared:
        return undetermined("without the rotation of the tool, its frame cannot be told from that of the base")
    if declared is None:
        return undetermined(f"the frame is declared {judges[0].action.frame}")
    fits = max(relation.r2 for judge in compared for relation in judge.motion.changes.values())
    if fits < MIN_R2:
        return undetermined(f"commands explain only {fits:.0%} of the motion")
    other: Frame = "tool" if declared == "base" else "base"
    every = np.concatenate([np.ones((1, weights.shape[1])), weights])  # the whole set, then the resampled ones
    as_named, exchanged = _score(compared, declared, every)
    as_other, _ = _score(compared, other, every)
    evidence = (
        f"in the declared frame, commands explain {as_named[0]:.0%} of the motion, in the other {as_other[0]:.0%}"
    )
    if as_named[0] >= as_other[0]:
        share = float((as_named[1:] > as_other[1:]).mean())
        return verdict(share, evidence, agrees=True, is_clear=bool(as_named[0] - as_other[0] >= GAIN))
    wins = (as_other > as_named + GAIN) & (as_other > exchanged - CLOSE)
    return verdict(float(wins[1:].mean()), evidence, agrees=False, is_clear=bool(wins[0]))


def _score(judges: Sequence[PartJudge], frame: Frame, weights: Array) -> tuple[Array, Array]:
    """Return the mean score of the declared axes, and of the best exchange of axes, for sets of episodes, [B] each."""
    named, best = [], []
    for judge in judges:
        relation = judge.motion.changes[frame]
        every = scores(relation.best.weighted(weights).shares, moves(relation.best.total))
        named.append(every[:, 0])
        best.append(every.max(axis=1))
    return np.mean(named, axis=0), np.mean(best, axis=0)
