"""A field of another length is kept as a value of the episode where it can be, and named where it is not read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from pipelines.inspect.draft.draft import draft
from pipelines.inspect.draft.lengths import layout, odd_fields
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.declarations.formats import AnySource
from schemas.source import Field, RawEpisode
from tests.makers import write_hdf5
from tests.pipelines.inspect.draft.arm import sampled

INITIAL = ("articulation.robot.joint_position", "rigid_object.cube.root_pose")


def isaac(steps: int) -> dict[str, Any]:
    return {
        "actions": np.zeros((steps, 7)),
        "obs/joint_pos": np.zeros((steps, 9)),
        "initial_state/articulation/robot/joint_position": np.zeros((1, 9)),
        "initial_state/rigid_object/cube/root_pose": np.zeros((1, 7)),
    }


def aloha(steps: int) -> dict[str, Any]:
    return {
        "action": np.zeros((steps, 14), np.float32),
        "observations/qpos": np.zeros((steps, 14), np.float32),
        "compress_len": np.zeros((3, 500), np.float32),  # cameras by steps, padded; too wide for a pose
        "names": np.array([b"a", b"bb"], "S2"),
    }


def read_as_drafted(uri: Path) -> tuple[list[RawEpisode], str]:
    """Read every episode in the layout that the draft proposes; return the draft's text, too."""
    proposal = draft(open_source(str(uri)), str(uri))
    assert "ignore" not in proposal.source
    reader = open_source(str(uri), TypeAdapter(AnySource).validate_python(dict(proposal.source)))
    values = [raw for ref in plan(reader.files()) for raw in reader.read(ref)]
    assert all(isinstance(raw, RawEpisode) and raw.n_steps() > 1 for raw in values)
    return [raw for raw in values if isinstance(raw, RawEpisode)], proposal.text()


@pytest.mark.parametrize(
    ("make", "place", "kept"),
    [
        (isaac, "data/demo_{}", {f"initial_state.{name}" for name in INITIAL}),
        (aloha, "/", {"compress_len", "names"}),
    ],
)
def test_arrays_of_an_episode_in_hdf5_are_kept(make: Any, place: str, kept: set[str], tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    for i in range(3):
        write_hdf5(tmp_path / f"episode_{i}.hdf5", {place.format(i): make(5 + i)})
    episodes, text = read_as_drafted(tmp_path)
    assert [raw.n_steps() for raw in episodes] == [5, 6, 7]
    assert all(kept <= raw.metadata.keys() for raw in episodes)
    assert "per_episode" in text


def test_arrays_of_an_episode_in_npz_are_kept(tmp_path: Path) -> None:
    for i in range(3):
        names = np.array([f"j{n}" for n in range(4)])
        arrays = {"dof_names": names, "bounds": np.zeros((2, 80)), "dof_pos": np.zeros((9 + i, 4))}
        np.savez(tmp_path / f"motion_{i}.npz", fps=60, **arrays)
    episodes, _ = read_as_drafted(tmp_path)
    assert [raw.n_steps() for raw in episodes] == [9, 10, 11]
    assert all({"dof_names", "bounds", "fps"} <= raw.metadata.keys() for raw in episodes)


class Described:
    """A reader of a format, without files."""

    def __init__(self, form: str) -> None:
        self.format = form

    def layout(self) -> dict[str, Any]:
        return {"ignore": ["other"]} if self.format == "hdf5" else {}


@pytest.mark.parametrize(
    ("form", "keys", "notes"),
    [
        (
            "hdf5",
            {"drop_last": ["obs.q"], "per_episode": ["init"], "ignore": ["camera", "other", "scan"]},
            [
                "source.drop_last: their last row is not read (1, with one row more than the action): obs.q (rows: 6,",
                "source.per_episode: values of the episode (1, with the same number of rows in each): init (rows: 1,",
                "source.ignore: not read (2, with other numbers of rows than steps): scan (rows: 8, steps: 5), camera",
            ],
        ),
        ("rlds", {}, ["Episodes will be quarantined, because the action has another number of steps: init (rows: 1,"]),
    ],
)
def test_only_what_no_other_key_reads_is_ignored(form: str, keys: dict[str, Any], notes: list[str]) -> None:
    lengths = {"action": (5, 6), "init": (1, 1), "obs.q": (6, 7), "scan": (8, 7)}
    fields = {path: Field(path=path, kind="number", shape=(3,)) for path in lengths}
    fields |= {"camera": Field(path="camera", kind="image")}
    episodes = [{path: np.zeros((rows[i], 3)) for path, rows in lengths.items()} for i in range(2)]
    odd = odd_fields(sampled(fields, episodes, rows={"camera": (2,)}))
    found = layout(Described(form), odd)  # type: ignore[arg-type]
    assert found[0] == keys
    assert all(note.startswith(start) for note, start in zip(found[1], notes, strict=True))


def test_without_an_action_most_columns_have_a_row_per_step() -> None:
    lengths = {"a_goal": (1, 1), "obs.p": (5, 6), "obs.q": (5, 6)}
    fields = {path: Field(path=path, kind="number", shape=(3,)) for path in lengths}
    episodes = [{path: np.zeros((rows[i], 3)) for path, rows in lengths.items()} for i in range(2)]
    assert [field.path for field in odd_fields(sampled(fields, episodes))] == ["a_goal"]
