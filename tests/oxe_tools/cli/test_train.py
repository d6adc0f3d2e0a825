"""The command `oxe train`, run as a user runs it."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra finetune")

from tests.finetune.runs import RECIPE, arguments, logged, losses, make_lock, run
from tests.pipelines.toy import ROOT, oxe
from tests.waiting import PATIENCE, wait_until

QUICK = ("train.steps=2", "eval.every=0")


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lock(tmp_path_factory.mktemp("oxe_train"))


def test_a_run_says_what_begins_and_what_came_out(lock: Path, tmp_path: Path) -> None:
    done = oxe(*arguments(lock, tmp_path / "run", *QUICK))
    assert done.code == 0, done.err
    assert "toy: full, " in done.err
    assert "2 steps of 8 samples, 8 at a time in each process (1) on cpu" in done.err
    assert "licence of dataset two: not stated" in done.err
    assert "train at step 2: loss " in done.out
    assert str(tmp_path / "run/step-00000002") in done.out


def test_a_run_that_is_done_or_longer_now_goes_on(lock: Path, tmp_path: Path) -> None:
    told = arguments(lock, tmp_path / "run", *QUICK)
    assert oxe(*told).code == 0
    assert "2 steps, none of them in this run" in oxe(*told).out
    found = oxe(*told, "--set", "train.steps=3", "--json")
    assert f"continuing after step 2: {tmp_path / 'run/step-00000002'}" in found.err
    assert (found.json()["step"], found.json()["finished"], found.json()["train"]["step"]) == (3, True, 3)


def test_the_lock_stands_in_the_recipe_or_beside_the_mixture_that_is_named(lock: Path, tmp_path: Path) -> None:
    file = lock.with_name("named.toml")
    file.write_text(RECIPE.replace("[train]", f'[data]\nlock = "{lock.name}"\n\n[train]'))
    changes = [word for setting in QUICK for word in ("--set", setting)]
    assert oxe("train", file, "--out", tmp_path / "run", *changes).code == 0
    assert oxe("train", file, "--lock", lock.with_suffix(".toml"), "--out", tmp_path / "other", *changes).code == 0
    third = oxe("train", "tiny-cpu", "--out", tmp_path / "third")
    assert (third.code, "no locked mixture; pass --lock MIX" in third.err) == (2, True)


def test_the_plan_needs_no_data(tmp_path: Path) -> None:
    found = oxe("train", "tiny-cpu", "--plan", "--json").json()
    assert found["trained"] < found["parameters"]
    assert {way["way"] for way in found["ways"]} == {"none", "ddp", "fsdp"}
    assert "parameters" in oxe("train", "tiny-cpu", "--plan").out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stepps=3", "unknown key 'stepps'; did you mean 'steps'?"),
        ("data.cameras=['wrist']", "no colour camera 'wrist'"),
        ("model.base=nowhere", "model: vision: cannot be set for base 'nowhere'"),
        ("train.micro=3", "train.batch = 8: cannot be split among 1 processes of 3 samples"),
        ("model.action_dims=7", "actions have 4 numbers (x, y, z, gripper), the model expects 7"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(lock: Path, tmp_path: Path, setting: str, message: str) -> None:
    done = oxe(*arguments(lock, tmp_path / "run", setting))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_last_checkpoint_stays_whole(lock: Path, tmp_path: Path) -> None:
    told = arguments(lock, tmp_path / "run", "train.steps=2", "train.save_every=1", "eval.every=0")
    words = [sys.executable, "-m", "oxe_tools", *told]
    run(lock, tmp_path / "run", "train.steps=1", "eval.every=0")

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment, preexec_fn=no_large_files
    )
    assert (done.returncode, "step-00000002: cannot be written" in done.stderr) == (2, True), done.stderr
    assert [path.name for path in (tmp_path / "run").glob("*-*")] == ["step-00000001"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_behind_its_step_and_the_same_command_goes_on(
    lock: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    told = arguments(lock, out, "train.steps=500", "train.save_every=1000", "eval.every=0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "oxe_tools", *told], env=environment, stderr=subprocess.PIPE)
    wait_until(lambda: process.poll() is not None or ((out / "log.jsonl").exists() and len(losses(out)) > 2))
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    done = max(step for _, step in logged(out))
    assert f"{done} of 500 steps are done; run the same command to continue" in said.decode()
    assert (out / f"step-{done:08d}").exists()
    more = oxe(*told, "--set", f"train.steps={done + 1}")
    assert (more.code, f"continuing after step {done}" in more.err) == (0, True)
