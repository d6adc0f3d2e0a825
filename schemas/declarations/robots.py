"""How a robot's recordings store its vectors: the table `recorded` of an embodiment's file.

A dataset does not keep this table. It is for recognizing a robot by its `robot_type`, its field names and its number of
dimensions, and for writing the expressions that read its recordings.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from schemas.declarations import expr, toml
from schemas.declarations.spec import check_no_todo, validated
from schemas.declarations.tables import EmbodimentSpec, Model, SpaceSpec
from schemas.errors import SpecError, did_you_mean

Which: TypeAlias = Literal["state", "action"]
Range: TypeAlias = tuple[float, float]
EMPTY: Any = Field(default_factory=dict)
BOTH: tuple[Which, ...] = ("state", "action")


class VectorSpec(Model):
    """A recorded vector: its numbers have the order of the embodiment's dimensions, but units of their own."""

    names: tuple[str, ...] = ()  # names of its numbers; empty: the recordings do not name them
    fields: tuple[str, ...] = ()  # fields that hold its numbers, if these tell the robot in recordings without its name
    other_names: tuple[tuple[str, ...], ...] = ()  # names of the same numbers in other recordings
    ops: dict[str, str] = EMPTY  # part -> ops that turn its recorded numbers into the stored ones
    ranges: dict[str, Range] = EMPTY  # part -> lowest and highest recorded number, if the format fixes them


class RecordedSpec(Model):
    """The recordings of a robot."""

    maker: str
    software: str = ""  # what records like this, such as "LeRobot 0.4.4 and later"
    robot_types: tuple[str, ...] = ()  # LeRobot's `robot_type` of the recordings
    unusual_types: tuple[str, ...] = ()  # `robot_type` of recordings that store this only after a setting was changed
    control_hz: tuple[Annotated[float, Field(gt=0, lt=inf)], ...] = ()  # usual rates
    state: VectorSpec = VectorSpec()
    action: VectorSpec | None = None  # None: recorded like the state
    limits: dict[str, Range] = EMPTY  # dimension -> lowest and highest value that the robot reaches, in its stored unit
    errata: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """An embodiment and, if it is known, how its recordings store its vectors."""

    embodiment: EmbodimentSpec
    recorded: RecordedSpec | None = None

    @property
    def name(self) -> str:
        """The name of the embodiment."""
        return self.embodiment.name

    @property
    def types(self) -> tuple[str, ...]:
        """All `robot_type`s of its recordings, the usual ones first."""
        return (*self.recorded.robot_types, *self.recorded.unusual_types) if self.recorded else ()

    def space(self, which: Which) -> SpaceSpec | None:
        """Return the Space of its state or action, if it has one."""
        return self.embodiment.state if which == "state" else self.embodiment.action

    def vector(self, which: Which) -> VectorSpec:
        """Return how its state or action is recorded."""
        recorded = self.recorded or RecordedSpec(maker="")
        return recorded.state if which == "state" or recorded.action is None else recorded.action

    def expressions(self, which: Which, path: str) -> dict[str, str]:
        """Return the expression of each part, for a vector recorded at `path` in the usual order.

        `path` may have a slice or ops, such as `permute`, which bring the numbers into that order.

        >>> from schemas.declarations import catalog
        >>> catalog.robot("so101_degrees").expressions("action", "action")
        {'joints': 'action[0:5] | deg2rad', 'gripper': 'action[5:6] | scale(1/100)'}
        """
        space, ops = self.space(which), self.vector(which).ops
        texts = space.slices(path) if space else {}
        if space and re.search(r"[|\[]", path):
            orders = {name: ", ".join(map(str, range(s.start, s.stop))) for name, s in space.columns().items()}
            texts = {name: f"{path} | permute({order})" for name, order in orders.items()}
        return {part: f"{text} | {ops[part]}" if part in ops else text for part, text in texts.items()}


def load(text: str, *, where: str) -> Robot:
    """Parse the file of an embodiment. Raises SpecError with `where` and the key if it is wrong."""
    data = toml.tables(text, where)
    check_no_todo(data, where)
    recorded = data.pop("recorded", None)
    robot = Robot(
        embodiment=validated(EmbodimentSpec, data, where),
        recorded=None if recorded is None else validated(RecordedSpec, recorded, f"{where}: recorded"),
    )
    _check(robot, f"{where}: recorded")
    return robot


def by_type(robots: Iterable[Robot]) -> dict[str, list[str]]:
    """Return the names of the embodiments for each `robot_type`, those that store it by default first."""
    names: dict[str, list[str]] = {}
    known = [(robot.name, robot.recorded) for robot in robots if robot.recorded]
    for name, recorded in known:
        for word in recorded.robot_types:
            names.setdefault(word, []).append(name)
    for name, recorded in known:
        for word in recorded.unusual_types:
            names.setdefault(word, []).append(name)
    return names


def _check(robot: Robot, where: str) -> None:
    if robot.recorded is None:
        return
    dims = set[str]()
    for which in BOTH:
        if space := robot.space(which):
            _check_vector(robot, which, f"{where}.{which}")
            dims |= {name for part in space.parts.values() for name in part.dims}
        elif robot.vector(which) != VectorSpec():
            raise SpecError(f"{where}.{which}: the embodiment has no {which}")
    for name in robot.recorded.limits:
        if name not in dims:
            raise SpecError(f"{where}.limits.{name}: the embodiment has no such dimension{did_you_mean(name, dims)}")
    _check_ranges(robot.recorded.limits, f"{where}.limits")


def _check_vector(robot: Robot, which: Which, place: str) -> None:
    space, vector = robot.space(which), robot.vector(which)
    parts = space.parts if space else {}
    size = sum(len(part.dims) for part in parts.values())
    for names in filter(None, (vector.names, *vector.other_names)):
        if len(names) != size:
            raise SpecError(f"{place}.names: {len(names)} names for the embodiment's {size} dimensions")
        if len(set(names)) < len(names):
            raise SpecError(f"{place}.names: a name occurs twice: {', '.join(names)}")
    for key, table in (("ops", vector.ops), ("ranges", vector.ranges)):
        for name in table:
            if name not in parts:
                raise SpecError(f"{place}.{key}.{name}: the embodiment has no such part{did_you_mean(name, parts)}")
    _check_ranges(vector.ranges, f"{place}.ranges")
    for name, text in robot.expressions(which, which).items():
        try:
            columns = expr.parse(text)({which: np.zeros((1, size), np.float32)}).shape[1]
        except SpecError as error:
            raise SpecError(f"{place}.ops.{name}: {error}") from error
        if columns != len(parts[name].dims):
            raise SpecError(f"{place}.ops.{name}: returns {columns} columns for {len(parts[name].dims)} dimensions")


def _check_ranges(ranges: Mapping[str, Range], place: str) -> None:
    for name, (low, high) in ranges.items():
        if not low < high:
            raise SpecError(f"{place}.{name}: {low:g} is not below {high:g}")
