"""From real recordings to a policy that does what was recorded, and looks when it does."""

from pathlib import Path
from typing import Any

import pytest

from schemas.store.dataset import open_dataset
from tests.pipelines.toy import oxe

pytest.importorskip("torch", reason="training needs the extra finetune")

MIX = """
name      = "bridge_debug"
view      = "openvla"
weighting = "relative"
filter    = "split == 'train' and episode_index < 6"

[weights]
bridge_dataset = 1.0

[sources]
bridge_dataset = { uri = "bridge" }
"""


def done(*words: Any) -> Any:
    run = oxe(*words, "--json")
    assert run.code == 0, run.err
    return run.json()


@pytest.mark.slow
@pytest.mark.realdata
def test_the_tiny_model_learns_bridge_by_heart_and_needs_its_eyes_for_it(realdata: Path, tmp_path: Path) -> None:
    done("convert", "bridge_dataset", "--source", realdata / "rlds/octo_debug_bridge", "--out", tmp_path / "bridge")
    (tmp_path / "mix.toml").write_text(MIX)
    done("mix", "lock", tmp_path / "mix.toml")
    lock = tmp_path / "mix.lock"
    settings = ("--set", "train.steps=300", "--set", "eval.every=300")
    trained = done("train", "tiny-cpu", "--lock", lock, "--out", tmp_path / "run", *settings)
    folder = Path(trained["checkpoint"])
    assert trained["eval"]["token_accuracy"] > 0.95

    asked = ("eval", "--open-loop", "--model", folder, "--lock", lock, "--part", "train")
    own = done(*asked, "--out", tmp_path / "own")
    shuffled = done(*asked, "--shuffle-images", "--out", tmp_path / "shuffled")
    assert own["token_accuracy"] > 0.95
    assert shuffled["token_accuracy"] < 0.5
    for dim in own["sources"]["bridge_dataset"]["dims"].values():
        assert dim["l1_metric"] < dim["mean_action"]["l1_metric"] / 5

    episode = open_dataset(tmp_path / "bridge").episode(0)
    (tmp_path / "frame.jpg").write_bytes(episode.images["image_0"][3] or b"")
    image = ("--image", tmp_path / "frame.jpg", "--instruction", episode.instructions[0])
    action = done("predict", "--model", folder, *image)["action"]
    recorded = episode.action[3]
    assert abs(action[0] - recorded[0]) < 0.005
