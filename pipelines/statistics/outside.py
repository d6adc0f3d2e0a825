"""How much of a dataset lies outside the range that other statistics give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pipelines.beam.combine import combine
from pipelines.beam.engine import Engine
from pipelines.statistics.numbers import Part, Selection, parts_of, vectors
from schemas.source import Array
from schemas.store.dataset import Dataset
from stats.compare import Outside, bounds
from stats.norm import NormStats

Range: TypeAlias = tuple[Array, Array]  # [D] lowest, [D] highest


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOutside:
    """Counts one part's values that are out of range; picklable."""

    selection: Selection
    ranges: Mapping[str, Range]

    def __call__(self, part: Part) -> Iterator[tuple[str, Outside]]:
        """Count; the key is the vector."""
        for found in vectors(part, self.selection):
            for name, (low, high) in self.ranges.items():
                yield name, Outside.of(found[name], low=low, high=high)


def outside(
    dataset: Dataset, theirs: Mapping[str, NormStats], *, selection: Selection, sizes: Mapping[str, int], engine: Engine
) -> dict[str, Outside]:
    """Count exactly, for the vectors that `theirs` has in the same size as the dataset."""
    ranges = {
        name: bounds(theirs[name])[1:]
        for name, size in sizes.items()
        if name in theirs and len(theirs[name].names) == size
    }
    if not ranges:
        return {}
    work, parts = CountOutside(selection=selection, ranges=ranges), parts_of(dataset, selection)
    counted = combine(work, parts, engine=engine.sharing(len(parts)), shared=dataset.folder)
    return {name: Outside.from_json(found) for name, found in counted.items()}
