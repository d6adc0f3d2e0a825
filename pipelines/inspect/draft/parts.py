"""Parts of a drafted Space: a segment's claims as one line of the declaration, and the expression that fills it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.inspect.draft.arms import Form
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.layout import Segment
from pipelines.inspect.draft.units import Scaled

NAMES = {"position": "xyz", "joint": "joints", "gripper": "gripper", "base": "base"}
ROTATIONS = {  # a word of the Space to the names of the part and its dimensions
    "euler_xyz": ("rpy", ("roll", "pitch", "yaw")),
    "rotvec": ("rotvec", ("rx", "ry", "rz")),
    "quat_xyzw": ("quat", ("qx", "qy", "qz", "qw")),
    "quat_wxyz": ("quat", ("qw", "qx", "qy", "qz")),
}
FIRST_THE_KIND = "first say what it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a Space, with the expression that fills it."""

    name: str
    dims: tuple[str, ...]
    kind: Claim
    unit: Claim
    mode: Claim
    expression: str
    mapped: Claim | None = None  # of the ops, where they need evidence

    @property
    def meaning(self) -> str:
        """Write the part as a declaration does."""
        return f"{self.kind.value} {' '.join(self.dims)}, {self.unit.value}, {self.mode.value}"

    def to_json(self) -> dict[str, Any]:
        """Give its claims."""
        claims = {name: getattr(self, name).to_json() for name in ("kind", "unit", "mode")}
        mapped = {"mapped": self.mapped.to_json()} if self.mapped else {}
        return {"dims": list(self.dims), "expression": self.expression, **claims, **mapped}


@dataclass(slots=True, kw_only=True)
class SpaceDraft:
    """A Space with its parts."""

    origin: Claim
    frame: Claim | None = None
    rotation: Claim | None = None
    gripper: Claim | None = None
    parts: list[Part] = field(default_factory=list)

    def words(self) -> dict[str, Claim]:
        """Give the Space's own words."""
        found = {"origin": self.origin, "frame": self.frame, "rotation": self.rotation, "gripper": self.gripper}
        return {name: claim for name, claim in found.items() if claim}

    def to_json(self) -> dict[str, Any]:
        """Give all claims."""
        words = {name: claim.to_json() for name, claim in self.words().items()}
        return {**words, "parts": {part.name: part.to_json() for part in self.parts}}


class Names:
    """Names of parts and dimensions, each given once in a Space."""

    def __init__(self) -> None:
        """Start with none."""
        self.parts: set[str] = set()
        self.dims: set[str] = set()

    def part(self, name: str) -> str:
        """Name a part."""
        return _once(name, self.parts)

    def dim(self, name: str) -> str:
        """Name a dimension."""
        return _once(re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_") or "d", self.dims)


def _once(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def part(cut: Segment, names: Names, *, form: Form | None, scaled: Scaled, mode: Claim) -> Part:
    """Make a part of a segment that is no gripper; of one whose kind is open, the unit is open too."""
    prefix = f"{cut.side}_" if cut.side else ""
    name, dims = _named(cut, form)
    unit, op = scaled.unit, scaled.op
    if form:
        unit, op = _of_rotation(cut, form, scaled)
    if cut.kind.is_open:
        unit, op = todo(f"m, rad, 1, controller or unknown? {FIRST_THE_KIND}"), ""
    return Part(
        name=names.part(prefix + name),
        dims=tuple(names.dim(dim if cut.names else prefix + dim) for dim in dims),
        kind=cut.kind,
        unit=unit,
        mode=mode,
        expression=cut.expression + op,
    )


def _of_rotation(cut: Segment, form: Form, scaled: Scaled) -> tuple[Claim, str]:
    if cut.width == 9:
        return Claim("rad", "high", "what the op gives"), form.op
    if cut.width != 3:
        return Claim("1", "high", "no unit"), form.op
    return scaled.unit, scaled.op + form.op


def _named(cut: Segment, form: Form | None) -> tuple[str, Sequence[str]]:
    """Name the part and its dimensions, as the source does or by their meaning."""
    if not form:
        letters = ("x", "y", "z")
        plain = (
            letters
            if cut.guess == "position" and cut.width == 3
            else _numbered(cut, "j" if cut.guess == "joint" else "d")
        )
        return NAMES.get(cut.guess, "part"), cut.names or plain
    name, dims = ROTATIONS.get(form.word.value, ("rotation", ()))
    count = 3 if cut.width == 9 else cut.width
    names = cut.names if len(cut.names) == count and not form.op else ()
    return name, names or dims or [f"r{i}" for i in range(count)]


def _numbered(cut: Segment, letter: str) -> list[str]:
    return [f"{letter}{i + 1}" for i in range(cut.width)]
