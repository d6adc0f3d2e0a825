"""Counting and merging in a loop and in a Beam graph: equal results for any order of parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.beam.combine import combine
from pipelines.beam.engine import Engine
from schemas.errors import SourceError, UsageError
from schemas.files.folder import LocalFolder


@dataclass(frozen=True, slots=True)
class Total:
    total: int

    def merge(self, other: "Total") -> "Total":
        return Total(self.total + other.total)

    def to_json(self) -> dict[str, Any]:
        return {"total": self.total}


def odd_and_even(part: int) -> Iterator[tuple[str, Total]]:
    if part < 0:
        raise SourceError(f"part {part} cannot be read")
    yield ("odd" if part % 2 else "even"), Total(part)


ENGINES = [Engine(), Engine(runner="FnApiRunner")]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("parts", [range(10), [9, 0, 8, 1, 7, 2, 6, 3, 5, 4]])
def test_results_are_merged_by_key_in_any_order(parts: Any, engine: Engine, tmp_path: Path) -> None:
    found = combine(odd_and_even, list(parts), engine=engine, shared=LocalFolder(tmp_path))
    assert found == {"odd": {"total": 25}, "even": {"total": 20}}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_alphabetically_first_error_is_raised_whatever_the_order(engine: Engine, tmp_path: Path) -> None:
    for parts in ([1, -3, -2], [-2, 1, -3]):
        with pytest.raises(UsageError, match=r"^part -2 cannot be read$"):
            combine(odd_and_even, parts, engine=engine, shared=LocalFolder(tmp_path))


def test_a_place_for_results_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"Not a directory: '.*/file/meta"):
        combine(odd_and_even, [1], engine=Engine(runner="FnApiRunner"), shared=LocalFolder(tmp_path / "file"))
