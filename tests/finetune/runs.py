"""Trainings of a tiny model on locked toys, in this process or under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune.recipe import Recipe, load
from tests.finetune.lab import locked
from tests.pipelines.mix.lab import make_datasets
from tests.pipelines.toy import ROOT
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from finetune.training.train import Trained

TIMES = {"seconds", "samples_per_second"}
RECIPE = """
name = "toy"

[model]
base   = "tiny"
vision = { dim = 32, depth = 3, heads = 2 }
text   = { dim = 48, hidden = 96, layers = 2, heads = 2 }

[train]
mode       = "full"
batch      = 8
steps      = 6
log_every  = 1
save_every = 3

[optimizer]
lr = 1e-3

[eval]
every   = 3
batches = 2
"""
ADAPTERS = ("train.mode=lora", "lora.rank=4", "lora.dropout=0.1")


def make_lock(folder: Path) -> Path:
    """Lock a mixture of two toys, with some instructions held back."""
    make_datasets(folder, {"one": (6, 7, 8, 6, 9), "two": (10, 12, 11)})
    return locked(folder, 'view = "late"', tables='[holdout]\nby = "instruction"\nshare = 0.3')


def toy(*settings: str) -> Recipe:
    return load(RECIPE, where="toy.toml").with_(settings)


def run(lock: Path, out: Path, *settings: str, **told: Any) -> "Trained":
    """Train in this process."""
    from finetune.training.train import train  # torch may be missing where tests are collected

    found = train(toy(*settings), lock, out, **told)
    assert found is not None
    return found


def arguments(lock: Path, out: Path, *settings: str) -> list[str]:
    """Name the command's arguments; the recipe is written beside the lock."""
    file = lock.with_name("toy.toml")
    file.write_text(RECIPE)
    changes = [word for setting in settings for word in ("--set", setting)]
    return ["train", str(file), "--lock", str(lock), "--out", str(out), *changes]


def torchrun(lock: Path, out: Path, *settings: str) -> str:
    """Train in two processes, by the real command; give what they print."""
    return in_two_processes("-m", "oxe_tools", *arguments(lock, out, *settings))


def in_two_processes(*program: str, patience: float = PATIENCE) -> str:
    """Run a program under torchrun; give what it prints. If it does not end, fail with the stacks of all threads."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, text=True, env=environment, **pipes)
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGSTOP)  # torchrun must not end one process while another prints
        for pid in descendants(process.pid):
            print_stacks(pid)
        process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE)
        pytest.fail(f"it did not end within {patience} seconds: {out}{err}")
    assert process.returncode == 0, err
    return out


def print_stacks(pid: int) -> None:
    """Abort a process, which faulthandler answers with the stacks of its threads; wait until it has ended.

    Processes that share one pipe would mix their lines if they printed at the same time.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
    for _ in range(600):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return


def descendants(pid: int) -> list[int]:
    """List the processes that a process has started, and those that they have started, the youngest first."""
    return [other for child in children(pid) for other in (*descendants(child), child)]


def children(pid: int) -> list[int]:
    """List the processes that a process has started."""
    with suppress(OSError):
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(word) for text in lists for word in text.split()]
    return []


def logged(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Read a run's log by kind and step, without its times."""
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {
        (entry["kind"], entry["step"]): {key: value for key, value in entry.items() if key not in TIMES}
        for entry in entries
    }


def losses(out: Path) -> list[float]:
    """Read the curve of a run."""
    return [entry["loss"] for (kind, _), entry in logged(out).items() if kind == "train"]


def weights(checkpoint: Path) -> dict[str, Any]:
    """Read every tensor of a checkpoint: the model's, and those of the optimizer and of random numbers."""
    from safetensors.torch import load_file

    return {
        f"{path.relative_to(checkpoint)}: {name}": value
        for path in sorted(checkpoint.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def unequal(first: Path, second: Path) -> list[str]:
    """Name the tensors in which two checkpoints differ by as little as a bit."""
    ours, theirs = weights(first), weights(second)
    return [
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or not ours[name].equal(theirs[name])
    ]
