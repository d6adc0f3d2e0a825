"""A merged model is the unmerged one, or it is not written."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, DATA, INSTRUCTIONS, image

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from safetensors.torch import load_file, save_file  # noqa: E402 - only where torch is

from finetune.data.preprocessing import Preprocessing  # noqa: E402
from finetune.models import lora  # noqa: E402
from finetune.models.base import build  # noqa: E402
from finetune.models.checkpoint import write_json  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.policy.merge import CARRIED, merge  # noqa: E402
from finetune.recipe import LoraRecipe, ModelRecipe  # noqa: E402

ADAPTER = DATA / "adapter"


def copied(tmp_path: Path, *, times: float = 1.0) -> Path:
    """Copy the adapter, and let it change more or less."""
    folder = Path(shutil.copytree(ADAPTER, tmp_path / "adapter"))
    scaled = {key: value * (times if "lora_B" in key else 1) for key, value in load_file(folder / lora.WEIGHTS).items()}
    save_file(scaled, folder / lora.WEIGHTS)
    return folder


def loaded(folder: Path) -> OpenVLAForActionPrediction:
    return OpenVLAForActionPrediction.from_pretrained(folder)


def test_merged_in_float32_it_predicts_what_the_adapter_does_beside_its_base(tmp_path: Path) -> None:
    found = merge(str(BASE), ADAPTER, tmp_path / "out", dtype="float32")
    assert found.exact == found.rounded < 1e-5 < found.effect
    merged, beside = loaded(tmp_path / "out"), lora.load(loaded(BASE), ADAPTER)
    inputs = merged.processor.inputs([image(1)], [INSTRUCTIONS[1]])
    with torch.inference_mode():
        ours, theirs = merged(**inputs).logits, beside(**inputs).logits
        assert (ours - theirs).abs().max() < 1e-4
        assert (ours - loaded(BASE)(**inputs).logits).abs().max() > 1


def test_the_weights_are_those_that_the_original_merged_up_to_its_rounding(tmp_path: Path) -> None:
    """The original's merged checkpoint is, to the bit, base + delta in bfloat16; here only the sum is rounded."""
    merge(str(BASE), ADAPTER, tmp_path / "out")
    ours = load_file(tmp_path / "out/model.safetensors")
    base = loaded(BASE).state_dict()
    adapter = load_file(ADAPTER / lora.WEIGHTS)
    for key, value in ours.items():
        a, b = (adapter.get(f"base_model.model.{key.removesuffix('.weight')}.lora_{x}.weight") for x in "AB")
        if a is None or b is None:
            assert torch.equal(value.float(), base[key])
            continue
        delta = (b.float().flatten(1) @ a.float().flatten(1)).reshape(value.shape)
        theirs = base[key].bfloat16() + delta.bfloat16()
        assert value.dtype == theirs.dtype
        assert ((value.float() - theirs.float()).abs() <= (base[key].abs() + delta.abs()) * 3 * 2**-8).all()
        assert torch.equal(value, (base[key] + delta).bfloat16())


def test_what_bfloat16_would_round_away_is_refused_and_float32_keeps_it(tmp_path: Path) -> None:
    little = copied(tmp_path, times=1e-3)
    with pytest.raises(CheckpointError, match=r"rounding the merged weights to bfloat16 .*use --dtype float32"):
        merge(str(BASE), little, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert merge(str(BASE), little, tmp_path / "out", dtype="float32").effect > 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp-")] == []


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not change the output"):
        merge(str(BASE), copied(tmp_path, times=0.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_goes_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import Linear

    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: right(self, name) * 1.01)
    with pytest.raises(CheckpointError, match=r"the merged model's logits differ .*nothing was written"):
        merge(str(BASE), ADAPTER, tmp_path / "out", dtype="float32")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already exists"):
        merge(str(BASE), ADAPTER, tmp_path)


def test_a_head_that_is_the_embedding_gets_weights_of_its_own(tmp_path: Path) -> None:
    vla = build(ModelRecipe(base="tiny"), norm_stats=loaded(BASE).norm_stats)
    vla.config.text_config.tie_word_embeddings = True
    vla.language_model.tie_weights()
    vla.save_pretrained(tmp_path / "base")
    model = lora.apply(loaded(tmp_path / "base"), LoraRecipe(rank=4))
    with torch.no_grad():
        for parameter in lora.trainable(model, "lora").values():
            parameter.normal_(std=0.1)
    lora.save(model, tmp_path / "adapter")
    embedding = model.get_input_embeddings().weight.clone()
    merge(str(tmp_path / "base"), tmp_path / "adapter", tmp_path / "out")
    merged = loaded(tmp_path / "out")
    assert not merged.config.text_config.tie_word_embeddings
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert not torch.equal(merged.get_output_embeddings().weight, embedding)
    inputs = merged.processor.inputs([image(1)], [INSTRUCTIONS[1]])
    with torch.inference_mode():
        np.testing.assert_allclose(merged(**inputs).logits, model.eval()(**inputs).logits, atol=1e-4)


def test_the_statistics_and_files_of_the_training_come_along(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for name in ("licences.json", "mixture.lock", "mixture.lock.parquet", "recipe.toml"):
        (folder / name).write_text(name)
    write_json(folder / "preprocessing.json", Preprocessing(method="area").to_json())
    known = (BASE / "dataset_statistics.json").read_bytes()
    (folder / "dataset_statistics.json").write_bytes(known.replace(b"tiny_", b"my_"))
    merge(str(BASE), folder, tmp_path / "out")
    for name in CARRIED:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    merged = loaded(tmp_path / "out")
    assert merged.norm_stats.keys() == {"my_bridge", "my_fractal"}
    assert merged.preprocessing == Preprocessing(method="area")
