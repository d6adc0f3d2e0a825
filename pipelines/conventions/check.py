"""`conventions`: compare recorded commands with the motion that followed, and judge each aspect of the declaration."""

from collections.abc import Mapping
from typing import TypeAlias

from pipelines.conventions.aspects import PartJudge
from pipelines.conventions.gripper import GripperJudge
from pipelines.conventions.hypotheses import PartMotion
from pipelines.conventions.parts import Part, grippers, parts
from pipelines.conventions.steps import Steps
from pipelines.conventions.verdicts import ASPECTS, Aspect, Verdict, joined, resampled, undetermined
from schemas.errors import SourceError
from schemas.source import Array
from schemas.spaces import Space

Conventions: TypeAlias = Mapping[Aspect, Verdict]

MIN_EPISODES = 3
MIN_MOVING = 60  # moving steps; fits to fewer may be chance
PART_ASPECTS: tuple[Aspect, ...] = ("kind", "frame", "axes", "scale", "lag", "rotation")
DERIVED = "derived: the actions were computed from the states"


def conventions(
    action: Space, state: Space | None, steps: Steps | None, *, hz: float | None, is_derived: bool = False
) -> Conventions:
    """Judge an action by the motion of the state. What cannot be judged is `undetermined`, with the reason."""
    if state is None or steps is None:
        return _all("there are no states")
    if is_derived or action.origin == "achieved":
        return _all(DERIVED)
    if len(steps.lengths) < MIN_EPISODES:
        return _all(f"{len(steps.lengths)} episodes with steps; {MIN_EPISODES} are needed")
    weights = resampled(len(steps.lengths))
    judged: dict[Aspect, list[tuple[str, Verdict]]] = {aspect: [] for aspect in ASPECTS}
    for part in parts(action, state):
        try:
            one = _of_part(part, steps, weights, action=action, state=state, hz=hz)
        except SourceError as error:
            one = _all(str(error))
        for aspect in PART_ASPECTS if part.kind == "rotation" else PART_ASPECTS[:-1]:
            judged[aspect].append((part.name, one[aspect]))
    for pair in grippers(action, state):
        judge = GripperJudge(steps, pair, action=action, state=state)
        judged["gripper"].append((action.dims[pair[0]].name, judge.verdict(weights)))
    return {aspect: joined(verdicts) for aspect, verdicts in judged.items()}


def _of_part(part: Part, steps: Steps, weights: Array, *, action: Space, state: Space, hz: float | None) -> Conventions:
    motion = PartMotion(part, steps, action=action, state=state)
    if motion.is_derived:
        return _all(DERIVED)
    if motion.moving < MIN_MOVING:
        return _all(f"{motion.moving} steps move; {MIN_MOVING} are needed")
    judge = PartJudge(motion, weights, action=action, state=state, hz=hz)
    if part.kind != "rotation":
        return judge.verdicts()
    rotation = judge.representation.verdict(weights)
    if rotation.verdict == "contradicts":  # the other aspects are judged with the right representation
        motion = PartMotion(part, steps, action=action, state=state, form=judge.representation.best)
        judge = PartJudge(motion, weights, action=action, state=state, hz=hz)
    return {**judge.verdicts(), "rotation": rotation}


def _all(why: str) -> Conventions:
    return {aspect: undetermined(why) for aspect in ASPECTS}
