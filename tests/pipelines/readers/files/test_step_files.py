"""Episodes with a file for each time step, with and without a list of ranges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from pipelines.readers.registry import open_source
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError, UsageError
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded
from tests.pipelines.toy import jpeg, oxe

opened = Opener("folder")
reading = Reading(opened)
CALVIN = {"episodes": ".", "step_files": "episode_*.npz", "step_ranges": "ep_start_end_ids.npy"}


def step(number: int) -> dict[str, Any]:
    """Return the arrays of one step of CALVIN."""
    return {
        "actions": np.arange(7) + number,
        "robot_obs": np.full(15, number, np.float32),
        "scene_obs": np.zeros(24),
        "rgb_static": np.full((20, 24, 3), number, np.uint8),
        "depth_static": np.full((20, 24), number / 2, np.float32),
    }


def write_calvin(folder: Path, ranges: Any = ((100, 105), (106, 111)), *, first: int = 100, count: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        np.savez(folder / f"episode_{number:07d}.npz", **step(number))
    np.save(folder / "ep_start_end_ids.npy", np.array(ranges))
    return folder


def test_ranges_of_step_files_are_episodes_and_both_ends_belong_to_them(tmp_path: Path) -> None:
    first, second = reading.episodes(write_calvin(tmp_path), **CALVIN)
    assert (first.n_steps(), second.n_steps()) == (6, 6)
    assert np.asarray(second.steps["actions"]).tolist() == [step(i)["actions"].tolist() for i in range(106, 112)]
    assert np.asarray(first.steps["robot_obs"]).dtype == np.float32
    assert np.asarray(first.steps["depth_static"]).shape == (6, 20, 24)
    assert [decoded(image)[0, 0, 0] for image in second.steps["rgb_static"]] == list(range(106, 112))
    assert [each.metadata for each in (first, second)] == [
        {"episode_path": "episode_0000100.npz"},
        {"episode_path": "episode_0000106.npz"},
    ]


def test_calvins_list_is_recognized_and_printed_as_a_guess(tmp_path: Path) -> None:
    reader = open_source(str(write_calvin(tmp_path / "training")))
    assert reader.layout() == CALVIN
    assert set(reader.guesses()) == {"episodes", "step_files", "step_ranges"}
    assert oxe("inspect", tmp_path / "training", "--json").json()["steps"] == 12


def test_several_folders_may_have_a_list_each(tmp_path: Path) -> None:
    for name, first in (("training", 100), ("validation", 112)):
        write_calvin(tmp_path / name, [(first, first + 3)], first=first, count=4)
    found = reading.episodes(tmp_path, **{**CALVIN, "episodes": "*"})
    assert [each.metadata["episode_path"] for each in found] == [
        "training/episode_0000100.npz",
        "validation/episode_0000112.npz",
    ]


def test_files_outside_all_ranges_are_counted(tmp_path: Path) -> None:
    write_calvin(tmp_path, [(101, 103), (106, 109)])
    (tmp_path / "statistics.yaml").touch()
    left_out = [str(each) for each in opened(tmp_path, **CALVIN).left_out()]
    assert left_out == [
        "5 step files outside all ranges, such as episode_0000100.npz",
        "statistics.yaml",
    ]


def test_a_range_with_a_missing_file_is_quarantined(tmp_path: Path) -> None:
    write_calvin(tmp_path, [(100, 102), (103, 105), (106, 112), (99, 99)])
    (tmp_path / "episode_0000104.npz").unlink()
    assert reading.outcome(tmp_path, **CALVIN) == ["missing_file", "ok", "missing_file", "missing_file"]
    assert "1 of 7 step files are missing, such as episode_0000112.npz" in reading.details(tmp_path, **CALVIN)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ([(100, 105), (105, 111)], "the ranges 100 to 105 and 105 to 111 overlap"),
        ([(106, 111), (100, 106)], "the ranges 100 to 106 and 106 to 111 overlap"),
        ([(105, 100)], "105 to 100 is not one of steps"),
        ([(-1, 4)], "-1 to 4 is not one of steps"),
        ([100, 105], "expected whole numbers"),
        ([(0.5, 2.5)], "expected whole numbers"),
        ([(0, 1 << 60)], "is not one of steps"),
    ],
)
def test_impossible_ranges_are_refused(tmp_path: Path, ranges: Any, words: str) -> None:
    write_calvin(tmp_path, ranges)
    with pytest.raises(SourceError, match=words) as caught:
        opened(tmp_path, **CALVIN)
    assert caught.value.reason == "bad_ends"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"step_ranges": "ids.npy"}, r"no such file \(source\.step_ranges\)"),
        ({"step_files": "x_*.npz"}, r"no file here is called 'x_\*\.npz' \(source\.step_files\)"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path: Path, changed: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        opened(write_calvin(tmp_path), **{**CALVIN, **changed})


def test_ranges_need_step_files() -> None:
    with pytest.raises(ValueError, match=r"step_ranges: needs source\.step_files"):
        FolderSource(format="folder", episodes=".", step_ranges="ids.npy")


# --- a folder for each episode ---


def write_arrays(file: Path, number: int) -> None:
    np.savez(file.with_suffix(".npz"), action=np.arange(7) + number, done=np.array(number == 4), word=np.array("☂"))


def write_array(file: Path, number: int) -> None:
    np.save(file.with_suffix(".npy"), np.arange(7) + number)


def write_object(file: Path, number: int) -> None:
    file.with_suffix(".json").write_text(json.dumps({"action": [number + i for i in range(7)], "robot": {"ok": True}}))


WRITERS = {"npz": write_arrays, "npy": write_array, "json": write_object}


def write_folders(folder: Path, form: str, *, stem: str = "step_", below: str = "") -> Path:
    for episode in range(2):
        files = folder / f"ep_{episode}" / below
        (folder / f"ep_{episode}/cam").mkdir(parents=True)
        files.mkdir(exist_ok=True)
        for number in range(5 + episode):
            WRITERS[form](files / f"{stem}{number}", number)
            (folder / f"ep_{episode}/cam/{number}.jpg").write_bytes(jpeg(number))
        (folder / f"ep_{episode}/lang.txt").write_text("pick")
    return folder


@pytest.mark.parametrize("form", ["npz", "npy", "json"])
@pytest.mark.parametrize("below", ["", "steps/"])
def test_a_folder_of_step_files_is_an_episode(tmp_path: Path, form: str, below: str) -> None:
    pattern = f"{below}step_*.{form}"
    found = reading.episodes(write_folders(tmp_path, form, below=below), episodes="ep_*", step_files=pattern)
    path = "values" if form == "npy" else "action"
    assert [each.n_steps() for each in found] == [5, 6]
    assert np.asarray(found[1].steps[path]).tolist() == [[number + i for i in range(7)] for number in range(6)]
    assert list(found[0].steps["cam"]) == [jpeg(number) for number in range(5)]
    assert found[0].metadata == {"episode_path": "ep_0", "lang": ["pick"]}
    if form == "npz":
        assert np.asarray(found[0].steps["done"]).tolist() == [False] * 4 + [True]
        assert [bytes(word).decode() for word in found[0].steps["word"]] == ["☂"] * 5


def test_the_folder_of_the_source_may_be_one_episode(tmp_path: Path) -> None:
    write_folders(tmp_path, "npz")
    fsspec.filesystem("memory").put(str(tmp_path / "ep_1"), "/steps", recursive=True)
    for uri in (str(tmp_path / "ep_1"), "memory://steps"):
        (episode,) = reading.episodes(uri, episodes=".", step_files="step_*.npz")
        assert (episode.n_steps(), episode.metadata["episode_path"]) == (6, ".")
    fsspec.filesystem("memory").rm("/steps", recursive=True)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda e: (e / "step_2.npz").unlink(), "frame_count", "steps are missing between step_1.npz and step_3.npz"),
        (lambda e: np.savez(e / "step_2.npz", action=np.arange(7)), "contradicts_fields", "is missing in step_2.npz"),
        (lambda e: write_arrays(e / "step_6", 6), "frame_count", "cam has 6 frames, but there are 7 rows"),
        (lambda e: (e / "step_2.npz").write_bytes(b"x"), "truncated", "the npz file is incomplete"),
        (
            lambda e: np.savez(e / "step_2.npz", action=np.zeros(6), done=np.bool_(0), word=np.array("x")),
            "contradicts_fields",
            "action is numbers float64 [6] here",
        ),
        (
            lambda e: np.savez(e / "step_2.npz", action=np.array([{}], object)),
            "unsupported_field",
            "action contains Python objects",
        ),
    ],
)
def test_a_damaged_step_quarantines_its_episode_alone(
    tmp_path: Path, change: Callable[[Path], Any], reason: str, words: str
) -> None:
    change(write_folders(tmp_path, "npz") / "ep_1")
    keys = {"episodes": "ep_*", "step_files": "step_*.npz"}
    assert reading.outcome(tmp_path, **keys) == ["ok", reason]
    assert words in reading.details(tmp_path, **keys)


def test_names_that_do_not_count_steps_are_declared(tmp_path: Path) -> None:
    (tmp_path / "ep_0").mkdir()
    for number in (17, 20, 31):
        write_arrays(tmp_path / f"ep_0/{number}", number)
    keys = {"episodes": "ep_*", "step_files": "*.npz"}
    with pytest.raises(SourceError, match=r"source\.unnumbered = \['step_files'\]"):
        opened(tmp_path, **keys)
    (episode,) = reading.episodes(tmp_path, **keys, unnumbered=["step_files"])
    assert np.asarray(episode.steps["action"])[:, 0].tolist() == [17, 20, 31]


# --- without a declaration ---


@pytest.mark.parametrize("stem", ["step_", "frame", "episode_", ""])
@pytest.mark.parametrize("vectors", [("action", "state"), ("action",)])
def test_files_that_seem_to_hold_one_step_are_refused_and_name_the_key(
    tmp_path: Path, stem: str, vectors: tuple[str, ...]
) -> None:
    for number in range(12):
        arrays = {name: np.zeros(7 + i) for i, name in enumerate(vectors)}
        np.savez(tmp_path / f"{stem}{number:05d}.npz", **arrays, rgb=np.zeros((20, 24, 3), np.uint8))
    with pytest.raises(UsageError, match=rf"seems to hold one step.*source\.step_files = '{stem}\*\.npz'"):
        open_source(str(tmp_path))
    (episode,) = reading.episodes(tmp_path, episodes=".", step_files=f"{stem}*.npz")
    assert episode.n_steps() == 12


def test_calvin_without_its_list_is_refused(tmp_path: Path) -> None:
    """The list is missing in some copies: https://github.com/acl21/diwa/issues/15."""
    (write_calvin(tmp_path) / "ep_start_end_ids.npy").unlink()
    with pytest.raises(UsageError, match=r"source\.step_files = 'episode_\*\.npz' \(and source\.step_ranges"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("form", ["npz", "npy", "json"])
@pytest.mark.parametrize("stem", ["step_", ""])
def test_folders_of_step_files_are_refused_and_name_the_key(tmp_path: Path, form: str, stem: str) -> None:
    write_folders(tmp_path, form, stem=stem)
    with pytest.raises(UsageError, match=rf"source\.step_files = '{stem}\*\.{form}'"):
        open_source(str(tmp_path))


def test_declared_episodes_that_seem_to_be_steps_are_a_note(tmp_path: Path) -> None:
    write_folders(tmp_path, "npz")
    (note,) = opened(tmp_path, episodes="ep_*").notes()
    assert note.endswith("declare source.step_files = 'step_*.npz'")
    (note,) = opened(tmp_path / "ep_0", episodes="*.npz").notes()
    assert note.endswith("declare source.step_files = 'step_*.npz'")
    assert opened(tmp_path, episodes="ep_*", step_files="step_*.npz").notes() == []


def test_files_with_rows_are_episodes_also_with_a_matrix_or_a_fixed_length(tmp_path: Path) -> None:
    for number in range(4):
        np.savez(tmp_path / f"{number}.npz", action=np.zeros((100, 7)), reward=np.zeros(100), k=np.array(1.0))
    assert len(reading.episodes(tmp_path)) == 4


def test_step_files_are_converted_and_verified(tmp_path: Path) -> None:
    write_calvin(tmp_path / "training")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "training/preview.png")
    (tmp_path / "toy.toml").write_text(f"""
name       = "toy"
control_hz = 30
id         = "episode_path"
cameras    = {{ primary = "rgb_static" }}
{ARM.replace("joint a b,", "joint a b c d e f g,")}
[action]
joints = "actions"
[source]
format      = "folder"
uri         = "training"
episodes    = "."
step_files  = "episode_*.npz"
step_ranges = "ep_start_end_ids.npy"
""")
    done = oxe("convert", tmp_path / "toy.toml", "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "note: not read: preview.png\n")
    assert oxe("verify", tmp_path / "out").code == 0
