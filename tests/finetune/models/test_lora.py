"""Adapters sit where OpenVLA's do, train what they should, and are read and written as peft does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, DATA

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from peft import PeftModel  # noqa: E402 - only where torch is
from safetensors.torch import load_file, save_file  # noqa: E402

from finetune.models import lora  # noqa: E402
from finetune.models.base import build  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.recipe import LoraRecipe, ModelRecipe  # noqa: E402

ADAPTER = DATA / "adapter"
PREFIX = "base_model.model."


def vla() -> OpenVLAForActionPrediction:
    return OpenVLAForActionPrediction.from_pretrained(BASE, self_test=False)


def adapted(**told: Any) -> PeftModel:
    return lora.apply(vla(), LoraRecipe(**{"rank": 4, **told}))


def inputs() -> dict[str, Any]:
    ids = torch.arange(3, 15)[None].repeat(2, 1)
    pixels = torch.randn(2, 6, 224, 224, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "pixel_values": pixels}


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ADAPTER, tmp_path / "adapter"))


# Where they sit


def test_the_adapted_layers_are_those_of_an_adapter_that_the_original_trained() -> None:
    published = {key: value for key, value in load_file(ADAPTER / lora.WEIGHTS).items() if ".lora_" in key}
    own = {key: value for key, value in adapted().state_dict().items() if ".lora_" in key}
    assert {key.replace(".default", ""): value.shape for key, value in own.items()} == {
        key: value.shape for key, value in published.items()
    }


def test_they_start_with_the_output_unchanged_and_normal_numbers() -> None:
    model = adapted(rank=32)
    with torch.inference_mode():
        assert torch.equal(model(**inputs()).logits, vla()(**inputs()).logits)
    drawn = torch.cat([value.flatten() for key, value in model.named_parameters() if ".lora_A." in key])
    assert drawn.std().item() == pytest.approx(1 / 32, rel=0.02)
    assert not any(value.any() for key, value in model.named_parameters() if ".lora_B." in key)


def test_they_are_float32_beside_a_base_that_is_not() -> None:
    model = lora.apply(build(ModelRecipe(base=str(BASE), dtype="bfloat16")), LoraRecipe(rank=4))
    assert {value.dtype for key, value in model.named_parameters() if ".lora_" in key} == {torch.float32}


def test_a_target_without_a_layer_is_refused_though_others_have_one() -> None:
    with pytest.raises(UsageError, match=r"no layer is named 'q_prj'; did you mean 'q_proj'\?"):
        adapted(targets=("v_proj", "q_prj"))
    with pytest.raises(UsageError, match="no layer is named 'embed_tokens'"):
        adapted(targets=("embed_tokens",))


def test_one_target_can_be_named_by_its_place() -> None:
    model = adapted(targets=("patch_embed.proj",))
    assert sum(".lora_A." in key for key, _ in model.named_parameters()) == 2


# What is trained


@pytest.mark.parametrize("mode", ["full", "frozen-vision", "last-layer", "lora"])
def test_a_mode_trains_its_parameters_and_every_one_of_them_gets_a_gradient(mode: lora.Mode) -> None:
    model: Any = adapted() if mode == "lora" else vla()
    chosen = lora.trainable(model, mode)
    model(**inputs(), labels=inputs()["input_ids"]).loss.backward()
    assert {key for key, value in model.named_parameters() if value.grad is not None} == chosen.keys()
    expected = {
        "full": {"vision_backbone", "projector", "language_model"},
        "lora": {"vision_backbone", "projector", "language_model"},
        "frozen-vision": {"projector", "language_model"},
        "last-layer": {"language_model"},
    }
    assert {key.removeprefix(PREFIX).split(".")[0] for key in chosen} == expected[mode]
    if mode == "last-layer":
        layers = {".".join(key.split(".")[:4]) for key in chosen if ".layers." in key}
        assert layers == {"language_model.model.layers.2"}
    if mode == "lora":
        assert all(".lora_" in key for key in chosen)


def test_full_training_leaves_out_exactly_what_computes_nothing() -> None:
    model = vla()
    left = {key for key, _ in model.named_parameters()} - lora.trainable(model, "full").keys()
    assert left
    assert all(".blocks.3." in key or ".blocks.2." in key or ".norm." in key or ".attn_pool." in key for key in left)


def test_a_mode_and_a_model_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="mode lora: the model has no adapters"):
        lora.trainable(vla(), "lora")
    with pytest.raises(UsageError, match="mode full: the model has adapters"):
        lora.trainable(adapted(), "full")


# Files


def test_an_adapter_comes_back_to_the_bit_and_is_small(tmp_path: Path) -> None:
    model = adapted()
    with torch.no_grad():
        for parameter in lora.trainable(model, "lora").values():
            parameter.normal_()
    lora.save(model, tmp_path)
    again = lora.load(vla(), tmp_path)
    with torch.inference_mode():
        assert torch.equal(again(**inputs()).logits, model.eval()(**inputs()).logits)
    assert not any("base_layer" in key for key in load_file(tmp_path / lora.WEIGHTS))


def test_peft_itself_reads_what_is_written(tmp_path: Path) -> None:
    model = adapted()
    torch.nn.init.normal_(model.get_base_model().projector.fc1.lora_B["default"].weight)
    lora.save(model, tmp_path)
    theirs = PeftModel.from_pretrained(vla(), str(tmp_path))
    with torch.inference_mode():
        assert torch.equal(theirs(**inputs()).logits, model.eval()(**inputs()).logits)


def test_an_adapter_that_the_original_wrote_loads_with_the_heads_weights_in_it() -> None:
    stored = load_file(ADAPTER / lora.WEIGHTS)
    assert f"{PREFIX}language_model.lm_head.base_layer.weight" in stored
    state = lora.load(vla(), ADAPTER).state_dict()
    for key, value in stored.items():
        assert torch.equal(state[key.replace(".weight", ".default.weight") if ".lora_" in key else key], value.float())


def test_an_adapter_of_another_base_is_refused() -> None:
    other = vla()
    torch.nn.init.normal_(other.language_model.lm_head.weight)
    with pytest.raises(CheckpointError, match=r"trained on another base: .*lm_head\.base_layer\.weight"):
        lora.load(other, ADAPTER)
    with pytest.raises(CheckpointError, match=r"not an adapter of this model: .*in shape"):
        lora.load(build(ModelRecipe(base="tiny")), ADAPTER)


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    stored = load_file(folder / lora.WEIGHTS)
    stored["base_model.model.extra.lora_A.weight"] = stored.pop(f"{PREFIX}projector.fc1.lora_A.weight")
    save_file(stored, folder / lora.WEIGHTS)
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \(.*fc1.*\); 1 are unexpected \(.*extra"):
        lora.load(vla(), folder)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, got IA3"),
        ({"modules_to_save": ["projector"]}, "modules_to_save and bias"),
        ({"target_modules": ["q_prj"]}, "no layer is named 'q_prj'"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(told: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    known = json.loads((folder / lora.CONFIG).read_text())
    (folder / lora.CONFIG).write_text(json.dumps({**known, **told}))
    with pytest.raises((CheckpointError, UsageError), match=message):
        lora.load(vla(), folder)


@pytest.mark.parametrize("name", [lora.CONFIG, lora.WEIGHTS])
def test_files_that_are_gone_or_cut_are_named(name: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:100])
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read"):
        lora.load(vla(), folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}(: no such file| was not found)"):
        lora.load(vla(), folder)


# Their base


def trained(base: Path, folder: Path) -> Path:
    """Save adapters that change something, trained on a base."""
    model = lora.apply(OpenVLAForActionPrediction.from_pretrained(base, self_test=False), LoraRecipe(rank=4))
    torch.nn.init.normal_(model.get_base_model().projector.fc1.lora_B["default"].weight)
    lora.save(model, folder)
    return folder


def sharded(folder: Path, size: str) -> Path:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE, dtype=torch.bfloat16, self_test=False)
    vla.save_pretrained(folder, max_shard_size=size)
    return folder


def test_the_base_is_known_by_its_tensors_however_they_are_divided_and_cast(tmp_path: Path) -> None:
    folder = trained(sharded(tmp_path / "one", "1GB"), tmp_path / "adapter")
    notes: list[str] = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        base = OpenVLAForActionPrediction.from_pretrained(sharded(tmp_path / "many", "1MB"), dtype=dtype)
        lora.load(base, folder, say=notes.append)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert notes == []


def test_another_base_is_refused_even_if_its_shapes_are_the_same(tmp_path: Path) -> None:
    folder = trained(BASE, tmp_path / "adapter")
    other = vla()
    torch.nn.init.normal_(other.projector.fc1.bias)
    other.save_pretrained(tmp_path / "other")
    base = OpenVLAForActionPrediction.from_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="adapter: trained on another base"):
        lora.load(base, folder)


def test_adapters_without_a_digest_load_with_a_note() -> None:
    notes: list[str] = []
    lora.load(vla(), ADAPTER, say=notes.append)
    assert [note for note in notes if "does not record the base" in note] == notes != []


def test_adapters_are_tested_together_with_their_base(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    stored = load_file(folder / lora.WEIGHTS)
    save_file({key: value * (1e30 if "lora_B" in key else 1) for key, value in stored.items()}, folder / lora.WEIGHTS)
    with pytest.raises(CheckpointError, match="adapter: the self-test returned values that are not finite"):
        lora.load(vla(), folder)
    stored[f"{PREFIX}projector.fc1.lora_A.weight"][0, 0] = float("nan")
    save_file(stored, folder / lora.WEIGHTS)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: .*lora_A.weight\[0, 0\] is NaN"):
        lora.load(vla(), folder)
