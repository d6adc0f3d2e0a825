"""Recognize the robot of a recording by its `robot_type`, its fields, the names of its numbers and their count.

Names decide which number is which joint, so a recording with another order of the same names is read by name. Numbers
decide between robots whose recordings look alike (`robot_ranges.py`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from pipelines.inspect.draft.choose import ROBOT_KEYS
from pipelines.inspect.draft.clock import described
from pipelines.inspect.draft.layout import dimension_names, segments
from pipelines.inspect.draft.robot_columns import Columns
from pipelines.inspect.draft.robot_ranges import Doubt, doubts, full_ranges, is_hardly_used
from pipelines.inspect.draft.roles import side
from pipelines.inspect.draft.sample import Sample
from schemas.declarations import catalog
from schemas.declarations.robots import BOTH, Robot, Which

NUMBERED = re.compile(
    r"(?:joint|j|motor|m|dim|d|state|action|axis|index)?[_ .]?\d+(?:[_.]pos(?:ition)?)?", re.IGNORECASE
)
SIDED = re.compile(r"^(?:left|right|l|r)_", re.IGNORECASE)
Fields: TypeAlias = Mapping[Which, Sequence[Sequence[str]]]  # groups of fields for each vector, the likeliest first
MIN_FULL = 2  # joints that reach exactly the ends of a robot's range prove the range


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One robot that fits the recording, and where its vectors are."""

    robot: Robot
    vectors: Mapping[Which, Columns]
    doubts: tuple[Doubt, ...] = ()  # what its numbers contradict

    @property
    def paths(self) -> list[str]:
        """The fields that it reads."""
        return [path for columns in self.vectors.values() for path in columns.paths]

    def __len__(self) -> int:
        """Return how many of the recorded numbers it reads."""
        return sum(len(columns.places) for columns in self.vectors.values())

    def fields(self, which: Which) -> dict[str, str]:
        """Return the expression that reads each part, without ops."""
        space, columns = self.robot.space(which), self.vectors[which]
        return {name: str(columns.expression(span)) for name, span in space.columns().items()} if space else {}

    def expressions(self, which: Which) -> dict[str, str]:
        """Return the expression of each part, with the ops of the robot's recordings."""
        ops = self.robot.vector(which).ops
        return {name: f"{text} | {ops[name]}" if name in ops else text for name, text in self.fields(which).items()}

    def parts(self) -> list[tuple[Which, str]]:
        """Return the parts of its vectors."""
        return [(which, name) for which in self.vectors for name in self.fields(which)]

    def all_facts(self) -> list[tuple[object, ...]]:
        """Return what the numbers of all parts mean."""
        return [self.facts(which, name) for which, name in self.parts()]

    def facts(self, which: Which, name: str) -> tuple[object, ...]:
        """Return what a part's numbers mean."""
        space = self.robot.space(which)
        part = space.parts[name] if space else None
        return which, part, space and space.gripper, self.expressions(which)[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """The robots that a recording may be of: one, or several whose facts differ."""

    readings: tuple[Reading, ...]
    evidence: str
    others: tuple[str, ...] = ()  # names of other robots with the same facts as the only reading

    @property
    def reading(self) -> Reading | None:
        """The reading, if there is only one."""
        return self.readings[0] if len(self.readings) == 1 else None


def groups(chosen: Sequence[str], others: Sequence[str]) -> list[Sequence[str]]:
    """Return the groups of fields that may hold one vector: the chosen ones, each one, and a further one with them."""
    singles = [[path] for path in (*chosen, *others)]
    return [group for group in (chosen, *singles, *([*chosen, path] for path in others)) if group]


def recognize(sample: Sample, fields: Fields) -> Recognition | None:
    """Recognize the robot; None if no known robot fits.

    `fields` are the fields that may hold the state and the action: groups of fields, the likeliest first.
    """
    typed, known = _of_type(sample), catalog.known_robots()
    for candidates in (
        [_reading(sample, robot, fields, is_known=True) for robot in typed],
        [_reading(sample, robot, own, is_known=True) for robot in known if (own := _own_fields(sample, robot))],
        [_reading(sample, robot, fields, is_known=False) for robot in known if robot not in typed],
    ):
        readings = [reading for reading in candidates if reading]
        most = max((len(reading.vectors) for reading in readings), default=0)
        if readings:
            return _decided(sample, [reading for reading in readings if len(reading.vectors) == most])
    return None


def contradiction(sample: Sample, fields: Fields) -> str | None:
    """Return how the recording contradicts its `robot_type` by the count of its joints; None if it does not.

    A vector that has a pose or that is put together from several fields contradicts nothing.
    """
    robots, (where, word) = _of_type(sample), next(_types(sample), ("", ""))
    single = {which: groups[0][0] for which, groups in fields.items() if groups and len(groups[0]) == 1}
    widths = {which: _width(sample, path) for which, path in single.items() if not _is_pose(sample, path)}
    is_known = where == "source.robot_type" and robots and widths
    if not is_known or any(_size(robot, which) in {0, widths[which]} for robot in robots for which in widths):
        return None
    sizes = dict.fromkeys(f"{_size(robot, which)} numbers in the {which}" for which in widths for robot in robots)
    counts = " and ".join(f"{width} in the {which}" for which, width in widths.items())
    return f"{where} is '{word}', whose recordings have {' or '.join(sizes)}, but this one has {counts}"


def _decided(sample: Sample, readings: Sequence[Reading]) -> Recognition:
    """Keep the readings that the numbers allow. Those whose facts are the same count as one."""
    doubted = [replace(one, doubts=tuple(doubts(sample, one.robot, one.vectors))) for one in readings]
    fewest = min(len(reading.doubts) for reading in doubted)
    left = [reading for reading in doubted if len(reading.doubts) == fewest]
    left = [reading for reading in left if len(reading) == max(map(len, left))]
    reached = {id(reading): full_ranges(sample, reading.robot, reading.vectors) for reading in left}
    proof = ""
    if full := [reading for reading in left if len(reached[id(reading)]) >= MIN_FULL]:
        proof = f"{' and '.join(reached[id(full[0])][:MIN_FULL])} reach exactly the ends of their range"
        left = full
    left = [one for one in left if not is_hardly_used(sample, one.robot, one.vectors)] or left
    word = next((word for _, word in _types(sample)), "")
    usual = [one for one in left if one.robot.recorded and _same(word, one.robot.recorded.robot_types)]
    left = usual or left
    distinct: dict[tuple[object, ...], list[Reading]] = {}
    for one in left:
        distinct.setdefault(tuple(one.all_facts()), []).append(one)
    readings = tuple(min(same, key=lambda one: len(_others(left, one))) for same in distinct.values())
    return Recognition(
        readings=readings,
        evidence="; ".join(filter(None, (_evidence(sample, readings[0]), proof))),
        others=_others(left, readings[0]) if len(readings) == 1 else (),
    )


def _others(readings: Sequence[Reading], one: Reading) -> tuple[str, ...]:
    """Return the names of the readings' robots that the name of one of them does not contain."""
    names = dict.fromkeys(reading.robot.embodiment.robot for reading in readings)
    return tuple(name for name in names if name not in one.robot.embodiment.robot)


def _evidence(sample: Sample, reading: Reading) -> str:
    columns = next(iter(reading.vectors.values()))
    where, word = next(_types(sample), ("", ""))
    if reading.robot in _of_type(sample):
        known = f"{where} '{word}' and "
    else:
        known = "" if columns.is_named else f"the fields {', '.join(reading.paths)} and "
    return f"{known}{'the names of ' if columns.is_named else ''}its {len(columns.places)} numbers"


# Which robots may fit


def _types(sample: Sample) -> Iterator[tuple[str, str]]:
    for where, value in described(sample, ROBOT_KEYS):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item:
                yield where, item


def _of_type(sample: Sample) -> list[Robot]:
    """Return the robots whose recordings have the `robot_type` of the sample."""
    return [robot for robot in catalog.known_robots() if any(_same(word, robot.types) for _, word in _types(sample))]


def _same(word: str, known: Sequence[str]) -> bool:
    return _plain(word) in {_plain(other) for other in known}


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def _own_fields(sample: Sample, robot: Robot) -> Fields:
    """Return the fields of the robot's vectors, if they tell the robot and the sample has all of them."""
    vectors: dict[Which, tuple[str, ...]] = {which: robot.vector(which).fields for which in BOTH}
    paths = [path for fields in vectors.values() for path in fields]
    is_found = bool(paths) and all(_width(sample, path) for path in paths)
    return {which: [fields] for which, fields in vectors.items() if fields} if is_found else {}


def _reading(sample: Sample, robot: Robot, fields: Fields, *, is_known: bool) -> Reading | None:
    """Find the vectors of a robot; None if there is none, or if only numbered names suggest the robot."""
    vectors = {}
    for which in BOTH:
        for paths in fields.get(which, ()) if robot.space(which) else ():
            names = {path: _names(sample, path) for path in paths}
            may_be_ordered = is_known and (len(paths) == 1 or [*paths] == [*robot.vector(which).fields])
            may_be_ordered &= not any(_is_pose(sample, path) for path in paths)
            if columns := _columns(robot, which, names, is_known=is_known, may_be_ordered=may_be_ordered):
                vectors[which] = columns
                break
    return Reading(robot=robot, vectors=vectors) if vectors else None


def _columns(
    robot: Robot, which: Which, names_of: Mapping[str, Sequence[str]], *, is_known: bool, may_be_ordered: bool
) -> Columns | None:
    """Find the numbers of a robot's vector by their names or, if they have none, by their order."""
    space, vector = robot.space(which), robot.vector(which)
    widths = {path: len(names) for path, names in names_of.items()}
    places = [(path, column) for path, width in widths.items() for column in range(width)]
    names = [name for names in names_of.values() for name in names]
    dims = [(dim, part.kind) for part in (space.parts.values() if space else ()) for dim in part.dims]
    for known in (vector.names, *vector.other_names):
        for plain in (str, _bare) if is_known else (str,):
            own, theirs = [plain(name) for name in names], [plain(name) for name in known]
            if known and {*theirs} <= {*own} and len({*own}) == len(own) and (is_known or _is_telling(known)):
                by_name = dict(zip(own, places, strict=True))
                return _whole(Columns(tuple(by_name[name] for name in theirs), widths, is_named=True), robot, which)
    if not may_be_ordered or len(places) != len(dims):
        return None
    is_plain = all(_fits_in_order(name, dim, kind) for name, (dim, kind) in zip(names, dims, strict=True))
    return _whole(Columns(tuple(places), widths, is_named=False), robot, which) if is_plain else None


def _bare(name: str) -> str:
    """Return a name in lower case, without the word for a position at its end."""
    return re.sub(r"[._ ](?:pos|position|q)$", "", name.casefold())


def _whole(columns: Columns, robot: Robot, which: Which) -> Columns | None:
    """Return the columns, if each part is in one field."""
    space = robot.space(which)
    spans = space.columns().values() if space else ()
    return columns if all(columns.expression(span) for span in spans) else None


def _names(sample: Sample, path: str) -> tuple[str, ...]:
    """Return the names of a field's numbers; empty ones if it has none. A field of one number has its own name."""
    width = _width(sample, path)
    names = dimension_names(sample.fields[path], width)
    return names or ((sample.fields[path].doc or path,) if width == 1 else ("",) * width)


def _fits_in_order(name: str, dim: str, kind: str) -> bool:
    """Whether a number of this name may be the dimension that has its place."""
    if not name or NUMBERED.fullmatch(SIDED.sub("", name)):
        return side(name) in {"", side(dim)}
    return kind in {"gripper", "joint"} and kind == _kind(name) == "gripper" and side(name) in {"", side(dim)}


def _kind(name: str) -> str:
    return "gripper" if "grip" in name.casefold() else ""


def _is_pose(sample: Sample, path: str) -> bool:
    """Whether a field has a position or a rotation, by its name or by its numbers."""
    return any(part.guess in {"position", "rotation"} and not part.kind.is_open for part in segments(sample, path))


def _is_telling(names: Sequence[str]) -> bool:
    """Whether names tell a robot: most of them are more than a number."""
    bare = [SIDED.sub("", name) for name in names]
    return sum(bool(NUMBERED.fullmatch(name)) or len(name) < 3 for name in bare) < len(names) / 2


def _width(sample: Sample, path: str) -> int:
    columns = sample.columns(path)
    return columns[0].shape[1] if columns else 0


def _size(robot: Robot, which: Which) -> int:
    space = robot.space(which)
    return sum(len(part.dims) for part in space.parts.values()) if space else 0
