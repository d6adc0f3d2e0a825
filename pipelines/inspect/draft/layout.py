"""Split a vector into segments by the names of its numbers, by its own name, and by properties of rotations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

import numpy as np

from pipelines.conventions.rotations import rotation_form
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.controllers import Controller, controller
from pipelines.inspect.draft.owners import owner, thing_words
from pipelines.inspect.draft.roles import GRIPPER, JOINT, Content, content, role, side, words
from pipelines.inspect.draft.sample import Sample
from schemas.source import Array, Field

FORM_WIDTHS = {"quaternion": 4, "matrix": 9}
ANGLES = {"roll", "pitch", "yaw", "rx", "ry", "rz", "qx", "qy", "qz", "qw", "rot", "euler", "axis"}
LIMB = r"(?:.*_)?(?:arm|leg|hand|neck|waist|torso|trunk|head)_\d+"  # a numbered joint of a limb
COMPLETE: Mapping[Content, Sequence[int]] = {"position": (3,), "rotation": (3, 4, 6, 9), "gripper": (1, 2)}
ARM_WIDTHS = (6, 8)  # smallest and largest width of one arm's vector: position, rotation, perhaps a gripper
END = 0.1  # share of the range, on each side, that counts as its end
AT_ENDS = 0.7  # if at least this share of the values is at the ends, the number may be a gripper


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive numbers of a field with one meaning; `guess` is the likely meaning if `kind` is open."""

    path: str
    start: int
    stop: int
    is_all: bool  # whether the segment is the whole field
    kind: Claim
    guess: Content
    side: str = ""  # the arm, such as left; empty if there is only one
    form: str | None = None  # quaternion, matrix or 6d, if the numbers prove it
    names: tuple[str, ...] = ()  # names of the numbers in the source
    controller: Controller | None = None  # the controller that the source describes

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start

    @property
    def expression(self) -> str:
        """Expression of the declaration that reads the segment."""
        return self.path if self.is_all else f"{self.path}[{self.start}:{self.stop}]"

    def columns(self, sample: Sample) -> list[Array]:
        """Return the segment's numbers, one array [T, width] per episode."""
        return sample.columns(self.path, self.start, self.stop)

    def with_kind(self, kind: Claim) -> "Segment":
        """Return the segment with another claim about its kind."""
        return replace(self, kind=kind)


def segments(sample: Sample, path: str) -> list[Segment]:
    """Split a field into segments."""
    columns = sample.columns(path)
    if not columns:
        return []
    values = np.concatenate(columns)
    width = values.shape[1]
    described = controller(sample) if role(sample.fields[path]) == "action" else None
    if described and (arm_width := described.arm_width(width)):
        return list(_of_controller(path, width, arm_width=arm_width, controller=described))
    names = dimension_names(sample.fields[path], width)
    named = content(path, width)
    if names:
        cuts = list(_by_names(names))
    elif named in {"unknown", "pose"}:
        cuts = list(_by_numbers(values, named, path))
    elif named == "joint":
        cuts = [(0, width, *_joints(values, path))]
    else:
        cuts = [(0, width, named, _named(named, path))]
    return [
        Segment(
            path=path,
            start=start,
            stop=stop,
            is_all=stop - start == width,
            kind=kind,
            guess=guess,
            side=side(path) or _common_side(names[start:stop]),
            form=rotation_form(values[:, start:stop]) if guess == "rotation" else None,
            names=names[start:stop],
        )
        for start, stop, guess, kind in cuts
    ]


def _of_controller(path: str, width: int, *, arm_width: int, controller: Controller) -> Iterator[Segment]:
    """Split an action into the segments that the controller defines."""
    for start in range(0, width, arm_width):
        for first, end, kind in ((0, 3, "position"), (3, 6, "rotation"), (6, arm_width, "gripper")):
            if first < end:
                yield Segment(
                    path=path,
                    start=start + first,
                    stop=start + end,
                    is_all=False,
                    kind=controller.claim(kind),
                    guess=cast("Content", kind),
                    side=f"arm{start // arm_width}" if width > arm_width else "",
                    controller=controller,
                )


Cut = tuple[int, int, Content, Claim]  # start, stop, guess, kind


def dimension_names(field: Field, width: int) -> tuple[str, ...]:
    """Return the names of a vector's numbers; empty unless the source's description of the field lists all of them.

    >>> dimension_names(Field(path="a", kind="number", doc="x, y, z"), 3)
    ('x', 'y', 'z')
    """
    names = [name.strip(" '\"[]()") for name in re.split(r"[,;\n]", field.doc)]
    is_complete = len(names) == width > 1 and len(set(names)) == width
    return tuple(names) if is_complete and all(re.fullmatch(r"[\w./ -]{1,60}", name) for name in names) else ()


def _by_names(names: Sequence[str]) -> Iterator[Cut]:
    """Split where the names change their meaning.

    Incomplete positions and rotations are unknown, and so are numbers that may belong to something else than the robot.
    """
    has_joints = any(_kind_of(name) == "joint" for name in names)
    kinds = [_kind_of(name, has_joints=has_joints) for name in names]
    things = [
        thing_words(name) if kind != "unknown" and owner(name) in {"unknown", "thing"} else ""
        for name, kind in zip(names, kinds, strict=True)
    ]
    sides = ["" for _ in names] if {*kinds} == {"joint"} else map(side, names)  # all joints are one part
    start = 0
    for (kind, _, thing), run in groupby(zip(kinds, sides, things, strict=True)):
        stop = start + len(list(run))
        listed = f"named {', '.join(names[start:stop])} in the source"
        if thing:
            yield start, stop, "unknown", todo(f"{kind} of the robot, or other, of {thing}? {listed}")
            start = stop
            continue
        guess: Content = kind if stop - start in COMPLETE.get(kind, range(1, len(names) + 1)) else "unknown"
        if guess == "unknown":
            yield start, stop, guess, todo(f"position, rotation, gripper, joint, base or other? {listed}")
        else:
            yield start, stop, guess, Claim(guess, "high", listed)
        start = stop


def _common_side(names: Sequence[str]) -> str:
    """Return the arm that numbers belong to by their names; empty if they belong to several or to none."""
    sides = {side(name) for name in names}
    return sides.pop() if len(sides) == 1 else ""


def _kind_of(name: str, *, has_joints: bool = False) -> Content:
    """Return the content that the name of a number means; `wrist` is a joint if there are other joints.

    Names such as `motor_3` mean nothing, since converters use them for any number.
    """
    parts = {*words(name)}
    last = name.lower().replace("_", ".").split(".")[-1]
    if parts & GRIPPER:
        return "gripper"
    if (
        parts & (JOINT - {"motor", "motors"})
        or (has_joints and "wrist" in parts)
        or re.fullmatch(r"j(oint)?_?\d+", name.lower())
    ):
        return "joint"
    if last in ANGLES:
        return "rotation"
    if re.fullmatch(LIMB, name.lower()):
        return "joint"
    return "position" if last in {"x", "y", "z"} else "unknown"


def _named(kind: Content, path: str) -> Claim:
    return Claim(kind, "high", f"the field is named {path.rpartition('.')[2]}")


def _joints(values: Array, path: str) -> tuple[Content, Claim]:
    """Claim joints by their name; left open if there are more than eight, or if the last one may be a gripper."""
    width, spread = values.shape[1], np.ptp(values, axis=0)
    odd = (
        width > 1 and spread[:-1].max() > 0 and (_is_two_valued(values[:, -1]) or spread[-1] < 0.1 * np.median(spread))
    )
    if width > 8 or odd:
        return "joint", todo(f"joint? the {width} numbers may include a gripper or several arms; if so, split them")
    return "joint", _named("joint", path)


def _by_numbers(values: Array, named: Content, path: str) -> Iterator[Cut]:
    """Split a vector around a rotation that its numbers prove, into a position, the rotation and perhaps a gripper.

    If they prove no rotation, a vector with the width of an arm is split in the same way. Its kinds are
    then left open, unless its name is that of a pose.
    """
    width = values.shape[1]
    start, form = next(
        (
            (i, form)
            for form, n in FORM_WIDTHS.items()
            for i in range(width - n + 1)
            if rotation_form(values[:, i : i + n]) == form
        ),
        (None, None),
    )
    if start is not None and form is not None and start in {0, 3}:
        stop = start + FORM_WIDTHS[form]
        proof = "always of length 1: a quaternion" if form == "quaternion" else "always a rotation matrix"
        if start == 3:
            yield 0, 3, "position", Claim("position", "high", f"three numbers before a {form}")
        yield start, stop, "rotation", Claim("rotation", "high", proof)
        yield from _rest(values, stop)
    elif ARM_WIDTHS[0] <= width <= ARM_WIDTHS[1]:
        is_pose = named == "pose"
        question = "if the vector is x, y, z, a rotation of three and a gripper; or joint? the numbers fit both"
        yield 0, 3, "position", _named("position", path) if is_pose else todo(f"position {question}")
        yield 3, 6, "rotation", _named("rotation", path) if is_pose else todo(f"rotation {question}")
        yield from _rest(values, 6)
    else:
        yield 0, width, "unknown", todo("position, rotation, gripper, joint, base or other? split it if it has several")


def _rest(values: Array, start: int) -> Iterator[Cut]:
    width = values.shape[1]
    if start < width:
        is_single = width - start == 1
        is_like_gripper = is_single and _is_two_valued(values[:, -1])
        hint = " mostly at the ends of its range, as grippers are" if is_like_gripper else ""
        yield start, width, "gripper" if is_single else "unknown", todo(f"gripper or other?{hint}")


def _is_two_valued(column: Array) -> bool:
    low, high = column.min(), column.max()
    if low == high:
        return False
    near = np.minimum(column - low, high - column) <= END * (high - low)
    return bool(near.mean() >= AT_ENDS)
