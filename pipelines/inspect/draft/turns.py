"""How rotations are written: from lengths and orthogonality, and by predicting one turn from another.

Every pair of representations, of the measured rotation and of the commanded one, is tried: where a single pair predicts
the turns from step to step, it is claimed. What several predict equally well is left open, which is the usual case for
noisy commands: small turns look the same as Euler angles and as rotation vectors.
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

UNIT = 2e-3  # how far from 1 the length of a float32 quaternion may be
MOVES = 1e-4  # standard deviation of a column that is not constant
PAIRS = 400  # transitions that are tried, spread over all
FLOOR = 3e-4  # of the turns: float32 leaves as much
GOOD, RATIO = 0.15, 3.0  # error of a claim, of the turns; and how much worse every other reading must be
ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx", "XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")  # scipy's spelling
DEGREE = np.pi / 180
FORMS = {3: (*ORDERS, "rotvec"), 4: ("quat_xyzw", "quat_wxyz"), 9: ("rows", "columns")}


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a measured and a commanded rotation."""

    measured: str  # a form of FORMS
    commanded: str  # the same, or "difference": of the measured numbers, one by one
    how: str  # delta, tool, absolute
    factor: float  # what makes the command radians

    @property
    def mode(self) -> str:
        """Say whether the command is a change, in whatever axes."""
        return "absolute" if self.how == "absolute" else "delta"


@dataclass(frozen=True, slots=True)
class Readings:
    """The error of every reading, as a part of the turns that it should predict."""

    errors: dict[Reading, float]

    def decided(self, word: str) -> str | float | None:
        """Give the one value of `word` without which no reading is nearly as good."""
        if not self.errors:
            return None
        first = min(self.errors, key=lambda reading: self.errors[reading])
        value, error = getattr(first, word), max(self.errors[first], FLOOR)
        others = [e for reading, e in self.errors.items() if getattr(reading, word) != value]
        return value if error <= GOOD and min(others, default=np.inf) >= RATIO * error else None

    def refuted(self, word: str, value: str) -> bool:
        """Say whether a value of `word` is out of the question: others predict the turns, and it does not."""
        fit = [error for reading, error in self.errors.items() if getattr(reading, word) == value]
        best = max(min(self.errors.values(), default=np.inf), FLOOR)
        return best <= GOOD and min(fit, default=np.inf) >= RATIO * best

    def best(self) -> tuple[Reading, float] | None:
        """Give the best reading with its error."""
        if not self.errors:
            return None
        first = min(self.errors, key=lambda reading: self.errors[reading])
        return first, self.errors[first]

    def told(self) -> str:
        """List the best readings with their errors, the usual ones first where several are equal."""
        usual = ("xyz", "rotvec", "quat_xyzw", "quat_wxyz", "rows", "columns")

        def rank(reading: Reading) -> tuple[float, bool, bool]:
            far = max(self.errors[reading], FLOOR)
            return float(f"{far:.1g}"), reading.measured not in usual, reading.commanded not in usual

        ranked = sorted(self.errors, key=rank)[:2]
        each = (f"{r.measured} with {r.commanded} as {r.how} (off by {self.errors[r]:.1g})" for r in ranked)
        listed = " or ".join(each)
        return f"the turns fit {listed}" if listed else ""


def form_at(values: Array) -> str | None:
    """Say whether numbers [T, k] are unit quaternions, rotation matrices, or two rows or columns of such.

    Constant ones prove nothing: None.
    """
    width = values.shape[1]
    if not len(values) or not np.isfinite(values).all() or (values.std(axis=0) > MOVES).sum() < 2:
        return None
    if width == 4 and np.abs(np.linalg.norm(values, axis=1) - 1).max() < UNIT:
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
    return bool(np.abs(products - np.eye(rows.shape[1])).max() < UNIT)


def read(values: Array, form: str, factor: float = 1.0) -> "Rotation":
    """Read numbers [T, k] as rotations; a SourceError where they are none."""
    if form in ORDERS:
        return from_euler(values * factor, form)
    if form == "rotvec":
        return to_rotation(values * factor, "rotvec")
    if form in {"rows", "columns"}:
        square = values.reshape(-1, 3, 3)
        return matrices(square if form == "rows" else square.transpose(0, 2, 1))
    return to_rotation(values, form)


def readings(measured: Sequence[Array], commanded: Sequence[Array], *, factors: Sequence[float]) -> Readings:
    """Try every pair of representations; `factors` make the measured angles radians."""
    now, then, command = (np.concatenate(rows) for rows in zip(*_pairs(measured, commanded), strict=True))
    fine = np.isfinite(np.concatenate([now, then, command], axis=1)).all(axis=1)
    chosen = np.unique(np.linspace(0, max(int(fine.sum()) - 1, 0), PAIRS).astype(int))[: int(fine.sum())]
    now, then, command = (rows[fine][chosen] for rows in (now, then, command))
    errors: dict[Reading, float] = {}
    if len(now):
        for factor in factors:
            for reading, error in _errors(now, then, command, factor=factor):
                errors[reading] = min(error, errors.get(reading, np.inf))
    return Readings(errors)


def _pairs(measured: Sequence[Array], commanded: Sequence[Array]) -> Iterator[tuple[Array, Array, Array]]:
    for seen, command in zip(measured, commanded, strict=True):
        count = min(len(seen) - 1, len(command))
        yield seen[: max(count, 0)], seen[1 : max(count, 0) + 1], command[: max(count, 0)]


def _errors(now: Array, then: Array, command: Array, *, factor: float) -> Iterator[tuple[Reading, float]]:
    commands = list(_commands(command))
    for form in FORMS.get(now.shape[1], ()):
        try:
            before, after = read(now, form, factor), read(then, form, factor)
        except (SourceError, ValueError):
            continue
        turn, tool = after * before.inv(), before.inv() * after
        size = _rms(turn.magnitude())
        spread = _rms((after * after.mean().inv()).magnitude())
        if size < MOVES:
            continue
        for name, unit, rotation in commands:
            yield Reading(form, name, "delta", unit), _rms((rotation.inv() * turn).magnitude()) / size
            yield Reading(form, name, "tool", unit), _rms((rotation.inv() * tool).magnitude()) / size
            yield Reading(form, name, "absolute", unit), _rms((rotation.inv() * after).magnitude()) / spread
        if form in {*ORDERS, "rotvec"} and command.shape == now.shape:
            step = (then - now) * factor
            step = np.where(np.abs(step) > np.pi, step - np.sign(step) * 2 * np.pi, step)
            for unit in (1.0, DEGREE):
                error = np.linalg.norm(command * unit - step, axis=1)
                yield Reading(form, "difference", "delta", unit), _rms(error) / max(_rms(step) * np.sqrt(3), MOVES)


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
