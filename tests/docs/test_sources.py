"""docs/sources.md: every format has its section, and its examples convert recordings."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.convert import convert
from schemas import catalog
from schemas.formats import OURS
from schemas.store import open_dataset
from tests.docs.toy import ROOT, blocks
from tests.lerobot import drawn, write_lerobot
from tests.makers import write_hdf5

PAGE = "docs/sources.md"


def example(form: str) -> str:
    """Take the whole declaration of one format."""
    (text,) = (text for text in blocks(PAGE, "toml") if f'format = "{form}"' in text and "[embodiment" in text)
    return text


@pytest.mark.parametrize("form", OURS)
def test_every_format_is_on_the_page(form: str) -> None:
    assert f"| `{form}` |" in (text := (ROOT / PAGE).read_text()) or f"| [`{form}`](" in text


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
