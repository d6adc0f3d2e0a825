"""One arm, measured and commanded: what the comparison of both says of mode, frame, rotation and unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.inspect.draft import motion, units
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.motion import Fit, How
from pipelines.inspect.draft.roles import words
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.turns import DEGREE, FLOOR, FORMS, RATIO, Readings, read, readings
from pipelines.inspect.draft.units import Scaled
from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

PROVEN = (
    0.05  # error of turns, of their size: below, and RATIO times below that of separate numbers, they are rotations
)
WORDS = {  # a form of `turns.py` to the word of a Space and the op that leads there
    "xyz": ("euler_xyz", ""),
    "ZYX": ("euler_xyz", " | permute(2, 1, 0)"),
    "zxy": ("euler_xyz", " | euler_zxy_to_euler"),
    "rotvec": ("rotvec", ""),
    "quat_xyzw": ("quat_xyzw", ""),
    "quat_wxyz": ("quat_wxyz", ""),
    "rows": ("euler_xyz", " | matrix_to_euler"),
    "columns": ("euler_xyz", " | permute(0, 3, 6, 1, 4, 7, 2, 5, 8) | matrix_to_euler"),
}
ASK_MODE, NO_MATCH = "delta, absolute or velocity?", "nothing measured to compare with"
NAMED = {
    "rpy": "xyz",
    "ypr": "ZYX",
    "rotvec": "rotvec",
    "axisangle": "rotvec",
    "xyzw": "quat_xyzw",
    "wxyz": "quat_wxyz",
}
LETTERS = {"rollpitchyaw": "xyz", "yawpitchroll": "ZYX", "qxqyqzqw": "quat_xyzw", "qwqxqyqz": "quat_wxyz"}


@dataclass(frozen=True, slots=True)
class Form:
    """How a rotation is written: the word of the Space, and the op that leads there."""

    word: Claim
    op: str = ""
    code: str | None = None  # of `turns.py`


class Arm:
    """The measured and commanded position and rotation of one arm; any of them may be missing."""

    def __init__(
        self, sample: Sample, state: Sequence[Segment], action: Sequence[Segment], *, rate: float | None
    ) -> None:
        """Compare what there is."""
        self.rate = rate
        self.position, self.rotation = (_first(state, kind) for kind in ("position", "rotation"))
        self.place, self.turn = (_first(action, kind) for kind in ("position", "rotation"))
        self.columns = {
            segment.expression: segment.columns(sample)
            for segment in (self.position, self.rotation, self.place, self.turn)
            if segment
        }
        self.tool_fits: dict[str, Fit] = {}
        self.readings = self._readings()
        self.place_fits = self._place_fits()
        self.turn_fits = self._turn_fits()

    def _of(self, segment: Segment | None) -> list[Array]:
        return self.columns[segment.expression] if segment else []

    def _readings(self) -> Readings:
        if not self.rotation or not self.turn:
            return Readings({})
        measured = self._of(self.rotation)
        unit = units.angle(measured)
        factors = [1.0, DEGREE] if unit.unit.is_open else [DEGREE if unit.op else 1.0]
        return readings(measured, self._of(self.turn), factors=factors if self.rotation.width == 3 else [1.0])

    def _rotations(self) -> "Iterator[tuple[str, list[Rotation]]]":
        """Read the measured rotations in each form that they may have; in the one that is known, if one is."""
        if not self.rotation:
            return
        measured = self._of(self.rotation)
        factor = DEGREE if self.rotation.width == 3 and units.angle(measured).op else 1.0
        for code in FORMS.get(self.rotation.width, ()):
            try:
                yield code, [read(column, code, factor) for column in measured]
            except (SourceError, ValueError):
                continue

    def _place_fits(self) -> dict[How, Fit]:
        if not self.position or not self.place:
            return {}
        commands, measured = self._of(self.place), self._of(self.position)
        found = motion.fits(commands, measured)
        self.tool_fits = {code: motion.tool_fit(commands, measured, turns) for code, turns in self._rotations()}
        if self.tool_fits:
            found["tool"] = max(self.tool_fits.values(), key=lambda fit: fit.r2)
        return found

    def _turn_fits(self) -> dict[How, Fit]:
        if not self.rotation or not self.turn or self.turn.width != 3:
            return {}
        commands, found = self._of(self.turn), dict[How, Fit]()
        for _, rotations in self._rotations():
            for how, fit in motion.turn_fits(commands, rotations).items():
                if how not in found or fit.r2 > found[how].r2:
                    found[how] = fit
        if self.rotation.width == 3:
            found["absolute"] = motion.fits(commands, self._of(self.rotation))["absolute"]
        return found

    def proof(self) -> Claim | None:
        """Claim that two triples are a position and a rotation, where the turns follow as rotations and only so."""
        best = self.readings.best()
        apart = [error for r, error in self.readings.errors.items() if r.commanded == "difference"]
        is_shown = self.rotation is not None and self.rotation.form is not None  # no need to tell it from three numbers
        if not best or best[0].commanded == "difference" or not (apart or is_shown):
            return None
        how, _ = motion.best(motion.merged_frames(self.place_fits)) if self.place_fits else (None, "")
        if best[1] > PROVEN or min(apart, default=np.inf) < RATIO * max(best[1], FLOOR) or how is None:
            return None
        told = f"off by {best[1]:.2g}" + (f"; as three separate numbers by {min(apart):.2g}" if apart else "")
        return Claim("rotation", "high", f"the measured turns follow from the commanded ones as rotations ({told})")

    def form(self, segment: Segment, *, is_command: bool) -> Form:
        """Say how a rotation is written."""
        if segment.form == "6d":
            return Form(todo("two rows or columns of a matrix (6D), for which there is no word: write unknown"))
        named, turns = named_form(segment), self.readings.told()
        which = "commanded" if is_command else "measured"
        shown = self.readings.decided(which) or (None if is_command else self._shown_by_tool())
        if named and (shown not in {None, named} or self.readings.refuted(which, named)):
            return Form(todo(f"its name says {named}, its numbers do not: {turns}"))
        code = str(shown or named) if shown or named else None
        if code not in WORDS:
            return self._open_form(segment, code, which)
        evidence = f"its name says {code}"
        if shown:
            evidence = turns or f"only {code} turns the commands into the motion"
        word, op = WORDS[code]
        return Form(Claim(word, "high" if shown else "medium", evidence), op, code)

    def _open_form(self, segment: Segment, code: str | None, which: str) -> Form:
        """Leave open how a rotation is written, with what speaks for which answer."""
        told = self.readings.told()
        if segment.width == 4:
            return Form(todo(f"quat_xyzw or quat_wxyz? {told}".rstrip()))
        if segment.width == 9:
            columns = WORDS["columns"][1].removesuffix(WORDS["rows"][1])
            how = f"euler_xyz, after '{columns}' before the last op if the matrix is stored column by column"
            return Form(todo(f"{how}. {told}".rstrip()), WORDS["rows"][1])
        if code:
            how = "changes of the single angles" if code == "difference" else f"'{code}' in scipy's spelling"
            return Form(todo(f"{how}, for which there is no word: {told}"))
        ask = "euler_xyz or rotvec?"
        if self.readings.refuted(which, "rotvec"):
            ask = "euler_xyz? No rotation vector, but the same angles about other axes look alike:"
        return Form(todo(f"{ask} {told}".rstrip()))

    def _shown_by_tool(self) -> str | None:
        """Read the measured form from commands in the tool's axes, which only the right form turns into the motion."""
        if not self.place_fits or motion.best(self.place_fits)[0] != "tool":
            return None
        ranked = sorted(self.tool_fits, key=lambda code: self.tool_fits[code].r2, reverse=True)
        left = [1 - self.tool_fits[code].r2 for code in ranked]
        clear = len(ranked) > 1 and left[1] >= RATIO * max(left[0], 0.01) and left[0] <= 1 - motion.EXPLAINED
        return ranked[0] if clear else None

    def modes(self) -> tuple[Claim, Claim]:
        """Claim the mode of the commanded position and rotation; where they contradict each other, neither."""
        place = motion.mode_of(self.place_fits) if self.place_fits else todo(f"{ASK_MODE} {NO_MATCH}")
        turn = self._turn_mode()
        if not place.is_open and not turn.is_open and place.value != turn.value:
            both = f"position: {place.evidence}; rotation: {turn.evidence}"
            return todo(both), todo(both)
        return place, turn

    def _turn_mode(self) -> Claim:
        if mode := self.readings.decided("mode"):
            return Claim(str(mode), "high", self.readings.told())
        if "absolute" in self.turn_fits:
            return motion.mode_of(self.turn_fits)
        return todo(f"{ASK_MODE} {self.readings.told() or NO_MATCH}")

    def frame(self) -> Claim:
        """Claim that commands are in the tool's axes; which fixed ones they are in otherwise, no number tells."""
        found = {self.readings.decided("how")} & {"delta", "tool"}
        deltas: dict[How, Fit] = {how: fit for how, fit in self.place_fits.items() if how != "absolute"}
        how, told = motion.best(deltas) if len(deltas) > 1 else (None, "")
        found |= {how} if how else set()
        told = "; ".join(filter(None, (told, self.readings.told())))
        if found == {"tool"}:
            return Claim("tool", "high", f"in the axes of the tool: {told}")
        if found == {"delta"}:
            return todo(f"base or world, whichever the state is in; not the tool's: {told}")
        return todo(f"base, tool or world? {told}".rstrip("? ") + "?" * (not told))

    def place_unit(self, known: Scaled | None) -> tuple[Scaled, Claim]:
        """Tell the unit and mode of commanded positions; `known` is the unit of the measured ones."""
        mode, _ = self.modes()
        if mode.value == "absolute":
            return units.length(self._of(self.place)), mode
        return self._unit(mode, known, self.place_fits, small=units.MILLI)

    def turn_unit(self, known: Scaled | None) -> tuple[Scaled, Claim]:
        """Tell the unit and mode of commanded angles."""
        _, mode = self.modes()
        if mode.value == "absolute":
            return units.angle(self._of(self.turn)), mode
        is_quaternion = self.rotation is not None and self.rotation.width != 3
        radians = Scaled(Claim("rad", "high", "turns are measured")) if is_quaternion else known
        return self._unit(mode, radians, self.turn_fits, small=units.DEGREE)

    def _unit(self, mode: Claim, known: Scaled | None, found: dict[How, Fit], *, small: float) -> tuple[Scaled, Claim]:
        if mode.is_open or not known or not found:
            return Scaled(todo(f"m, rad or controller? {NO_MATCH}")), mode
        fit = max((fit for how, fit in found.items() if how != "absolute"), key=lambda fit: fit.r2)
        in_radians = small == units.DEGREE  # turns are always compared in radians
        return units.compared(fit, Scaled(known.unit) if in_radians else known, mode, small=small, rate=self.rate)


def _first(segments: Sequence[Segment], kind: str) -> Segment | None:
    return next((segment for segment in segments if segment.guess == kind), None)


def named_form(segment: Segment) -> str | None:
    """Read from names how a rotation is written."""
    letters = "".join(word for name in segment.names for word in words(name)[-1:])
    if letters in LETTERS:
        return LETTERS[letters]
    told = words(segment.path)
    joined = "".join(told)
    found = next((code for word, code in NAMED.items() if word in told or (len(word) > 4 and word in joined)), None)
    return found if found is None or (found in FORMS.get(segment.width, ())) else None
