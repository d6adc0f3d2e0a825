"""Zarr stores with a group per episode, arrays without values, and videos beside a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.convert.convert import convert
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SpecError, UsageError
from schemas.store.dataset import open_dataset
from tests.makers import write_video, write_zarr
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded

zarr = pytest.importorskip("zarr", reason="the extra 'zarr'")

opened = Opener("zarr")
reading = Reading(opened)
episodes, outcome, details = reading.episodes, reading.outcome, reading.details
SPEC = f"""
name       = "toy"
control_hz = 10
id         = "episode_path"
{ARM}
[action]
joints = "action"
"""


def make(length: int) -> dict[str, Any]:
    return {
        "action": np.full((length, 2), length, np.float32),
        "obs/q": np.zeros((length, 3)),
        "obs/img": np.full((length, 4, 4, 3), length, np.uint8),
        "init": np.full((1, 9), length),
    }


def write(store: Path, names: dict[str, int], zarr_format: Any = 2, **more: Any) -> Path:
    held = {f"{name}/{path}": values for name, length in names.items() for path, values in make(length).items()}
    return write_zarr(store, {**held, **more}, zarr_format=zarr_format)


# --- a group per episode ---


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ({"episode_0": 3, "episode_1": 6, "episode_10": 9}, "episode_*"),
        ({"data/0": 3, "data/1": 6, "data/10": 9}, "data/[0-9]*"),
        ({"2025-01-01": 3, "2025-01-02": 6, "2025-02-01": 9}, "[0-9]*"),
    ],
)
def test_groups_are_the_episodes(tmp_path: Path, names: dict[str, int], pattern: str, zarr_format: int) -> None:
    store = write(tmp_path / "x.zarr", names, zarr_format, **{"meta/version": np.ones(2)})
    reader = opened(store)
    assert reader.layout() == {"episodes": pattern, "per_episode": ["init"]}
    assert sorted(reader.guesses()) == ["episodes", "per_episode"]
    assert [str(left) for left in reader.left_out()] == ["meta"]
    for layout in ({}, {"episodes": pattern, "per_episode": ["init"]}):
        found = episodes(store, **layout)
        assert [episode.n_steps() for episode in found] == [3, 6, 9]
        assert [episode.metadata["episode_path"] for episode in found] == [*names]
        assert found[1].metadata["init"] == [[6] * 9]
        assert np.array_equal(np.asarray(found[2].steps["action"]), make(9)["action"])
        assert [int(decoded(image)[0, 0, 0]) for image in found[2].steps["obs.img"]] == [9] * 9


def test_an_episode_that_differs_is_counted(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", {"ep_0": 3, "ep_1": 6}, **{"ep_2/action": np.zeros((4, 2), np.float32)})
    assert outcome(store) == ["ok", "ok", "contradicts_fields"]
    assert outcome(store, episodes="ep_*", ignore=["/ep_2"]) == ["ok", "ok"]


def test_each_store_can_be_an_episode(tmp_path: Path) -> None:
    for i in (2, 10):
        write_zarr(tmp_path / f"{i}.zarr", make(i))
    found = episodes(tmp_path, episodes="/", per_episode=["init"])
    assert [episode.n_steps() for episode in found] == [2, 10]


def test_groups_that_look_the_same_elsewhere_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", {"ep_0": 3, "ep_1": 6, "more/ep_2": 9})
    with pytest.raises(UsageError, match=r"source\.episodes = 'ep_\*'.*source\.episodes = 'more/ep_\*'"):
        opened(store)


def test_groups_convert_and_verify(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", {"ep_0": 3, "ep_1": 6})
    source = '{ format = "zarr", uri = "x.zarr", episodes = "ep_*", per_episode = ["init"] }'
    (tmp_path / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    assert convert(catalog.dataset(str(tmp_path / "toy.toml")), tmp_path / "out", source=str(store)).kept == 2
    assert verify(open_dataset(tmp_path / "out"), source=str(store)).first == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{ format = "zarr", episodes = "x", steps = "data" }', "episode_ends and steps have no meaning"),
        ('{ format = "zarr", per_episode = ["x"] }', "per_episode: needs episodes"),
    ],
)
def test_keys_of_the_other_layout_are_refused(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    with pytest.raises(SpecError, match=words):
        catalog.dataset(str(tmp_path / "toy.toml"))


# --- arrays without values ---


def buffer(**more: Any) -> dict[str, Any]:
    rows = np.arange(14, dtype=np.float32)
    return {"data/action": np.stack([rows, rows], 1), "meta/episode_ends": np.array([6, 14]), **more}


def test_arrays_without_values_are_left_out_with_a_note(tmp_path: Path) -> None:
    empty = {"data/points": np.zeros((14, 0)), "data/contacts": np.zeros((0, 3)), "meta/tags": np.zeros(0)}
    store = write_zarr(tmp_path / "x.zarr", buffer(**empty))
    reader = opened(store)
    assert [field.path for field in reader.fields] == ["episode_path", "action"]
    assert reader.notes() == [
        "contacts: the shape is [0, 3], so it is left out.",
        "meta.tags: the shape is [0], so it is left out.",
        "points: the shape is [14, 0], so it is left out.",
    ]
    assert len(episodes(store)) == 2
    grouped = write(tmp_path / "y.zarr", {"ep_0": 3, "ep_1": 6}, **{f"ep_{i}/points": np.zeros((3, 0)) for i in (0, 1)})
    assert opened(grouped).notes() == ["points: the shape is [3, 0], so it is left out."]


# --- videos beside a store ---


VIDEOS = {"camera.front": "videos/{episode}/0.mp4"}


def write_real(folder: Path, **frames: int) -> Path:
    """Write the layout of diffusion policy's recordings of a real robot."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    store = write_zarr(folder / "replay_buffer.zarr", buffer(**{"meta/serial": np.array([7, 8])}))
    for i, count in enumerate((6, 8)):
        write_video(folder / f"videos/{i}/0.mp4", frames=frames.get(f"_{i}", count), first=10 * i)
        write_video(folder / f"videos/{i}/1.mp4", frames=3, first=0)
    return store


def test_videos_beside_a_store_are_read_where_they_are_declared(tmp_path: Path) -> None:
    store = write_real(tmp_path)
    for uri in (tmp_path, store):
        for i, episode in enumerate(episodes(uri, videos=VIDEOS)):
            assert episode.n_steps() == (6, 8)[i]
            brightness = [float(decoded(image).mean()) for image in episode.steps["camera.front"]]
            assert brightness == pytest.approx([5 * (10 * i + n) for n in range((6, 8)[i])], abs=2)
        assert [str(left) for left in opened(uri, videos=VIDEOS).left_out()] == ["2 videos, such as videos/0/1.mp4"]


def test_videos_that_are_not_declared_are_counted_with_the_key(tmp_path: Path) -> None:
    store = write_real(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    for uri, others in ((tmp_path, ["notes.txt"]), (store, [])):
        reader = opened(uri)
        assert [str(left) for left in reader.left_out()] == ["4 videos, such as videos/0/0.mp4", *others]
        (note,) = reader.notes()
        assert "declare source.videos, such as { \"camera\" = 'videos/{episode}/0.mp4' }" in note


@pytest.mark.parametrize(
    ("pattern", "frames", "reason"),
    [
        ("videos/{episode}/0.mp4", 7, "frame_count"),
        ("videos/{episode}/2.mp4", 6, "missing_video"),
        ("videos/{episode}/*.mp4", 6, "ambiguous_file"),
    ],
)
def test_a_video_that_does_not_fit_is_counted(tmp_path: Path, pattern: str, frames: int, reason: str) -> None:
    store = write_real(tmp_path, _0=frames)
    assert outcome(store, videos={"camera": pattern})[0] == reason


def test_a_video_is_named_by_a_value_or_by_a_number_with_zeros(tmp_path: Path) -> None:
    store = write_real(tmp_path)
    for i, count in enumerate((6, 8)):
        write_video(tmp_path / f"by_serial/{7 + i}.mp4", frames=count, first=0)
        write_video(tmp_path / f"replay_buffer_cam/episode_{i:03}.mp4", frames=count, first=0)
    for pattern in ("by_serial/{meta.serial}.mp4", "{file}_cam/episode_{episode:03}.mp4"):
        assert outcome(store, videos={"camera": pattern}) == ["ok", "ok"]
    with pytest.raises(SpecError, match=r"'{meta\.seriel}' is not a value; did you mean 'meta\.serial'"):
        opened(store, videos={"camera": "{meta.seriel}.mp4"})


def test_videos_beside_a_store_convert_and_verify(tmp_path: Path) -> None:
    store = write_real(tmp_path)
    source = '{ format = "zarr", uri = "replay_buffer.zarr", videos = { front = "videos/{episode}/0.mp4" } }'
    (tmp_path / "toy.toml").write_text(f'source = {source}\ncameras = {{ primary = "front" }}\n{SPEC}')
    assert convert(catalog.dataset(str(tmp_path / "toy.toml")), tmp_path / "out", source=str(store)).kept == 2
    assert verify(open_dataset(tmp_path / "out"), source=str(store)).first == []
