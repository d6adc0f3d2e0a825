"""What one vector holds, cut into segments: by the names of its numbers, its own name, and what only rotations do."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

import numpy as np

from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.known import Controller, controller
from pipelines.inspect.draft.roles import GRIPPER, JOINT, Content, content, role, side, words
from pipelines.inspect.draft.sample import Sample
from pipelines.inspect.draft.turns import form_at
from schemas.source import Array, Field

WIDTHS = {"quaternion": 4, "matrix": 9}
ANGLES = {"roll", "pitch", "yaw", "rx", "ry", "rz", "qx", "qy", "qz", "qw", "rot", "euler", "axis"}
WHOLE: Mapping[Content, Sequence[int]] = {"position": (3,), "rotation": (3, 4, 6, 9), "gripper": (1, 2)}
ARM = (6, 8)  # numbers of a single arm without names: three of place, three of turn, perhaps a gripper
ENDS = 0.1  # of its range: a gripper spends most of its time that near to one of its ends
AT_ENDS = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Some neighbouring numbers of a field that mean one thing; `guess` is what they may be where `kind` is open."""

    path: str
    start: int
    stop: int
    is_all: bool  # of the field's numbers
    kind: Claim
    guess: Content
    side: str = ""
    form: str | None = None  # quaternion, matrix, 6d: of rotations that show it
    names: tuple[str, ...] = ()  # of the numbers, where the source tells
    controller: Controller | None = None  # that takes these numbers, where the source names one

    @property
    def width(self) -> int:
        """Count the numbers."""
        return self.stop - self.start

    @property
    def expression(self) -> str:
        """Write where they are."""
        return self.path if self.is_all else f"{self.path}[{self.start}:{self.stop}]"

    def columns(self, sample: Sample) -> list[Array]:
        """Take them from the episodes."""
        return sample.columns(self.path, self.start, self.stop)

    def known(self, kind: Claim) -> "Segment":
        """Replace the claim of what they are."""
        return replace(self, kind=kind)


def segments(sample: Sample, path: str) -> list[Segment]:
    """Cut a field into segments."""
    columns = sample.columns(path)
    if not columns:
        return []
    values = np.concatenate(columns)
    width = values.shape[1]
    known = controller(sample) if role(sample.fields[path]) == "action" else None
    if known and (each := known.arm_width(width)):
        return list(_of_controller(path, width, each=each, known=known))
    names = dimension_names(sample.fields[path], width)
    told = content(path, width)
    if names:
        cuts = list(_by_names(names))
    elif told in {"unknown", "pose"}:
        cuts = list(_by_numbers(values, told, path))
    elif told == "joint":
        cuts = [(0, width, *_joints(values, path))]
    else:
        cuts = [(0, width, told, _named(told, path))]
    return [
        Segment(
            path=path,
            start=start,
            stop=stop,
            is_all=stop - start == width,
            kind=kind,
            guess=guess,
            side=side(path) or (side("_".join(names[start:stop])) if names else ""),
            form=form_at(values[:, start:stop]) if guess == "rotation" else None,
            names=names[start:stop],
        )
        for start, stop, guess, kind in cuts
    ]


def _of_controller(path: str, width: int, *, each: int, known: Controller) -> Iterator[Segment]:
    """Cut an action as a known controller takes it."""
    for start in range(0, width, each):
        for first, end, kind in ((0, 3, "position"), (3, 6, "rotation"), (6, each, "gripper")):
            if first < end:
                yield Segment(
                    path=path,
                    start=start + first,
                    stop=start + end,
                    is_all=False,
                    kind=known.claim(kind),
                    guess=cast("Content", kind),
                    side=f"arm{start // each}" if width > each else "",
                    controller=known,
                )


Cut = tuple[int, int, Content, Claim]


def dimension_names(field: Field, width: int) -> tuple[str, ...]:
    """Take the names of a vector's numbers from what the source says of it, if it names each one.

    >>> dimension_names(Field(path="a", kind="number", doc="x, y, z"), 3)
    ('x', 'y', 'z')
    """
    named = [name.strip(" '\"[]()") for name in re.split(r"[,;\n]", field.doc)]
    fits = (
        len(named) == width > 1 and len(set(named)) == width and all(re.fullmatch(r"[\w./ -]{1,60}", n) for n in named)
    )
    return tuple(named) if fits else ()


def _by_names(names: Sequence[str]) -> Iterator[Cut]:
    """Cut where the names change their meaning; a position or rotation that is not whole is none."""
    has_joints = any(_kind_of(name) == "joint" for name in names)
    kinds = [(_kind_of(name, has_joints=has_joints), side(name)) for name in names]
    start = 0
    for (kind, _), run in groupby(kinds):
        stop = start + len(list(run))
        listed = f"the source calls them {', '.join(names[start:stop])}"
        guess: Content = kind if stop - start in WHOLE.get(kind, range(1, len(names) + 1)) else "unknown"
        if guess == "unknown":
            yield start, stop, guess, todo(f"position, rotation, gripper, joint, base or other? {listed}")
        else:
            yield start, stop, guess, Claim(guess, "high", listed)
        start = stop


def _kind_of(name: str, *, has_joints: bool = False) -> Content:
    """Read a number's name; beside joints, what turns a wrist is one. `motor_3` says nothing: converters write it."""
    told = words(name)
    last = name.lower().replace("_", ".").split(".")[-1]
    if {*told} & GRIPPER:
        return "gripper"
    if (
        {*told} & (JOINT - {"motor", "motors"})
        or (has_joints and "wrist" in told)
        or re.fullmatch(r"j(oint)?_?\d+", name.lower())
    ):
        return "joint"
    if last in ANGLES:
        return "rotation"
    return "position" if last in {"x", "y", "z"} else "unknown"


def _named(told: Content, path: str) -> Claim:
    return Claim(told, "high", f"its name, {path.rpartition('.')[2]}")


def _joints(values: Array, path: str) -> tuple[Content, Claim]:
    """Take joints by their name, unless the last of them moves in another range: a gripper may be among them."""
    width, spread = values.shape[1], np.ptp(values, axis=0)
    odd = (
        width > 1 and spread[:-1].max() > 0 and (_is_two_valued(values[:, -1]) or spread[-1] < 0.1 * np.median(spread))
    )
    if width > 8 or odd:
        return "joint", todo(f"joint? {width} numbers: perhaps several arms, or a gripper among them: cut it up then")
    return "joint", _named("joint", path)


def _by_numbers(values: Array, told: Content, path: str) -> Iterator[Cut]:
    """Look for rotations that show themselves, and take what lies before and behind them as a pose does."""
    width = values.shape[1]
    place, found = next(
        (
            (i, form)
            for form, n in WIDTHS.items()
            for i in range(width - n + 1)
            if form_at(values[:, i : i + n]) == form
        ),
        (None, None),
    )
    if place is not None and found is not None and place in {0, 3}:
        end = place + WIDTHS[found]
        shown = "their length is always 1" if found == "quaternion" else "they are always a rotation matrix"
        before = Claim("position", "high", f"three numbers before a {found}")
        if place == 3:
            yield 0, 3, "position", before
        yield place, end, "rotation", Claim("rotation", "high", f"{shown}: a {found}")
        yield from _rest(values, end)
    elif ARM[0] <= width <= ARM[1]:
        is_pose = told == "pose"
        ask = "if the vector is x y z, a rotation of three and a gripper; or joint? nothing tells"
        yield 0, 3, "position", _named("position", path) if is_pose else todo(f"position {ask}")
        yield 3, 6, "rotation", _named("rotation", path) if is_pose else todo(f"rotation {ask}")
        yield from _rest(values, 6)
    else:
        yield 0, width, "unknown", todo("position, rotation, gripper, joint, base or other? cut it up as it needs")


def _rest(values: Array, start: int) -> Iterator[Cut]:
    width = values.shape[1]
    if start < width:
        ends = (
            " (it goes from end to end, as grippers do)" if width - start == 1 and _is_two_valued(values[:, -1]) else ""
        )
        yield start, width, "gripper" if width - start == 1 else "unknown", todo(f"gripper or other?{ends}")


def _is_two_valued(column: Array) -> bool:
    low, high = column.min(), column.max()
    if low == high:
        return False
    near = np.minimum(column - low, high - column) <= ENDS * (high - low)
    return bool(near.mean() >= AT_ENDS)
