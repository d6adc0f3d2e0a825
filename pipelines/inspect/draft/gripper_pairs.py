"""The grippers of a draft: a measured gripper and its command are evidence for each other."""

from collections.abc import Sequence

from pipelines.inspect.draft import grippers
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.parts import PartDraft, UniqueNames
from pipelines.inspect.draft.sample import Sample
from schemas.declarations.spec import TODO

ASK_SENSE = (
    "write open_is_1, and append '| invert' below to each gripper that is 1 when closed; watch a recording to find out"
)
ASK_BOTH = (
    "write open_is_1; if the gripper is 1 when closed, append '| invert' to it in [state] and in [action], which have "
    "the same direction (correlation {}); watch a recording to find out"
)
ASK_ONE = (
    "write open_is_1, and append '| invert' to the gripper that is 1 when closed: in [state] or in [action], but not "
    "in both, since they have opposite directions (correlation {}); watch a recording to find out"
)
ANSWERED = "write open_is_1; the question is answered with that of the state"


class GripperPairs:
    """The measured and the commanded grippers, paired by arm."""

    def __init__(self, sample: Sample, measured: Sequence[Segment], commanded: Sequence[Segment]) -> None:
        """Keep the segments that are grippers."""
        self.sample = sample
        self.measured = [segment for segment in measured if segment.guess == "gripper"]
        self.commanded = [segment for segment in commanded if segment.guess == "gripper"]

    def part(self, segment: Segment, names: UniqueNames) -> PartDraft:
        """Draft one gripper, mapped to 0..1. If there are numbers for two fingers, only the first is read."""
        first = f"{segment.path}[{segment.start}:{segment.start + 1}]" if segment.width > 1 else segment.expression
        op, mapped = grippers.range_op([column[:, :1] for column in segment.columns(self.sample)])
        sense = self._sense(segment)
        name = f"{segment.side}_gripper" if segment.side else "gripper"
        is_unsure = segment.kind.is_open or op.endswith(TODO)
        absolute = Claim("absolute", "medium", "the opening of the gripper")
        return PartDraft(
            name=names.part(name),
            dims=(names.dim(name),),
            kind=segment.kind,
            unit=todo("1 if it is a gripper") if segment.kind.is_open else Claim("1", "high", "0 to 1"),
            mode=todo("absolute if it is an opening and not a direction") if is_unsure else absolute,
            expression=f"{first}{op}{' | invert' if sense and sense.value == 'closed' else ''}",
            mapped=mapped,
        )

    def sense(self, *, is_command: bool) -> Claim | None:
        """Claim the end of the range that is open, for all grippers of a Space; None if the Space has no gripper."""
        segments = self.commanded if is_command else self.measured
        senses = [sense for sense in map(self._sense, segments) if sense]
        if not segments:
            return None
        if len(senses) < len(segments):
            return self._question(segments, is_command=is_command)
        weakest = next((sense for sense in senses if sense.confidence != "high"), senses[0])
        return Claim("open_is_1", weakest.confidence, "; ".join(dict.fromkeys(sense.evidence for sense in senses)))

    def proof(self, side: str) -> Claim | None:
        """Claim that the number after a pose is a gripper; None unless its measurement follows its command."""
        pairs = [(segment, self._other(segment)) for segment in self.commanded if segment.side == side]
        strength = max((abs(self._correlation(segment)) for segment, other in pairs if other), default=0.0)
        evidence = f"comes after a pose, and measurement and command correlate by {strength:.2f}"
        return Claim("gripper", "medium", evidence) if strength > grippers.MIN_CORRELATION else None

    def _other(self, segment: Segment) -> Segment | None:
        others = self.measured if segment in self.commanded else self.commanded
        return next((other for other in others if other.side == segment.side), None)

    def _correlation(self, segment: Segment) -> float:
        """Correlate a gripper's command with its measurement; 0 if one of them is missing."""
        other = self._other(segment)
        if not other:
            return 0.0
        pair = (segment, other) if segment in self.commanded else (other, segment)
        command, measured = (one.columns(self.sample) for one in pair)
        return grippers.correlation(command, measured)

    def _sense(self, segment: Segment) -> Claim | None:
        """Claim whether the largest value means open or closed.

        The evidence is the controller, the name of the segment, or the name of its command or measurement. Returns None
        if there is no evidence, or if the names contradict each other.
        """
        if segment.controller:
            return segment.controller.claim("closed")  # 1 closes, -1 opens
        named, other = _sense_from_names(segment), self._other(segment)
        theirs = _sense_from_names(other) if other else None
        if not theirs or not other:
            return named
        carried = grippers.carried_sense(theirs, self._correlation(segment), other.path)
        if named:
            return None if carried and carried.value != named.value else named
        return carried

    def _question(self, segments: Sequence[Segment], *, is_command: bool) -> Claim:
        """Ask which end is open; only once if the command of every gripper follows its measurement."""
        strengths = [self._correlation(segment) for segment in segments]
        weakest = min(strengths, key=abs)
        is_shared = len(self.measured) == len(self.commanded) and abs(weakest) > grippers.MIN_CORRELATION
        if not is_shared or len({strength > 0 for strength in strengths}) > 1:
            return todo(ASK_SENSE)
        ask = ASK_BOTH if weakest > 0 else ASK_ONE
        return todo(ANSWERED if is_command else ask.format(f"{weakest:.2f}"))


def _sense_from_names(segment: Segment) -> Claim | None:
    names = (segment.path, *segment.names) if segment.width == 1 else (segment.path,)
    return grippers.sense_from_name(".".join(names))
