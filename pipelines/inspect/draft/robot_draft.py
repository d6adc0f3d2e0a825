"""What a draft takes from a robot that was recognized, and the question if several robots fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.clock import Clock
from pipelines.inspect.draft.parts import PartDraft, SpaceDraft
from pipelines.inspect.draft.robot_ranges import Doubt
from pipelines.inspect.draft.robots import Fields, Reading, Recognition, contradiction, recognize
from pipelines.inspect.draft.sample import Sample
from schemas.declarations.robots import BOTH, Which
from schemas.declarations.spec import TODO
from schemas.declarations.tables import SpaceSpec

FIX = f"Write the right op instead of {TODO}; if none is needed, remove '| {TODO}'"


@dataclass(frozen=True, slots=True)
class RobotDraft:
    """The recognized robot of a recording, if there is one."""

    recognition: Recognition | None
    contradicted: str | None  # why the recording is not of the robot that it names

    @classmethod
    def of(cls, sample: Sample, fields: Fields) -> "RobotDraft":
        """Recognize the robot of a sample; `fields` may hold its state and action."""
        return cls(recognize(sample, fields), contradiction(sample, fields))

    @property
    def reading(self) -> Reading | None:
        """The reading of the recording, if only one fits."""
        return self.recognition.reading if self.recognition else None

    @property
    def vectors(self) -> Mapping[str, str]:
        """The expression that reads each vector of every robot that fits; empty unless the robot is in question."""
        if not self.recognition or self.reading:
            return {}
        first, *others = self.recognition.readings
        whole = {which: columns.expression() for which, columns in first.vectors.items()}
        is_same = all({w: c.expression() for w, c in one.vectors.items()} == whole for one in others)
        is_complete = {*whole} == {which for which in BOTH if first.robot.space(which)}
        return {which: text for which, text in whole.items() if text} if is_same and is_complete else {}

    def chosen(self, which: Which, fields: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the fields of a vector, and the other fields with its role: those that the robot's vector has."""
        reading = self.recognition.readings[0] if self.recognition and (self.reading or self.vectors) else None
        if not reading or which not in reading.vectors:
            return [*fields], [*others]
        paths = reading.vectors[which].paths
        return paths, [path for path in (*fields, *others) if path not in paths]

    @property
    def name(self) -> str | None:
        """The name of the shipped embodiment, if the draft says the same; None otherwise."""
        reading = self.reading
        is_same = reading and not reading.doubts and {*reading.vectors} == {w for w in BOTH if reading.robot.space(w)}
        return reading.robot.name if reading and is_same else None

    @property
    def morphology(self) -> str:
        """The morphology of a recognized robot; the default of declarations if none is recognized."""
        return self.reading.robot.embodiment.morphology if self.reading else "single_arm"

    def space(self, which: Which) -> SpaceDraft | None:
        """Draft the state or action; None unless one robot fits."""
        space = self.reading.robot.space(which) if self.reading and which in self.reading.vectors else None
        return _space(self.reading, which, space) if self.reading and space else None

    def question(self) -> Claim | None:
        """Ask which of several embodiments the recording has; None if one or none fits."""
        return _question(self.recognition) if self.recognition and self.vectors else None

    def robot(self) -> Claim | None:
        """Claim the name of the robot; open if several have the same facts. None if no robot is recognized."""
        if self.contradicted:
            return todo(f"name of the robot; {self.contradicted}")
        if not self.recognition or not self.reading:
            return None
        names = [self.reading.robot.embodiment.robot, *self.recognition.others]
        if len(names) > 1:
            return todo(f"{', '.join(names[:-1])} or {names[-1]}? All fit {self.recognition.evidence}")
        is_named = all(columns.is_named for columns in self.reading.vectors.values())
        return Claim(names[0], "high" if is_named else "medium", f"recognized by {self.recognition.evidence}")

    def controller(self) -> Claim | None:
        """Claim the controller of a recognized robot's action."""
        if not self.reading or "action" not in self.reading.vectors:
            return None
        embodiment = self.reading.robot.embodiment
        return Claim(embodiment.controller, "high", f"known of {embodiment.robot} ({embodiment.name})")

    def clock(self, clock: Clock) -> Clock:
        """Return the clock with the robot's usual rate, if the recording does not tell its rate."""
        recorded = self.reading.robot.recorded if self.reading else None
        if not clock.hz.is_open or not recorded or not recorded.control_hz:
            return clock
        rates = " or ".join(f"{hz:g}" for hz in recorded.control_hz)
        if len(recorded.control_hz) > 1:
            return replace(clock, hz=todo(f"{rates}, the usual rates of the robot? {clock.hz.evidence}"))
        return replace(clock, hz=Claim(rates, "medium", "the usual rate of the robot; the recording does not tell it"))

    def notes(self) -> list[str]:
        """Return the known problems of a recognized robot, and robots that fit but cannot be drafted."""
        if self.reading and self.reading.robot.recorded:
            return [f"{self.reading.robot.name}: {line}" for line in self.reading.robot.recorded.errata]
        if self.recognition and not self.vectors:
            names = " or ".join(reading.robot.name for reading in self.recognition.readings)
            return [f"May be a recording of {names}, by {self.recognition.evidence}; see 'oxe datasets show NAME'."]
        return []


def _space(reading: Reading, which: Which, space: SpaceSpec) -> SpaceDraft:
    """Draft a vector as it is known of the robot. What the numbers contradict is left open."""
    known = f"known of {reading.robot.embodiment.robot} ({reading.robot.name})"

    def claim(word: str) -> Claim | None:
        return None if word == "none" else Claim(word, "high", known)

    doubts = {doubt.part: doubt for doubt in reading.doubts if doubt.which == which}
    fields, expressions = reading.fields(which), reading.expressions(which)
    parts = []
    for name, part in space.parts.items():
        doubt = doubts.get(name)
        parts.append(
            PartDraft(
                name=name,
                dims=part.dims,
                kind=Claim(part.kind, "high", known),
                unit=_unit(doubt, Claim(part.unit, "high", known)),
                mode=Claim(part.mode, "high", known),
                expression=f"{fields[name]} | {TODO}" if doubt else expressions[name],
                mapped=todo(f"{_both(doubt)}. {FIX}") if doubt else None,
            )
        )
    return SpaceDraft(
        origin=Claim(space.origin, "high", known),
        frame=claim(space.frame),
        rotation=claim(space.rotation),
        gripper=claim(space.gripper),
        parts=parts,
    )


def _unit(doubt: Doubt | None, known: Claim) -> Claim:
    """Return the known unit; open if the part is in doubt, and its numbers may be angles and no shares of a travel."""
    return (
        todo(f"travel, or rad if the numbers are angles? {_both(doubt)}")
        if doubt and known.value == "travel"
        else known
    )


def _both(doubt: Doubt) -> str:
    return f"the robot's recordings have {doubt.known}, but {doubt.seen}"


def _question(recognition: Recognition) -> Claim:
    """Ask which embodiment it is, with what differs between them."""
    readings = recognition.readings
    shared = set.intersection(*({*reading.all_facts()} for reading in readings))
    options = "; ".join(f"{reading.robot.name}{_difference(reading, shared)}" for reading in readings)
    names = [reading.robot.name for reading in readings]
    return todo(f"{', '.join(names[:-1])} or {names[-1]}? All fit {recognition.evidence}. {options}")


def _difference(reading: Reading, shared: set[tuple[object, ...]]) -> str:
    """Describe the parts whose facts are not shared; only once what is the same in state and action."""
    recorded, words = reading.robot.recorded, dict[str, None]()
    for which, name in reading.parts():
        space, ops = reading.robot.space(which), reading.robot.vector(which).ops
        if space and reading.facts(which, name) not in shared:
            unit = space.gripper if space.parts[name].kind == "gripper" else space.parts[name].unit
            words[f"{name} {unit} " + (f"by {ops[name]}" if name in ops else "as recorded")] = None
    software = f"; stored so by {recorded.software}" if recorded and recorded.software else ""
    return f" ({', '.join(words)}{software})"
