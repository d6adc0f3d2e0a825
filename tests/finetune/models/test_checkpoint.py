"""A checkpoint is loaded whole or not at all, and written so that the original reads it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError
from tests.finetune.vla import BASE, INSTRUCTIONS, KEYS, changed, image, reference

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from safetensors.torch import load_file, save_file  # noqa: E402 - only where torch is

from finetune.models.config import OpenVLAConfig  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402

SHARDS = sorted(path.name for path in BASE.glob("*.safetensors"))


def tensors(folder: Path) -> dict[str, Any]:
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def load(folder: Path) -> OpenVLAForActionPrediction:
    return OpenVLAForActionPrediction.from_pretrained(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    shutil.copytree(BASE, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder: Path, *, drop: str = "", add: dict[str, Any] | None = None) -> None:
    """Write all tensors as one file, without one of them or with others."""
    found = {key: value for key, value in tensors(folder).items() if key != drop} | (add or {})
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


# Writing


def test_what_is_written_in_bfloat16_is_the_published_checkpoint(tmp_path: Path) -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE, dtype=torch.bfloat16)
    vla.save_pretrained(tmp_path, max_shard_size="1MB")
    ours, theirs = tensors(tmp_path), tensors(BASE)
    assert ours.keys() == theirs.keys()
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, theirs[key]) for key, value in ours.items())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == theirs.keys()
    assert len(set(index["weight_map"].values())) > 1
    for name in ("config.json", "dataset_statistics.json", "tiny_vision.json", "generation_config.json"):
        assert name in {path.name for path in tmp_path.iterdir()}
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / name).read_bytes() == (BASE / name).read_bytes()


def test_the_config_that_is_written_is_the_original_one(tmp_path: Path) -> None:
    load(BASE).to(torch.bfloat16).save_pretrained(tmp_path)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, BASE))
    text, expected = ours.pop("text_config"), theirs.pop("text_config")
    assert ours == theirs
    assert {key: text.get(key) for key in expected} == expected
    assert not {"rope_parameters", "dtype", "_attn_implementation"} & text.keys()


def test_what_was_written_acts_as_before(tmp_path: Path) -> None:
    load(BASE).save_pretrained(tmp_path)
    np.testing.assert_array_equal(
        load(tmp_path).predict_action(image(1), INSTRUCTIONS[1], KEYS[1]), reference()["action_1"]
    )


def test_another_rotary_base_survives_in_the_originals_words(tmp_path: Path) -> None:
    text = json.loads((BASE / "config.json").read_text())["text_config"]
    vla = load(changed(tmp_path, text_config={**text, "rope_theta": 500000.0}))
    vla.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["text_config"]["rope_theta"] == 500000.0
    assert load(tmp_path / "again").config.text_config.rope_parameters["rope_theta"] == 500000.0


def test_a_model_whose_head_is_its_embedding_is_written_and_read(tmp_path: Path) -> None:
    text = {**json.loads((BASE / "config.json").read_text())["text_config"], "tie_word_embeddings": True}
    told = {"text_config": text, "tiny_vision": load(BASE).config.tiny_vision, "norm_stats": load(BASE).norm_stats}
    vla = OpenVLAForActionPrediction(OpenVLAConfig(**told)).eval()
    vla.save_pretrained(tmp_path)
    assert "language_model.lm_head.weight" not in tensors(tmp_path)
    again = load(tmp_path)
    assert again.language_model.lm_head.weight is again.language_model.model.embed_tokens.weight
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in vla.state_dict().items())


# Statistics


def test_statistics_beside_the_checkpoint_count_more_than_those_of_its_config(checkpoint: Path) -> None:
    found = json.loads((checkpoint / "dataset_statistics.json").read_text())
    (checkpoint / "dataset_statistics.json").write_text(json.dumps({"mine": found["tiny_bridge"]}))
    vla = load(checkpoint)
    assert list(vla.norm_stats) == ["mine"]
    np.testing.assert_array_equal(vla.predict_action(image(0), INSTRUCTIONS[0]), reference()["action_0"])


def test_a_checkpoint_without_statistics_is_refused_unless_they_are_given(tmp_path: Path) -> None:
    folder = changed(tmp_path, norm_stats=None)
    (folder / "dataset_statistics.json").unlink()
    with pytest.raises(CheckpointError, match="no statistics to un-normalize actions"):
        load(folder)
    told = json.loads((BASE / "dataset_statistics.json").read_text())
    assert OpenVLAForActionPrediction.from_pretrained(folder, norm_stats=told).norm_stats == told


# Layout


def test_missing_extra_and_misshapen_tensors_are_named(checkpoint: Path) -> None:
    rewrite(
        checkpoint,
        drop="projector.fc2.bias",
        add={"projector.fc4.bias": torch.zeros(3), "projector.fc1.bias": torch.zeros(5)},
    )
    expected = (
        r"1 tensors are missing \(projector.fc2.bias\); 1 are unexpected \(projector.fc4.bias\); "
        r"1 differ from config.json in shape \(projector.fc1.bias: expected 352, got 5\)"
    )
    with pytest.raises(CheckpointError, match=expected):
        load(checkpoint)


def test_another_vocabulary_than_the_weights_have_is_refused(tmp_path: Path) -> None:
    text = json.loads((BASE / "config.json").read_text())["text_config"]
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight: expected 32128x24, got 32064x24"):
        load(changed(tmp_path, text_config={**text, "vocab_size": 32128}))


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the tokenizer has 32000 words, the model expects 32032"):
        load(changed(tmp_path, pad_to_multiple_of=32))


def test_the_real_dims_are_expected_where_none_are_told(checkpoint: Path) -> None:
    (checkpoint / "tiny_vision.json").unlink()
    with pytest.raises(CheckpointError, match=r"tensors are missing .* in shape"):
        load(checkpoint)


def test_a_shard_that_is_gone_cut_or_not_listed_is_named(checkpoint: Path) -> None:
    shard = checkpoint / SHARDS[2]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=f"{SHARDS[2]}: cannot be read"):
        load(checkpoint)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{SHARDS[2]}: no such file"):
        load(checkpoint)
    save_file({"stray": torch.zeros(1)}, shard)
    with pytest.raises(CheckpointError, match="differs from the tensors in the files"):
        load(checkpoint)


@pytest.mark.parametrize("index", [[], {"weight_map": {"a": "../b.safetensors"}}, {"weight_map": {"a": 1}}])
def test_an_index_that_leads_elsewhere_is_refused(checkpoint: Path, index: Any) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="weight_map: expected names of files in the same folder"):
        load(checkpoint)


def test_pickled_weights_are_not_read(checkpoint: Path) -> None:
    for path in [*checkpoint.glob("*.safetensors"), checkpoint / "model.safetensors.index.json"]:
        path.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(
        CheckpointError, match=r"no weights: neither model.safetensors.index.json nor model.safetensors"
    ):
        load(checkpoint)


@pytest.mark.parametrize(("name", "text"), [("dataset_statistics.json", "{"), ("tiny_vision.json", "[]")])
def test_a_file_that_cannot_be_understood_is_named(checkpoint: Path, name: str, text: str) -> None:
    (checkpoint / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        load(checkpoint)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}', '{"text_config": 3}'])
def test_a_config_that_is_no_openvla_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("key", "size"), [("num_hidden_layers", 10**9), ("vocab_size", 10**12), ("intermediate_size", 1 << 40)]
)
def test_a_config_of_an_impossibly_large_model_is_refused(checkpoint: Path, key: str, size: int) -> None:
    file = checkpoint / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"text_config": config["text_config"] | {key: size}}))
    with pytest.raises(CheckpointError, match=rf"config\.json: text_config: {size} \w+; the limit is"):
        load(checkpoint)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not the name of a model on the Hub"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load(tmp_path)
