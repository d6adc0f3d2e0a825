"""`conventions`: compare recorded commands with the motion that followed, and judge each aspect of the declaration."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from pipelines.conventions.aspects import PartJudge
from pipelines.conventions.frames import judge_frame
from pipelines.conventions.gripper import GripperJudge
from pipelines.conventions.hypotheses import PartMotion
from pipelines.conventions.parts import BodyPart, grippers, parts
from pipelines.conventions.rotations import DEGREE
from pipelines.conventions.trajectories import Trajectories
from pipelines.conventions.verdicts import ASPECTS, Aspect, Verdict, joined, resampled, undetermined
from schemas.errors import SourceError
from schemas.source import Array
from schemas.spaces import Space
from schemas.store.dataset import Dataset

Conventions: TypeAlias = Mapping[Aspect, Verdict]

SAMPLE = 64  # episodes of a dataset that are judged
MIN_EPISODES = 3
MIN_MOVING = 60  # moving steps; fits to fewer may be chance
DERIVED = "derived: the actions were computed from the states"


def conventions(
    action: Space, state: Space | None, steps: Trajectories | None, *, hz: float | None, is_derived: bool = False
) -> Conventions:
    """Judge an action by the motion of the state. What cannot be judged is `undetermined`, with the reason."""
    if state is None or steps is None:
        return _all("there are no states")
    if is_derived or action.origin == "achieved":
        return _all(DERIVED)
    if len(steps.lengths) < MIN_EPISODES:
        return _all(f"{len(steps.lengths)} episodes with steps; {MIN_EPISODES} are needed")
    weights = resampled(len(steps.lengths))
    compared = parts(action, state)
    judged: dict[Aspect, list[tuple[str, Verdict]]] = {aspect: [] for aspect in ASPECTS}
    for arm in dict.fromkeys(part.arm for part in compared):
        own = [part for part in compared if part.arm == arm]
        for name, verdicts in _of_arm(own, steps, weights, action=action, state=state, hz=hz):
            for aspect, one in verdicts.items():
                judged[aspect].append((name, one))
    for pair in grippers(action, state):
        judge = GripperJudge(steps, pair, action=action, state=state)
        judged["gripper"].append((action.dims[pair[0]].name, judge.verdict(weights)))
    return {aspect: joined(verdicts) for aspect, verdicts in judged.items()}


def of_dataset(dataset: Dataset, *, episodes: int = SAMPLE) -> Conventions:
    """Judge the stored actions of a dataset on some of its episodes, evenly spread over it."""
    action, state, spec = dataset.columns.action, dataset.columns.state, dataset.spec
    steps = Trajectories.sample(dataset, episodes=episodes) if state else None
    return conventions(action, state, steps, hz=spec.control_hz, is_derived=spec.derived is not None)


def contradictions(judged: Conventions) -> Iterator[tuple[Aspect, Verdict]]:
    """Yield the aspects that the motion contradicts."""
    yield from ((aspect, one) for aspect, one in judged.items() if one.verdict == "contradicts")


def _of_arm(
    own: Sequence[BodyPart], steps: Trajectories, weights: Array, *, action: Space, state: Space, hz: float | None
) -> Iterator[tuple[str, Conventions]]:
    """Judge the position and the rotation of an arm, or joints."""
    judges: dict[BodyPart, PartJudge] = {}
    for part in own:
        try:
            motion = PartMotion(part, steps, action=action, state=state)
            why = _why_not(motion)
            if not why:
                judges[part], rotation = _judge(motion, weights, action=action, state=state, hz=hz)
        except SourceError as error:
            why = str(error)
        if why:
            yield part.name, _all(why, but={"gripper", *({"rotation"} if part.kind != "rotation" else ())})
        elif rotation:
            yield part.name, {"rotation": rotation}
    if own[0].arm is not None and judges:
        frame = judge_frame([*judges.values()], weights)
        yield " and ".join(part.name for part in judges), {"frame": frame}
        if frame.verdict == "contradicts":
            for judge in judges.values():
                judge.frame_used = "base" if judge.frame_used == "tool" else "tool"
    for part, judge in judges.items():
        yield part.name, judge.verdicts()


def _judge(
    motion: PartMotion, weights: Array, *, action: Space, state: Space, hz: float | None
) -> tuple[PartJudge, Verdict | None]:
    """Return the judge of a part, and the verdict about the representation of a rotation.

    If the unit or the representation of a rotation is wrong, the other aspects are judged with the right one.
    """
    judge = PartJudge(motion, weights, action=action, state=state, hz=hz)
    if motion.part.kind != "rotation":
        return judge, None
    degrees = judge.degrees
    if degrees:
        motion = PartMotion(motion.part, motion.steps, action=action, state=state, factor=DEGREE)
        judge = PartJudge(motion, weights, action=action, state=state, hz=hz)
    rotation = judge.representation.verdict(weights)
    if rotation.verdict == "contradicts":
        form = judge.representation.best
        motion = PartMotion(motion.part, motion.steps, action=action, state=state, form=form, factor=motion.factor)
        judge = PartJudge(motion, weights, action=action, state=state, hz=hz)
    judge.degrees = degrees
    return judge, rotation


def _why_not(motion: PartMotion) -> str | None:
    """Return why nothing can be judged, or None."""
    if motion.is_derived:
        return DERIVED
    return f"{motion.moving} steps move; {MIN_MOVING} are needed" if motion.moving < MIN_MOVING else None


def _all(why: str, *, but: Collection[Aspect] = ()) -> Conventions:
    return {aspect: undetermined(why) for aspect in ASPECTS if aspect not in but}
