"""An arm's motion, recorded in many conventions, for which every claim of a draft must be right or open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pipelines.inspect.draft.choose import choose_fields
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.spaces import Spaces
from schemas.source import Array, Field

EPISODES, STEPS = 6, 50
HZ = 10.0


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The conventions of a lab, with the words of a Space."""

    mode: str = "delta"  # delta or absolute
    frame: str = "base"  # base or tool
    state_rotation: str = "euler_xyz"
    action_rotation: str = "euler_xyz"
    metres: float = 1.0  # units of the state per metre
    action_metres: float = 1.0
    degrees: bool = False
    action_degrees: bool = False
    closed_is_1: bool = False
    action_closed_is_1: bool = False
    is_signed: bool = False  # the commanded gripper ranges from -1 to 1
    noise: float = 0.0  # relative to the motion
    names: Mapping[str, str] = field(default_factory=dict)  # neutral names by default


def smooth(rng: np.random.Generator, count: int, size: float) -> Array:
    """Draw a smooth path as a sum of sines."""
    phase = np.linspace(0, 1, count)[:, None]
    waves = [rng.uniform(-1, 1, 3) * np.sin(2 * np.pi * (k * phase + rng.uniform(0, 1, 3))) / k for k in (1, 2, 3)]
    return np.asarray(size * np.sum(waves, axis=0))


def rotated(rotation: Rotation, word: str, *, in_degrees: bool) -> Array:
    """Write rotations in a representation of the Space."""
    if word == "euler_xyz":
        return rotation.as_euler("xyz", degrees=in_degrees)
    if word == "rotvec":
        return rotation.as_rotvec(degrees=in_degrees)
    return rotation.as_quat(scalar_first=word == "quat_wxyz")


def record(lab: Lab, seed: int = 0) -> Sample:
    """Record some episodes in the conventions of a lab."""
    rng = np.random.default_rng(seed)
    episodes = []
    home = Rotation.from_euler("xyz", rng.uniform(-0.8, 0.8, 3) + np.array([2.4, 0.2, 0.4]))
    for _ in range(EPISODES):
        position = np.array([0.4, 0.05, 0.3]) + smooth(rng, STEPS + 1, 0.12)
        rotation = Rotation.from_rotvec(smooth(rng, STEPS + 1, 0.5)) * home
        opened = (np.sin(np.linspace(0, 3 * np.pi, STEPS + 1) + rng.uniform(0, 6)) > 0).astype(float)
        move, turn = np.diff(position, axis=0), rotation[1:] * rotation[:-1].inv()
        if lab.mode == "absolute":
            move, turn = position[1:], rotation[1:]
        elif lab.frame == "tool":
            move, turn = rotation[:-1].inv().apply(move), rotation[:-1].inv() * rotation[1:]
        spread = np.diff(position, axis=0).std()
        move = move + rng.normal(size=move.shape) * lab.noise * spread
        turn = Rotation.from_rotvec(rng.normal(size=move.shape) * lab.noise * turn_size(rotation)) * turn
        grip = opened[1:] * 2 - 1 if lab.is_signed else opened[1:]
        flip = -grip if lab.is_signed else 1 - grip
        state = [
            position[:-1] * lab.metres,
            rotated(rotation[:-1], lab.state_rotation, in_degrees=lab.degrees),
            (1 - opened if lab.closed_is_1 else opened)[:-1, None],
        ]
        action = [
            move * lab.action_metres,
            rotated(turn, lab.action_rotation, in_degrees=lab.action_degrees),
            (flip if lab.action_closed_is_1 else grip)[:, None],
        ]
        episodes.append(columns(lab, state, action))
    fields = {path: Field(path=path, kind="number", shape=(c.shape[1],)) for path, c in episodes[0].items()}
    return sampled(fields, episodes)


def turn_size(rotation: Rotation) -> float:
    """Return the mean rotation of a step, in radians about one axis."""
    return float((rotation[1:] * rotation[:-1].inv()).magnitude().mean()) / np.sqrt(3)


def as_stored(parts: Sequence[Array]) -> Array:
    """Round to float32, as recordings do."""
    return np.concatenate(parts, axis=1).astype(np.float32).astype(np.float64)


def columns(lab: Lab, state: Sequence[Array], action: Sequence[Array]) -> dict[str, Array]:
    """Join the numbers to vectors with neutral names, or put each part into its own field."""
    if not lab.names:
        return {"observation.state": as_stored(state), "action": as_stored(action)}
    kinds = ("position", "rotation", "gripper")
    named = {f"observation.{lab.names[kind]}": as_stored([part]) for kind, part in zip(kinds, state, strict=True)}
    return named | {f"action.{lab.names[kind]}": as_stored([part]) for kind, part in zip(kinds, action, strict=True)}


def sampled(fields: Mapping[str, Field], episodes: Sequence[Mapping[str, Array]], **more: Any) -> Sample:
    """Make a sample as `read_sample` returns it."""
    told: dict[str, Any] = {"texts": {}, "metadata": ({},) * len(episodes), "description": {}, "total": len(episodes)}
    return Sample(fields=fields, episodes=tuple(episodes), **{"rows": {}, **told, **more})


def drafted(sample: Sample, *, rate: float | None = HZ) -> Spaces:
    """Draft the Spaces of a sample."""
    return Spaces(sample, state=choose_fields(sample, "state")[0], action=choose_fields(sample, "action")[0], rate=rate)
