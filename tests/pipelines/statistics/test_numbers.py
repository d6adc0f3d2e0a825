"""The vectors that statistics read: a few episodes at a time, and chunks that end within their episode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.statistics import numbers
from pipelines.statistics.numbers import Selection, parts_of, vectors
from pipelines.statistics.statistics import statistics
from schemas.source import Array
from schemas.store import columns
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.counted import LENGTHS, episodes, make_counted


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_counted(tmp_path_factory.mktemp("statistics")).out)


def test_the_numbers_are_read_a_few_episodes_at_a_time(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statistics(dataset, recompute=True)
    monkeypatch.setattr(numbers, "ROWS", 50)
    (part, _) = parts_of(dataset, Selection())
    assert [len(found["action"]) for found in vectors(part, Selection())] == [3 + 40 + 200, 7]
    assert statistics(dataset, recompute=True).to_json() == whole.to_json()
    (sparse,) = parts_of(dataset, Selection(filters="length < 8"))  # 240 steps between them are left out
    assert [len(found["action"]) for found in vectors(sparse, Selection())] == [3 + 7 + 1]


def test_small_files_are_read_together(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [span.file for span in parts_of(dataset, Selection())[0].spans]
    assert files == [file["path"] for file in dataset.manifest["files"]]
    assert len(files) == 2
    monkeypatch.setattr(numbers, "ROWS", 50)
    assert [[span.file for span in part.spans] for part in parts_of(dataset, Selection())] == [[name] for name in files]


def test_only_the_columns_that_a_view_reads_are_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = columns.arrays

    def spy(data: Dataset, table: Any) -> dict[str, Array]:
        read.extend(table.column_names)
        return inner(data, table)

    monkeypatch.setattr(columns, "arrays", spy)
    for selection, wanted in (
        (Selection(), {"action", "observation.state"}),
        (Selection(view="torque"), {"action", "observation.state", "raw.observation.torque"}),
    ):
        read.clear()
        list(vectors(parts_of(dataset, selection)[0], selection))
        assert set(read) == wanted


# Chunks


def chunks(found: list[Any], size: int) -> tuple[Array, Array]:
    """Return all chunks of `size` actions of each episode, and those relative to the state at their start."""
    actions, relative = [], []
    for episode in found:
        for t in range(len(episode) - size + 1):
            chunk = episode.action[t : t + size].copy()
            actions.append(chunk.ravel())
            moved = chunk.copy()
            moved[:, :3] -= episode.state[t]
            relative.append(moved.ravel())
    return np.array(actions), np.array(relative)


def test_chunks_never_cross_the_end_of_an_episode(dataset: Dataset) -> None:
    found = statistics(dataset, selection=Selection(chunk=4), recompute=True)
    expected, _ = chunks(episodes(dataset), 4)
    summary = found.vectors["action_chunk"]
    assert summary.count == len(expected) == sum(max(0, n - 3) for n in LENGTHS)
    assert np.array_equal(summary.q99, np.quantile(expected.astype(np.float64), 0.99, axis=0).reshape(4, 4))
    assert np.array_equal(summary.min, expected.min(axis=0).reshape(4, 4))
    assert "action_relative" not in found.vectors  # its actions are deltas already


def test_absolute_dimensions_of_a_chunk_are_also_counted_relative_to_the_state(tmp_path: Path) -> None:
    absolute = {
        'dims = ["x", "y", "z"], unit = "m", mode = "delta"': 'dims = ["x", "y", "z"], unit = "m", mode = "absolute"'
    }
    dataset = open_dataset(make_counted(tmp_path, replace=absolute, extra="").out)
    summary = statistics(dataset, selection=Selection(chunk=5)).vectors["action_relative"]
    _, expected = chunks(episodes(dataset), 5)
    assert np.array_equal(summary.q10, np.quantile(expected.astype(np.float64), 0.1, axis=0).reshape(5, 4))
    assert [dim.mode for dim in summary.space.dims] == ["delta", "delta", "delta", "absolute"]
    assert summary.mask.tolist() == [True, True, True, False]
