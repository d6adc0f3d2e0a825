"""Where a robot's state or action is in a recording, and its numbers by part."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipelines.inspect.draft.sample import Sample
from schemas.declarations import expr
from schemas.declarations.robots import Robot, Which
from schemas.declarations.tables import Part
from schemas.source import Array

ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a robot's state or action is recorded: a field and a column of it for each dimension of the Space."""

    places: tuple[tuple[str, int], ...]
    widths: Mapping[str, int]  # field -> number of its columns
    is_named: bool  # found by the names of the numbers, and not by their order

    @property
    def paths(self) -> list[str]:
        """The fields that are read."""
        return list(dict.fromkeys(path for path, _ in self.places))

    def expression(self, span: slice = ALL) -> str | None:
        """Return the expression that reads some dimensions; None if they are in several fields."""
        places = self.places[span]
        path, columns = places[0][0], [column for _, column in places]
        if any(other != path for other, _ in places):
            return None
        if any(after != before + 1 for before, after in pairwise(columns)):
            return f"{path} | permute({', '.join(map(str, columns))})"
        is_all = len(columns) == self.widths[path]
        return path if is_all else f"{path}[{columns[0]}:{columns[-1] + 1}]"


class Vector:
    """The numbers of a robot's recorded state or action, by part."""

    def __init__(self, robot: Robot, which: Which, numbers: Array) -> None:
        """Divide the recorded numbers [T, k], which are in the order of the robot's dimensions."""
        self.robot, self.which, self.raw, space = robot, which, numbers, robot.space(which)
        spans = space.columns() if space else {}
        parts = space.parts if space else {}
        self.parts: dict[str, tuple[Part, Array]] = {
            name: (part, numbers[:, spans[name]]) for name, part in parts.items()
        }

    def op(self, name: str) -> str:
        """Return the ops that convert a part to its stored unit; empty if it is stored as recorded."""
        return self.robot.vector(self.which).ops.get(name, "")

    def stored(self, name: str) -> Array:
        """Return a part's numbers in the stored unit."""
        values, op = self.parts[name][1], self.op(name)
        return expr.parse(f"v | {op}")({"v": values.astype(np.float32)}) if op else values

    def known(self, name: str) -> str:
        """Return the stored unit of a part and the ops that lead to it."""
        op = self.op(name)
        return f"{self.parts[name][0].unit} ('{op}')" if op else f"{self.parts[name][0].unit} as recorded"


def numbers(sample: Sample, columns: Columns) -> Array:
    """Return the finite numbers in some columns of all episodes, [T, k]."""
    places = columns.places
    paths = {path for path, _ in places}
    episodes = [episode for episode in sample.episodes if paths <= episode.keys()]
    rows = []
    for episode in episodes:
        steps = min(len(episode[path]) for path in paths)
        rows.append(np.stack([episode[path][:steps, column] for path, column in places], axis=1))
    values = np.concatenate(rows) if rows else np.zeros((0, len(places)))
    finite: Array = values[np.isfinite(values).all(axis=1)]
    return finite
