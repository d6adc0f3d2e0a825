"""The hypotheses of how commands relate to the motion of one part, with the second moments of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pipelines.conventions.moments import SecondMoments, moments
from pipelines.conventions.parts import BodyPart, mode, unit
from pipelines.conventions.rotations import read
from pipelines.conventions.trajectories import Trajectories, wrapped
from schemas.declarations.rotations import to_rotation
from schemas.errors import SourceError
from schemas.source import Array
from schemas.spaces import Space

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Form: TypeAlias = Literal["change", "absolute"]
Frame: TypeAlias = Literal["base", "tool"]

QUATERNION = 4
FORM_OF = {"euler_xyz": "xyz", "rotvec": "rotvec", "quat_xyzw": "quat_xyzw", "quat_wxyz": "quat_wxyz"}
DELAYS = range(-4, 11)  # steps between a command and the motion; 0: the motion to the next step
STILL = 1e-2  # a step moves if its motion, relative to the largest one, exceeds this


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Commands and the motions that they may have caused, for one form and frame."""

    commands: Array  # [N, D]
    motions: Array  # [N, K]
    steps: Trajectories

    @cached_property
    def by_delay(self) -> dict[int, SecondMoments]:
        """The moments of each episode for each of DELAYS."""
        return {delay: moments(self.steps, self.commands, self.motions, delay=delay) for delay in DELAYS}

    @cached_property
    def delay(self) -> int:
        """The delay at which commands explain most of the motion."""
        return max(DELAYS, key=lambda delay: float(self.by_delay[delay].total.r2))

    @property
    def best(self) -> SecondMoments:
        """The moments of each episode at the best delay."""
        return self.by_delay[self.delay]

    @property
    def r2(self) -> float:
        """The share of the motion that commands explain, at the best delay."""
        return float(self.best.total.r2)


class PartMotion:
    """How the commands of a part relate to its motion."""

    def __init__(
        self,
        part: BodyPart,
        steps: Trajectories,
        *,
        action: Space,
        state: Space,
        form: str | None = None,
        factor: float = 1.0,
    ) -> None:
        """Read the part's commands and measurements.

        `form` is the representation of commands if it is not the declared one, and `factor` converts their unit.
        """
        self.part, self.steps, self.factor = part, steps, factor
        self.declared = mode(action, part.action)
        self.is_radians = action.rotation in {"quat_xyzw", "quat_wxyz"} or unit(action, part.action) == "rad"
        self.form = form or FORM_OF.get(action.rotation, "")
        self.commands = factor * steps.action[:, part.action].astype(np.float64)
        self.measured = steps.state[:, part.state].astype(np.float64)
        self.is_angle = [state.dims[i].unit == "rad" for i in part.state]
        self.is_turned, self.turned = np.ones(len(steps.owner), bool), None
        if part.turn:
            self.is_turned, measured = _whole(steps.state[:, part.turn].astype(np.float64))
            self.turned = to_rotation(measured, state.rotation)

    @cached_property
    def changes(self) -> Mapping[Frame, Relation]:
        """The commands as changes, in each frame that can be told from the other."""
        relations: dict[Frame, Relation] = {"base": self._relation(self._as_change, self._motion("base"))}
        if self.part.kind == "position" and self.turned is not None:
            in_base = np.where(self.is_turned[:, None], self.turned.apply(self._as_change), np.nan)
            relations["tool"] = self._relation(in_base, self._motion("base"))
        if self.part.kind == "rotation":
            relations["tool"] = self._relation(self._as_change, self._motion("tool"))
        return relations

    @cached_property
    def targets(self) -> Relation:
        """The commands as targets of the next state; rotations are rotation vectors from the mean one."""
        if self.part.kind == "rotation":
            middle = self.rotations.mean().inv()
            is_known, values = _whole(self.commands)
            commands = np.where(is_known[:, None], (read(values, self.form) * middle).as_rotvec(), np.nan)
            measured = np.where(self.is_turned[:, None], (self.rotations * middle).as_rotvec(), np.nan)
        else:
            commands, measured = self.commands, self.measured
        after = self.steps.to_next(measured) + measured
        return self._relation(_centred(commands), _centred(after))

    @cached_property
    def _as_change(self) -> Array:
        """The commands as they stand: small Euler angles are rotation vectors, quaternions are converted."""
        if self.part.kind == "rotation" and self.commands.shape[1] != 3:
            is_known, values = _whole(self.commands)
            return np.where(is_known[:, None], read(values, self.form).as_rotvec(), np.nan)
        return self.commands

    def _relation(self, commands: Array, motions: Array) -> Relation:
        return Relation(commands=commands, motions=motions, steps=self.steps)

    def _motion(self, frame: Frame) -> Array:
        """Return the motion to the next step, [N, D]; NaN at the end of an episode."""
        if self.part.kind != "rotation" or self.turned is None:
            return self._wrapped(self.steps.to_next(self.measured))
        now, then = self.turned[:-1], self.turned[1:]
        turns = np.full((len(self.steps.owner), 3), np.nan)
        turns[:-1] = (then * now.inv() if frame == "base" else now.inv() * then).as_rotvec()
        turns[self.steps.is_last | ~self.is_turned] = np.nan
        turns[:-1][~self.is_turned[1:]] = np.nan
        return turns

    def _wrapped(self, changes: Array) -> Array:
        turns = [i for i, is_angle in enumerate(self.is_angle) if is_angle and self.part.kind == "joint"]
        out = changes.copy()
        out[:, turns] = wrapped(out[:, turns])
        return out

    @property
    def whole_commands(self) -> Array:
        """The commands, of which quaternions of length zero are replaced."""
        return _whole(self.commands)[1]

    @property
    def rotations(self) -> "Rotation":
        """The measured rotations. Raises SourceError if there are none."""
        if self.turned is None:
            raise SourceError("there are no measured rotations")
        return self.turned

    @cached_property
    def moving(self) -> int:
        """The number of steps that move."""
        size = np.nan_to_num(np.abs(self._motion("base"))).max(axis=1, initial=0)
        return int((size > STILL * size.max(initial=0)).sum()) if size.any() else 0

    @cached_property
    def is_derived(self) -> bool:
        """Whether the commands are the states themselves, or their changes, to the last digits."""
        motion = self._motion("base")
        if self.declared != "absolute" and self.commands.shape == motion.shape:
            return _equal(self._as_change, motion)
        if self.commands.shape != self.measured.shape:
            return False
        after = self.steps.to_next(self.measured) + self.measured
        return _equal(self.commands, self.measured) or _equal(self.commands, after)


def _whole(values: Array) -> tuple[Array, Array]:
    """Return whether rows are rotations, [N] bool, and the rows [N, D], of which quaternions of length zero are 1."""
    is_whole = np.ones(len(values), bool)
    if values.shape[1] != QUATERNION:
        return is_whole, values
    is_whole = np.linalg.norm(values, axis=1) > 0
    return is_whole, np.where(is_whole[:, None], values, 1.0)


def _centred(values: Array) -> Array:
    """Subtract the mean of the finite rows."""
    fine = np.isfinite(values).all(axis=1)
    return np.asarray(values - values[fine].mean(axis=0) if fine.any() else values)


def _equal(commands: Array, motions: Array) -> bool:
    fine = np.isfinite(motions).all(axis=1)
    left, right = commands[fine], motions[fine]
    return bool(len(left) and np.square(left - right).sum() <= 1e-8 * np.square(right - right.mean(axis=0)).sum())
