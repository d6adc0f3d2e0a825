"""A simulated hand that follows its commands with a delay, and faults of conventions in what was recorded of it."""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from scipy.spatial.transform import Rotation

from pipelines.conventions.check import Conventions, conventions
from pipelines.conventions.trajectories import Trajectories
from schemas.source import Array
from schemas.spaces import DELTA, Dim, Space

Rng: TypeAlias = np.random.Generator
HZ, EPISODES = 10.0, 24
GRIPPER = Dim("gripper", "1", "absolute", "gripper")
PLACE = tuple(Dim(axis, "m", "absolute", "position") for axis in "xyz")
TURN = tuple(Dim(f"q{axis}", "1", "absolute", "rotation") for axis in "xyzw")


def space(dims: tuple[Dim, ...], rotation: str, **changes: Any) -> Space:
    known: dict[str, Any] = {"frame": "base", "gripper": "open_is_1", "origin": "commanded", **changes}
    return Space(name="action", dims=(*dims, GRIPPER), rotation=rotation, **known)  # type: ignore[arg-type]


CHANGES = space(DELTA, "rotvec")
TARGETS = space(tuple(Dim(dim.name, dim.unit, "absolute", dim.kind) for dim in DELTA), "euler_xyz")
STATE = space((*PLACE, *TURN), "quat_xyzw", origin="achieved")


@dataclass(frozen=True)
class Recorded:
    """Commands and states of some episodes, with what is declared about them."""

    action: list[Array]
    state: list[Array]
    space: Space = CHANGES
    state_space: Space = STATE

    def judged(self, **options: Any) -> Conventions:
        steps = Trajectories.of(self.action, self.state)
        return conventions(self.space, self.state_space, steps, hz=HZ, **options)

    def changed(self, **columns: Any) -> "Recorded":
        """Return it with other columns of the action; each is a function of the action and the state."""
        actions = []
        for action, state in zip(self.action, self.state, strict=True):
            new = action.copy()
            for name, compute in columns.items():
                place = {"place": slice(0, 3), "turn": slice(3, 6), "grip": slice(6, 7)}[name]
                new[:, place] = compute(action, state)
            actions.append(new)
        return replace(self, action=actions)


def record(seed: int = 0, *, episodes: int = EPISODES, delay: int = 1, gain: float = 0.8) -> Recorded:
    """Move a hand that points down along smooth random commands."""
    rng = np.random.default_rng(seed)
    made = [_episode(rng, delay=delay, gain=gain) for _ in range(episodes)]
    return Recorded([action for action, _ in made], [state for _, state in made])


def _episode(rng: Rng, *, delay: int, gain: float) -> tuple[Array, Array]:
    count = int(rng.integers(40, 90))
    wave = rng.normal(size=(count + 20, 6))
    kernel = np.hanning(9) / np.hanning(9).sum()
    smooth = np.stack([np.convolve(column, kernel, "valid")[:count] for column in wave.T], axis=1)
    commands = smooth * ([0.02] * 3 + [0.06] * 3)
    grip = (np.arange(count) < rng.integers(count // 4, 3 * count // 4)).astype(float)
    place, turn = rng.uniform(-0.2, 0.2, 3), Rotation.from_euler("xyz", [np.pi, 0, rng.uniform(-1.5, 1.5)])
    states = []
    for step in range(count):
        hand = grip[max(0, step - 2)]
        states.append(np.concatenate([place, turn.as_quat(), [hand]]))
        obeyed = commands[max(0, step - delay)] * (step >= delay)
        place = place + gain * obeyed[:3] + rng.normal(0, 2e-4, 3)
        turn = Rotation.from_rotvec(gain * obeyed[3:] + rng.normal(0, 5e-4, 3)) * turn
    return np.c_[commands, grip], np.array(states)


def turns(state: Array) -> Rotation:
    return Rotation.from_quat(state[:, 3:7])


def targets(one: Recorded) -> Recorded:
    """Return the same motion with commands that are the poses to go to, in Euler angles."""
    recorded = one.changed(
        place=lambda action, state: state[:, :3] + action[:, :3],
        turn=lambda action, state: (Rotation.from_rotvec(action[:, 3:6]) * turns(state)).as_euler("xyz"),
    )
    return replace(recorded, space=TARGETS)
