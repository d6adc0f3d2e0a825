"""Faults in recordings that people reported in public, rebuilt as small inputs; `docs/cases.md` lists the reports."""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers.registry import open_source
from schemas.errors import OxeError, SourceError
from schemas.source import Unreadable
from tests import bags
from tests.bags import Said
from tests.lerobot import drawn, edit_info, write_lerobot
from tests.makers import write_hdf5, write_rlds, write_video, write_zarr
from tests.pipelines.readers.reading import Opener, Reading, decoded
from tests.pipelines.toy import oxe

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
HDF5, LEROBOT, FOLDER, ROSBAG = (Reading(Opener(name)) for name in ("hdf5", "lerobot", "folder", "rosbag"))


# --- HDF5 ---


def write_droid(folder: Path, *, frames: Iterable[int]) -> None:
    for number, count in enumerate(frames):
        write_hdf5(folder / f"day_{number}/trajectory.h5", {"/": {"action": np.full((5, 7), number)}})
        write_video(folder / f"day_{number}/recordings/MP4/123.mp4", frames=count)


def test_a_video_with_one_frame_less_than_the_trajectory_is_quarantined(tmp_path: Path) -> None:
    """droid-dataset/droid #54."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    write_droid(tmp_path, frames=(5, 4))
    keys = {"files": "*/trajectory.h5", "episodes": "/", "videos": {"camera.wrist": "recordings/MP4/123.mp4"}}
    assert HDF5.outcome(tmp_path, **keys) == ["ok", "frame_count"]
    assert "4 frames, but the episode's other columns have 5 rows" in HDF5.details(tmp_path, **keys)


def test_a_half_downloaded_file_is_quarantined_and_the_other_files_are_read(tmp_path: Path) -> None:
    """Lifelong-Robot-Learning/LIBERO #76."""
    for name in "ab":
        write_hdf5(tmp_path / f"{name}_demo.hdf5", {f"data/demo_{i}": {"actions": np.ones((200, 7))} for i in range(2)})
    whole = (tmp_path / "a_demo.hdf5").read_bytes()
    (tmp_path / "a_demo.hdf5").write_bytes(whole[: len(whole) * 2 // 3])
    assert HDF5.outcome(tmp_path) == ["truncated", "ok", "ok"]
    run = oxe("inspect", tmp_path)
    assert "a_demo.hdf5" in run.out + run.err


def test_more_states_than_actions_are_never_paired_by_position(tmp_path: Path) -> None:
    """robocasa/robocasa #124: 50 states more than actions."""
    groups = {f"data/demo_{i}": {"actions": np.ones((4 + i, 2)), "states": np.ones((54 + i, 9))} for i in range(3)}
    write_hdf5(tmp_path / "demo.hdf5", groups)
    for number, episode in enumerate(HDF5.episodes(tmp_path)):
        with pytest.raises(SourceError, match=f"states has {54 + number} steps, actions has {4 + number} steps"):
            episode.n_steps()


# --- LeRobot ---


def episodes(*lengths: int, films: bool = False) -> list[dict[str, Any]]:
    made = []
    for number, count in enumerate(lengths):
        columns: dict[str, Any] = {"task": ["pick"] * count, "action": actions(number, count)}
        if films:
            columns |= {FRONT: drawn(count, seed=9 * number), WRIST: drawn(count, seed=9 * number + 5)}
        made.append(columns)
    return made


def actions(number: int, count: int) -> Any:
    """Return values that name their episode and step."""
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2) + 100 * number


def edit_episodes(folder: Path, columns: Mapping[str, Any]) -> None:
    """Change columns of the table of episodes of LeRobot v3.0."""
    table = pq.read_table(folder / EPISODES).to_pydict()
    pq.write_table(pa.table(table | dict(columns)), folder / EPISODES)


def read_actions(folder: Path) -> list[Any]:
    return [episode.steps["action"].tolist() for episode in LEROBOT.episodes(folder)]


def test_each_camera_has_its_own_video_files_and_start_times(tmp_path: Path) -> None:
    """starVLA/starVLA #279, #285 and #90: one data file, but several video files for each camera."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    made = episodes(4, 3, 5, films=True)
    write_lerobot(tmp_path / "one", made, version="v3.0", per_file=3)
    write_lerobot(tmp_path / "each", made, version="v3.0", per_file=1)
    for file in range(3):  # the camera at the wrist has one video for each episode, the other one video for all
        path = f"videos/{WRIST}/chunk-000/file-{file:03d}.mp4"
        (tmp_path / "one" / path).write_bytes((tmp_path / "each" / path).read_bytes())
    wrist = {"file_index": [0, 1, 2], "from_timestamp": [0.0] * 3, "to_timestamp": [0.4, 0.3, 0.5]}
    edit_episodes(tmp_path / "one", {f"videos/{WRIST}/{key}": values for key, values in wrist.items()})
    for number, (read, written) in enumerate(zip(LEROBOT.episodes(tmp_path / "one"), made, strict=True)):
        assert read.steps["action"].tolist() == actions(number, len(written["task"])).tolist()
        for camera in (FRONT, WRIST):
            assert len(read.steps[camera]) == len(written["task"])
            for image, pixels in zip(read.steps[camera], written[camera], strict=True):
                assert np.abs(decoded(image).astype(int) - pixels).mean() < 12


def test_scrambled_row_ranges_in_the_table_of_episodes_do_not_matter(tmp_path: Path) -> None:
    """huggingface/lerobot #1919 and #2057: `dataset_from_index` starts again in every data file."""
    write_lerobot(tmp_path, episodes(4, 3, 5, 2), version="v3.0", per_file=2)
    edit_episodes(tmp_path, {"dataset_from_index": [0, 4, 0, 5], "dataset_to_index": [4, 7, 5, 7]})
    assert read_actions(tmp_path) == [actions(i, n).tolist() for i, n in enumerate((4, 3, 5, 2))]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_removed_episodes_leave_gaps_in_the_numbers_but_lose_nothing_else(tmp_path: Path, version: str) -> None:
    """huggingface/lerobot #943 and #831."""
    write_lerobot(tmp_path, episodes(4, 3, 5, 2), version=version)
    if version == "v2.1":
        (tmp_path / "data/chunk-000/episode_000001.parquet").unlink()
        lines = (tmp_path / "meta/episodes.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "meta/episodes.jsonl").write_text("".join(lines[:1] + lines[2:]))
    else:
        (tmp_path / "data/chunk-000/file-001.parquet").unlink()
        pq.write_table(pq.read_table(tmp_path / EPISODES).take([0, 2, 3]), tmp_path / EPISODES)
    edit_info(tmp_path, total_episodes=3, total_frames=11)
    assert read_actions(tmp_path) == [actions(i, n).tolist() for i, n in ((0, 4), (2, 5), (3, 2))]


def test_a_wrong_length_in_the_table_of_episodes_moves_no_row_to_another_episode(tmp_path: Path) -> None:
    """huggingface/lerobot #4143."""
    write_lerobot(tmp_path, episodes(4, 3, 5), version="v3.0", per_file=3)
    edit_episodes(tmp_path, {"length": [4, 0, 5]})
    values = LEROBOT.read(tmp_path)
    read = {value.index: value.steps["action"].tolist() for value in values if not isinstance(value, Unreadable)}
    assert read == {0: actions(0, 4).tolist(), 2: actions(2, 5).tolist()}
    assert [value.reason for value in values if isinstance(value, Unreadable)] == ["row_count"]


def test_episodes_in_another_order_than_their_numbers_are_sorted_by_number(tmp_path: Path) -> None:
    """rerun-io/rerun #9769: neither the rows of a data file nor those of the table of episodes are in order."""
    write_lerobot(tmp_path, episodes(4, 3, 5), version="v3.0", per_file=3)
    data = tmp_path / "data/chunk-000/file-000.parquet"
    rows = pq.read_table(data)
    pq.write_table(rows.take(np.argsort(-rows["episode_index"].to_numpy(), kind="stable")), data)
    pq.write_table(pq.read_table(tmp_path / EPISODES).take([1, 2, 0]), tmp_path / EPISODES)
    assert read_actions(tmp_path) == [actions(i, n).tolist() for i, n in enumerate((4, 3, 5))]


# --- folders ---


def test_cameras_with_different_numbers_of_frames_are_quarantined(tmp_path: Path) -> None:
    """rh20t/rh20t_api #27."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    for scene, counts in enumerate(((5, 5), (5, 6), (5, 5))):
        folder = tmp_path / f"task_0110_user_0007_scene_{scene:04d}_cfg_0002"
        for camera, count in enumerate(counts):
            write_video(folder / f"cam_03752206216{camera}/color.mp4", frames=count)
        np.save(folder / "tcp.npy", np.full((5, 7), scene))
    assert FOLDER.outcome(tmp_path, episodes="task_*") == ["ok", "frame_count", "ok"]
    assert "has 6 frames, but there are 5 rows" in FOLDER.details(tmp_path, episodes="task_*")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_arrays_of_all_episodes_side_by_side_are_not_read_as_an_episode_each_without_a_word(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    """real-stanford/diffusion_policy #61: [episode, time, ...] in three files, one of them transposed."""
    np.save(tmp_path / "observations_seq.npy", np.ones((6, 9, 60)))
    np.save(tmp_path / "actions_seq.npy", np.ones((6, 9, 9)))
    np.save(tmp_path / "existence_mask.npy", np.ones((6, 9)).transpose(order))
    with pytest.raises(OxeError, match=r"share their first two axes, as if they were \[episode, time, ...\]"):
        open_source(str(tmp_path))


# --- ROS bags ---


def said(*, start: float = 0) -> list[Said]:
    """Return five messages of `/a` and of `/b`; each has the number of its step."""
    times = [start + 10 * step for step in range(5)]
    return [
        Said(topic, bags.joints(ms, [step, first + step]), ms)
        for topic, first in (("/a", 0), ("/b", 100))
        for step, ms in enumerate(times)
    ]


def by_time() -> list[Said]:
    return sorted(said(), key=lambda message: message.ms)


def assert_whole(path: Path, **keys: Any) -> None:
    """Check that `/a` and `/b` are read whole and in order."""
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    (episode,) = ROSBAG.episodes(path, **keys)
    assert episode.steps["a.position"].tolist() == [[step, step] for step in range(5)]
    assert episode.steps["b.position"].tolist() == [[step, 100 + step] for step in range(5)]


def test_topics_that_are_stored_one_after_the_other_are_read_by_time(tmp_path: Path) -> None:
    """foxglove/mcap #1374."""
    pytest.importorskip("mcap", reason="the extra 'mcap'")
    assert_whole(bags.write_mcap(tmp_path / "one.mcap", said()), clock="/a")
    assert_whole(bags.write_mcap(tmp_path / "many.mcap", said(), chunk_size=100), clock="/a")


def test_an_mcap_file_needs_no_chunks_and_no_indexes(tmp_path: Path) -> None:
    """ros-tooling/rosbag2_storage_mcap #61, foxglove/mcap #1735 and #1355."""
    writer = pytest.importorskip("mcap.writer", reason="the extra 'mcap'")
    none, chunks = writer.IndexType.NONE, writer.IndexType.CHUNK
    assert_whole(bags.write_mcap(tmp_path / "unchunked.mcap", by_time(), use_chunking=False, index_types=none))
    bare = {"use_statistics": False, "use_summary_offsets": False, "repeat_channels": False, "repeat_schemas": False}
    options = {"use_chunking": False, "index_types": none, **bare}
    assert_whole(bags.write_mcap(tmp_path / "no_summary.mcap", by_time(), **options))
    assert_whole(bags.write_mcap(tmp_path / "no_message_index.mcap", by_time(), index_types=chunks))
    assert_whole(bags.write_mcap(tmp_path / "small_chunks.mcap", by_time(), chunk_size=1))


def test_a_bag_may_start_at_time_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ros/ros_comm #1862: recorded with simulated time."""
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    monkeypatch.setattr(bags, "START", 0)
    assert_whole(bags.write_mcap(tmp_path / "a.mcap", by_time()))
    assert_whole(bags.write_bag1(tmp_path / "a.bag", by_time()))


def test_messages_at_time_zero_before_the_clock_are_not_54_years_of_steps(tmp_path: Path) -> None:
    """ros2/rosbag2 #1276: messages before the first `/clock` have time 0."""
    pytest.importorskip("mcap", reason="the extra 'mcap'")
    before = [Said(topic, bags.joints(0, [0, 0]), -bags.START / bags.MS) for topic in ("/a", "/b")]
    bag = bags.write_mcap(tmp_path / "a.mcap", [*before, *by_time()])
    assert ROSBAG.outcome(bag, clock=20) == ["too_large"]
    (episode,) = ROSBAG.episodes(bag, clock="/a")
    assert episode.steps["timestamp"][1] == bags.START / 1e9  # the gap stands in the field


def test_a_database_without_its_metadata_file_is_read(tmp_path: Path) -> None:
    """ros2/rosbag2 #395."""
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    bag = bags.write_bag(tmp_path / "run", by_time(), storage="sqlite3")
    (bag / "metadata.yaml").unlink()
    assert_whole(bag)


def test_a_database_of_eloquent_has_fewer_columns_and_tables(tmp_path: Path) -> None:
    """ros2/rosbag2 #1086: no column `offered_qos_profiles`, and no message definitions."""
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    bag = bags.write_bag(tmp_path / "run", by_time(), storage="sqlite3")
    (bag / "metadata.yaml").unlink()
    database = sqlite3.connect(next(bag.glob("*.db3")))
    for table in ("schema", "metadata", "message_definitions"):
        database.execute(f"DROP TABLE {table}")
    for column in ("offered_qos_profiles", "type_description_hash"):
        database.execute(f"ALTER TABLE topics DROP COLUMN {column}")
    database.commit()
    database.close()
    assert_whole(bag, clock="/a", ros="eloquent")


# --- Zarr and RLDS ---


def test_one_number_as_episode_ends_is_one_episode_and_an_undeclared_rest_is_counted(tmp_path: Path) -> None:
    """ZhengtongXu/UniT #2: a buffer with a single end."""
    pytest.importorskip("zarr", reason="the extra 'zarr'")
    for end, outcome in ((9, ["ok"]), (7, ["ok", "undeclared_record"]), (12, ["truncated"])):
        write_zarr(tmp_path / f"{end}.zarr", {"data/action": np.ones((9, 2)), "meta/episode_ends": np.array([end])})
        assert Reading(Opener("zarr")).outcome(tmp_path / f"{end}.zarr") == outcome


def test_records_without_a_declared_feature_are_quarantined_and_the_feature_is_named(tmp_path: Path) -> None:
    """moojink/openvla-oft #93: `steps/observation/state` and `episode_metadata/episode_id` are in no record."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="the writer is the extra 'rlds'")
    written = {"steps": tfds.features.Dataset({"action": tfds.features.Tensor(shape=(2,), dtype=np.float32)})}
    declared = {
        "steps": tfds.features.Dataset(
            {
                "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                "observation": {"state": tfds.features.Tensor(shape=(3,), dtype=np.float32)},
            }
        ),
        "episode_metadata": {"episode_id": tfds.features.Text()},
    }
    made = [{"steps": [{"action": np.full(2, step, np.float32)} for step in range(3)]} for _ in range(2)]
    write_rlds(tmp_path / "toy/1.0.0", made, written)
    tfds.features.FeaturesDict(declared).save_config(tmp_path / "toy/1.0.0")
    rlds = Reading(Opener("rlds"))
    assert rlds.outcome(tmp_path / "toy/1.0.0") == ["contradicts_features"] * 2
    assert "has no 'steps/observation/state', which features.json declares" in rlds.details(tmp_path / "toy/1.0.0")
