"""Training computes the right numbers, however it is divided among processes, and resumes exactly."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import CheckpointError, MixtureError, TrainingError, UsageError
from schemas.files import durable
from schemas.mixture import lock as locks
from tests.finetune.lab import make_lab
from tests.finetune.runs import (
    ADAPTERS,
    arguments,
    in_two_processes,
    logged,
    losses,
    make_lock,
    run,
    torchrun,
    toy,
    unequal,
)
from tests.makers import PEAK
from tests.pipelines.toy import ROOT, columns, make_toy
from tests.waiting import wait_until

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from safetensors.torch import load_file, save_file  # noqa: E402

from finetune.data.loader import Loader  # noqa: E402 - only where torch is
from finetune.data.preprocessing import Preprocessing  # noqa: E402
from finetune.models import base, lora  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.models.weights import metadata  # noqa: E402
from finetune.training.train import train  # noqa: E402

TOLERANCE = 2e-6  # relative, of losses; 1.2e-7 was measured, one step of float32


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lock(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def whole(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without a break."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(lock, out)
    return out


@pytest.fixture(scope="module")
def adapted(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train adapters without a break, with dropout."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    run(lock, out, *ADAPTERS)
    return out


# What is computed


def test_the_loss_falls_and_every_step_is_logged(whole: Path) -> None:
    curve = losses(whole)
    assert len(curve) == 6
    assert curve[-1] < curve[0] - 0.2
    first = logged(whole)["train", 1]
    assert first.keys() == {"kind", "step", "loss", "token_accuracy", "l1", "lr", "grad_norm"}


def test_what_was_held_out_is_judged_by_dataset_and_dimension(whole: Path) -> None:
    found = logged(whole)["eval", 6]
    assert found["part"] == "val"
    for source in found["sources"].values():
        assert list(source["dims"]) == ["x", "y", "z", "gripper"]
        assert all(errors.keys() == {"l1", "l1_metric"} for errors in source["dims"].values())


@pytest.mark.parametrize("settings", [("train.micro=2",), ("train.micro=4", "data.workers=1")])
def test_gradients_that_are_accumulated_are_those_of_the_whole_batch(
    whole: Path, lock: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    run(lock, tmp_path / "run", *settings)
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=TOLERANCE)


def test_parts_with_unequal_numbers_of_known_tokens_count_by_their_tokens(lock: Path, tmp_path: Path) -> None:
    told = ("data.chunk=6", "train.steps=3")  # chunks are cut at the ends of episodes
    run(lock, tmp_path / "whole", *told)
    run(lock, tmp_path / "parts", *told, "train.micro=1")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=TOLERANCE)


@pytest.mark.parametrize("settings", [("train.checkpoint_activations=true",), ("model.attention=eager",)])
def test_ways_to_compute_the_same_give_the_same(
    whole: Path, lock: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    run(lock, tmp_path / "run", *settings)
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=1e-4)


def test_bfloat16_learns_nearly_the_same(whole: Path, lock: Path, tmp_path: Path) -> None:
    run(lock, tmp_path / "run", "train.precision=bf16")
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=0.02)
    assert losses(tmp_path / "run") != pytest.approx(losses(whole), rel=1e-5)


def test_clipped_gradients_learn_less(lock: Path, tmp_path: Path) -> None:
    told = ("train.steps=3", "optimizer.weight_decay=0.0")
    for name, clip in (("none", 0), ("loose", 1e9), ("tight", 1e-9)):
        run(lock, tmp_path / name, *told, f"train.clip={clip}")
    free, loose, tight = (losses(tmp_path / name) for name in ("none", "loose", "tight"))
    assert loose == free
    assert tight[-1] > free[-1]


@pytest.mark.parametrize("mode", ["frozen-vision", "last-layer"])
def test_what_a_mode_freezes_stays_as_it_was(lock: Path, tmp_path: Path, mode: str) -> None:
    run(lock, tmp_path / "run", f"train.mode={mode}", "train.save_every=1", "train.steps=2", "eval.every=0")
    changed = unequal(tmp_path / "run/step-00000001", tmp_path / "run/step-00000002")
    model = [name for name in changed if name.startswith("model")]
    assert any("lm_head" in name for name in model)
    assert not any("vision_backbone" in name for name in model)
    assert any("projector" in name for name in model) == (mode == "frozen-vision")


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
@pytest.mark.parametrize("micro", [4, 2])
def test_two_processes_learn_what_one_learns(whole: Path, lock: Path, tmp_path: Path, way: str, micro: int) -> None:
    shown = torchrun(lock, tmp_path / "run", f"train.parallel={way}", f"train.micro={micro}")
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=TOLERANCE)
    ours, theirs = (logged(out)["eval", 6] for out in (tmp_path / "run", whole))
    assert ours["l1"] == pytest.approx(theirs["l1"], rel=TOLERANCE)
    assert shown.count("train at step 6") == 1  # one process speaks
    OpenVLAForActionPrediction.from_pretrained(tmp_path / "run/step-00000006")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_adapt_as_one_does(lock: Path, tmp_path: Path, way: str) -> None:
    told = ("train.mode=lora", "lora.rank=4")
    run(lock, tmp_path / "one", *told)
    torchrun(lock, tmp_path / "two", *told, f"train.parallel={way}")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)
    one, two = (metadata(tmp_path / name / "step-00000006" / lora.WEIGHTS) for name in ("one", "two"))
    assert one == two != {}  # the digest of their base


@pytest.mark.slow
def test_parts_of_a_bfloat16_model_with_float32_adapters_learn_alike(lock: Path, tmp_path: Path) -> None:
    half = ("model.dtype=bfloat16", "train.precision=bf16", "train.checkpoint_activations=true", "train.clip=1.0")
    told = ("train.mode=lora", "lora.rank=4", *half)
    run(lock, tmp_path / "one", *told)
    torchrun(lock, tmp_path / "two", *told, "train.parallel=fsdp")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fsdp", "none"), ("none", "fsdp"), ("fsdp", "ddp")])
def test_a_run_goes_on_in_another_number_of_processes(
    whole: Path, lock: Path, tmp_path: Path, before: str, after: str
) -> None:
    for way, steps in ((before, 3), (after, 6)):
        told = (f"train.parallel={way}", f"train.steps={steps}")
        if way == "none":
            run(lock, tmp_path / "run", *told)
        else:
            torchrun(lock, tmp_path / "run", *told)
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=TOLERANCE)


@pytest.mark.slow
def test_an_evaluation_changes_nothing_in_the_checkpoint_of_a_shared_model(lock: Path, tmp_path: Path) -> None:
    options = (*ADAPTERS, "train.precision=bf16", "train.parallel=fsdp", "train.steps=2")
    for name, every in (("evaluated", 2), ("not", 0)):
        torchrun(lock, tmp_path / name, *options, f"eval.every={every}")
    assert unequal(*(tmp_path / name / "step-00000002" for name in ("evaluated", "not"))) == []


MEASURED = f"""
import sys
from pathlib import Path
from finetune.training import folders, parallel
from finetune.training.task import Task
from finetune.training.train import Session
from tests.finetune.runs import toy

lock, out, *settings = sys.argv[1:]
task = Task.of(toy(*settings), Path(lock))
with parallel.joined() as here:
    Session.of(task, folders.prepare(Path(out), task, here=here, overwrite=False), here)
    Path(f"{{out}}_{{here.rank}}").write_text(str({PEAK}))
"""


@pytest.mark.slow
def test_of_a_shared_model_only_the_first_process_ever_has_the_whole(lock: Path, tmp_path: Path) -> None:
    program = tmp_path / "measured.py"
    program.write_text(MEASURED)
    told = ("model.text.dim=1024", "model.text.hidden=4096", "model.text.layers=6", "eval.every=0")
    for way in ("ddp", "fsdp"):
        in_two_processes(str(program), str(lock), str(tmp_path / way), *told, f"train.parallel={way}")
    copied, shared = (int((tmp_path / f"{way}_1").read_text()) for way in ("ddp", "fsdp"))
    model = toy(*told).model
    whole = sum(value.nbytes for value in base.build_empty(model, base.config_of(model)).parameters()) >> 10
    assert whole > 400_000
    assert shared < copied - whole


# Going on


def test_a_run_that_goes_on_is_the_same_to_the_bit(whole: Path, lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(lock, out, "train.steps=3")
    assert run(lock, out).step == 6
    assert logged(out) == logged(whole)
    assert unequal(out / "step-00000006", whole / "step-00000006") == []


def test_adapters_with_dropout_go_on_the_same_to_the_bit(adapted: Path, lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(lock, out, *ADAPTERS, "train.steps=3")
    run(lock, out, *ADAPTERS)
    assert logged(out) == logged(adapted)
    assert unequal(out / "step-00000006", adapted / "step-00000006") == []


def test_adapters_do_not_go_on_beside_another_base(lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(lock, out, *ADAPTERS, "train.steps=1", "eval.every=0")
    stored = load_file(out / "base/model.safetensors")
    stored["projector.fc1.bias"][0] += 1
    save_file(stored, out / "base/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="step-00000001: trained on another base"):
        run(lock, out, *ADAPTERS, "train.steps=2", "eval.every=0")


def test_sums_that_were_not_logged_yet_are_not_lost(lock: Path, tmp_path: Path) -> None:
    told = ("train.log_every=4", "eval.every=0", "train.steps=8")
    run(lock, tmp_path / "whole", *told)
    run(lock, tmp_path / "run", *told, "train.steps=3", "train.log_every=100", "train.save_every=100")
    assert ("train", 3) in logged(tmp_path / "run")  # the last step of a run is logged
    stopped = Stopper(at=2)
    run(lock, tmp_path / "stopped", *told, watch=stopped)
    run(lock, tmp_path / "stopped", *told)
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")


@pytest.mark.slow
def test_killed_it_goes_on_as_if_nothing_had_been(whole: Path, lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = arguments(lock, out)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "oxe_tools", *told], env=environment)
    wait_until(lambda: (out / "step-00000003").exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "step-00000006").exists()
    (out / durable.temporary_name()).mkdir()  # as if it had been writing
    run(lock, out)
    assert logged(out) == logged(whole)
    assert unequal(out / "step-00000006", whole / "step-00000006") == []
    assert not list(out.glob("tmp-*"))


class Stopper:
    """Asks a run to stop, as a signal does."""

    def __init__(self, *, at: int) -> None:
        self.at = at

    def __call__(self, done: int, _: Any) -> None:
        if done == self.at - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_asked_to_stop_it_finishes_its_step_and_writes_a_checkpoint(whole: Path, lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = run(lock, out, watch=Stopper(at=5))
    assert (found.step, found.finished) == (5, False)
    assert run(lock, out).finished
    assert losses(out) == losses(whole)
    assert unequal(out / "step-00000006", whole / "step-00000006") == []


def test_the_last_checkpoints_are_kept(lock: Path, tmp_path: Path) -> None:
    run(lock, tmp_path / "run", "train.save_every=1", "train.keep=3", "eval.every=0")
    assert [path.name[-1] for path in sorted((tmp_path / "run").glob("step-*"))] == ["4", "5", "6"]


def test_a_finished_run_has_nothing_to_do(whole: Path, lock: Path) -> None:
    before = logged(whole)
    assert run(lock, whole).finished
    assert logged(whole) == before


# What a checkpoint carries


def test_a_checkpoint_loads_and_acts_in_the_units_of_each_source(whole: Path, lock: Path) -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(whole / "step-00000006")
    loader = Loader(lock)
    assert list(vla.norm_stats) == ["one", "two"]
    for name in loader.sources:
        norm, told = loader.norm(name), vla.norm_stats[name]["action"]
        assert (told["q01"], told["q99"]) == (norm.q01.tolist(), norm.q99.tolist())
    seen = next(iter(loader))
    action = vla.predict_action(seen.images["primary"][0, 0], seen.instruction[0], "two", lenient=True)
    assert action.shape == (4,)


def test_a_checkpoint_says_what_it_was_trained_on(whole: Path, lock: Path) -> None:
    folder = whole / "step-00000006"
    assert (folder / "mixture.lock").read_bytes() == lock.read_bytes()
    assert locks.read(folder / "mixture.lock")[0].view == "late"
    assert Preprocessing.of(__import__("json").loads((folder / "preprocessing.json").read_text())).augment is not None
    assert (folder / "licences.json").exists()
    from finetune.recipe import recipe

    assert recipe(str(folder / "recipe.toml")).differences(toy()) == []


def test_adapters_are_written_beside_their_base_and_merge(adapted: Path, tmp_path: Path) -> None:
    from finetune.policy.merge import merge

    found = merge(str(adapted / "base"), adapted / "step-00000006", tmp_path / "merged")
    assert found.effect > 0
    merged = OpenVLAForActionPrediction.from_pretrained(tmp_path / "merged")
    assert list(merged.norm_stats) == ["one", "two"]


# Bad input


def test_another_recipe_or_mixture_does_not_go_on_there(whole: Path, lock: Path) -> None:
    with pytest.raises(UsageError, match=r"differs in optimizer.lr \(0.01, was 0.001\)"):
        run(lock, whole, "optimizer.lr=0.01")
    with pytest.raises(UsageError, match="differs in the lock"):
        run(make_lab(whole.parent / "other", 'view = "late"\nseed = 3'), whole, "eval.every=0")
    with pytest.raises(UsageError, match="not a run of oxe train"):
        run(lock, whole.parent)


def test_two_runs_do_not_write_to_one_folder(lock: Path, tmp_path: Path) -> None:
    def again(*_: Any) -> None:
        with pytest.raises(UsageError, match="another oxe train is running there"):
            run(lock, tmp_path / "run", overwrite=True)

    run(lock, tmp_path / "run", "train.steps=1", "eval.every=0", watch=again)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_is_replaced_when_that_is_said(lock: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(lock, out, "train.steps=3", "eval.every=0")
    run(lock, out, "train.steps=2", "eval.every=0", "seed=5", overwrite=True)
    assert [path.name for path in out.glob("step-*")] == ["step-00000002"]
    assert len(logged(out)) == 2


def test_what_cannot_begin_leaves_no_run_behind(lock: Path, tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match="no colour camera 'wrist'"):
        run(lock, tmp_path / "run", "data.cameras=['wrist']")
    run(lock, tmp_path / "run", "train.steps=1", "eval.every=0")


def test_a_loss_that_is_not_finite_stops_with_where(lock: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d: the loss of (one|two) episode \d+ step \d+.* is not finite"):
        run(lock, tmp_path / "run", "optimizer.lr=1e30", "train.save_every=1")
    last = max((tmp_path / "run").glob("step-*"))
    assert last.name < "step-00000006"


def test_a_batch_that_processes_cannot_share_is_refused(lock: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train.batch = 8: cannot be split among 1 processes of 3 samples"):
        run(lock, tmp_path / "run", "train.micro=3")


def test_a_mixture_of_which_nothing_is_held_out_cannot_be_evaluated_on_it(tmp_path: Path) -> None:
    lock = make_lab(tmp_path, 'view = "late"')
    with pytest.raises(MixtureError, match=r"'val' has no step to draw; add \[holdout\]"):
        run(lock, tmp_path / "run")
    found = run(lock, tmp_path / "run", "eval.part=train", "train.steps=1")
    assert found.logged["eval"]["part"] == "train"


def test_episodes_without_an_instruction_are_said_with_the_filter_that_leaves_them_out(tmp_path: Path) -> None:
    episodes = [columns(seed, steps=4) for seed in range(3)]
    episodes[1]["language_instruction"] = [b" "] * 4
    make_silent(tmp_path, episodes)
    with pytest.raises(MixtureError, match="1 of 3 episodes have no instruction") as error:
        run(silent_lock(tmp_path, ""), tmp_path / "run", "eval.every=0", "train.steps=1")
    condition = str(error.value).partition("filter = ")[2]
    run(silent_lock(tmp_path, f"filter = {condition}"), tmp_path / "run", "eval.every=0", "train.steps=1")


def make_silent(folder: Path, episodes: Any) -> None:
    source = make_toy(folder / "work", episodes)
    assert source.convert().code == 0
    source.out.rename(folder / "one")


def silent_lock(folder: Path, text: str) -> Path:
    from tests.finetune.lab import locked

    return locked(folder, text, weights="one = 1.0", tables='[sources]\none = { uri = "one" }\n')


def test_a_checkpoint_for_other_actions_is_refused_unless_that_is_meant(lock: Path, tmp_path: Path) -> None:
    from tests.finetune.vla import BASE

    recipe = toy().model_dump(exclude_unset=True)
    recipe["model"] = {"base": str(BASE)}
    recipe["train"]["steps"] = 1
    from finetune.recipe import Recipe

    with pytest.raises(MixtureError, match=r"actions have 4 numbers .*, the model expects 7.*action_dims = 4"):
        train(Recipe(**recipe), lock, tmp_path / "run")
    recipe["model"]["action_dims"] = 4
    found = train(Recipe(**recipe), lock, tmp_path / "run")
    assert found is not None
    assert found.finished
