"""Find rotation representations: by length and orthogonality, and by predicting measured rotations from commands.

A hypothesis is a pair of representations, one for the measured and one for the commanded rotation. If only one pair
predicts the rotations from step to step, it is claimed. If several predict them equally well, the representation is
left open. This is usual for noisy commands, since small Euler angles and rotation vectors look alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.declarations.rotations import from_euler, matrices, to_rotation
from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

LENGTH_TOLERANCE = 2e-3  # a float32 quaternion's length may differ from 1 by this much
MIN_MOTION = 1e-4  # standard deviation; a column with less is constant
MAX_PAIRS = 400  # steps on which hypotheses are compared, evenly spaced
NOISE = 3e-4  # smaller relative errors are rounding errors of float32
MAX_ERROR = 0.15  # largest relative error of a claimed hypothesis
MIN_RATIO = 3.0  # for a claim, the error of every other hypothesis must be this many times larger
ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx", "XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")  # scipy's spelling
USUAL = ("xyz", "rotvec", "quat_xyzw", "quat_wxyz", "rows", "columns", "delta", "absolute")  # the likeliest readings
READINGS = {
    "difference": "the change of each number",
    "delta": "a delta",
    "tool": "a delta in the tool's axes",
    "absolute": "a target",
}
DEGREE = np.pi / 180
FORMS = {3: (*ORDERS, "rotvec"), 4: ("quat_xyzw", "quat_wxyz"), 9: ("rows", "columns")}


@dataclass(frozen=True, slots=True)
class RotationHypothesis:
    """One interpretation of a measured and a commanded rotation."""

    measured: str  # a form in FORMS
    commanded: str  # a form in FORMS, or "difference": the change of each measured number
    relation: str  # delta, tool, absolute
    factor: float  # converts the command to radians

    @property
    def mode(self) -> str:
        """`absolute`, or `delta` for the relations delta and tool."""
        return "absolute" if self.relation == "absolute" else "delta"


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The error of every hypothesis, relative to the rotations that it should predict."""

    errors: dict[RotationHypothesis, float]

    def decided(self, attribute: str) -> str | float | None:
        """Return the value of an attribute in the best hypothesis.

        Returns None if the best hypothesis fits badly, or if another value fits nearly as well.
        """
        if not self.errors:
            return None
        first = min(self.errors, key=lambda hypothesis: self.errors[hypothesis])
        value, error = getattr(first, attribute), max(self.errors[first], NOISE)
        others = [e for hypothesis, e in self.errors.items() if getattr(hypothesis, attribute) != value]
        return value if error <= MAX_ERROR and min(others, default=np.inf) >= MIN_RATIO * error else None

    def refuted(self, attribute: str, value: str) -> bool:
        """Whether every hypothesis with this value of the attribute fits badly, while another one fits well."""
        errors = [error for hypothesis, error in self.errors.items() if getattr(hypothesis, attribute) == value]
        best = max(min(self.errors.values(), default=np.inf), NOISE)
        return best <= MAX_ERROR and min(errors, default=np.inf) >= MIN_RATIO * best

    def best(self) -> tuple[RotationHypothesis, float] | None:
        """Return the best hypothesis and its error; None if there is none."""
        if not self.errors:
            return None
        first = min(self.errors, key=lambda hypothesis: self.errors[hypothesis])
        return first, self.errors[first]

    def best_errors(self, attribute: str) -> dict[str, float]:
        """Return the smallest error of each value of an attribute, the smallest first.

        Of the errors that are too similar to tell their values apart, those of common representations come first.
        """
        errors: dict[str, float] = {}
        for hypothesis, error in self.errors.items():
            value = str(getattr(hypothesis, attribute))
            errors[value] = min(error, errors.get(value, np.inf))
        limit = MIN_RATIO * max(min(errors.values(), default=0.0), NOISE)
        return dict(sorted(errors.items(), key=lambda item: (item[1] >= limit, item[0] not in USUAL, item[1])))

    def compared(self, attribute: str) -> str:
        """Name the two best values of an attribute, and whether they can be told apart; empty without hypotheses."""
        values = [*self.best_errors(attribute)]
        if len(values) < 2:
            return f"only {reading(values[0])} can be compared" if values else ""
        return f"{reading(values[0])} or {reading(values[1])}: {self.verdict(attribute, *values[:2])}"

    def verdict(self, attribute: str, first: str, second: str) -> str:
        """Describe how well two values of an attribute explain the commands; empty if one of them was not compared."""
        errors = self.best_errors(attribute)
        if first not in errors or second not in errors:
            return ""
        figures = f"(errors {errors[first]:.2g} and {errors[second]:.2g})"
        low, high = sorted(max(errors[value], NOISE) for value in (first, second))
        if low > MAX_ERROR:
            return f"neither predicts the turns {figures}, so they cannot be told apart"
        if high >= MIN_RATIO * low:
            return f"the {'first' if errors[first] < errors[second] else 'second'} predicts the turns better {figures}"
        more = sum(error < MIN_RATIO * low for error in errors.values()) - 2
        others = f", and neither can {more} others" if more > 0 else ""
        return f"both predict the turns {figures}, so they cannot be told apart{others}"


def reading(value: str) -> str:
    """Name a value of an attribute of a hypothesis: Euler angles by their order and axes.

    >>> reading("ZYX")
    'Euler ZYX about moving axes'
    """
    if value not in ORDERS:
        return READINGS.get(value, value)
    return f"Euler {value} about {'fixed' if value.islower() else 'moving'} axes"


def rotation_form(values: Array) -> str | None:
    """Return `quaternion`, `matrix` or `6d` (two rows or columns of a matrix) if the numbers of every step form one.

    `values` are [T, k]. Returns None for other numbers, and for constant numbers, which may form one by chance.
    """
    width = values.shape[1]
    if not len(values) or not np.isfinite(values).all() or (values.std(axis=0) > MIN_MOTION).sum() < 2:
        return None
    if width == 4 and np.abs(np.linalg.norm(values, axis=1) - 1).max() < LENGTH_TOLERANCE:
        return "quaternion"
    if width == 9 and _orthonormal(values.reshape(-1, 3, 3)):
        return "matrix"
    if width == 6:
        flat = values.reshape(-1, 2, 3)
        paired = values.reshape(-1, 3, 2).transpose(0, 2, 1)
        return "6d" if _orthonormal(flat) or _orthonormal(paired) else None
    return None


def _orthonormal(rows: Array) -> bool:
    products = rows @ rows.transpose(0, 2, 1)
    return bool(np.abs(products - np.eye(rows.shape[1])).max() < LENGTH_TOLERANCE)


def read(values: Array, form: str, factor: float = 1.0) -> "Rotation":
    """Convert numbers [T, k] in a form of FORMS to rotations; `factor` converts angles to radians.

    Raises SourceError if the numbers are not rotations.
    """
    if form in ORDERS:
        return from_euler(values * factor, form)
    if form == "rotvec":
        return to_rotation(values * factor, "rotvec")
    if form in {"rows", "columns"}:
        square = values.reshape(-1, 3, 3)
        return matrices(square if form == "rows" else square.transpose(0, 2, 1))
    return to_rotation(values, form)


def compare(measured: Sequence[Array], commanded: Sequence[Array], *, factors: Sequence[float]) -> Hypotheses:
    """Compute the error of every pair of representations.

    `factors` are the possible factors that convert the measured angles to radians; each is tried.
    """
    now, then, command = (np.concatenate(rows) for rows in zip(*_pairs(measured, commanded), strict=True))
    fine = np.isfinite(np.concatenate([now, then, command], axis=1)).all(axis=1)
    spaced = np.unique(np.linspace(0, max(int(fine.sum()) - 1, 0), MAX_PAIRS).astype(int))[: int(fine.sum())]
    now, then, command = (rows[fine][spaced] for rows in (now, then, command))
    errors: dict[RotationHypothesis, float] = {}
    if len(now):
        for factor in factors:
            for hypothesis, error in _errors(now, then, command, factor=factor):
                errors[hypothesis] = min(error, errors.get(hypothesis, np.inf))
    return Hypotheses(errors)


def _pairs(measured: Sequence[Array], commanded: Sequence[Array]) -> Iterator[tuple[Array, Array, Array]]:
    for seen, command in zip(measured, commanded, strict=True):
        count = min(len(seen) - 1, len(command))
        yield seen[: max(count, 0)], seen[1 : max(count, 0) + 1], command[: max(count, 0)]


def _errors(now: Array, then: Array, command: Array, *, factor: float) -> Iterator[tuple[RotationHypothesis, float]]:
    commands = list(_commands(command))
    for form in FORMS.get(now.shape[1], ()):
        try:
            before, after = read(now, form, factor), read(then, form, factor)
        except (SourceError, ValueError):
            continue
        turn, tool = after * before.inv(), before.inv() * after
        size = _rms(turn.magnitude())
        spread = _rms((after * after.mean().inv()).magnitude())
        if size < MIN_MOTION:
            continue
        for name, unit, rotation in commands:
            yield RotationHypothesis(form, name, "delta", unit), _rms((rotation.inv() * turn).magnitude()) / size
            yield RotationHypothesis(form, name, "tool", unit), _rms((rotation.inv() * tool).magnitude()) / size
            yield RotationHypothesis(form, name, "absolute", unit), _rms((rotation.inv() * after).magnitude()) / spread
        if form in {*ORDERS, "rotvec"} and command.shape == now.shape:
            step = (then - now) * factor
            step = np.where(np.abs(step) > np.pi, step - np.sign(step) * 2 * np.pi, step)
            for unit in (1.0, DEGREE):
                error = np.linalg.norm(command * unit - step, axis=1)
                size = max(_rms(step) * np.sqrt(3), MIN_MOTION)
                yield RotationHypothesis(form, "difference", "delta", unit), _rms(error) / size


def _commands(command: Array) -> "Iterator[tuple[str, float, Rotation]]":
    for form in FORMS.get(command.shape[1], ()):
        for unit in (1.0, DEGREE) if command.shape[1] == 3 else (1.0,):
            try:
                yield form, unit, read(command, form, unit)
            except (SourceError, ValueError):
                continue


def _rms(values: Any) -> float:
    each = np.asarray(values)
    return float(np.sqrt((each**2).mean())) if each.size else np.inf
