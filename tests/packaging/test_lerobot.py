"""Beside LeRobot, in one environment: what we export is opened by its own `LeRobotDataset`. `make test-lerobot`."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from oxe_tools import open_dataset
from schemas.store.dataset import Dataset
from tests.pipelines.toy import oxe_process

lerobot = pytest.importorskip("lerobot", reason="needs LeRobot, which goes with older versions: make test-lerobot")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("lab")
    demo = oxe_process("demo", "--out", "lab", cwd=folder)
    assert demo.code == 0, demo.err
    return open_dataset(folder / "lab/datasets/demo_kitchen")


@pytest.mark.parametrize("video", ["h264", "av1", "none"])
def test_lerobot_opens_an_export(kitchen: Dataset, tmp_path: Path, video: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    done = oxe_process("export", "lerobot", kitchen.path, "--out", tmp_path / "export", "--video", video)
    assert done.code == 0, done.err
    theirs = LeRobotDataset("lab/kitchen", root=tmp_path / "export")
    episodes = list(kitchen)
    assert (theirs.num_episodes, theirs.num_frames) == (len(episodes), sum(map(len, episodes)))
    assert theirs.fps == episodes[0].control_hz
    names = {camera.leaf: f"observation.images.{camera.role or camera.leaf}" for camera in kitchen.columns.cameras}
    row = 0
    for episode in episodes:
        for step in range(len(episode)):
            item = theirs[row]
            assert (item["episode_index"], item["frame_index"]) == (episode.index, step)
            np.testing.assert_array_equal(item["action"], episode.action[step])
            np.testing.assert_array_equal(item["observation.state"], episode.state[step])
            assert item["task"] == episode.instruction
            for name, frames in episode.images.items():
                pixels = simplejpeg.decode_jpeg(frames[step]).transpose(2, 0, 1) / np.float32(255)
                assert np.abs(item[names[name]].numpy() - pixels).mean() < 0.05
            row += 1


def test_the_library_datasets_of_lerobot_opens_the_dataset_itself(kitchen: Dataset, tmp_path: Path) -> None:
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path
    steps = kitchen.to_datasets("train")
    np.testing.assert_array_equal(np.float32(steps["action"][:]), np.concatenate([e.action for e in kitchen]))
    assert steps[0]["observation.images.image"].size == (128, 128)
