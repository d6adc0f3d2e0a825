"""Judge the representation of commanded rotations: rotation vector, the order of Euler angles or of a quaternion."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipelines.conventions.hypotheses import PartMotion
from pipelines.conventions.moments import moments
from pipelines.conventions.rotations import FORMS, read
from pipelines.conventions.verdicts import Verdict, undetermined, verdict
from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

FITS = 0.5  # largest unexplained share of the best representation
BETTER = 0.5  # largest unexplained share of another representation, relative to that of the declared one
POOR = 0.1  # least unexplained share of a declared representation that is wrong
WORSE = 1.5  # least unexplained share of every other representation, relative to that of the declared one
EQUAL = 1e-9  # unexplained shares below this are rounding


class RepresentationJudge:
    """The representation of one rotation."""

    def __init__(self, motion: PartMotion, *, is_target: bool, is_tool: bool, delay: int) -> None:
        """Take the motion of the part, and what was judged before."""
        self.motion, self.is_target, self.is_tool, self.delay = motion, is_target, is_tool, delay

    def verdict(self, weights: Array) -> Verdict:
        """Compare all representations with as many numbers."""
        declared, whole = self.motion.form, self.unexplained
        if declared not in whole or len(whole) < 2:
            return undetermined("the representation is declared unknown")
        if not self.motion.is_radians:
            return undetermined("the unit of the command is not known")
        drawn = {form: self._unexplained(form, weights) for form in self.errors}
        best = self.best
        others = min(value for form, value in whole.items() if form != declared)
        said = f"as {declared}, {max(0, 1 - whole[declared]):.0%} of the rotation is explained"
        if best == declared:
            evidence = f"{said}, as others at most {max(0, 1 - others):.0%}"
            rivals = np.min([values for form, values in drawn.items() if form != declared], axis=0)
            is_clear = whole[declared] <= FITS and others >= WORSE * max(whole[declared], EQUAL)
            return verdict(float((drawn[declared] < rivals).mean()), evidence, agrees=True, is_clear=is_clear)
        evidence = f"{said}, as {best} {max(0, 1 - whole[best]):.0%}"
        is_clear = whole[best] <= FITS and whole[best] <= BETTER * whole[declared] and whole[declared] >= POOR
        return verdict(float((drawn[best] < drawn[declared]).mean()), evidence, agrees=False, is_clear=is_clear)

    @cached_property
    def unexplained(self) -> dict[str, float]:
        """The share of the rotation that each representation leaves unexplained."""
        return {
            form: float(self._unexplained(form, np.ones((1, len(size))))[0]) for form, (_, size) in self.errors.items()
        }

    @property
    def best(self) -> str:
        """The representation that explains most; the declared one if others explain as much."""
        shares = self.unexplained
        return min(shares, key=lambda form: (max(shares[form], EQUAL), form != self.motion.form))

    @cached_property
    def errors(self) -> Mapping[str, tuple[Array, Array]]:
        """The squared error and the squared rotation of each episode, [E] each, for each representation."""
        return dict(self._errors())

    def _unexplained(self, form: str, weights: Array) -> Array:
        error, size = self.errors[form]
        return np.asarray((weights @ error) / np.maximum(weights @ size, np.finfo(float).tiny))

    def _errors(self) -> Iterator[tuple[str, tuple[Array, Array]]]:
        for form in FORMS.get(self.motion.commands.shape[1], ()):
            try:
                commanded = read(self.motion.whole_commands, form)
            except (SourceError, ValueError):
                continue
            yield form, self._of_targets(commanded) if self.is_target else self._of_changes(commanded.as_rotvec())

    def _of_targets(self, commanded: "Rotation") -> tuple[Array, Array]:
        """Compare with the next state, up to one constant rotation."""
        steps, measured = self.motion.steps, self.motion.rotations
        rows = np.flatnonzero(~steps.is_last)
        after = measured[rows + 1]
        left = commanded[rows].inv() * after
        error, size = np.zeros(len(steps.owner)), np.zeros(len(steps.owner))
        error[rows] = (left.mean().inv() * left).magnitude() ** 2
        size[rows] = (after.mean().inv() * after).magnitude() ** 2
        return steps.summed(error), steps.summed(size)

    def _of_changes(self, commanded: Array) -> tuple[Array, Array]:
        """Compare with the motion, up to a matrix, so that exchanged and negated axes do not matter."""
        motion = self.motion.changes["tool" if self.is_tool else "base"].motions
        fitted = moments(self.motion.steps, commanded, motion, delay=self.delay)
        matrix, size = fitted.total.matrix, fitted.yy.sum(axis=-1)
        along = (fitted.xy * matrix).sum(axis=(-2, -1))
        commands = np.einsum("dk,edf,fk->e", matrix, fitted.xx, matrix)
        return size - 2 * along + commands, size
