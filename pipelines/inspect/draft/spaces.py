"""The state and action of a draft: which fields they are, and what each part of them is."""

from collections.abc import Sequence

from pipelines.inspect.draft import motion, units
from pipelines.inspect.draft.arms import Arm, Form
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.hands import Hands
from pipelines.inspect.draft.layout import Segment, dimension_names, segments
from pipelines.inspect.draft.parts import FIRST_THE_KIND, Names, SpaceDraft, part
from pipelines.inspect.draft.roles import content, role, words
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.units import Scaled

WHOLE = {"state", "states", "proprio", "action", "actions"}  # the last word of a field that is the whole vector
LARGEST = 24  # numbers of a vector that says nothing of itself; wider ones are a simulator's state
ORDER = ("position", "rotation", "joint", "gripper", "base", "unknown")
ASK_FRAME = todo("base or world? no number tells where the origin is")
ASK_MODE = todo(f"delta, absolute or velocity? {FIRST_THE_KIND}")
ASK_UNIT = Scaled(todo("m, rad, 1, controller or unknown?"))
NO_MATCH = "nothing measured to compare with"
MEASURED = Claim("absolute", "high", "a measured value")
JOINT_MAX = 6.4  # rad; joints that turn on and on are rare


def chosen(sample: Sample, which: str) -> tuple[list[str], list[str]]:
    """Choose the fields that make up the action or the state; and list those that were passed over.

    A whole vector comes first; others add what it does not have. What tells nothing of itself is part of an action, if
    there is nothing else, and never of a state: it is kept as raw numbers anyway.
    """
    fields = [path for path in sorted(set().union(*sample.episodes)) if role(sample.fields[path]) == which]
    vectors = [path for path in fields if which == "action" or _is_vector(sample, path)]
    wholes = [path for path in vectors if words(path)[-1] in WHOLE]
    if which == "action" and wholes:
        kept = [min(wholes, key=lambda path: (path.count("."), path))]
        return kept, [path for path in fields if path not in kept]
    taken: set[tuple[str, str]] = set()
    kept = []
    for path in [*wholes, *(path for path in vectors if path not in wholes)]:
        held = {(cut.guess, cut.side) for cut in segments(sample, path)}
        plain = {told for told in held if told[0] != "unknown"}
        if not plain & taken and (plain or _is_named(sample, path)):
            kept.append(path)
            taken |= held
    kept = kept or (vectors[:1] if which == "action" else [])
    return kept, [path for path in fields if path not in kept]


def _is_named(sample: Sample, path: str) -> bool:
    return bool(dimension_names(sample.fields[path], sample.columns(path)[0].shape[1]))


def _is_vector(sample: Sample, path: str) -> bool:
    """Say whether a field may be a state: not too wide, or with a name, or names, that tell what it holds."""
    width = sample.columns(path)[0].shape[1]
    return width <= LARGEST or content(path, width) != "unknown" or _is_named(sample, path)


class Spaces:
    """State and action of a source, drafted together: each is evidence for the other."""

    def __init__(self, sample: Sample, *, state: Sequence[str], action: Sequence[str], rate: float | None) -> None:
        """Compare the chosen fields."""
        self.sample, self.rate = sample, rate
        self.measured = [cut for path in state for cut in segments(sample, path)]
        self.commanded = [cut for path in action for cut in segments(sample, path)]
        self.arms = {side: self._arm(side) for side in {cut.side for cut in (*self.measured, *self.commanded)}}
        self._prove()
        self.hands = Hands(sample, self.measured, self.commanded)
        self.units = {(cut.guess, cut.side): self._unit(cut) for cut in reversed(self.measured)}
        self.state = self._state() if self.measured else None
        self.action = self._action() if self.commanded else None

    def _arm(self, side: str) -> Arm:
        state, action = ([cut for cut in cuts if cut.side == side] for cuts in (self.measured, self.commanded))
        return Arm(self.sample, state, action, rate=self.rate)

    def _prove(self) -> None:
        """Settle kinds that were open: a pose that turns as rotations do, and the gripper behind it."""
        hands = Hands(self.sample, self.measured, self.commanded)
        proofs = {side: arm.proof() for side, arm in self.arms.items()}
        grips = {side: hands.proven(side) for side, proof in proofs.items() if proof}

        def settled(cut: Segment) -> Segment:
            proof = grips.get(cut.side) if cut.guess == "gripper" else proofs[cut.side]
            if not cut.kind.is_open or not proof or cut.guess not in {"position", "rotation", "gripper"}:
                return cut
            return cut.known(Claim(cut.guess, proof.confidence, proof.evidence))

        self.measured, self.commanded = [*map(settled, self.measured)], [*map(settled, self.commanded)]

    def _unit(self, cut: Segment) -> Scaled:
        columns = cut.columns(self.sample)
        if cut.guess == "position":
            return units.length(columns)
        return units.angle(columns, limit=JOINT_MAX if cut.guess == "joint" else units.TURN_MAX)

    def _state(self) -> SpaceDraft:
        space = SpaceDraft(origin=Claim("achieved", "high", "a state is measured"))
        names = Names()
        for cut in _ordered(self.measured):
            if cut.guess == "gripper":
                space.parts.append(self.hands.part(cut, names))
                continue
            form = self._form(space, cut, is_command=False)
            scaled = ASK_UNIT if cut.guess == "unknown" else self.units[cut.guess, cut.side]
            mode = ASK_MODE if cut.kind.is_open else MEASURED
            space.parts.append(part(cut, names, form=form, scaled=scaled, mode=mode))
            space.frame = ASK_FRAME if cut.guess in {"position", "rotation"} else space.frame
        space.gripper = self.hands.word(is_command=False)
        return space

    def _action(self) -> SpaceDraft:
        space = SpaceDraft(origin=Claim("commanded", "medium", "recorded as an action"))
        names = Names()
        frames: dict[str, Claim] = {}
        for cut in _ordered(self.commanded):
            if cut.guess == "gripper":
                space.parts.append(self.hands.part(cut, names))
                continue
            form = self._form(space, cut, is_command=True)
            scaled, mode = self._commanded(cut)
            space.parts.append(part(cut, names, form=form, scaled=scaled, mode=mode))
            if cut.guess in {"position", "rotation"}:
                frame = ASK_FRAME if mode.value == "absolute" else self.arms[cut.side].frame()
                frames.setdefault(frame.value, frame)
        if frames:
            space.frame = next(iter(frames.values())) if len(frames) == 1 else todo("the arms differ")
        space.gripper = self.hands.word(is_command=True)
        return space

    def _form(self, space: SpaceDraft, cut: Segment, *, is_command: bool) -> Form | None:
        """Say how a segment's rotation is written; a Space has one word for all of them."""
        if cut.guess != "rotation":
            return None
        known = cut.controller
        form = Form(known.claim("rotvec")) if known else self.arms[cut.side].form(cut, is_command=is_command)
        if space.rotation and space.rotation.value != form.word.value:
            space.rotation = todo(f"the rotations differ: {space.rotation.value} and {form.word.value}")
        else:
            space.rotation = space.rotation or form.word
        return form

    def _commanded(self, cut: Segment) -> tuple[Scaled, Claim]:
        """Tell unit and mode of a commanded segment."""
        if cut.controller:
            return Scaled(cut.controller.claim("controller")), cut.controller.claim("delta")
        known = self.units.get((cut.guess, cut.side))
        arm = self.arms[cut.side]
        if cut.guess == "position":
            return arm.place_unit(known)
        if cut.guess == "rotation":
            return arm.turn_unit(known)
        if cut.guess == "joint" and not cut.kind.is_open:
            return self._joints(cut, known)
        return ASK_UNIT, self._mode(cut) or ASK_MODE

    def _mode(self, cut: Segment) -> Claim | None:
        """Compare a vector of unknown meaning with the measured one that looks like it."""
        measured = [c for c in self.measured if (c.guess, c.names, c.width) == (cut.guess, cut.names, cut.width)]
        if len(measured) != 1:
            return None
        return motion.mode_of(motion.fits(cut.columns(self.sample), measured[0].columns(self.sample)))

    def _joints(self, cut: Segment, known: Scaled | None) -> tuple[Scaled, Claim]:
        same = (c for c in self.measured if (c.guess, c.side, c.width) == ("joint", cut.side, cut.width))
        measured = next(same, None)
        if not measured or not known:
            return Scaled(todo(f"rad? {NO_MATCH}")), todo(f"delta, absolute or velocity? {NO_MATCH}")
        found = motion.fits(cut.columns(self.sample), measured.columns(self.sample))
        mode = motion.mode_of(found)
        if mode.value == "absolute":
            return self._unit(cut), mode
        if mode.is_open:
            return Scaled(todo(f"rad? {mode.evidence}")), mode
        return units.compared(found["delta"], known, mode, small=units.DEGREE, rate=self.rate)


def _ordered(cuts: Sequence[Segment]) -> list[Segment]:
    return sorted(cuts, key=lambda cut: (cut.side, ORDER.index(cut.guess) if cut.guess in ORDER else len(ORDER)))
