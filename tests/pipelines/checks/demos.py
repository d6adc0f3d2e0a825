"""Drawn demonstrations of three kinds of robots, and faults of recorders that are put into some of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from pipelines.checks.batch import DimRanges, NumberBatch
from pipelines.checks.duplicates import Signed, duplicates
from pipelines.checks.findings import RuleFinding
from pipelines.checks.numbers import CHECKS
from pipelines.checks.signature import measures as signature
from pipelines.checks.table import MeasureTable
from schemas.source import Array
from schemas.spaces import DELTA, Dim, Space
from tests.pipelines.checks.lab import about

Rng: TypeAlias = np.random.Generator
GRIPPER = Dim("gripper", "1", "absolute", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """A kind of robot."""

    hz: float
    absolute: bool  # whether commands are positions, not changes
    controller: bool  # whether commands are in the units of a controller
    clock: bool  # whether times are recorded
    lag: int  # steps until the state follows
    noise: float  # noise of the state, in its units
    step: float  # resolution of the state; 0: not quantised

    def spaces(self) -> tuple[Space, Space]:
        """Return the Spaces of action and state."""
        if self.absolute:
            dims = tuple(Dim(f"joint_{i}", "rad", "absolute", "joint") for i in range(6))
            state, action, frame, rotation = dims, dims, "none", "none"
        else:
            state = tuple(Dim(dim.name, dim.unit, "absolute", dim.kind) for dim in DELTA)
            unit = "controller" if self.controller else None
            action = tuple(Dim(dim.name, unit or dim.unit, "delta", dim.kind) for dim in DELTA)
            frame, rotation = "base", "euler_xyz"
        shared = {"frame": frame, "rotation": rotation, "gripper": "open_is_1"}
        return (
            Space(name="action", dims=(*action, GRIPPER), origin="commanded", **shared),
            Space(name="state", dims=(*state, GRIPPER), origin="achieved", **shared),
        )


ROBOTS = {
    "delta": Robot(hz=5, absolute=False, controller=False, clock=False, lag=0, noise=4e-4, step=0),
    "controller": Robot(hz=20, absolute=False, controller=True, clock=False, lag=1, noise=5e-5, step=0),
    "joints": Robot(hz=30, absolute=True, controller=False, clock=True, lag=2, noise=2e-4, step=2 * np.pi / 4096),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One demonstration."""

    action: Array  # [T, 7]
    state: Array  # [T, 7]
    times: Array  # [T] seconds

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.action)


def draw(robot: Robot, rng: Rng, *, task: int, style: str = "usual") -> Demo:
    """Draw a demonstration: reaches of minimum jerk between points, with pauses of less than half a second."""
    goals = np.random.default_rng(task).uniform(-0.3, 0.3, (3, 6)) + rng.normal(0, 0.03, (3, 6))
    start = np.random.default_rng(0).uniform(-0.1, 0.1, 6) + rng.normal(0, 0.01, 6)
    if style == "mirrored":
        goals[:, 1] *= -1
    if style == "recovery":
        goals = np.concatenate([goals[:1], goals[:1] + rng.normal(0, 0.08, (2, 6)), goals])
    pace = {"slow": 2.5, "long": 1.0}.get(style, 1.0) * rng.uniform(0.8, 1.2)
    if style == "long":
        goals = np.concatenate([goals, goals[::-1] + rng.normal(0, 0.05, goals.shape)])
    here, points, grips = start, [start[None]], [np.ones(1)]
    for k, goal in enumerate(goals):
        count = max(6, round(robot.hz * 1.6 * pace * rng.uniform(0.8, 1.3)))
        phase = np.linspace(0, 1, count + 1)[1:, None]
        smooth = phase**3 * (10 - 15 * phase + 6 * phase**2)
        bow = rng.normal(0, 0.03, 6) * np.sin(np.pi * phase)
        reach = here + (goal - here) * smooth + bow
        pause = np.repeat(reach[-1:], rng.integers(0, max(1, int(0.4 * robot.hz)) + 1), axis=0)
        here = goal
        points += [reach, pause]
        grips += [np.full(len(reach) + len(pause), float(k % 2 == 0))]
    path, grip = np.concatenate(points), np.concatenate(grips)
    count = len(path)
    follows = np.concatenate([np.repeat(path[:1], robot.lag, axis=0), path])[:count]
    state = follows + rng.normal(0, robot.noise, follows.shape)
    if robot.step:
        state = np.round(state / robot.step) * robot.step
    if robot.absolute:
        action = np.concatenate([path[1:], path[-1:]]) + rng.normal(0, 2e-4, path.shape)
    else:
        action = np.diff(path, axis=0, append=path[-1:])
        if robot.controller:
            action = np.clip(action / 0.05, -1, 1)
        action = action + rng.normal(0, 0.01 * np.abs(action).max(), action.shape) * (np.abs(action) > 0)
    slow = np.convolve(np.concatenate([np.repeat(grip[:1], 4), grip]), np.ones(4) / 4)[3 : 3 + count]
    times = np.arange(count) / robot.hz + rng.normal(0, 0.003 / robot.hz, count)
    return Demo(
        action=np.concatenate([action, grip[:, None]], axis=1).astype(np.float32),
        state=np.concatenate([state, slow[:, None]], axis=1).astype(np.float32),
        times=np.sort(times),
    )


def demos(robot: Robot, rng: Rng, count: int) -> list[Demo]:
    """Draw demonstrations of 4 tasks; some are slow, long, mirrored or have a recovery."""
    styles = ["usual"] * 6 + ["slow", "long", "recovery", "mirrored"]
    return [draw(robot, rng, task=i % 4, style=styles[int(rng.integers(len(styles)))]) for i in range(count)]


# Faults. Each returns a changed demonstration; `size` is 0.5 (small), 1 or 2.

Fault: TypeAlias = Callable[[Robot, Demo, Rng, float], Demo]


def _moving(demo: Demo, rng: Rng, count: int) -> int:
    """Choose a step from which the robot moves fast for `count` steps."""
    speed = np.abs(np.diff(demo.state[:, :6], axis=0)).sum(axis=1)
    total = np.convolve(speed, np.ones(count), "valid")
    inner = np.arange(3, len(total) - 3)
    chosen = inner[total[inner] >= np.quantile(total[inner], 0.6)]
    return int(rng.choice(chosen))


def freeze_state(robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Keep one dimension for 0.6 s or more while it moves."""
    count = max(5, round(robot.hz * 0.6 * max(1, size)))
    at = _moving(demo, rng, count)
    state = demo.state.copy()
    dim = int(np.argmax(np.ptp(state[at : at + count, :6], axis=0)))
    state[at : at + count, dim] = state[at, dim]
    return replace(demo, state=state)


def jitter(robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Add noise to the times, of 0.3 of a step."""
    return replace(demo, times=np.sort(demo.times + rng.normal(0, 0.3 * size / robot.hz, len(demo))))


def drop(_robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Leave out 3 steps or more."""
    count = max(2, round(3 * size))
    at = int(rng.integers(3, len(demo) - count - 3))
    keep = np.delete(np.arange(len(demo)), np.arange(at, at + count))
    return Demo(action=demo.action[keep], state=demo.state[keep], times=demo.times[keep])


def drop_and_restamp(robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Leave out steps while the robot moves, and write regular times."""
    count = max(3, round(3 * size))
    at = _moving(demo, rng, count + 2) + 1
    keep = np.delete(np.arange(len(demo)), np.arange(at, at + count))
    return Demo(action=demo.action[keep], state=demo.state[keep], times=demo.times[: len(keep)])


def shift_action(_robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Delay the actions by 2 steps or more."""
    count = max(2, round(2 * size)) * int(rng.choice([-1, 1]))
    rows = np.clip(np.arange(len(demo)) - count, 0, len(demo) - 1)
    return replace(demo, action=demo.action[rows])


def spike(robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Let one value of the state jump for a step."""
    state = demo.state.copy()
    at, dim = int(rng.integers(2, len(demo) - 3)), int(rng.integers(6))
    state[at, dim] += 0.12 * size * rng.choice([-1, 1])
    return replace(demo, state=state)


def rest(robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Insert a second or more without motion."""
    count = max(7, round(robot.hz * max(1, size)))
    at = int(rng.integers(2, len(demo) - 2))
    state, action = (np.insert(values, [at] * count, values[at], axis=0) for values in (demo.state, demo.action))
    if not robot.absolute:
        action[at : at + count, :6] = 0
    noise = rng.normal(0, robot.noise, (count, 6))
    state[at : at + count, :6] += np.round(noise / robot.step) * robot.step if robot.step else noise
    return Demo(action=action, state=state.astype(np.float32), times=np.arange(len(action)) / robot.hz)


def copy_state(_robot: Robot, demo: Demo, _rng: Rng, _size: float) -> Demo:
    """Write the state into the columns of the action."""
    return replace(demo, action=np.concatenate([demo.state[:, :6], demo.action[:, 6:]], axis=1))


def offset(_robot: Robot, demo: Demo, rng: Rng, size: float) -> Demo:
    """Calibrate the leader 17 degrees off, and hold still for a second."""
    held = rest(_robot, demo, rng, 1.0)
    action = held.action.copy()
    action[:, int(rng.integers(6))] += 0.3 * size
    return replace(held, action=action)


def negate(_robot: Robot, demo: Demo, rng: Rng, _size: float) -> Demo:
    """Negate the commands of the dimension that moves most."""
    action, axis = demo.action.copy(), int(np.argmax(np.ptp(demo.state[:, :3], axis=0)))
    action[:, axis] *= -1
    return replace(demo, action=action)


def units(_robot: Robot, demo: Demo, _rng: Rng, _size: float) -> Demo:
    """Write positions in millimetres, or joints in degrees."""
    factor = 180 / np.pi if _robot.absolute else 1000
    return replace(demo, action=demo.action * np.array([factor] * 3 + [1.0] * 4, np.float32))


def inverted(_robot: Robot, demo: Demo, _rng: Rng, _size: float) -> Demo:
    """Write 1 for a closed hand."""
    return replace(demo, action=np.concatenate([demo.action[:, :6], 1 - demo.action[:, 6:]], axis=1))


FAULTS: dict[str, tuple[str, Fault, Sequence[str]]] = {  # name -> rule, fault, robots
    "freeze_state": ("frozen_state", freeze_state, ("delta", "controller", "joints")),
    "jitter": ("timestamp_jitter", jitter, ("joints",)),
    "drop": ("timestamp_gap", drop, ("joints",)),
    "drop_and_restamp": ("timestamp_gap", drop_and_restamp, ("controller", "joints")),
    "shift_action": ("lag", shift_action, ("delta", "controller", "joints")),
    "spike": ("spike", spike, ("delta", "controller", "joints")),
    "rest": ("idle", rest, ("delta", "controller", "joints")),
    "copy_state": ("copied_field", copy_state, ("delta", "controller", "joints")),
    "offset": ("rest_offset", offset, ("joints",)),
    "negate": ("mixed_convention", negate, ("delta", "controller", "joints")),
    "units": ("mixed_convention", units, ("delta", "controller")),
    "inverted": ("mixed_convention", inverted, ("delta", "controller", "joints")),
}


def batch_of(robot: Robot, made: Sequence[Demo]) -> NumberBatch:
    """Put demonstrations into one batch, with the ranges of all of them."""
    lengths = np.array([len(demo) for demo in made])
    columns = {
        "action": np.concatenate([demo.action for demo in made]),
        "observation.state": np.concatenate([demo.state for demo in made]),
        "timestamp": np.concatenate([demo.times for demo in made]),
    }
    action, state = robot.spaces()
    ranges = {"action": _ranges(columns["action"]), "state": _ranges(columns["observation.state"])}
    if not robot.clock:
        del columns["timestamp"]
    known = about(action=action, state=state, control_hz=robot.hz, is_clock=robot.clock, ranges=ranges)
    batch = NumberBatch(
        about=known,
        episodes=np.arange(len(made)),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        columns=columns,
    )
    usual: dict[str, Array] = {}
    for check in CHECKS:
        if not check.why_not(known):
            usual |= check.learn(batch)
    return replace(batch, about=replace(known, usual=usual))


def _ranges(values: Array) -> DimRanges:
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    return DimRanges(low=values.min(axis=0), high=values.max(axis=0), q01=q01, q99=q99, std=values.std(axis=0))


def split(batch: NumberBatch) -> list[NumberBatch]:
    """Return a batch for each episode."""
    return [
        replace(
            batch,
            episodes=batch.episodes[[i]],
            starts=np.zeros(1, np.int64),
            lengths=batch.lengths[[i]],
            columns={name: values[start : start + length] for name, values in batch.columns.items()},
        )
        for i, (start, length) in enumerate(zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True))
    ]


def findings(batch: NumberBatch) -> list[RuleFinding]:
    """Apply the rules of numbers and the search for duplicates to episodes that are read together."""
    return findings_of([batch])


def findings_of(batches: Sequence[NumberBatch]) -> list[RuleFinding]:
    """Apply the rules of numbers and the search for duplicates to batches of one dataset."""
    known, found, table = batches[0].about, [], MeasureTable()
    checks = [check for check in CHECKS if not check.why_not(known)]
    for batch in batches:
        columns = {"episode": batch.episodes, **signature(batch)}
        for check in checks:
            found += check.of_episodes(batch)
            columns |= check.measures(batch)
        table.chunks.append(columns)
    measured = table.columns()
    for check in checks:
        found += check.of_dataset(known, measured)
    signed = Signed(about=known, splits=["train"] * len(measured["episode"]), columns=measured)
    return [*found, *duplicates([signed])]
