"""OpenVLA-OFT is trained with every head, however the work is divided, and its checkpoints act as they were trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import UsageError
from tests.finetune.runs import logged, losses, make_lock, run, torchrun, toy, unequal

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from finetune.data.loader import Loader  # noqa: E402 - only where torch is
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.policy.merge import merge  # noqa: E402
from finetune.policy.policy import load  # noqa: E402
from finetune.training.plan import footprint  # noqa: E402

TOLERANCE = 2e-6  # relative, of losses
HEADS = {
    "l1": ("oft.head=l1", "data.history=2"),
    "film": ("oft.head=l1", "oft.film=true", "data.history=2"),
    "diffusion": ("oft.head=diffusion",),
    "discrete": ("oft.head=discrete", "data.history=2"),
}
LORA = ("train.mode=lora", "lora.rank=4")
SHORT = ("train.batch=4", "train.steps=4", "train.save_every=2", "eval.every=2", "eval.batches=1")
LAST = "step-00000004"


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lock(tmp_path_factory.mktemp("oft"))


def settings(name: str, *more: str) -> tuple[str, ...]:
    return ("data.chunk=3", *SHORT, *HEADS[name], *more)


@pytest.fixture(scope="module", params=list(HEADS))
def trained(request: pytest.FixtureRequest, lock: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Train each head without a break, in one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(lock, out, *settings(request.param))
    return request.param, out


def observed(lock: Path, history: int) -> tuple[list[Any], str]:
    batch = next(iter(Loader(lock)))
    return [batch.images["primary"][0, 0]] * history, batch.instruction[0]


def test_the_loss_falls_and_dimensions_are_judged(trained: tuple[str, Path]) -> None:
    name, out = trained
    curve = losses(out)
    assert len(curve) == 4
    assert name == "diffusion" or min(curve[1:]) < curve[0]
    for source in logged(out)["eval", 4]["sources"].values():
        assert list(source["dims"]) == ["x", "y", "z", "gripper"]


def test_accumulated_gradients_are_those_of_the_whole_batch(
    trained: tuple[str, Path], lock: Path, tmp_path: Path
) -> None:
    name, out = trained
    run(lock, tmp_path / "run", *settings(name, "train.micro=2"))
    assert losses(tmp_path / "run") == pytest.approx(losses(out), rel=TOLERANCE)


def test_a_run_that_is_continued_is_the_same_to_the_bit(trained: tuple[str, Path], lock: Path, tmp_path: Path) -> None:
    name, whole = trained
    out = tmp_path / "run"
    run(lock, out, *settings(name, "train.steps=2"))
    run(lock, out, *settings(name))
    assert logged(out) == logged(whole)
    assert unequal(out / LAST, whole / LAST) == []


def test_a_checkpoint_predicts_chunks_and_states_what_it_needs(trained: tuple[str, Path], lock: Path) -> None:
    name, out = trained
    vla = OpenVLAForActionPrediction.from_pretrained(out / LAST)
    assert vla.oft is not None
    assert (vla.oft.chunk, vla.oft.actions, vla.oft.cameras) == (3, ("x", "y", "z", "gripper"), ("primary",))
    images, instruction = observed(lock, vla.oft.history)
    options = {"seed": 1} if name == "diffusion" else {}
    chunk = vla.predict_action(images, instruction, "two", lenient=True, **options)
    assert chunk.shape == (3, 4)
    with pytest.raises(UsageError, match=rf"has {len(images) + 1} images, the model was trained with {len(images)}"):
        vla.predict_action([*images, images[0]], instruction, "two", lenient=True)


@pytest.mark.parametrize("name", ["film", "diffusion", pytest.param("discrete", marks=pytest.mark.slow)])
def test_adapters_are_continued_loaded_and_merged(lock: Path, tmp_path: Path, name: str) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    run(lock, whole, *settings(name, *LORA))
    run(lock, out, *settings(name, *LORA, "train.steps=2"))
    run(lock, out, *settings(name, *LORA))
    assert logged(out) == logged(whole)
    assert unequal(out / LAST, whole / LAST) == []
    folder = whole / LAST
    for file in folder.glob("*.pt"):
        theirs = torch.load(out / LAST / file.name, weights_only=True)
        assert all(value.equal(theirs[key]) for key, value in torch.load(file, weights_only=True).items())
    policy = load(folder, lenient=True)
    images, instruction = observed(lock, policy.model.oft.history)
    merge(str(whole / "base"), folder, tmp_path / "merged")
    merged = load(tmp_path / "merged", lenient=True)
    inputs = policy.inputs([images], [instruction])
    noise = {"sampling": None}
    if name == "diffusion":
        from finetune.models.acting import Sampling

        noise = {"sampling": Sampling(seed=0)}
    ours, theirs = (one.chunks(inputs, **noise) for one in (policy, merged))
    np.testing.assert_allclose(theirs, ours, atol=2e-4)


def test_noise_depends_on_the_draw_and_not_on_the_batch(lock: Path, tmp_path: Path) -> None:
    options = settings("diffusion", "train.steps=2", "eval.every=0")
    run(lock, tmp_path / "one", *options)
    run(lock, tmp_path / "parts", *options, "train.micro=1", "data.workers=1")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)
    run(lock, tmp_path / "other", *options, "seed=1")
    assert losses(tmp_path / "other") != pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_the_head_is_counted_in_the_plan() -> None:
    base, tiny = footprint(toy("data.chunk=3")), footprint(toy(*settings("l1")))
    assert tiny.parameters > base.parameters
    assert tiny.activations(4, checkpointed=False) > base.activations(4, checkpointed=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("data.history=2",), r"OpenVLA takes one image; add \[oft\]"),
        (('data.cameras=["primary","wrist"]',), r"OpenVLA takes one image; add \[oft\]"),
        (("oft.head=l2",), r"oft\.head: .*'l1', 'diffusion' or 'discrete'"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(Exception, match=message):
        toy(*options)


def test_a_checkpoint_of_oft_is_trained_further(lock: Path, tmp_path: Path) -> None:
    run(lock, tmp_path / "first", *settings("film", "train.steps=2", "eval.every=0"))
    base = f'model={{base = "{tmp_path / "first/step-00000002"}"}}'
    with pytest.raises(UsageError, match=r'the base is OpenVLA-OFT: add \[oft\] with head = "l1"'):
        run(lock, tmp_path / "tokens", base)
    with pytest.raises(UsageError, match="chunk is 2, that of the base is 3"):
        run(lock, tmp_path / "short", base, *settings("film", "data.chunk=2"))
    run(lock, tmp_path / "second", base, *settings("film", *LORA, "train.steps=2", "eval.every=0"))
    config = json.loads((tmp_path / "second/step-00000002/adapter_config.json").read_text())
    assert "action_head" in config["exclude_modules"]
    policy = load(tmp_path / "second/step-00000002")
    assert not any("lora" in name for name, _ in policy.model.action_head.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way", "mode"),
    [("film", "fsdp", LORA), ("film", "ddp", ()), ("diffusion", "fsdp", ()), ("discrete", "ddp", LORA)],
)
def test_two_processes_learn_what_one_learns(
    lock: Path, tmp_path: Path, name: str, way: str, mode: tuple[str, ...]
) -> None:
    one, two, options = tmp_path / "one", tmp_path / "two", settings(name, *mode, "train.micro=1")
    run(lock, one, *options)
    torchrun(lock, two, *options, f"train.parallel={way}")
    assert losses(two) == pytest.approx(losses(one), rel=TOLERANCE)
    assert logged(two)["eval", 4]["l1"] == pytest.approx(logged(one)["eval", 4]["l1"], rel=1e-5)
