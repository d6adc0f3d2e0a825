"""Compare the measured and the commanded pose of an arm, to draft mode, frame, rotation representation and unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.conventions.rotations import DEGREE, FORMS, MIN_RATIO, NOISE, Hypotheses, compare, read, reading
from pipelines.inspect.draft import motion, units
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.motion import Fit, Relation
from pipelines.inspect.draft.roles import words
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.units import UnitDraft
from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

PROVEN = 0.05  # largest error of predicted rotations, for a claim that two triples are position and rotation
WORDS = {  # form in `rotations.py` -> representation of the Space, and the op that converts to it
    "xyz": ("euler_xyz", ""),
    "ZYX": ("euler_xyz", " | permute(2, 1, 0)"),
    "zxy": ("euler_xyz", " | euler_zxy_to_euler"),
    "rotvec": ("rotvec", ""),
    "quat_xyzw": ("quat_xyzw", ""),
    "quat_wxyz": ("quat_wxyz", ""),
    "rows": ("euler_xyz", " | matrix_to_euler"),
    "columns": ("euler_xyz", " | permute(0, 3, 6, 1, 4, 7, 2, 5, 8) | matrix_to_euler"),
}
ASK_MODE, NO_MATCH = "delta, absolute or velocity?", "no measurement to compare with"
NAMED = {  # word in a field's name -> form
    "rpy": "xyz",
    "ypr": "ZYX",
    "rotvec": "rotvec",
    "axisangle": "rotvec",
    "xyzw": "quat_xyzw",
    "wxyz": "quat_wxyz",
}
LETTERS = {  # last words of the numbers' names, joined -> form
    "rollpitchyaw": "xyz",
    "yawpitchroll": "ZYX",
    "qxqyqzqw": "quat_xyzw",
    "qwqxqyqz": "quat_wxyz",
}


@dataclass(frozen=True, slots=True)
class Form:
    """The representation of a rotation in the Space, and the op that converts to it."""

    word: Claim
    op: str = ""


class Arm:
    """The measured and commanded position and rotation of one arm; any of them may be missing."""

    def __init__(
        self, sample: Sample, state: Sequence[Segment], action: Sequence[Segment], *, rate: float | None
    ) -> None:
        """Compare the measured with the commanded segments."""
        self.rate = rate
        self.measured_position, self.measured_rotation = (_first(state, kind) for kind in ("position", "rotation"))
        self.commanded_position, self.commanded_rotation = (_first(action, kind) for kind in ("position", "rotation"))
        self.columns = {
            segment.expression: segment.columns(sample)
            for segment in (
                self.measured_position,
                self.measured_rotation,
                self.commanded_position,
                self.commanded_rotation,
            )
            if segment
        }
        self.tool_fits: dict[str, Fit] = {}
        self.hypotheses = self._hypotheses()
        self.position_fits = self._position_fits()
        self.rotation_fits = self._rotation_fits()

    def _of(self, segment: Segment | None) -> list[Array]:
        return self.columns[segment.expression] if segment else []

    def _hypotheses(self) -> Hypotheses:
        if not self.measured_rotation or not self.commanded_rotation:
            return Hypotheses({})
        measured = self._of(self.measured_rotation)
        unit = units.angle(measured)
        factors = [1.0, DEGREE] if unit.unit.is_open else [DEGREE if unit.op else 1.0]
        return compare(
            measured, self._of(self.commanded_rotation), factors=factors if self.measured_rotation.width == 3 else [1.0]
        )

    def _rotations(self) -> "Iterator[tuple[str, list[Rotation]]]":
        """Convert the measured rotations from each form that their width allows."""
        if not self.measured_rotation:
            return
        measured = self._of(self.measured_rotation)
        factor = DEGREE if self.measured_rotation.width == 3 and units.angle(measured).op else 1.0
        for code in FORMS.get(self.measured_rotation.width, ()):
            try:
                yield code, [read(column, code, factor) for column in measured]
            except (SourceError, ValueError):
                continue

    def _position_fits(self) -> dict[Relation, Fit]:
        if not self.measured_position or not self.commanded_position:
            return {}
        commands, measured = self._of(self.commanded_position), self._of(self.measured_position)
        fits = motion.fits(commands, measured)
        self.tool_fits = {code: motion.tool_fit(commands, measured, turned) for code, turned in self._rotations()}
        if self.tool_fits:
            fits["tool"] = max(self.tool_fits.values(), key=lambda fit: fit.r2)
        return fits

    def _rotation_fits(self) -> dict[Relation, Fit]:
        if not self.measured_rotation or not self.commanded_rotation or self.commanded_rotation.width != 3:
            return {}
        commands, fits = self._of(self.commanded_rotation), dict[Relation, Fit]()
        for _, rotations in self._rotations():
            for relation, fit in motion.rotation_fits(commands, rotations).items():
                if relation not in fits or fit.r2 > fits[relation].r2:
                    fits[relation] = fit
        if self.measured_rotation.width == 3:
            fits["absolute"] = motion.fits(commands, self._of(self.measured_rotation))["absolute"]
        return fits

    def proof(self) -> Claim | None:
        """Claim that two triples are position and rotation; None unless the commands predict the measured rotations."""
        best = self.hypotheses.best()
        separate = [error for h, error in self.hypotheses.errors.items() if h.commanded == "difference"]
        is_known = self.measured_rotation is not None and self.measured_rotation.form is not None
        if not best or best[0].commanded == "difference" or not (separate or is_known):
            return None
        mode, _ = motion.best(motion.merged_frames(self.position_fits)) if self.position_fits else (None, "")
        if best[1] > PROVEN or min(separate, default=np.inf) < MIN_RATIO * max(best[1], NOISE) or mode is None:
            return None
        errors = f"error {best[1]:.2g}" + (f"; {min(separate):.2g} as three separate numbers" if separate else "")
        return Claim("rotation", "high", f"the commanded rotations predict the measured ones ({errors})")

    def form(self, segment: Segment, *, is_command: bool) -> Form:
        """Draft the representation of a rotation."""
        if segment.form == "6d":
            return Form(todo("two rows or columns of a rotation matrix (6D) are not supported: write unknown"))
        which = "commanded" if is_command else "measured"
        named, fits = named_form(segment), self.hypotheses.compared(which)
        proven = self.hypotheses.decided(which) or (None if is_command else self._form_from_tool())
        if named and (proven not in {None, named} or self.hypotheses.refuted(which, named)):
            return Form(todo(f"named {named}, but the numbers contradict it: {fits}"))
        code = str(proven or named) if proven or named else None
        if code not in WORDS:
            return self._open_form(segment, code, which)
        evidence = f"named {code}"
        if proven:
            evidence = fits or f"only {code} explains the motion by the commands"
        word, op = WORDS[code]
        return Form(Claim(word, "high" if proven else "medium", evidence), op)

    def _open_form(self, segment: Segment, code: str | None, which: str) -> Form:
        """Return an open claim about the representation, with the evidence for each possible answer."""
        if segment.width == 4:
            return Form(todo(f"quat_xyzw or quat_wxyz? {self._verdict(which, 'quat_xyzw', 'quat_wxyz')}"))
        if segment.width == 9:
            op = WORDS["columns"][1].removesuffix(WORDS["rows"][1])
            answer = f"euler_xyz; if the matrix is stored column by column, insert '{op}' before the last op below"
            return Form(todo(f"{answer}; {self._verdict(which, 'rows', 'columns')}"), WORDS["rows"][1])
        if code:
            order = f"the Euler order '{code}' (as in scipy) is"
            what = "differences of separate angles are" if code == "difference" else order
            return Form(todo(f"{what} not supported: write unknown; {self.hypotheses.compared(which)}"))
        if not self.hypotheses.refuted(which, "rotvec"):
            return Form(todo(f"euler_xyz or rotvec? {self._verdict(which, 'xyz', 'rotvec')}"))
        first, second = [*self.hypotheses.best_errors(which)][:2]
        question = f"{'euler_xyz' if first == 'xyz' else reading(first)} or {reading(second)}?"
        return Form(todo(f"{question} not a rotation vector; {self._verdict(which, first, second)}"))

    def _verdict(self, which: str, first: str, second: str) -> str:
        """Return the evidence for two representations, or why the commanded and measured rotation were not compared."""
        if verdict := self.hypotheses.verdict(which, first, second):
            return verdict
        missing = {"measured": self.measured_rotation, "commanded": self.commanded_rotation}
        names = [name for name, segment in missing.items() if not segment]
        return f"there is no {names[0]} rotation to compare it with" if names else "it turns too little to compare them"

    def _form_from_tool(self) -> str | None:
        """Return the only form of the measured rotation that explains commands in the tool's axes; None if unclear."""
        if not self.position_fits or motion.best(self.position_fits)[0] != "tool":
            return None
        ranked = sorted(self.tool_fits, key=lambda code: self.tool_fits[code].r2, reverse=True)
        unexplained = [1 - self.tool_fits[code].r2 for code in ranked]
        if len(ranked) < 2 or unexplained[0] > 1 - motion.MIN_R2:
            return None
        return ranked[0] if unexplained[1] >= MIN_RATIO * max(unexplained[0], 0.01) else None

    def modes(self) -> tuple[Claim, Claim]:
        """Claim the modes of the commanded position and rotation; leaves both open if they differ."""
        position = motion.claim_mode(self.position_fits) if self.position_fits else todo(f"{ASK_MODE} {NO_MATCH}")
        rotation = self._rotation_mode()
        if not position.is_open and not rotation.is_open and position.value != rotation.value:
            both = f"position: {position.evidence}; rotation: {rotation.evidence}"
            return todo(both), todo(both)
        return position, rotation

    def _rotation_mode(self) -> Claim:
        if mode := self.hypotheses.decided("mode"):
            return Claim(str(mode), "high", self.hypotheses.compared("mode"))
        if "absolute" in self.rotation_fits:
            return motion.claim_mode(self.rotation_fits)
        return todo(f"{ASK_MODE} {self.hypotheses.compared('mode') or NO_MATCH}")

    def frame(self) -> Claim:
        """Claim the frame `tool` if the commands fit it. Otherwise it is open, since base and world look alike."""
        relations = {self.hypotheses.decided("relation")} & {"delta", "tool"}
        deltas: dict[Relation, Fit] = {name: fit for name, fit in self.position_fits.items() if name != "absolute"}
        relation, figures = motion.best(deltas) if len(deltas) > 1 else (None, "")
        relations |= {relation} if relation else set()
        evidence = "; ".join(filter(None, (figures, self._turned_axes())))
        if relations == {"tool"}:
            return Claim("tool", "high", f"in the axes of the tool: {evidence}")
        if relations == {"delta"}:
            return todo(f"base or world, the same as the state; not the tool: {evidence}")
        return todo(f"base, tool or world? {evidence}".rstrip())

    def _turned_axes(self) -> str:
        verdict = self.hypotheses.verdict("relation", "delta", "tool")
        return f"rotations about fixed axes or about the tool's: {verdict}" if verdict else ""

    def position_unit(self, known: UnitDraft | None) -> tuple[UnitDraft, Claim]:
        """Draft the unit and mode of commanded positions; `known` is the unit of the measured ones."""
        mode, _ = self.modes()
        if mode.value == "absolute":
            return units.length(self._of(self.commanded_position)), mode
        return self._unit(mode, known, self.position_fits, small=units.MILLI)

    def rotation_unit(self, known: UnitDraft | None) -> tuple[UnitDraft, Claim]:
        """Draft the unit and mode of commanded angles; `known` is the unit of the measured ones."""
        _, mode = self.modes()
        if mode.value == "absolute":
            return units.angle(self._of(self.commanded_rotation)), mode
        is_quaternion = self.measured_rotation is not None and self.measured_rotation.width != 3
        radians = UnitDraft(Claim("rad", "high", "rotations are in radians")) if is_quaternion else known
        return self._unit(mode, radians, self.rotation_fits, small=units.DEGREE)

    def _unit(
        self, mode: Claim, known: UnitDraft | None, fits: dict[Relation, Fit], *, small: float
    ) -> tuple[UnitDraft, Claim]:
        if mode.is_open or not known or not fits:
            return UnitDraft(todo(f"m, rad or controller? {NO_MATCH}")), mode
        fit = max((fit for relation, fit in fits.items() if relation != "absolute"), key=lambda fit: fit.r2)
        if small == units.DEGREE:  # the fit is in radians, even if the measured angles are in degrees
            known = UnitDraft(known.unit)
        return units.unit_of_deltas(fit, known, mode, small=small, rate=self.rate)


def _first(segments: Sequence[Segment], kind: str) -> Segment | None:
    return next((segment for segment in segments if segment.guess == kind), None)


def named_form(segment: Segment) -> str | None:
    """Return the form that the name of a rotation or of its numbers contains; None if they contain none."""
    letters = "".join(word for name in segment.names for word in words(name)[-1:])
    if letters in LETTERS:
        return LETTERS[letters]
    path = words(segment.path)
    joined = "".join(path)
    code = next((code for word, code in NAMED.items() if word in path or (len(word) > 4 and word in joined)), None)
    return code if code in FORMS.get(segment.width, ()) else None
