"""Numeric columns are equal to those of whole episodes."""

from pathlib import Path

import numpy as np
import pytest

from schemas.store.columns import STATE, episodes, runs, spans
from schemas.store.dataset import Dataset, open_dataset
from tests.schemas.makers import TOY, publish

LENGTHS = (5, 130, 3)


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(publish(tmp_path_factory.mktemp("columns"), lengths=LENGTHS))


@pytest.mark.parametrize("name", [None, "openvla"])
def test_the_steps_of_spans_are_those_of_the_episodes(ds: Dataset, name: str | None) -> None:
    view = ds.view(name) if name else None
    read = {(steps.file, steps.row): steps for steps in episodes(ds, spans(ds.episodes.collect()), view=view)}
    assert len(read) == len(ds)
    for i in range(len(ds)):
        file, row, length = ds.where(i)
        steps, stored, shown = read[file, row], ds.episode(i), ds.episode(i, name)
        viewed = steps.viewed(view)
        assert len(steps) == length
        np.testing.assert_array_equal(steps.columns["action"], stored.action)
        np.testing.assert_array_equal(steps.columns[STATE], stored.state)
        np.testing.assert_array_equal(viewed.action, shown.action)
        np.testing.assert_array_equal(steps.columns[STATE][viewed.mask], shown.state)


def test_episodes_that_are_not_in_the_span_are_left_out(ds: Dataset) -> None:
    table = ds.episodes.collect()
    (span,) = spans(table.filter(table["length"] != 130).reverse())
    assert span.lengths.tolist() == [5, 3]
    for rows in (1, 1000):
        read = [steps for run in runs(ds, span, rows=rows) for steps in run.episodes()]
        assert [(steps.row, len(steps)) for steps in read] == [(0, 5), (135, 3)]
        assert [steps.columns["action"].tolist() for steps in read] == [ds.episode(i).action.tolist() for i in (0, 2)]


@pytest.mark.parametrize("text", [TOY, TOY.replace('language   = "language_instruction"\n', "")])
def test_each_step_has_the_number_of_its_instruction(tmp_path: Path, text: str) -> None:
    ds = open_dataset(publish(tmp_path, lengths=LENGTHS, text=text))
    texts: dict[str, int] = {}
    for span in spans(ds.episodes.collect()):
        for run in runs(ds, span, more=["instruction"]):
            numbers = run.instructions(lambda text: texts.setdefault(text, len(texts)))
            spoken = [[*texts, None][number] for number in numbers.tolist()]
            assert spoken == run.table["instruction"].to_pylist()
    assert list(texts) == (["open it", "close it"] if text == TOY else [])
