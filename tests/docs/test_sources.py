"""docs/sources.md lists every format, and the example on the page of each format converts recordings."""

import io
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.convert.convert import convert
from schemas.declarations import catalog
from schemas.declarations.formats import BUILT_IN, Hdf5Source
from schemas.store.dataset import Dataset, open_dataset
from tests import bags
from tests.bags import Said
from tests.docs.toy import ROOT, blocks
from tests.lerobot import drawn, write_lerobot
from tests.makers import write_csv, write_hdf5, write_video, write_zarr
from tests.pipelines.toy import jpeg

PAGE = "docs/sources.md"


def example(form: str) -> str:
    """Take the whole declaration of one format."""
    page = f"docs/sources/{form}.md"
    (text,) = (text for text in blocks(page, "toml") if f'format = "{form}"' in text and "[embodiment" in text)
    return text


@pytest.mark.parametrize("form", BUILT_IN)
def test_every_format_is_in_the_list_and_has_a_page_unless_it_has_no_keys(form: str) -> None:
    cell = "`rlds`" if form == "rlds" else f"[`{form}`](sources/{form}.md)"
    assert f"| {cell} |" in (ROOT / PAGE).read_text()


def test_the_droid_example_is_a_source() -> None:
    (text,) = (text for text in blocks("docs/sources/hdf5.md", "toml") if "[source.videos]" in text)
    source = Hdf5Source(**tomllib.loads(text)["source"])
    assert [*source.videos] == ["camera.wrist", "camera.ext1", "camera.ext2"]


def test_the_hdf5_example_converts_a_file_as_robomimic_lays_it_out(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    (tmp_path / "lift.toml").write_text(example("hdf5"))
    frames = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    cameras = {"obs/agentview_image": frames, "obs/robot0_eye_in_hand_image": frames[::-1]}
    held = {"actions": np.tile([0.1, 0, 0, 0, 0, 0, -1.0], (4, 1)), **cameras, "next_obs/x": np.zeros(3)}
    write_hdf5(tmp_path / "data/lift/demo.hdf5", {f"data/demo_{i}": held for i in range(2)})
    declared = catalog.dataset(str(tmp_path / "lift.toml"))
    source = catalog.source_of(str(tmp_path / "lift.toml"), declared)
    assert convert(declared, tmp_path / "out", source=source).kept == 2
    episode = open_dataset(tmp_path / "out").episode(1)
    assert episode.action[0].tolist() == np.float32([0.1, 0, 0, 0, 0, 0, 1]).tolist()
    assert [camera.role for camera in open_dataset(tmp_path / "out").columns.cameras] == ["primary", "wrist"]
    assert episode.raw.keys() == {"actions"}


def test_the_rosbag_example_converts_a_bag_with_a_camera_joints_commands_and_a_task(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    (tmp_path / "pick.toml").write_text(example("rosbag"))
    said = [Said("/task", bags.text("pick the cup"), 0), Said("/joint_command", bags.joints(0, range(6), "abcdef"), 0)]
    for i in range(10):
        said.append(Said("/joint_states", bags.joints(10 * i, [i] * 6, "abcdef"), 10 * i))
        if i in {2, 5, 8}:
            frame = np.full((8, 8, 3), i, np.uint8)
            said.append(Said("/camera/color/image_raw", bags.image(10 * i, frame, "rgb8"), 10 * i + 5))
    bags.write_bag(tmp_path / "data/pick/pick_7", said)
    declared = catalog.dataset(str(tmp_path / "pick.toml"))
    source = catalog.source_of(str(tmp_path / "pick.toml"), declared)
    assert convert(declared, tmp_path / "out", source=source).kept == 0  # the last command is 85 ms old
    looser = (tmp_path / "pick.toml").read_text().replace("max_skew = 0.05", "max_skew = 0.1")
    (tmp_path / "looser.toml").write_text(looser)
    assert convert(catalog.dataset(str(tmp_path / "looser.toml")), tmp_path / "kept", source=source).kept == 1
    dataset = open_dataset(tmp_path / "kept")
    episode = dataset.episode(0)
    assert (episode.id, episode.instructions) == ("pick_7", ("pick the cup",))
    assert episode.state is not None
    assert episode.state[:, 0].tolist() == [2.5, 5.5, 8.5]
    assert episode.action.tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def converted(tmp_path: Path, form: str) -> Dataset:
    """Convert recordings with the example of a format."""
    (tmp_path / "example.toml").write_text(example(form))
    declared = catalog.dataset(str(tmp_path / "example.toml"))
    source = catalog.source_of(str(tmp_path / "example.toml"), declared)
    assert convert(declared, tmp_path / "out", source=source).kept == 2
    return open_dataset(tmp_path / "out")


def test_the_zarr_example_converts_a_store_as_push_t_is_laid_out(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="the extra 'zarr'")
    held = {
        "data/action": np.arange(14, dtype=np.float32).reshape(7, 2),
        "data/state": np.ones((7, 5), np.float32),
        "data/img": np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype(np.float32),
        "meta/episode_ends": np.array([3, 7]),
    }
    write_zarr(tmp_path / "data/pusht_cchi_v7_replay.zarr", held)
    episode = converted(tmp_path, "zarr").episode(1)
    assert (episode.id, episode.action[0].tolist()) == ("episode_1", [6, 7])
    pixels = [np.asarray(Image.open(io.BytesIO(image))) for image in episode.images["img"] if image]
    assert np.array_equal(pixels, held["data/img"][3:])
    assert episode.raw.keys() == {"action", "state"}


def test_the_folder_example_converts_episodes_with_tables_images_and_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    for number in (2, 10):
        folder = tmp_path / f"data/teleop/episode_{number}"
        joints = {f"joint_{i}": [number + i / 10] * 4 for i in range(6)}
        write_csv(folder / "steps.csv", {**joints, "gripper": [0, 0, 1, 1]})
        write_video(folder / "wrist.mp4", frames=4)
        (folder / "front").mkdir()
        for i in range(4):
            (folder / f"front/{i:06d}.jpg").write_bytes(jpeg(i))
        (folder / "lang.txt").write_text(f"pick {number}\n")
    dataset = converted(tmp_path, "folder")
    episode = dataset.episode(1)
    assert (episode.id, episode.instructions) == ("episode_10", ("pick 10",))
    assert episode.action[2].tolist() == np.float32([10, 10.1, 10.2, 10.3, 10.4, 10.5, 1]).tolist()
    assert list(episode.images["front"]) == [jpeg(i) for i in range(4)]
    assert [camera.role for camera in dataset.columns.cameras] == ["primary", "wrist"]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_the_lerobot_example_converts_what_a_low_cost_arm_records(tmp_path: Path, version: str) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    (tmp_path / "so101.toml").write_text(example("lerobot"))
    degrees = np.tile(np.float32([90, 0, 0, 0, -180, 50]), (4, 1))
    cameras = {f"observation.images.{name}": drawn(4) for name in ("front", "wrist")}
    held = {"observation.state": degrees, "action": degrees, **cameras, "task": ["pick it up"] * 4}
    write_lerobot(tmp_path / "data/so101_pick", [held, held], version=version, per_file=2)
    declared = catalog.dataset(str(tmp_path / "so101.toml"))
    source = catalog.source_of(str(tmp_path / "so101.toml"), declared)
    assert convert(declared, tmp_path / "out", source=source).kept == 2
    episode = open_dataset(tmp_path / "out").episode(1)
    assert episode.action[0].tolist() == np.float32([np.pi / 2, 0, 0, 0, -np.pi, 0.5]).tolist()
    assert episode.instructions == ("pick it up",)
    assert [camera.role for camera in open_dataset(tmp_path / "out").columns.cameras] == ["primary", "wrist"]
