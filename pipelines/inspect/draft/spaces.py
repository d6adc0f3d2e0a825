"""The drafted state and action: what each part of their fields means."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.inspect.draft import motion, units
from pipelines.inspect.draft.arms import Arm, Form
from pipelines.inspect.draft.choose import robot_words
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.gripper_pairs import GripperPairs
from pipelines.inspect.draft.layout import Segment, segments
from pipelines.inspect.draft.owners import owner, thing_words
from pipelines.inspect.draft.parts import KIND_FIRST, SpaceDraft, UniqueNames, draft_part
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.units import UnitDraft

ORDER = ("position", "rotation", "joint", "gripper", "base", "unknown")
ASK_FRAME = todo("base or world? the numbers do not show where the origin is")
ASK_OWNER = "{} of the robot? if {} names something else, such as an object, remove this part"
ASK_MODE = todo(f"delta, absolute or velocity? {KIND_FIRST}")
ASK_UNIT = UnitDraft(todo("m, rad, 1, controller or unknown?"))
NO_MATCH = "no measurement to compare with"
MEASURED = Claim("absolute", "high", "a measured value")
MAX_JOINT = 6.4  # rad; few joints turn further


class Spaces:
    """The drafted state and action of a source; each is evidence for the other."""

    def __init__(self, sample: Sample, *, state: Sequence[str], action: Sequence[str], rate: float | None) -> None:
        """Compare the fields of the state with those of the action."""
        self.sample, self.rate = sample, rate
        self.measured = [segment for path in state for segment in self._measured(path)]
        self.commanded = [segment for path in action for segment in segments(sample, path)]
        self.arms = {side: self._arm(side) for side in {segment.side for segment in (*self.measured, *self.commanded)}}
        self._prove()
        self.grippers = GripperPairs(sample, self.measured, self.commanded)
        self.units = {(segment.guess, segment.side): self._unit(segment) for segment in reversed(self.measured)}
        self.state = self._state() if self.measured else None
        self.action = self._action() if self.commanded else None

    def _measured(self, path: str) -> list[Segment]:
        """Split a field of the state; all its kinds are open if it may belong to something else than the robot."""
        split = segments(self.sample, path)
        if owner(path, robot_words(self.sample)) != "unknown":
            return split
        return [
            replace(segment, guess="unknown", kind=todo(ASK_OWNER.format(segment.guess, thing_words(path))))
            for segment in split
        ]

    def _arm(self, side: str) -> Arm:
        state = [segment for segment in self.measured if segment.side == side]
        action = [segment for segment in self.commanded if segment.side == side]
        return Arm(self.sample, state, action, rate=self.rate)

    def _prove(self) -> None:
        """Claim open kinds that the numbers prove: poses that follow their commands, and grippers after such poses."""
        grippers = GripperPairs(self.sample, self.measured, self.commanded)
        pose_proofs = {side: arm.proof() for side, arm in self.arms.items()}
        gripper_proofs = {side: grippers.proof(side) for side, proof in pose_proofs.items() if proof}

        def proven(segment: Segment) -> Segment:
            proof = gripper_proofs.get(segment.side) if segment.guess == "gripper" else pose_proofs[segment.side]
            if not segment.kind.is_open or not proof or segment.guess not in {"position", "rotation", "gripper"}:
                return segment
            return segment.with_kind(Claim(segment.guess, proof.confidence, proof.evidence))

        self.measured, self.commanded = [*map(proven, self.measured)], [*map(proven, self.commanded)]

    def _unit(self, segment: Segment) -> UnitDraft:
        columns = segment.columns(self.sample)
        if segment.guess == "position":
            return units.length(columns)
        return units.angle(columns, limit=MAX_JOINT if segment.guess == "joint" else units.MAX_ANGLE)

    def _state(self) -> SpaceDraft:
        space = SpaceDraft(origin=Claim("achieved", "high", "a state is measured"))
        names = UniqueNames()
        for segment in _ordered(self.measured):
            if segment.guess == "gripper":
                space.parts.append(self.grippers.part(segment, names))
                continue
            form = self._form(space, segment, is_command=False)
            unit_draft = ASK_UNIT if segment.guess == "unknown" else self.units[segment.guess, segment.side]
            mode = ASK_MODE if segment.kind.is_open else MEASURED
            space.parts.append(draft_part(segment, names, form=form, unit_draft=unit_draft, mode=mode))
            space.frame = ASK_FRAME if segment.guess in {"position", "rotation"} else space.frame
        space.gripper = self.grippers.sense(is_command=False)
        return space

    def _action(self) -> SpaceDraft:
        space = SpaceDraft(origin=Claim("commanded", "medium", "recorded as an action"))
        names = UniqueNames()
        frames: dict[str, Claim] = {}
        for segment in _ordered(self.commanded):
            if segment.guess == "gripper":
                space.parts.append(self.grippers.part(segment, names))
                continue
            form = self._form(space, segment, is_command=True)
            unit_draft, mode = self._commanded(segment)
            space.parts.append(draft_part(segment, names, form=form, unit_draft=unit_draft, mode=mode))
            if segment.guess in {"position", "rotation"}:
                frame = ASK_FRAME if mode.value == "absolute" else self.arms[segment.side].frame()
                frames.setdefault(frame.value, frame)
        if frames:
            space.frame = next(iter(frames.values())) if len(frames) == 1 else todo("the arms have different frames")
        space.gripper = self.grippers.sense(is_command=True)
        return space

    def _form(self, space: SpaceDraft, segment: Segment, *, is_command: bool) -> Form | None:
        """Draft the representation of a rotation; None for other segments.

        All rotations of a Space must have the same representation, so it is left open if they differ.
        """
        if segment.guess != "rotation":
            return None
        known = segment.controller
        form = Form(known.claim("rotvec")) if known else self.arms[segment.side].form(segment, is_command=is_command)
        if space.rotation and space.rotation.value != form.word.value:
            space.rotation = todo(f"several representations: {space.rotation.value} and {form.word.value}")
        else:
            space.rotation = space.rotation or form.word
        return form

    def _commanded(self, segment: Segment) -> tuple[UnitDraft, Claim]:
        """Draft unit and mode of a commanded segment."""
        if segment.controller:
            return UnitDraft(segment.controller.claim("controller")), segment.controller.claim("delta")
        known = self.units.get((segment.guess, segment.side))
        arm = self.arms[segment.side]
        if segment.guess == "position":
            return arm.position_unit(known)
        if segment.guess == "rotation":
            return arm.rotation_unit(known)
        if segment.guess == "joint" and not segment.kind.is_open:
            return self._joints(segment, known)
        return ASK_UNIT, self._mode(segment) or ASK_MODE

    def _mode(self, segment: Segment) -> Claim | None:
        """Claim the mode by comparing the commands with the measured segment of the same guess, names and width.

        Returns None unless there is exactly one such segment.
        """
        key = (segment.guess, segment.names, segment.width)
        measured = [other for other in self.measured if (other.guess, other.names, other.width) == key]
        if len(measured) != 1:
            return None
        return motion.claim_mode(motion.fits(segment.columns(self.sample), measured[0].columns(self.sample)))

    def _joints(self, segment: Segment, known: UnitDraft | None) -> tuple[UnitDraft, Claim]:
        key = ("joint", segment.side, segment.width)
        same = (other for other in self.measured if (other.guess, other.side, other.width) == key)
        measured = next(same, None)
        if not measured or not known:
            return UnitDraft(todo(f"rad? {NO_MATCH}")), todo(f"delta, absolute or velocity? {NO_MATCH}")
        fits = motion.fits(segment.columns(self.sample), measured.columns(self.sample))
        mode = motion.claim_mode(fits)
        if mode.value == "absolute":
            return self._unit(segment), mode
        if mode.is_open:
            return UnitDraft(todo(f"rad? {mode.evidence}")), mode
        return units.unit_of_deltas(fits["delta"], known, mode, small=units.DEGREE, rate=self.rate)


def _ordered(drafted: Sequence[Segment]) -> list[Segment]:
    ranks = {guess: rank for rank, guess in enumerate(ORDER)}
    return sorted(drafted, key=lambda segment: (segment.side, ranks.get(segment.guess, len(ORDER))))
