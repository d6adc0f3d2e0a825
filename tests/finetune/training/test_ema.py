"""The average of the weights is the formula's, in whatever processes and with whatever breaks."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, SpecError, UsageError
from tests.finetune.runs import ADAPTERS, logged, losses, make_lock, run, torchrun, toy, unequal, weights

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from safetensors.torch import load_file, save_file  # noqa: E402

from finetune.models import lora  # noqa: E402 - only where torch is
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.policy.merge import merge  # noqa: E402
from finetune.training.ema import AVERAGE, WeightAverage  # noqa: E402
from finetune.training.plan import footprint  # noqa: E402
from finetune.training.snapshots import STATE, WEIGHTS  # noqa: E402

EMA = ("train.ema=0.6",)  # so low that three steps matter
EACH = ("train.steps=3", "train.batch=4", "eval.batches=1", "train.save_every=1", "train.keep=9")
LAST = Path("step-00000003")
HALF = ("train.precision=bf16", "model.dtype=bfloat16")
MODES: dict[str, tuple[str, ...]] = {
    "full": EMA,
    "adapters": (*EMA, *ADAPTERS),
    "half": (*EMA, *HALF),
}


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lock(tmp_path_factory.mktemp("ema"))


@pytest.fixture(scope="module", params=MODES)
def whole(request: pytest.FixtureRequest, lock: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Train in one of the modes without a break, with a checkpoint after each step."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    run(lock, out, *MODES[request.param], *EACH)
    return request.param, out


def state(checkpoint: Path, name: str) -> dict[str, Any]:
    return load_file(checkpoint / STATE / name)


def model_weights(checkpoint: Path) -> dict[str, Any]:
    """Return the weights that a user gets from a checkpoint, by their names in the training."""
    if (checkpoint / lora.WEIGHTS).exists():
        stored = load_file(checkpoint / lora.WEIGHTS)
        return {key.replace(".weight", ".default.weight"): value for key, value in stored.items()}
    return {key.partition(": ")[2]: value for key, value in weights(checkpoint).items() if key.startswith("model")}


def test_each_checkpoint_has_the_average_of_the_formula(whole: tuple[str, Path]) -> None:
    mode, out = whole
    result = sorted(out.glob("step-*"))
    assert len(result) == 3
    for before, after in pairwise(result):
        raw, old, new = state(after, WEIGHTS), state(before, AVERAGE), state(after, AVERAGE)
        assert new.keys() <= raw.keys()
        for name, value in new.items():
            assert value.dtype == torch.float32
            expected = 0.6 * old[name].double() + 0.4 * raw[name].double()
            assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-9)
        stored = model_weights(after)
        assert all(stored[name].equal(value.to(stored[name].dtype)) for name, value in new.items())
        assert {str(value.dtype) for value in raw.values()} == {"torch.bfloat16" if mode == "half" else "torch.float32"}
        assert any(not stored[name].equal(raw[name]) for name in new)


def test_the_average_starts_as_the_weights_before_the_first_step(lock: Path, tmp_path: Path) -> None:
    once = (*EACH, "train.steps=1", "eval.every=0")
    run(lock, tmp_path / "run", *once, *EMA)
    run(lock, tmp_path / "still", *once, "optimizer.lr=1e-30", "optimizer.weight_decay=0.0")
    start = model_weights(tmp_path / "still/step-00000001")  # AdamW has changed nothing
    raw, new = (state(tmp_path / "run/step-00000001", name) for name in (WEIGHTS, AVERAGE))
    for name, value in new.items():
        expected = 0.6 * start[name].double() + 0.4 * raw[name].double()
        assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-9)


def test_the_average_is_what_is_evaluated_and_the_weights_are_what_is_trained(
    whole: tuple[str, Path], lock: Path, tmp_path: Path
) -> None:
    mode, out = whole
    plain = tmp_path / "plain"
    run(lock, plain, *MODES[mode], *EACH, "train.ema=0.0")
    assert losses(plain) == losses(out)
    assert not (plain / LAST / STATE / AVERAGE).exists()
    assert (plain / LAST / STATE / WEIGHTS).exists() == (mode == "adapters")
    raw = state(out / LAST, WEIGHTS)
    assert all(value.equal(raw[name]) for name, value in model_weights(plain / LAST).items() if name in raw)
    assert logged(out)["eval", 3]["loss"] != logged(plain)["eval", 3]["loss"]


def test_a_run_that_goes_on_is_the_same_to_the_bit(whole: tuple[str, Path], lock: Path, tmp_path: Path) -> None:
    mode, out = whole
    for steps in (2, 3):
        run(lock, tmp_path / "run", *MODES[mode], *EACH, f"train.steps={steps}", f"train.save_every={steps}")
    assert unequal(tmp_path / "run" / LAST, out / LAST) == []
    again = logged(tmp_path / "run")
    assert {key: again[key] for key in logged(out)} == logged(out)


def test_checkpoints_load_and_merge_as_ever(whole: tuple[str, Path], tmp_path: Path) -> None:
    mode, out = whole
    folder = out / LAST
    if mode == "adapters":
        assert merge(str(out / "base"), folder, tmp_path / "merged").effect > 0
        return
    vla = OpenVLAForActionPrediction.from_pretrained(folder)
    average, kind = state(folder, AVERAGE), torch.bfloat16 if mode == "half" else torch.float32
    for name, value in vla.named_parameters():
        assert name not in average or value.equal(average[name].to(kind).float())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "adapters"])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_average_as_one_does(lock: Path, tmp_path: Path, mode: str, way: str) -> None:
    options = (*EMA, "train.save_every=9", "eval.every=2")
    settings = (*options, "train.steps=4", *(("train.mode=lora", "lora.rank=4") if mode == "adapters" else ()))
    run(lock, tmp_path / "one", *settings)
    torchrun(lock, tmp_path / "two", *settings, f"train.parallel={way}")
    torchrun(lock, tmp_path / "parts", *settings, f"train.parallel={way}", "train.steps=2")
    torchrun(lock, tmp_path / "parts", *settings, f"train.parallel={way}")
    last = Path("step-00000004")
    assert unequal(tmp_path / "parts" / last, tmp_path / "two" / last) == []
    assert logged(tmp_path / "parts") == logged(tmp_path / "two")
    one, two = (logged(tmp_path / name) for name in ("one", "two"))
    for key in one:
        assert two[key]["loss"] == pytest.approx(one[key]["loss"], rel=2e-6)
    ours, theirs = (weights(tmp_path / name / last) for name in ("two", "one"))
    assert ours.keys() ^ theirs.keys() == {f"{STATE}/rng.safetensors: cpu.1"}
    for name, value in theirs.items():
        if "rng" not in name:
            assert ours[name].dtype == value.dtype
            # AdamW divides by the root of the second moment, which makes much of a rounding in a tiny gradient
            assert np.quantile((ours[name] - value).abs().double().numpy(), 0.99) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fsdp", "none"), ("none", "fsdp")])
def test_an_average_goes_on_in_another_number_of_processes(lock: Path, tmp_path: Path, before: str, after: str) -> None:
    run(lock, tmp_path / "one", *EMA)
    for way, steps in ((before, 3), (after, 6)):
        start = run if way == "none" else torchrun
        start(lock, tmp_path / "run", *EMA, f"train.parallel={way}", f"train.steps={steps}")
    ours, theirs = (state(tmp_path / name / "step-00000006", AVERAGE) for name in ("run", "one"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    result, expected = (logged(tmp_path / name) for name in ("run", "one"))
    assert result["eval", 6]["loss"] == pytest.approx(expected["eval", 6]["loss"], rel=2e-6)


def test_the_weights_come_back_after_the_average_even_if_something_fails() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).to(torch.bfloat16)
    model.bias.requires_grad_(requires_grad=False)
    average, before = WeightAverage.of(model, 0.9), copy.deepcopy(model.state_dict())
    average.average["weight"].fill_(1 / 3)
    with average.in_place():
        assert model.weight.unique().tolist() == [pytest.approx(1 / 3, rel=1e-2)]
    with pytest.raises(RuntimeError, match="stop"), average.in_place():
        raise RuntimeError("stop")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert average.average["weight"].unique().tolist() == [pytest.approx(1 / 3, rel=1e-7)]


# Bad input


@pytest.mark.parametrize("decay", ["1.0", "1", "-0.1", "nan", "inf", '"on"', "true"])
def test_what_is_no_decay_is_refused(decay: str) -> None:
    with pytest.raises(SpecError, match=r"train\.ema"):
        toy(f"train.ema={decay}")


def test_a_run_does_not_go_on_with_another_decay(lock: Path, tmp_path: Path) -> None:
    run(lock, tmp_path / "run", *EMA, "train.steps=1", "train.batch=1", "eval.every=0")
    with pytest.raises(UsageError, match=r"differs in train.ema \(0.7, was 0.6\)"):
        run(lock, tmp_path / "run", "train.ema=0.7", "train.batch=1", "eval.every=0")


def test_an_average_that_is_gone_or_damaged_is_named(lock: Path, tmp_path: Path) -> None:
    settings = (*EMA, "train.steps=1", "train.batch=1", "eval.every=0")
    run(lock, tmp_path / "run", *settings)
    path = tmp_path / "run/step-00000001" / STATE / AVERAGE
    whole = load_file(path)
    name = min(whole)
    for content, message in (
        (whole | {name: torch.full_like(whole[name], torch.nan)}, "NaN|not finite"),
        ({key: value for key, value in whole.items() if key != name}, "1 trained weights are missing"),
        (b"half", r"average\.safetensors: cannot be read"),
        (None, r"average\.safetensors: cannot be read"),
    ):
        path.unlink(missing_ok=True)
        if isinstance(content, dict):
            save_file(content, path)
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            run(lock, tmp_path / "run", *settings, "train.steps=2")


# Memory


@pytest.mark.parametrize("settings", [(), HALF, ADAPTERS, ("train.mode=last-layer",)])
def test_the_plan_counts_four_bytes_for_each_trained_weight(settings: tuple[str, ...]) -> None:
    with_it, without = (footprint(toy(*settings, f"train.ema={decay}")) for decay in (0.999, 0))
    assert with_it.average == 4 * with_it.trained
    for way, world in (("none", 1), ("ddp", 4), ("fsdp", 4)):
        options: Any = {"batch": 8, "micro": None, "checkpointed": False}
        more, less = (each.need(way, world, **options) for each in (with_it, without))
        assert more.peak - less.peak == more.average == with_it.average // (4 if way == "fsdp" else 1)
        assert less.average == 0
