"""Recipes say what they mean, and nothing that means nothing."""

import pytest

from finetune.recipe import TARGETS, Recipe, load, recipe
from schemas.errors import SpecError, UsageError
from tests.finetune.runs import toy


def made(text: str = "", *, base: str = "tiny") -> Recipe:
    return load(f'name = "x"\n[model]\nbase = "{base}"\n{text}', where="x.toml")


def test_the_defaults_are_those_of_openvla() -> None:
    told = made()
    assert (told.lora.rank, told.lora.alpha, told.lora.dropout, told.lora.targets) == (32, 16, 0, TARGETS)
    assert (told.optimizer.lr, told.optimizer.weight_decay, told.optimizer.schedule) == (5e-4, 0.01, "constant")
    assert (told.train.batch, told.train.clip, told.data.resize) == (16, 0, "lanczos3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nstep = 3", r"x.toml: train: unknown key 'step'; did you mean 'steps'\?"),
        ("[trian]\nsteps = 3", r"unknown key 'trian'; did you mean 'train'\?"),
        ("[train]\nsteps = 0", "train.steps: Input should be greater than or equal to 1"),
        ("[train]\nsteps = 1.5", "train.steps: Input should be a valid integer"),
        ("[optimizer]\nlr = nan", "optimizer.lr: Input should be greater than 0"),
        ("[optimizer]\nlr = inf", "optimizer.lr: must be a finite number"),
        (
            "[optimizer]\nschedule = 'multistep'",
            'milestones: require schedule = "multistep", and it requires them',
        ),
        ("[optimizer]\nmilestones = [3]", 'milestones: require schedule = "multistep"'),
        ("[optimizer]\nschedule = 'multistep'\nmilestones = [3, 2]", "milestones: must be in increasing order"),
        ("[optimizer]\nwarmup = 1000", "optimizer.warmup: must be below train.steps = 1000, got 1000"),
        ("[train]\nmode = 'full'\n[lora]\nrank = 2", 'lora: requires train.mode = "lora", got "full"'),
        ("[data]\ncameras = ['primary', 'wrist']", "data.cameras, data.history: OpenVLA takes one image"),
        ("[data]\nresize = 'nearest'", "data.resize: Input should be"),
        ("= 3", "x.toml: is not TOML"),
    ],
)
def test_what_a_recipe_gets_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made(text)


def test_dims_of_a_model_that_has_its_own_are_refused() -> None:
    with pytest.raises(SpecError, match="vision: cannot be set for base 'openvla/openvla-7b'"):
        made("vision = { dim = 3 }", base="openvla/openvla-7b")
    with pytest.raises(SpecError, match="text: cannot be set for base 'smol'"):
        made("text = { dim = 3 }", base="smol")
    assert made("vision = { dim = 3 }", base="smol").model.vision.dim == 3


def test_keys_are_changed_by_name() -> None:
    told = toy().with_(["train.steps = 7"])
    assert told.train.steps == 7
    assert toy().with_(["data.cameras=['wrist']", "optimizer.schedule=cosine"]).data.cameras == ("wrist",)
    with pytest.raises(SpecError, match=r"--set train.stepps=3: train: unknown key 'stepps'; did you mean 'steps'"):
        toy().with_(["train.stepps=3"])
    for wrong in ("train.steps", "=3", "name.first=3"):
        with pytest.raises(UsageError, match="expected KEY=VALUE"):
            toy().with_([wrong])


def test_what_is_written_is_the_whole_recipe() -> None:
    for told in (toy(), made(), made(base="openvla/openvla-7b"), made(base="smol")):
        again = load(told.to_toml(lock="mixture.lock"), where="again.toml")
        assert again.differences(told) == []
        assert again.data.lock == "mixture.lock"
        assert "lr =" in told.to_toml(lock="mixture.lock")  # what was not said, too


def test_only_what_changes_the_result_makes_another_run() -> None:
    told = toy()
    free = ["train.micro=2", "train.parallel=fsdp", "train.save_every=7", "data.workers=3", "eval.every=0"]
    assert told.differences(told.with_([*free, "train.steps=100"])) == []
    assert told.differences(told.with_(["seed=3"])) == ["seed (3, was 0)"]
    falling = told.with_(["optimizer.schedule=linear"])
    assert falling.differences(falling.with_(["train.steps=100"])) == ["train.steps (100, was 6)"]


def test_an_unknown_recipe_is_said_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="unknown recipe 'tiny-gpu'"):
        recipe("tiny-gpu")
    with pytest.raises(SpecError, match=r"nowhere\.toml: no such recipe"):
        recipe("nowhere.toml")
