"""Arrays of `npz` and `npy` files that belong to a whole episode, and fields without values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.readers.registry import open_source
from tests.pipelines.readers.reading import Opener, Reading

opened = Opener("folder")
reading = Reading(opened)


def write_motions(folder: Path, **more: Any) -> Path:
    """Write the motions of a retargeting tool: one file for each episode, with names and a rate."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(2):
        names = np.array([f"j{k}" for k in range(4)])
        np.savez(folder / f"motion_{i}.npz", fps=60, dof_names=names, dof_positions=np.zeros((9 + 2 * i, 4)), **more)
    return folder


def test_arrays_without_a_row_per_step_are_guessed(tmp_path: Path) -> None:
    reader = open_source(str(write_motions(tmp_path, init=np.ones((1, 4)))))
    assert reader.layout() == {"episodes": "*.npz", "per_episode": ["dof_names", "init"]}
    assert reader.guesses()["per_episode"] == "'dof_names', 'init', arrays without a row per step"
    found = reading.episodes(tmp_path)
    assert [episode.n_steps() for episode in found] == [9, 11]
    assert found[1].metadata["dof_names"] == ["j0", "j1", "j2", "j3"]
    assert (found[1].metadata["fps"], found[1].metadata["init"]) == (60, [[1] * 4])


def test_arrays_in_folders_are_guessed_too(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"episode_{i}").mkdir()
        np.save(tmp_path / f"episode_{i}/action.npy", np.zeros((9, 4)))
        np.save(tmp_path / f"episode_{i}/intrinsics.npy", np.eye(3))
        (tmp_path / f"episode_{i}/log.csv").write_text("a,b\n1,2\n")
    reader = opened(tmp_path)
    assert reader.layout()["per_episode"] == ["intrinsics"]
    assert "log.a" not in reader.guesses()["per_episode"]


def test_names_are_told_from_steps_where_all_episodes_have_one_length(tmp_path: Path) -> None:
    for i in range(2):
        held = {"dof_names": np.array(["a", "b"]), "limits": np.ones((2, 2)), "ticks": np.ones(20)}
        np.savez(tmp_path / f"{i}.npz", dof_positions=np.zeros((60, 2)), dof_velocities=np.zeros((60, 2)), **held)
    assert opened(tmp_path).layout()["per_episode"] == ["dof_names", "limits"]


@pytest.mark.parametrize("shape", [(9, 0), (0,), (0, 3)])
def test_arrays_without_values_are_left_out_with_a_note(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", action=np.zeros((9, 4)), points=np.zeros(shape))
    reader = opened(tmp_path, episodes="*.npz")
    assert [field.path for field in reader.fields] == ["episode_path", "action"]
    assert reader.notes() == [f"points: the shape is {list(shape)} in the first episode, so it is left out."]
    assert len(reading.episodes(tmp_path, episodes="*.npz")) == 2


def test_an_array_that_a_later_episode_fills_is_not_lost(tmp_path: Path) -> None:
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", action=np.zeros((9, 4)), points=np.zeros((9, 3 * i)))
    assert reading.outcome(tmp_path, episodes="*.npz") == ["ok", "contradicts_fields"]
