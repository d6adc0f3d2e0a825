"""Count how many values of a dataset are outside the range that other statistics give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pipelines.beam.combine import combine
from pipelines.beam.engine import Engine
from pipelines.statistics.numbers import DatasetPart, Selection, parts_of, vectors
from schemas.source import Array
from schemas.store.dataset import Dataset
from stats.compare import Outside, bounds
from stats.norm import NormStats

Range: TypeAlias = tuple[Array, Array]  # [D] lowest, [D] highest


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOutside:
    """A picklable CountFunction that counts the values of one part that are out of range."""

    selection: Selection
    ranges: Mapping[str, Range]

    def __call__(self, part: DatasetPart) -> Iterator[tuple[str, Outside]]:
        """Count one part; the key is the name of the vector."""
        for batch in vectors(part, self.selection):
            for name, (low, high) in self.ranges.items():
                yield name, Outside.of(batch[name], low=low, high=high)


def count_outside(
    dataset: Dataset, theirs: Mapping[str, NormStats], *, selection: Selection, sizes: Mapping[str, int], engine: Engine
) -> dict[str, Outside]:
    """Count the values of a dataset that are outside the range of `theirs`.

    All values are counted, not a sample. Vectors whose size differs between the dataset and `theirs` are left out.
    """
    ranges = {
        name: bounds(theirs[name])[1:]
        for name, size in sizes.items()
        if name in theirs and len(theirs[name].names) == size
    }
    if not ranges:
        return {}
    count, parts = CountOutside(selection=selection, ranges=ranges), parts_of(dataset, selection)
    totals = combine(count, parts, engine=engine.for_parts(len(parts)), shared=dataset.folder)
    return {name: Outside.from_json(total) for name, total in totals.items()}
