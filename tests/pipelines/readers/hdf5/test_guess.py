"""Guessing where the episodes of HDF5 files are, and which of their arrays belong to the whole episode."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import SourceError, UsageError
from tests.makers import write_hdf5
from tests.pipelines.readers.demos import episodes, opened, outcome

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")

UUIDS = [f"{i}b91b4af-bce5-46a8-8f90-548d5e6e1d6{i}" for i in "a3cd"]
METADATA = {"metadata": {"version": 1}, "statistics/action": {"mean": np.zeros(7), "std": np.zeros(7)}}


def make(length: int) -> dict[str, Any]:
    return {"action": np.full((length, 7), length), "obs/q": np.zeros((length, 4)), "done": np.zeros(length, bool)}


def write(
    file: Path, names: Sequence[str], length: Callable[[int], int] = lambda i: 3 + 2 * i, **more: Mapping[str, Any]
) -> Path:
    """Write episodes of different lengths as groups, beside others."""
    return write_hdf5(file, {**{name: make(length(i)) for i, name in enumerate(names)}, **more})


def left_out(uri: Path) -> list[str]:
    return [str(left) for left in opened(uri).left_out()]


# --- groups beside others ---


@pytest.mark.parametrize("length", [lambda i: 3 + 2 * i, lambda _: 8])
@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["0", "1", "10", "2"], "[0-9]*"),
        (["demo_0", "demo_1", "demo_10", "demo_2"], "demo_*"),
        (["2024-05-05", "2025-01-02", "2025-01-03", "2026-03-02"], "[0-9]*"),
        (UUIDS, "-".join("?" * length for length in (8, 4, 4, 4, 12))),
        (["data/x/0", "data/x/1", "data/y/0", "data/y/1"], "data/*/[0-9]*"),
        (["train/demo_0", "train/demo_1", "test/demo_0", "test/demo_1"], "*/demo_*"),
    ],
)
def test_groups_that_look_the_same_are_the_episodes(
    tmp_path: Path, names: list[str], pattern: str, length: Callable[[int], int]
) -> None:
    file = write(tmp_path / "x.hdf5", names, length, **METADATA)
    reader = opened(file)
    assert reader.layout() == {"episodes": pattern}
    assert len(episodes(file)) == 4
    assert {field.path for field in reader.fields} == {"action", "obs.q", "done", "episode_path"}
    assert reader.guesses()["episodes"].startswith(f"'{pattern}', groups ")
    assert left_out(file) == ["2 groups, such as x.hdf5/metadata"]
    declared = opened(file, episodes=pattern)
    assert declared.guesses() == {}
    assert declared.left_out() == reader.left_out()


@pytest.mark.parametrize("names", [["pick", "place", "pour", "wipe"], ["train_0", "train_1", "val_0", "val_1"]])
def test_words_are_told_from_their_siblings_by_their_contents(tmp_path: Path, names: list[str]) -> None:
    file = write(tmp_path / "x.hdf5", names, **METADATA, **{"/": {"env_args": "{}"}})
    reader = opened(file)
    ignored = ["/env_args", "/metadata", "/statistics"]
    assert reader.layout() == {"episodes": "*", "ignore": ignored}
    assert sorted(reader.guesses()) == ["episodes", "ignore"]
    assert [int(np.asarray(episode.steps["action"])[0, 0]) for episode in episodes(file)] == [3, 5, 7, 9]
    assert left_out(file) == ["2 groups, such as x.hdf5/metadata", "x.hdf5/env_args"]
    assert opened(file, episodes="*", ignore=ignored).left_out() == []


def test_a_damaged_episode_is_not_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "x.hdf5", ["demo_0", "demo_1"], demo_2={}, demo_count={"x": 1})
    assert opened(file).layout() == {"episodes": "demo_*", "ignore": ["/demo_count"]}
    assert outcome(file) == ["ok", "ok", "contradicts_fields"]


def test_several_files_are_guessed_together(tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5", ["0", "1"])
    write(tmp_path / "b.hdf5", ["x", "y"], metadata={"n": 1})
    assert opened(tmp_path).layout() == {"episodes": "*", "ignore": ["/metadata"]}
    assert len(episodes(tmp_path)) == 4


def test_a_later_file_with_other_names_is_refused(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.hdf5", [f"demo_{i}"])
    write(tmp_path / "10.hdf5", ["run_0", "more/demo_1"])
    with pytest.raises(UsageError, match=r"10.hdf5: (more/demo_1|run_0) looks like the episodes, .*source.episodes"):
        opened(tmp_path).files()


@pytest.mark.parametrize(
    ("groups", "patterns"),
    [
        ({"demo_0": make(3), "demo_1": make(9), "more/demo_2": make(6)}, ["demo_*", "more/demo_*"]),
        ({f"{part}/ep_{i}": {part: np.zeros((3 + 4 * i, 7))} for part in "ab" for i in range(2)}, ["a/ep_*", "b/ep_*"]),
        ({f"task_{t}/demo_{i}": make(9) for t in range(2) for i in range(3)}, ["task_*/demo_*", "task_*"]),
        ({"left": make(9), "right": make(9)}, ["*", "/"]),
    ],
)
def test_patterns_that_are_equally_good_are_refused(
    tmp_path: Path, groups: dict[str, dict[str, Any]], patterns: list[str]
) -> None:
    with pytest.raises(UsageError, match=r"declare source\.episodes = ") as caught:
        opened(write_hdf5(tmp_path / "x.hdf5", groups))
    assert all(f"source.episodes = '{pattern}'" in str(caught.value) for pattern in patterns)


def robotwin(length: int) -> dict[str, Any]:
    cameras = {f"observation/cam_{i}/rgb": np.zeros((length, 4, 4, 3), np.uint8) for i in range(2)}
    return {**cameras, "joint_action/vector": np.zeros((length, 14))}


def arms(length: int) -> dict[str, Any]:
    return {f"arm_{i}/{name}": np.zeros((length, 7)) for i in range(2) for name in ("q", "action")}


@pytest.mark.parametrize("parts", [robotwin, arms])
def test_parts_of_one_episode_are_no_episodes(tmp_path: Path, parts: Callable[[int], dict[str, Any]]) -> None:
    for length in (5, 8):
        write_hdf5(tmp_path / f"{length}.hdf5", {"/": parts(length)})
    assert opened(tmp_path).layout() == {"episodes": "/"}
    assert [episode.n_steps() for episode in episodes(tmp_path)] == [5, 8]


# --- arrays of the whole episode ---


def test_arrays_without_a_row_per_step_are_guessed(tmp_path: Path) -> None:
    groups = {
        f"data/demo_{i}": {
            "actions": np.zeros((5 + i, 7)),
            "obs/q": np.zeros((5 + i, 9)),
            **{f"initial_state/robot/{name}": np.full((1, 9), i) for name in ("q", "v", "a")},
            "names": [f"joint {k}" for k in range(3)],
        }
        for i in range(2)
    }
    file = write_hdf5(tmp_path / "x.hdf5", groups)
    reader = opened(file)
    assert reader.layout() == {"episodes": "data/demo_*", "per_episode": ["initial_state", "names"]}
    assert "'initial_state', 'names'" in reader.guesses()["per_episode"]
    found = episodes(file)
    assert [episode.n_steps() for episode in found] == [5, 6]
    assert found[1].metadata["initial_state.robot.v"] == [[1] * 9]
    assert found[1].metadata["names"] == ["joint 0", "joint 1", "joint 2"]


def test_the_stored_lengths_of_alohas_images_belong_to_the_episode(tmp_path: Path) -> None:
    """`compress_len` is [cameras, T]: the number of bytes of each image."""
    for i in range(2):
        held = {"action": np.zeros((9, 14)), "observations/qpos": np.zeros((9, 14)), "compress_len": np.ones((4, 9))}
        write_hdf5(tmp_path / f"episode_{i}.hdf5", {"/": held})
    assert opened(tmp_path).layout() == {"episodes": "/", "per_episode": ["compress_len"]}
    assert [np.shape(episode.metadata["compress_len"]) for episode in episodes(tmp_path)] == [(4, 9), (4, 9)]


def test_a_stream_with_another_clock_is_not_an_array_of_the_episode(tmp_path: Path) -> None:
    groups = {f"demo_{i}": {"action": np.zeros((60, 7)), "ticks": np.zeros((20, 3))} for i in range(2)}
    assert opened(write_hdf5(tmp_path / "x.hdf5", groups)).layout() == {"episodes": "demo_*"}


# --- columns without values ---


def test_what_holds_no_values_is_left_out_with_a_note(tmp_path: Path) -> None:
    for i in range(2):
        held = {"action": np.zeros((6, 7)), "pointcloud": np.zeros((6, 0)), "contacts": np.zeros((0, 3))}
        write_hdf5(tmp_path / f"{i}.hdf5", {"/": held, "tactile": {}})
    for layout in ({}, {"episodes": "/"}):
        reader = opened(tmp_path, **layout)
        assert [field.path for field in reader.fields] == ["action", "episode_path"]
        assert reader.notes() == [
            "contacts: the shape is [0, 3] in the first episode, so it is left out.",
            "pointcloud: the shape is [6, 0] in the first episode, so it is left out.",
            "tactile: an empty group in the first episode, so it is left out.",
        ]
        assert len(episodes(tmp_path, **layout)) == 2


def test_a_column_that_a_later_episode_fills_is_not_lost(tmp_path: Path) -> None:
    groups = {f"demo_{i}": {"action": np.zeros((6, 7)), "points": np.ones((6, 3 * i))} for i in range(2)}
    assert outcome(write_hdf5(tmp_path / "x.hdf5", groups)) == ["ok", "contradicts_fields"]
    groups = {f"demo_{1 - i}": {"action": np.zeros((6, 7)), "points": np.ones((6 * i, 3))} for i in range(2)}
    first, second = episodes(write_hdf5(tmp_path / "y.hdf5", groups))
    assert first.n_steps() == 6
    with pytest.raises(SourceError, match="length"):
        second.n_steps()


# --- JSON texts ---


def test_values_in_json_texts_are_read(tmp_path: Path) -> None:
    """Robocasa has `ep_meta` as an attribute of each demo."""
    texts = [json.dumps({"lang": f"open {i}", "layout_id": i, "cfg": {"pos": 1}, "list": [1]}) for i in range(2)]
    groups = {f"data/demo_{i}": {"actions": np.zeros((5, 7)), "info": texts[i]} for i in range(2)}
    attributes = {f"data/demo_{i}": {"ep_meta": texts[i]} for i in range(2)}
    attributes["data"] = {"problem": json.dumps({"name": "kitchen", "inner": {"task_description": "open it"}})}
    reader = opened(write_hdf5(tmp_path / "x.hdf5", groups, attributes))
    assert reader.layout()["in_json"] == [
        "attrs.ep_meta.lang",
        "attrs.ep_meta.layout_id",
        "parent.problem.inner.task_description",
        "info.lang",
        "info.layout_id",
    ]
    assert "in_json" in reader.guesses()
    assert [episode.metadata["attrs.ep_meta.lang"] for episode in episodes(tmp_path / "x.hdf5")] == ["open 0", "open 1"]


def test_a_text_that_is_not_json_in_every_episode_stays_a_text(tmp_path: Path) -> None:
    groups = {f"demo_{i}": {"actions": np.zeros((5, 7)), "meta": text} for i, text in enumerate(['{"lang": "x"}', ""])}
    assert opened(write_hdf5(tmp_path / "x.hdf5", groups)).layout() == {"episodes": "demo_*"}


# --- files beside ---


def test_files_beside_are_counted_and_videos_can_be_declared(tmp_path: Path) -> None:
    for i in range(2):
        write_hdf5(tmp_path / f"episode_{i}.hdf5", {"/": make(5)})
        (tmp_path / f"videos/episode_{i}").mkdir(parents=True)
        (tmp_path / f"videos/episode_{i}/front.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    reader = opened(tmp_path)
    assert left_out(tmp_path) == ["2 videos, such as videos/episode_0/front.mp4", "notes.txt"]
    (note,) = reader.notes()
    assert "declare source.videos, such as { \"camera\" = 'videos/{file}/front.mp4' }" in note
    pytest.importorskip("av", reason="the extra 'lerobot'")
    declared = opened(tmp_path, episodes="/", videos={"camera": "videos/{file}/front.mp4"})
    assert ([str(left) for left in declared.left_out()], declared.notes()) == (["notes.txt"], [])
    assert [str(left) for left in opened(tmp_path / "episode_0.hdf5").left_out()] == [
        "2 videos, such as videos/episode_0/front.mp4"
    ]


# --- any layout ---


@settings(max_examples=40, deadline=None)
@given(
    parent=st.sampled_from(["", "data/", "a/b/"]),
    names=st.one_of(
        st.lists(st.integers(0, 300).map(str), min_size=1, max_size=5, unique=True),
        st.lists(st.from_regex(r"[a-z]{3,6}(_[0-9]{1,3})?", fullmatch=True), min_size=1, max_size=5, unique=True),
        st.lists(st.dates().map(str), min_size=1, max_size=5, unique=True),
        st.lists(st.uuids().map(str), min_size=1, max_size=5, unique=True),
    ),
    lengths=st.lists(st.integers(2, 30), min_size=5, max_size=5),
    siblings=st.sets(st.sampled_from(["Metadata", "Env_args", "Statistics", "Mask_7"])),
)
def test_episodes_are_read_whole_or_refused(
    parent: str, names: list[str], lengths: list[int], siblings: set[str]
) -> None:
    with TemporaryDirectory() as folder:
        groups = {f"{parent}{name}": make(length) for name, length in zip(names, lengths, strict=False)}
        others: dict[str, dict[str, Any]] = {name: {"version": 1, "mean": np.zeros(7)} for name in siblings}
        file = write_hdf5(Path(folder) / "x.hdf5", {**groups, **others})
        try:
            reader = opened(file)
        except UsageError:
            with pytest.raises(UsageError, match=r"source\.episodes"):
                opened(file)
            return
        if reader.layout()["episodes"] == "/":  # one episode with everything in it
            assert all(f"{path}/action".replace("/", ".") in {f.path for f in reader.fields} for path in groups)
            return
        found = episodes(file)
        assert sorted(episode.n_steps() for episode in found) == sorted(lengths[: len(names)])
        assert sum(left.count for left in reader.left_out()) == len(siblings)
