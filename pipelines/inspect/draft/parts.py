"""Parts of a drafted Space: the claims of a segment, and the expression that reads it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.inspect.draft.arms import Form
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.units import UnitDraft

NAMES = {"position": "xyz", "joint": "joints", "gripper": "gripper", "base": "base"}
ROTATIONS = {  # representation of the Space -> names of the part and its dimensions
    "euler_xyz": ("rpy", ("roll", "pitch", "yaw")),
    "rotvec": ("rotvec", ("rx", "ry", "rz")),
    "quat_xyzw": ("quat", ("qx", "qy", "qz", "qw")),
    "quat_wxyz": ("quat", ("qw", "qx", "qy", "qz")),
}
KIND_FIRST = "decide the kind first"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDraft:
    """One drafted part of a Space, with the expression that reads it."""

    name: str
    dims: tuple[str, ...]
    kind: Claim
    unit: Claim
    mode: Claim
    expression: str
    mapped: Claim | None = None  # evidence for the ops that map a gripper to 0..1; None for other parts

    @property
    def meaning(self) -> str:
        """The part as text in the declaration, such as `position x y z, m, delta`."""
        return f"{self.kind.value} {' '.join(self.dims)}, {self.unit.value}, {self.mode.value}"

    def to_json(self) -> dict[str, Any]:
        """Return the claims, dimensions and expression."""
        claims = {name: getattr(self, name).to_json() for name in ("kind", "unit", "mode")}
        mapped = {"mapped": self.mapped.to_json()} if self.mapped else {}
        return {"dims": list(self.dims), "expression": self.expression, **claims, **mapped}


@dataclass(slots=True, kw_only=True)
class SpaceDraft:
    """A drafted Space with its parts."""

    origin: Claim
    frame: Claim | None = None
    rotation: Claim | None = None
    gripper: Claim | None = None
    parts: list[PartDraft] = field(default_factory=list)

    def words(self) -> dict[str, Claim]:
        """Return the claims about the Space as a whole."""
        claims = {"origin": self.origin, "frame": self.frame, "rotation": self.rotation, "gripper": self.gripper}
        return {name: claim for name, claim in claims.items() if claim}

    def to_json(self) -> dict[str, Any]:
        """Return all claims."""
        words = {name: claim.to_json() for name, claim in self.words().items()}
        return {**words, "parts": {part.name: part.to_json() for part in self.parts}}


class UniqueNames:
    """Names of parts and dimensions that are unique in a Space."""

    def __init__(self) -> None:
        """Start with no names."""
        self.parts: set[str] = set()
        self.dims: set[str] = set()

    def part(self, name: str) -> str:
        """Return a free name for a part: `name`, or `name` with a number."""
        return _unique(name, self.parts)

    def dim(self, name: str) -> str:
        """Return a free and valid name for a dimension."""
        return _unique(re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_") or "d", self.dims)


def _unique(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free


def draft_part(
    segment: Segment, names: UniqueNames, *, form: Form | None, unit_draft: UnitDraft, mode: Claim
) -> PartDraft:
    """Draft a part from a segment that is not a gripper. If its kind is open, its unit is left open."""
    prefix = f"{segment.side}_" if segment.side else ""
    name, dims = _named(segment, form)
    unit, op = unit_draft.unit, unit_draft.op
    if form:
        unit, op = _of_rotation(segment, form, unit_draft)
    if segment.kind.is_open:
        unit, op = todo(f"m, rad, 1, controller or unknown? {KIND_FIRST}"), ""
    return PartDraft(
        name=names.part(prefix + name),
        dims=tuple(names.dim(dim if segment.names else prefix + dim) for dim in dims),
        kind=segment.kind,
        unit=unit,
        mode=mode,
        expression=segment.expression + op,
    )


def _of_rotation(segment: Segment, form: Form, unit_draft: UnitDraft) -> tuple[Claim, str]:
    if segment.width == 9:
        return Claim("rad", "high", "the op returns radians"), form.op
    if segment.width != 3:
        return Claim("1", "high", "no unit"), form.op
    return unit_draft.unit, unit_draft.op + form.op


def _named(segment: Segment, form: Form | None) -> tuple[str, Sequence[str]]:
    """Name the part by its meaning. Its dimensions are named as in the source, if possible, or by their meaning."""
    if not form:
        is_xyz = segment.guess == "position" and segment.width == 3
        numbered = _numbered(segment, "j" if segment.guess == "joint" else "d")
        return NAMES.get(segment.guess, "part"), segment.names or (("x", "y", "z") if is_xyz else numbered)
    name, dims = ROTATIONS.get(form.word.value, ("rotation", ()))
    count = 3 if segment.width == 9 else segment.width
    names = segment.names if len(segment.names) == count and not form.op else ()
    return name, names or dims or [f"r{i}" for i in range(count)]


def _numbered(segment: Segment, letter: str) -> list[str]:
    return [f"{letter}{i + 1}" for i in range(segment.width)]
