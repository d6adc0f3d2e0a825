"""`mixed_convention`: an episode whose commands have other axes, signs, frame, size or sense than in other episodes.

The motion of each episode is predicted with the factors of the whole dataset, once as in the other episodes and once
for each other convention. It has another one if that predicts much better.
"""

from collections.abc import Iterator
from itertools import combinations, permutations, product

import numpy as np

from pipelines.checks.batch import About, NumberBatch
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers.pairs import no_state
from pipelines.conventions.aspects import FRAMES
from pipelines.conventions.gripper import strongest
from pipelines.conventions.hypotheses import PartMotion, Relation
from pipelines.conventions.moments import moments
from pipelines.conventions.parts import BodyPart, grippers, parts
from pipelines.conventions.rotations import DEGREE, read
from pipelines.conventions.trajectories import Trajectories
from schemas.source import Array

FEWEST = 5  # episodes
LEAST_R2 = 0.35  # share of the motion of the dataset that commands must explain
SHARE = 0.75  # largest error of another convention, relative to that of the dataset's
SURER = 25.0  # least gain in log-likelihood, in all and for each step
PER_STEP = 0.25
LARGER = 10.0  # least factor between the sizes of commands; a hand that is blocked moves less, too
EXPLAINED = 0.8  # largest error of another convention, relative to the motion
QUIET = 1e-6  # least variance of the error, relative to that of the motion
GRIPPER = 0.5  # least correlation of a command with the opening of a hand, in the dataset and against it in the episode
AXES = 3  # numbers of a position or a rotation
EXCHANGED = 16  # joints, up to which each pair is tried


OTHERS = {  # relation -> what is said of an episode that has it
    "frame": "commands are in another frame than in other episodes",
    "degrees": "rotations are in degrees, those of other episodes in radians",
    "mode": "commands are targets where those of other episodes are changes, or the reverse",
}
SCALED = "commands have another size than in other episodes"


def why_not(about: About) -> str | None:
    """Return a reason if command and state cannot be compared."""
    if about.state is None:
        return no_state(about)
    if about.is_derived or about.action.origin == "achieved":
        return "the actions were computed from the states"
    both = parts(about.action, about.state) or grippers(about.action, about.state)
    return None if both else "no dimensions of the action and the state can be compared"


def learn(batch: NumberBatch) -> Measures:
    """Return the delays of the parts, `mixed_plan` [P], and of the grippers, `mixed_delay` [G]."""
    steps = _steps(batch)
    plans = [_plan(batch.about, part, steps) for part in _parts(batch.about)]
    delays = [
        strongest(steps, steps.action[:, [command]], steps.state[:, [opening]])[0]
        for command, opening in _grippers(batch.about)
    ]
    return {"mixed_plan": np.array(plans, np.int64), "mixed_delay": np.array(delays, np.int64)}


def _plan(about: About, part: BodyPart, steps: Trajectories) -> int:
    compared = _compared(about, part, steps)
    return compared["usual"].delay if compared else 0


def _parts(about: About) -> list[BodyPart]:
    return parts(about.action, about.state) if about.state else []


def _grippers(about: About) -> list[tuple[int, int]]:
    return grippers(about.action, about.state) if about.state else []


def _steps(batch: NumberBatch) -> Trajectories:
    state = batch.state if batch.state is not None else np.zeros((len(batch.action), 0), np.float32)
    return Trajectories(action=batch.action, state=state, lengths=batch.lengths)


def _compared(about: About, part: BodyPart, steps: Trajectories) -> dict[str, Relation]:
    """Return the relations that may hold: `usual`, as declared, and those of OTHERS.

    The frame of rotations is not compared: some record differences of angles, which look like both frames.
    """
    if about.state is None:
        return {}
    motion = PartMotion(part, steps, action=about.action, state=about.state)
    is_target, declared = motion.declared == "absolute", FRAMES.get(about.action.frame, "base")
    if part.kind == "rotation":
        if motion.turned is None:
            return {}
        return _turned_to(motion) if is_target else {"usual": motion.changes[declared]}
    if is_target:
        summed = motion.commands + motion.measured
        return {name: _target(steps, x, motion.measured) for name, x in (("usual", motion.commands), ("mode", summed))}
    relations = {"usual": motion.changes.get(declared, motion.changes["base"])}
    if len(motion.changes) > 1:
        relations["frame"] = motion.changes["tool" if declared == "base" else "base"]
    left = motion.commands - motion.measured
    relations["mode"] = Relation(commands=left, motions=motion.changes["base"].motions, steps=steps)
    return relations


def _target(steps: Trajectories, commands: Array, measured: Array) -> Relation:
    """Relate commands to the next state, both without the mean of each episode."""
    after = steps.to_next(measured) + measured
    return Relation(commands=steps.centred(commands), motions=steps.centred(after), steps=steps)


def _turned_to(motion: PartMotion) -> dict[str, Relation]:
    """Relate rotations that are targets to the next one, as rotation vectors from the first one of the episode."""
    first = motion.rotations[motion.steps.starts[motion.steps.owner]].inv()
    measured = (motion.rotations * first).as_rotvec()
    factors = {"usual": 1.0, "degrees": DEGREE} if motion.commands.shape[1] == AXES else {"usual": 1.0}
    return {
        name: _target(motion.steps, (read(motion.whole_commands, motion.form, factor) * first).as_rotvec(), measured)
        for name, factor in factors.items()
    }


def measures(batch: NumberBatch) -> Measures:
    """Return the second moments of each episode and part, by relation, and the correlation of each gripper, [E, G]."""
    steps, usual = _steps(batch), batch.about.usual
    out: dict[str, Array] = {"mixed_gripper": np.zeros((len(batch.lengths), len(usual["mixed_delay"])))}
    for number, (part, delay) in enumerate(zip(_parts(batch.about), usual["mixed_plan"].tolist(), strict=True)):
        for name, relation in _compared(batch.about, part, steps).items():
            sums = moments(steps, relation.commands, relation.motions, delay=delay)
            key = f"mixed_{number}_{name}"
            out[f"{key}_xy"] = sums.xy
            out[f"{key}_xx"] = np.diagonal(sums.xx, axis1=-2, axis2=-1)
            out[f"{key}_yy"], out[f"{key}_count"] = sums.yy, sums.count
    for number, (pair, delay) in enumerate(zip(_grippers(batch.about), usual["mixed_delay"].tolist(), strict=True)):
        command, opening = (
            steps.centred(np.asarray(values[:, [i]], np.float64))
            for values, i in zip((batch.action, steps.state), pair, strict=True)
        )
        sums = moments(steps, command, opening, delay=delay)
        out["mixed_gripper"][:, number] = sums.correlations[:, 0, 0]
    return out


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Find episodes that another convention explains much better than that of the dataset."""
    best: dict[int, tuple[float, str, tuple[str, ...]]] = {}
    if len(measured["episode"]) < FEWEST:
        return
    for number, part in enumerate(_parts(about)):
        dims = tuple(f"action.{about.action.dims[i].name}" for i in part.action)
        for row, gain, said in _of_part(f"mixed_{number}", measured, [about.action.dims[i].name for i in part.action]):
            if gain > best.get(row, (0.0, "", ()))[0]:
                best[row] = gain, f"{part.name}: {said}", dims
    for number, (command, _) in enumerate(_grippers(about)):
        correlation = measured["mixed_gripper"][:, number]
        moving = correlation[correlation != 0]
        usual = float(np.median(moving)) if len(moving) else 0.0
        name = about.action.dims[command].name
        for row in np.flatnonzero(correlation * np.sign(usual) < -GRIPPER).tolist() if abs(usual) > GRIPPER else ():
            said = f"{name}: the hand moves against its command, other than in other episodes"
            best.setdefault(row, (1.0, said, (f"action.{name}",)))
    for row, (gain, said, dims) in sorted(best.items()):
        episode = int(measured["episode"][row])
        yield RuleFinding(
            member=about.member, rule="mixed_convention", episode=episode, dims=dims, value=gain, message=said
        )


def _of_part(key: str, measured: Measures, names: list[str]) -> Iterator[tuple[int, float, str]]:
    """Yield the episodes with another convention: their row, the gain in log-likelihood, and what they do."""
    if f"{key}_usual_xy" not in measured:
        return
    xy, xx, yy, count = (measured[f"{key}_usual_{what}"] for what in ("xy", "xx", "yy", "count"))
    own, long = np.diagonal(xy, axis1=1, axis2=2), count >= max(1, np.median(count) / 4)
    if not count.any() or not np.isfinite(xx).all() or not np.isfinite(yy).all():
        return
    factor = np.median(_ratio(own[long], xx[long]), axis=0)
    left = yy - 2 * factor * own + factor**2 * xx  # the squared error of each dimension, [E, D]
    if np.median(1 - _ratio(left[long].sum(axis=1), yy[long].sum(axis=1))) < LEAST_R2:
        return
    moved = np.median(yy[long].sum(axis=1) / count[long])
    noise = np.finfo(float).tiny + np.maximum(
        np.median(left[long] / count[long, None], axis=0), QUIET * moved
    )  # variances of the error, [D]
    errors = {words: error.sum(axis=1) for words, error in _axes(xy, xx, yy, factor=factor, noise=noise, names=names)}
    for what, words in OTHERS.items():
        if f"{key}_{what}_xy" in measured:
            theirs = np.diagonal(measured[f"{key}_{what}_xy"], axis1=1, axis2=2)
            size, motion = measured[f"{key}_{what}_xx"], measured[f"{key}_{what}_yy"]
            errors[words] = ((motion - 2 * factor * theirs + factor**2 * size) / noise).sum(axis=1)
    total, usual = (yy / noise).sum(axis=1), (left / noise).sum(axis=1)
    errors[SCALED] = _scaled(left, moved=yy, along=factor * own, size=factor**2 * xx, noise=noise)
    table = np.stack([*errors.values()], axis=1)
    chosen = table.argmin(axis=1)
    error = table[np.arange(len(table)), chosen]
    gain = (usual - error) / 2
    is_other = (error < SHARE * usual) & (error < EXPLAINED * total) & (gain > SURER) & (gain > PER_STEP * count)
    for row in np.flatnonzero(is_other).tolist():
        yield row, float(gain[row]), [*errors][int(chosen[row])]


def _scaled(left: Array, *, moved: Array, along: Array, size: Array, noise: Array) -> Array:
    """Return the error of each episode if some dimensions have another size, [E]; infinite if none has."""
    scale = _ratio(along, size)
    is_other = (scale > LARGER) | ((scale > 0) & (scale < 1 / LARGER))
    error = np.where(is_other, moved - 2 * scale * along + scale**2 * size, left)
    return np.where(is_other.any(axis=1), (error / noise).sum(axis=1), np.inf)


def _ratio(above: Array, below: Array) -> Array:
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0))


def _axes(
    xy: Array, xx: Array, yy: Array, *, factor: Array, noise: Array, names: list[str]
) -> Iterator[tuple[str, Array]]:
    """Yield the errors [E, D] of other assignments of commands to axes, or of one or two joints."""
    size = len(factor)
    for order, signs in _assignments(size):
        along = xy[:, order, np.arange(size)] * signs
        commands = xx[:, order]
        words = [
            f"{names[axis]} is negated"
            if command == axis
            else f"{names[axis]} moves by {'minus ' if sign < 0 else ''}{names[command]}"
            for axis, (command, sign) in enumerate(zip(order, signs.tolist(), strict=True))
            if command != axis or sign < 0
        ]
        yield ", ".join(words), (yy - 2 * factor * along + factor**2 * commands) / noise


def _assignments(size: int) -> Iterator[tuple[list[int], Array]]:
    if size != AXES:
        for axis in range(size):
            yield [*range(size)], np.where(np.arange(size) == axis, -1.0, 1.0)
        for first, second in combinations(range(size), 2) if size <= EXCHANGED else ():
            exchanged = [*range(size)]
            exchanged[first], exchanged[second] = second, first
            yield exchanged, np.ones(size)
        return
    for order in permutations(range(AXES)):
        for signs in product((1.0, -1.0), repeat=AXES):
            if order != (0, 1, 2) or min(signs) < 0:
                yield [*order], np.array(signs)


CHECK = Check(rule="mixed_convention", why_not=why_not, learn=learn, measures=measures, of_dataset=of_dataset)
