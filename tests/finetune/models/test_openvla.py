"""The model computes what the original computes, and each likely mistake would be seen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.actions import ActionTokenizer
from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, META, PROMPTS, changed, close, image, model, reference, tensors_of_7b

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models import openvla, vit  # noqa: E402
from finetune.models.config import OpenVLAConfig  # noqa: E402
from finetune.models.images import ImageTransform  # noqa: E402 - only where torch is
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402

ACTIONS = slice(31744, 32064)  # the part of the vocabulary that the references hold


def inputs(*prompts: int) -> dict[str, Any]:
    return dict(model().processor([PROMPTS[i] for i in prompts], [image(i) for i in prompts]))


def run(vla: Any, i: int, **told: Any) -> Any:
    """Run over prompt i and the tokens that the original generated, all but the last."""
    ids = torch.tensor(reference()[f"generated_ids_{i}"])[:, :-1]
    with torch.no_grad():
        return vla(ids, pixel_values=inputs(i)["pixel_values"], **told)


def scores_of(vla: Any, i: int) -> Any:
    return run(vla, i).logits[0, -7:, ACTIONS]


def is_off(vla: Any) -> bool:
    """Whether the model differs from the original by more than the tolerance."""
    return bool((scores_of(vla, 1) - torch.tensor(reference()["scores_action_vocab_1"])).abs().max() > 1e-4)


# Equality


def test_both_towers_give_the_patches_of_the_original() -> None:
    backbone = model().vision_backbone
    first, second = inputs(1)["pixel_values"].split(3, dim=1)
    with torch.no_grad():
        close(backbone.featurizer(first), reference()["dino_patches_1"])
        close(backbone.fused_featurizer(second), reference()["siglip_patches_1"])


@pytest.mark.parametrize("i", [0, 1])
def test_the_projected_image_is_that_of_the_original(i: int) -> None:
    with torch.no_grad():
        close(model().image_tokens(inputs(i)["pixel_values"]), reference()[f"projected_{i}"])


def test_hidden_states_and_logits_at_the_prompts_end_are_those_of_the_original() -> None:
    ids = torch.cat([torch.tensor(reference()["input_ids_0"]), torch.tensor([[29871]])], dim=1)
    with torch.no_grad():
        out = model()(ids, pixel_values=inputs(0)["pixel_values"], output_hidden_states=True)
    close(out.hidden_states[0], reference()["hidden_embeds_0"])
    close(out.hidden_states[1], reference()["hidden_l1_0"])
    close(out.hidden_states[-1], reference()["hidden_last_0"])
    close(out.logits[0, -1], reference()["logits_lastpos_0"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("i", range(4))
def test_the_scores_of_every_generated_token_are_those_of_the_original(i: int, attention: str) -> None:
    vla = model(attn_implementation=attention)
    close(scores_of(vla, i), reference()[f"scores_action_vocab_{i}"])
    close(torch.logsumexp(run(vla, i).logits[0, -7:], -1), reference()[f"scores_logsumexp_{i}"])


def batch() -> dict[str, Any]:
    """Return the reference's padded batch of three training samples, which have the images 0, 3 and 0."""
    found = reference()
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask", "labels": "labels"}
    tensors = {ours: torch.tensor(found[f"train_batch_{theirs}"]).long() for ours, theirs in names.items()}
    return {**tensors, "pixel_values": torch.cat([inputs(i)["pixel_values"] for i in (0, 3, 0)])}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_predictions_and_metrics_of_a_padded_batch_are_those_of_the_original(attention: str) -> None:
    found, told = reference(), batch()
    with torch.no_grad():
        out = model(attn_implementation=attention)(**told)
    close(out.loss, found["train_loss"])
    close(out.logits[0, -13:-1, ACTIONS], found["train_logits_actionvocab_b0"])
    predicted, at = out.logits[:, 256:-1].argmax(-1).numpy(), found["train_mask"]
    truth = told["labels"][:, 1:].numpy()
    np.testing.assert_array_equal(predicted[at], found["train_pred_ids"][at])
    assert (predicted == truth)[at].mean() == pytest.approx(float(found["train_action_accuracy"]))
    decode = ActionTokenizer().decode
    l1 = np.abs(decode(predicted[at]) - decode(truth[at])).mean()
    assert l1 == pytest.approx(float(found["train_l1"]), abs=1e-6)


def test_bfloat16_is_near_the_original_in_bfloat16() -> None:
    vla = model(dtype=torch.bfloat16)
    assert vla.dtype == torch.bfloat16
    with torch.no_grad():
        projected = vla.image_tokens(inputs(0)["pixel_values"]).float()
    expected = reference()["bf16_projected_0"]
    np.testing.assert_allclose(projected, expected, rtol=0.04, atol=0.04)  # some steps of bfloat16, 1/256 each


# Mistakes


def test_the_reference_itself_is_not_off() -> None:
    assert not is_off(model())


def test_a_language_model_without_the_causal_mask_is_seen() -> None:
    length = reference()["generated_ids_1"].shape[1] - 1 + 256
    out = run(model(attn_implementation="eager"), 1)
    all_seen = run_with_mask(torch.zeros(1, 1, length, length))
    assert (out.logits - all_seen.logits).abs().max() > 1e-3


def run_with_mask(mask: Any) -> Any:
    vla = model(attn_implementation="eager")
    ids = torch.tensor(reference()["generated_ids_1"])[:, :-1]
    with torch.no_grad():
        text = vla.get_input_embeddings()(ids)
        embeddings = torch.cat([text[:, :1], vla.image_tokens(inputs(1)["pixel_values"]), text[:, 1:]], dim=1)
        return vla.language_model(inputs_embeds=embeddings, attention_mask=mask)


def test_the_tanh_form_of_gelu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    gelu = torch.nn.GELU
    monkeypatch.setattr(vit.nn, "GELU", lambda: gelu(approximate="tanh"))
    vla = OpenVLAForActionPrediction.from_pretrained(BASE)
    with torch.no_grad():
        features = vla.vision_backbone.featurizer(inputs(1)["pixel_values"][:, :3])
    assert np.abs(features.numpy() - reference()["dino_patches_1"]).max() > 1e-4


def test_the_last_block_instead_of_the_second_to_last_is_seen() -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(BASE)
    for tower in (vla.vision_backbone.featurizer, vla.vision_backbone.fused_featurizer):
        tower.blocks.append(tower.blocks[-1])
    assert is_off(vla)


def test_exact_imagenet_constants_instead_of_the_rounded_ones_are_seen() -> None:
    pixels = ImageTransform.of({})(image(0))
    assert np.abs(pixels[:, ::8, ::8] - reference()["pixel_values_slice_0"][0]).max() > 1e-3


def test_another_epsilon_of_the_rms_norm_is_seen(tmp_path: Path) -> None:
    assert model().config.text_config.rms_norm_eps == 1e-6
    vla = OpenVLAForActionPrediction.from_pretrained(changed(tmp_path, text_config=text(rms_norm_eps=1e-5)))
    out, ours = (run(one, 0).logits[0, -7:] for one in (vla, model()))
    assert (out - ours).abs().max() > 1e-4


def text(**told: Any) -> dict[str, Any]:
    return {**json.loads((BASE / "config.json").read_text())["text_config"], **told}


# Shape


def test_the_model_has_exactly_the_982_tensors_of_openvla_7b() -> None:
    with torch.device("meta"):
        vla = OpenVLAForActionPrediction(OpenVLAConfig(text_config={"vocab_size": 32064, "pad_token_id": 32000}))
    found = {key: list(value.shape) for key, value in vla.state_dict().items()}
    assert found == tensors_of_7b()
    assert sum(np.prod(shape) for shape in found.values()) == 7_541_237_184


def test_a_model_with_fewer_key_heads_and_another_vocabulary_is_a_matter_of_config() -> None:
    small = {"hidden_size": 24, "intermediate_size": 60, "num_attention_heads": 3, "num_hidden_layers": 2}
    told = {**small, "num_key_value_heads": 1, "vocab_size": 564, "pad_token_id": 500, "rms_norm_eps": 1e-5}
    vla = OpenVLAForActionPrediction(OpenVLAConfig(text_config=told, tiny_vision=model().config.tiny_vision))
    with torch.no_grad():
        out = vla(torch.tensor([[1, 5, 6]]), pixel_values=torch.randn(1, 6, 224, 224))
    assert out.logits.shape == (1, 3 + 256, 564)
    assert out.logits.isfinite().all()
    assert vla.config.action_vocab == 500


def test_gradients_reach_what_they_reach_in_the_original_also_with_checkpointed_activations() -> None:
    for checkpointed in (False, True):
        vla = OpenVLAForActionPrediction.from_pretrained(BASE).train()
        if checkpointed:
            vla.checkpoint_activations()
        vla(**batch(), use_cache=False).loss.backward()
        norms = {name: p.grad for name, p in vla.named_parameters()}
        assert sorted(name for name, grad in norms.items() if grad is None) == sorted(META["params_without_grad"])
        for name, expected in META["grad_norms"].items():
            assert float(norms[name].norm()) == pytest.approx(expected, rel=1e-4)


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vla: vla(torch.tensor([[1, 2]])), "pixel_values are required"),
        (
            lambda vla: vla(torch.tensor([[1, 2]]), pixel_values=torch.zeros(1, 3, 224, 224)),
            r"expected \[B, 6, 224, 224\]",
        ),
        (
            lambda vla: vla(torch.tensor([[1, 2]]), pixel_values=torch.zeros(2, 6, 224, 224)),
            "expected one image for each prompt",
        ),
    ],
)
def test_inputs_that_the_model_cannot_see_are_refused(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(model())


def test_a_vision_backbone_that_is_not_built_here_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="unknown vision backbone 'siglip-vit-so400m'"):
        OpenVLAConfig(vision_backbone_id="siglip-vit-so400m")


def test_dims_that_make_no_tower_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not a valid vision tower: 48 dims, 4 blocks, 5 heads"):
        OpenVLAConfig(tiny_vision=[{"embed_dim": 48, "depth": 4, "num_heads": 5}, {}]).vision_shapes()
    with pytest.raises(CheckpointError, match="expected 2 towers, got 1"):
        OpenVLAConfig(tiny_vision=[{}]).vision_shapes()


def test_the_image_stands_behind_the_first_token() -> None:
    row = openvla._after_first(torch.tensor([[1, 2, 3]]), torch.tensor([[8, 9]]))
    assert row.tolist() == [[1, 8, 9, 2, 3]]
