"""The grippers of a draft: measured and commanded ones, each evidence for the other's sense."""

from collections.abc import Sequence

from pipelines.inspect.draft import grippers
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.parts import Names, Part
from pipelines.inspect.draft.sample import Sample
from schemas.declarations.spec import TODO

ASK_SENSE = "open_is_1, after '| invert' behind each gripper that is 1 when closed; watch a recording"


class Hands:
    """The grippers among the measured and the commanded segments."""

    def __init__(self, sample: Sample, measured: Sequence[Segment], commanded: Sequence[Segment]) -> None:
        """Pair them by arm."""
        self.sample = sample
        self.measured = [cut for cut in measured if cut.guess == "gripper"]
        self.commanded = [cut for cut in commanded if cut.guess == "gripper"]

    def part(self, cut: Segment, names: Names) -> Part:
        """Draft one gripper, mapped to 0 and 1; two fingers are one."""
        first = f"{cut.path}[{cut.start}:{cut.start + 1}]" if cut.width > 1 else cut.expression
        op, mapped = grippers.ranged([column[:, :1] for column in cut.columns(self.sample)])
        sense = self._sense(cut)
        name = f"{cut.side}_gripper" if cut.side else "gripper"
        is_unsure = cut.kind.is_open or op.endswith(TODO)
        absolute = Claim("absolute", "medium", "how far it is open")
        return Part(
            name=names.part(name),
            dims=(names.dim(name),),
            kind=cut.kind,
            unit=todo("1, if it is a gripper") if cut.kind.is_open else Claim("1", "high", "0 to 1"),
            mode=todo("absolute, if it says how far and not which way") if is_unsure else absolute,
            expression=f"{first}{op}{' | invert' if sense and sense.value == 'closed' else ''}",
            mapped=mapped,
        )

    def word(self, *, is_command: bool) -> Claim | None:
        """Say which end is open in the whole Space; None where it has no gripper."""
        held = self.commanded if is_command else self.measured
        senses = [sense for sense in map(self._sense, held) if sense]
        if not held:
            return None
        if len(senses) < len(held):
            return todo("; ".join(filter(None, (ASK_SENSE, self._agreement(held[0])))))
        weakest = next((sense for sense in senses if sense.confidence != "high"), senses[0])
        return Claim("open_is_1", weakest.confidence, "; ".join(dict.fromkeys(sense.evidence for sense in senses)))

    def proven(self, side: str) -> Claim | None:
        """Claim that two numbers behind poses are grippers, if the commanded one does what the measured one shows."""
        pairs = [(cut, self._other(cut)) for cut in self.commanded if cut.side == side]
        alike = max((abs(self._alike(cut)) for cut, other in pairs if other), default=0.0)
        known = f"behind a pose, and the measured one follows the commanded one (correlation {alike:.2f})"
        return Claim("gripper", "medium", known) if alike > grippers.ALIKE else None

    def _other(self, cut: Segment) -> Segment | None:
        others = self.measured if cut in self.commanded else self.commanded
        return next((other for other in others if other.side == cut.side), None)

    def _alike(self, cut: Segment) -> float:
        """Correlate a gripper with its counterpart, the command first."""
        other = self._other(cut)
        if not other:
            return 0.0
        pair = (cut, other) if cut in self.commanded else (other, cut)
        command, seen = (one.columns(self.sample) for one in pair)
        return grippers.alike(command, seen)

    def _sense(self, cut: Segment) -> Claim | None:
        """Tell which end is open, by the controller, the name, or the name of the counterpart."""
        if cut.controller:
            return cut.controller.claim("closed")  # 1 closes, -1 opens
        named, other = _named_sense(cut), self._other(cut)
        theirs = _named_sense(other) if other else None
        if named and theirs:
            carried = grippers.follows(theirs, self._alike(cut), other.path if other else "")
            return None if carried and carried.value != named.value else named
        return named or (grippers.follows(theirs, self._alike(cut), other.path) if theirs and other else None)

    def _agreement(self, cut: Segment) -> str:
        alike = self._alike(cut)
        if abs(alike) <= grippers.ALIKE:
            return ""
        return f"command and measurement have {'one' if alike > 0 else 'the opposite'} sense (correlation {alike:.2f})"


def _named_sense(cut: Segment) -> Claim | None:
    return grippers.named_sense(".".join((cut.path, *cut.names)) if cut.width == 1 else cut.path)
