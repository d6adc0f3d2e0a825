"""Training prints the licences of weights and data, and the checkpoint contains them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import CheckpointError
from tests.finetune.vla import BASE, changed

pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.recipe import HERE, ModelRecipe, recipe, recipe_names
from finetune.training import licences
from finetune.training.licences import Licence, are_open, described, of_weights
from tests.finetune.lab import make_lab, read


@pytest.mark.parametrize("base", ["openvla/openvla-7b", str(BASE)])
def test_what_derives_from_llama_2_says_so(base: str) -> None:
    found = of_weights(ModelRecipe(base=base))
    assert found[0].licence == "Llama 2 Community License"
    assert "Acceptable Use Policy" in described(found)[0]
    assert not are_open(found)


@pytest.mark.parametrize(("base", "licence"), [("smol", "Apache-2.0"), ("tiny", "none needed")])
def test_what_is_made_here_is_open(base: str, licence: str) -> None:
    found = of_weights(ModelRecipe(base=base))
    assert found[0].licence == licence
    assert are_open(found)


def test_another_language_model_is_not_known(tmp_path: Path) -> None:
    found = of_weights(ModelRecipe(base=str(changed(tmp_path, llm_backbone_id="phi-2-3b"))))
    assert found[0].licence == "not known"
    assert not are_open(found)


def test_a_training_that_goes_on_from_another_carries_the_licences_of_both(tmp_path: Path) -> None:
    lock = read(make_lab(tmp_path))
    base = changed(tmp_path, llm_backbone_id="smol")
    first = licences.to_json(ModelRecipe(base="smol"), lock)
    assert [one["of"] for one in first["data"]] == ["dataset one", "dataset two"]
    (base / licences.LICENCES).write_text(json.dumps(first))
    found = of_weights(ModelRecipe(base=str(base)))
    assert [one.of for one in found] == [one["of"] for one in (*first["weights"], *first["data"])]
    (base / licences.LICENCES).write_text('{"weights": [{}]}')
    with pytest.raises(CheckpointError, match=r"licences\.json: not a valid list of licences"):
        of_weights(ModelRecipe(base=str(base)))


def test_a_data_licence_that_is_not_stated_is_said_to_be_so() -> None:
    stated = Licence("dataset a", "CC-BY-4.0")
    assert described((stated, replace(stated, licence=None)))[1] == "licence of dataset a: not stated"


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_marked_with_what_its_weights_are_under(name: str) -> None:
    first = (HERE / f"{name}.toml").read_text().splitlines()[0]
    found = of_weights(recipe(name).model)
    assert first.startswith(f"# Weights: {'open' if are_open(found) else 'not open'}: ")
    assert found[0].licence in first
