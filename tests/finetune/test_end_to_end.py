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


@pytest.mark.slow
@pytest.mark.realdata
def test_a_minute_of_training_teaches_openvla_oft_more_than_the_mean_action(realdata: Path, tmp_path: Path) -> None:
    done("convert", "bridge_dataset", "--source", realdata / "rlds/octo_debug_bridge", "--out", tmp_path / "bridge")
    (tmp_path / "mix.toml").write_text(MIX.replace("< 6", "< 3"))
    done("mix", "lock", tmp_path / "mix.toml")
    lock, out = tmp_path / "mix.lock", tmp_path / "run"
    settings = ("train.steps=350", "train.save_every=350", "eval.every=350", "optimizer.warmup=30")
    words = [word for one in settings for word in ("--set", one)]
    trained = done("train", "tiny-oft-cpu", "--lock", lock, "--out", out, *words)
    assert trained["train"]["loss"] < 0.17
    scores = done("eval", "--open-loop", "--model", trained["checkpoint"], "--lock", lock, "--part", "train")
    dims = scores["sources"]["bridge_dataset"]["dims"].values()
    means = [dim["mean_action"]["l1_metric"] for dim in dims]
    ratios = [dim["l1_metric"] / mean for dim, mean in zip(dims, means, strict=True) if mean]
    assert len(ratios) >= 6
    assert sum(ratios) / len(ratios) < 0.8
