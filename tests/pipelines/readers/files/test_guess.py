"""The guess of what episodes are called: every folder that looks like an episode is read, and others are counted."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers.files.reader import EpisodeFilesReader
from pipelines.readers.find import find_sources
from pipelines.readers.registry import guess, open_source
from schemas.errors import SourceError, UsageError
from tests.pipelines.readers.reading import Opener, Reading
from tests.pipelines.toy import oxe

opener = Opener("folder")
reading = Reading(opener)


def write(folder: Path, number: float = 0, **arrays: Any) -> None:
    """Write the folder of one episode: a table, an array and a text."""
    folder.mkdir(parents=True)
    for name, values in {"action": np.full((4, 7), number), **arrays}.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "lang.txt").write_text("pick")


def paths(folder: Path) -> list[str]:
    """Return the paths of all episodes of the only source in a folder, opened as nothing is declared."""
    assert [each.format for each in find_sources(str(folder))] == ["folder"]
    reader = open_source(str(folder))
    again = [episode.metadata["episode_path"] for episode in reading.episodes(folder, **reader.layout())]
    assert [episode.metadata["episode_path"] for episode in reading.episodes(folder)] == again
    assert "episodes" in reader.guesses()
    return again


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["2024-05-01_12-00-01", "2024-05-01_12-03-44", "2024-05-02_09-10-00"], "[0-9]*"),
        (["20240501T120001", "20240502T091000"], "[0-9]*"),
        (["2024.05.01 12:00", "2024.05.02 09:10"], "[0-9]*"),
        (["0", "1", "10"], "[0-9]*"),
        (["ep_0", "ep_1", "run2"], "*"),
        (["scene1_ep_0", "scene1_ep_1", "scene2_ep_0"], "scene*"),
        (["episode 1", "episode 2", "episode 10"], "episode *"),
        (["alice_cup", "bob_cup"], "*"),
        (["Änne", "☂ umbrella"], "*"),
        (["take [1]", "take [2]", "take *"], "take *"),
        (["[a]1", "[a]2"], "[[]a]*"),
        (["pick.cup", "pick.v2.cup"], "pick.*"),
        (["3f2a-77b1", "c0de-0001", "dead-beef"], "*"),
        (["(copy) ep", "ep", "ep copy 2"], "*"),
    ],
)
def test_folders_with_the_same_files_are_episodes_of_one_source(
    tmp_path: Path, names: Sequence[str], pattern: str
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "source" / name, number)
    assert sorted(paths(tmp_path / "source")) == sorted(names)
    reader = open_source(str(tmp_path / "source"))
    assert reader.layout() == {"episodes": pattern}
    assert reader.left_out() == ()


def test_a_folder_with_other_files_is_counted_and_does_not_block(tmp_path: Path) -> None:
    for name in ("ep_0", "ep_1", "run2"):
        write(tmp_path / name)
    for name in ("calibration", "logs", "notes"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "calibration/intrinsics.npy", np.eye(3))
    (tmp_path / "README.md").touch()
    (tmp_path / "split.csv").write_text("a\n1\n")
    assert paths(tmp_path) == ["ep_0", "ep_1", "run2"]
    left_out = [str(each) for each in open_source(str(tmp_path)).left_out()]
    assert left_out == ["3 folders, such as calibration", "2 files, such as README.md"]


def test_folders_that_no_pattern_tells_apart_are_left_out_by_name(tmp_path: Path) -> None:
    for name in ("alice", "bob", "carol"):
        write(tmp_path / name)
    (tmp_path / "backup").mkdir()
    (tmp_path / "index.csv").write_text("a\n1\n")
    assert paths(tmp_path) == ["alice", "bob", "carol"]
    reader = open_source(str(tmp_path))
    assert reader.layout() == {"episodes": "*/", "ignore": ["backup"]}
    assert reader.guesses()["ignore"] == "['backup'], folders with other files"
    assert [str(each) for each in reader.left_out()] == ["backup", "index.csv"]


def test_a_pattern_of_folders_does_not_read_files_with_their_names(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"episode_{number}")
    (tmp_path / "episode_list.csv").write_text("a\n1\n")
    assert paths(tmp_path) == ["episode_0", "episode_1"]
    assert open_source(str(tmp_path)).layout() == {"episodes": "episode_*/"}


def test_damaged_episodes_with_numbered_names_are_not_left_out(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"2024-05-0{number}")
    (tmp_path / "2024-05-01/action.npy").unlink()
    (tmp_path / "2024-06-01").mkdir()
    assert reading.outcome(tmp_path) == ["ok", "contradicts_fields", "ok", "missing_file"]


def test_an_episode_without_its_text_is_still_alike(tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        write(tmp_path / name)
    (tmp_path / "bob/lang.txt").unlink()
    assert paths(tmp_path) == ["alice", "bob"]


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (["2024-05-01", "2024-05-02"], ["12-00-01", "12-03-44"]),
        (["session_1", "session_2"], ["episode_0", "episode_1"]),
        (["traj_group0", "traj_group1"], ["traj0", "traj10"]),
        (["2024-05-01", "2024-06-01"], ["take 1"]),
    ],
)
def test_episodes_in_folders_of_a_day_or_a_session_are_found(
    tmp_path: Path, outer: Sequence[str], inner: Sequence[str]
) -> None:
    for day in outer:
        for name in inner:
            write(tmp_path / day / name)
    write(tmp_path / outer[0] / f"{inner[0]}7")
    assert len(paths(tmp_path)) == len(outer) * len(inner) + 1


def test_folders_of_two_arms_are_fields_of_one_episode(tmp_path: Path) -> None:
    for number in range(2):
        for arm in ("left", "right", "arm_0", "arm_1"):
            write(tmp_path / f"episode_{number}/{arm}")
    (first, _) = reading.episodes(tmp_path)
    assert "left.action" in first.steps
    assert "arm_1.action" in first.steps


def test_files_with_several_stems_are_one_source_and_files_of_another_type_are_counted(tmp_path: Path) -> None:
    for name in ("a_1.npz", "run2.npz", "pick cup.npz"):
        np.savez(tmp_path / name, action=np.zeros((3, 2)))
    for name in ("a_1.csv", "run2.csv"):
        (tmp_path / name).write_text("a\n1\n")
    (tmp_path / "calib").mkdir()
    assert paths(tmp_path) == ["a_1.npz", "pick cup.npz", "run2.npz"]
    assert [str(each) for each in open_source(str(tmp_path)).left_out()] == ["calib", "2 files, such as a_1.csv"]


def test_the_type_of_most_files_is_the_episodes(tmp_path: Path) -> None:
    np.savez(tmp_path / "calibration.npz", k=np.eye(3))
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text("a\n1\n")
    assert paths(tmp_path) == ["0.csv", "1.csv", "2.csv"]


def test_arrays_with_names_and_the_same_rows_are_one_episode(tmp_path: Path) -> None:
    write(tmp_path / "pick cup", state=np.zeros((4, 7)))
    reader = open_source(str(tmp_path / "pick cup"))
    assert reader.layout() == {"episodes": "."}
    (episode,) = reading.episodes(tmp_path / "pick cup")
    assert {*episode.steps} == {"action", "state"}
    assert reader.left_out() == ()


def test_arrays_with_names_and_other_rows_are_episodes(tmp_path: Path) -> None:
    for number, name in enumerate(("alice", "bob")):
        np.save(tmp_path / f"{name}.npy", np.zeros((4 + number, 7)))
    assert paths(tmp_path) == ["alice.npy", "bob.npy"]


def test_tables_beside_folders_are_counted_and_folders_beside_numbered_files_too(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"tables/ep_{number}")
        write(tmp_path / f"files/calibration_{number}")
        for name in ("metrics", "index", "speed"):
            (tmp_path / f"tables/{name}.csv").write_text("a\n1\n")
    for number in range(3):
        np.savez(tmp_path / f"files/{number}.npz", action=np.zeros((3, 2)))
    assert paths(tmp_path / "tables") == ["ep_0", "ep_1"]
    assert [str(each) for each in open_source(str(tmp_path / "tables")).left_out()] == ["3 files, such as index.csv"]
    assert paths(tmp_path / "files") == ["0.npz", "1.npz", "2.npz"]
    assert [str(each) for each in open_source(str(tmp_path / "files")).left_out()] == [
        "2 folders, such as calibration_0"
    ]


def test_numbered_files_in_folders_of_tasks_are_episodes(tmp_path: Path) -> None:
    for task in range(2):
        (tmp_path / f"task_{task}").mkdir()
        for number in range(3):
            np.savez(tmp_path / f"task_{task}/{number}.npz", action=np.zeros((2 + number, 2)))
    assert len(paths(tmp_path)) == 6


def test_folders_of_tasks_with_numbered_files_stay_sources_of_their_own(tmp_path: Path) -> None:
    for task in ("cup", "plate"):
        (tmp_path / task).mkdir()
        for number in range(3):
            np.savez(tmp_path / task / f"{number}.npz", action=np.zeros((2 + number, 2)))
    assert [each.uri for each in find_sources(str(tmp_path))] == [str(tmp_path / task) for task in ("cup", "plate")]


def test_a_file_whose_name_is_a_pattern_is_opened_alone(tmp_path: Path) -> None:
    for name in ("take[1].npz", "take1.npz"):
        np.savez(tmp_path / name, action=np.zeros((3, 2)))
    reader = open_source(str(tmp_path / "take[1].npz"))
    assert [part.name for parts in reader.files().values() for part in parts] == ["take[1].npz"]
    assert (reader.left_out(), reader.guesses()) == ((), {})


def test_an_unknown_folder_has_no_episodes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recordings are recognized"):
        guess(str(tmp_path))


def test_names_with_spaces_are_inspected_and_drafted(tmp_path: Path) -> None:
    for name in ("episode 1", "episode 2", "episode ☂"):
        write(tmp_path / "my recordings" / name)
    assert oxe("inspect", tmp_path / "my recordings", "--json").json()["episodes"] == 3
    draft = oxe("inspect", tmp_path / "my recordings", "--draft", "-")
    assert 'episodes = "episode *"' in draft.out


NAMES = st.one_of(
    st.from_regex(r"(ep|run |2024-0[1-9]-|)[0-9]{1,3}", fullmatch=True),
    st.text(st.characters(categories=("L", "N"), include_characters=" _-()[]!*?."), min_size=1, max_size=8),
).filter(lambda name: name[0] != "." and name.strip() == name and "\0" not in name)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.sampled_from(["action", "action", "other", "empty"]), min_size=1, max_size=8))
def test_every_folder_is_read_or_counted(folders: dict[str, str]) -> None:
    """Whatever folders are called, all with the same files as an episode are episodes, and the rest is counted."""
    with tempfile.TemporaryDirectory() as below:
        for name, content in folders.items():
            (Path(below) / name).mkdir()
            if content != "empty":
                np.save(Path(below) / name / f"{content}.npy", np.zeros((3, 2)))
        names = [path.name for path in Path(below).iterdir()]
        contents = {name: sorted(path.name for path in (Path(below) / name).iterdir()) for name in names}
        try:
            reader = EpisodeFilesReader(below)
        except (UsageError, SourceError):
            return
        kinds = [contents[name] for name in reader.names if contents[name]]
        most = max(kinds, key=kinds.count)
        assert {name for name in names if contents[name] == most} <= {*reader.names}
        assert len(reader.names) + sum(each.count for each in reader.left_out()) == len(names)
