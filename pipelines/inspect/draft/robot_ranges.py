"""Compare the numbers of a recording with what is known of a robot: units, ranges of its format, limits and mode."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np

from pipelines.inspect.draft import grippers, motion, units
from pipelines.inspect.draft.robot_columns import Columns, Vector, numbers
from pipelines.inspect.draft.sample import Sample
from schemas.declarations import expr
from schemas.declarations.robots import Robot, Which
from schemas.source import Array

FULL_TURN = 2 * pi * 1.05  # rad; few joints turn further
OVERSHOOT = {"gripper": 0.05, "joint": 0.005}  # how far numbers may exceed the range of their format, as a share of it
OPENING = (-0.25, 1.25)  # a gripper's numbers after the ops, with some overshoot
NORMALIZED = (0.9, 1.05)  # a gripper that reaches 1 and no more is normalized already
SLACK = 0.25  # how far an arm may exceed its limits, as a share of the range between them
MIN_SLACK = 0.35  # rad; arms are not calibrated better than this
HARDLY = 0.12  # a gripper that moves by a smaller share of its range is weak evidence of another range
END = 1e-3  # distance to the end of a range that counts as the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What the numbers of one part contradict."""

    which: Which
    part: str
    known: str  # what is known of the robot, such as "rad ('deg2rad')"
    seen: str  # the numbers, and what they look like


def doubts(sample: Sample, robot: Robot, vectors: Mapping[Which, Columns]) -> Iterator[Doubt]:
    """Yield what the numbers contradict, at most once for each part."""
    for which, columns in vectors.items():
        vector = Vector(robot, which, numbers(sample, columns))
        if not len(vector.raw):
            continue
        joints = {name: values for name, (part, values) in vector.parts.items() if part.kind == "joint"}
        angles = _radians([values for name, values in joints.items() if vector.op(name)])
        opposed = _against_state(sample, robot, vectors) if which == "action" else {}
        for name, (_, values) in vector.parts.items():
            if not len(values):
                continue
            reason = angles if name in joints and vector.op(name) else ""
            reason = reason or _beyond(vector, name) or _outside_limits(vector, name) or opposed.get(name, "")
            if reason:
                seen = f"the numbers go from {values.min():.4g} to {values.max():.4g}: {reason}"
                yield Doubt(which=which, part=name, known=vector.known(name), seen=seen)


def full_ranges(sample: Sample, robot: Robot, vectors: Mapping[Which, Columns]) -> list[str]:
    """Return the joints that reach exactly an end of the range that the robot's format fixes."""
    reached: dict[str, None] = {}
    for which, columns in vectors.items():
        vector = Vector(robot, which, numbers(sample, columns))
        ranges = robot.vector(which).ranges
        for name, (part, values) in vector.parts.items():
            if part.kind == "joint" and name in ranges and len(values):
                ends = np.minimum(*(np.abs(np.abs(values) - abs(end)).min(axis=0) for end in ranges[name]))
                reached |= dict.fromkeys(dim for dim, distance in zip(part.dims, ends, strict=True) if distance < END)
    return list(reached)


def is_hardly_used(sample: Sample, robot: Robot, vectors: Mapping[Which, Columns]) -> bool:
    """Whether a gripper that moves uses only a small share of the robot's range, as one in another unit would."""
    for which, columns in vectors.items():
        vector = Vector(robot, which, numbers(sample, columns))
        for name, (part, values) in vector.parts.items():
            stored = vector.stored(name) if part.kind == "gripper" and len(values) else np.zeros((0, 1))
            if len(stored) and np.ptp(values) > 0 and np.ptp(stored) < HARDLY:
                return True
    return False


def _radians(joints: Sequence[Array]) -> str:
    """Return why joints that are not recorded in radians look as if they were; empty if they do not."""
    if not joints:
        return ""
    most = max(float(np.abs(values).max()) for values in joints)
    spread = max(float(np.ptp(values, axis=0).max()) for values in joints)
    is_small = most <= FULL_TURN and spread >= units.MIN_SPREAD
    return f"all joints together reach only {most:.4g}, which looks like radians" if is_small else ""


def _beyond(vector: Vector, name: str) -> str:
    """Return why the numbers of a part exceed what its unit or its format allows; empty if they do not."""
    part, values = vector.parts[name]
    stored, limits = vector.stored(name), vector.robot.vector(vector.which).ranges.get(name)
    if limits is not None and part.kind in OVERSHOOT:
        slack = OVERSHOOT[part.kind] * (limits[1] - limits[0])
        if values.min() < limits[0] - slack or values.max() > limits[1] + slack:
            return f"the robot's format has {limits[0]:g} to {limits[1]:g}"
    if part.kind == "gripper" and part.unit == "1":
        low, high = float(stored.min()), float(stored.max())
        if low < OPENING[0] or high > OPENING[1]:
            return f"from {low:.3g} to {high:.3g} after the op, and an opening is from 0 to 1"
        reach = float(values.max())
        if vector.op(name) and float(np.abs(stored).max()) < 0.5 < NORMALIZED[0] <= reach <= NORMALIZED[1]:
            return "which looks normalized already"
    if part.kind == "joint" and part.unit == "rad" and float(np.abs(stored).max()) > FULL_TURN:
        return "too much for radians" if not vector.op(name) else f"up to {float(np.abs(stored).max()):.3g} rad"
    return ""


def _outside_limits(vector: Vector, name: str) -> str:
    """Return which joint is far outside its limits; empty if none is."""
    part, limits = vector.parts[name][0], vector.robot.recorded.limits if vector.robot.recorded else {}
    stored = vector.stored(name)
    for i, dim in enumerate(part.dims):
        if part.kind == "joint" and dim in limits:
            low, high = limits[dim]
            slack = max(MIN_SLACK, SLACK * (high - low))
            least, most = float(stored[:, i].min()), float(stored[:, i].max())
            if least < low - slack or most > high + slack:
                return f"{dim} would be {least:.3g} to {most:.3g} rad, and its limits are {low:.3g} to {high:.3g}"
    return ""


def _against_state(sample: Sample, robot: Robot, vectors: Mapping[Which, Columns]) -> dict[str, str]:
    """Return the parts of the action that contradict the state: changes instead of positions, opposite grippers."""
    if "state" not in vectors:
        return {}
    measured = dict(zip(_dims(robot, "state"), vectors["state"].places, strict=True))
    commanded = dict(zip(_dims(robot, "action"), vectors["action"].places, strict=True))
    reasons = {}
    for name, part in robot.embodiment.action.parts.items():
        if part.mode == "absolute" and {*part.dims} <= {*measured}:
            pairs = [
                (commands, seen)
                for episode in sample.episodes
                if (commands := _of(episode, [commanded[dim] for dim in part.dims])) is not None
                and (seen := _of(episode, [measured[dim] for dim in part.dims])) is not None
            ]
            both = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            if part.kind == "joint" and (claim := motion.claim_mode(motion.fits(*both))).value == "delta":
                reasons[name] = f"changes of the state, and no positions: {claim.evidence}"
            if part.kind == "gripper" and pairs:
                strength = grippers.correlation(*both) * _sense(robot, "state", name) * _sense(robot, "action", name)
                if strength < -grippers.MIN_CORRELATION:
                    reasons[name] = f"it closes where the state opens (correlation {strength:.2f})"
    return reasons


def _sense(robot: Robot, which: Which, name: str) -> int:
    """Return whether the ops of a gripper turn its direction around: -1 if they do, else 1."""
    op = robot.vector(which).ops.get(name)
    if not op:
        return 1
    low, high = expr.parse(f"v | {op}")({"v": np.array([[0], [0.01]], np.float32)}).ravel()
    return -1 if high < low else 1


def _dims(robot: Robot, which: Which) -> list[str]:
    space = robot.space(which)
    return [dim for part in (space.parts.values() if space else ()) for dim in part.dims]


def _of(episode: Mapping[str, Array], places: Sequence[tuple[str, int]]) -> Array | None:
    if any(path not in episode for path, _ in places):
        return None
    steps = min(len(episode[path]) for path, _ in places)
    return np.stack([episode[path][:steps, column] for path, column in places], axis=1)
