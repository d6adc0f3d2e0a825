"""A training that was killed resumes from its last saved position with the same samples, bit for bit.

Every process here is a real one and dies by SIGKILL, at random points.
"""

import json
import random
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.finetune.data.test_loader import broken_image
from tests.finetune.lab import locked
from tests.finetune.life import digests, loader_of
from tests.pipelines.mix.lab import make_datasets
from tests.pipelines.toy import ROOT
from tests.waiting import PATIENCE, wait_until

LIFE = "import json, sys; from tests.finetune.life import live; live(**json.loads(sys.argv[1]))"
Lives = list[dict[str, int]]


def noted(log: Path) -> list[tuple[dict[int, str], dict[str, Any]]]:
    """Read what a process noted; what it was writing when it died is not whole and does not count."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
    return [({int(k): digest for k, digest in samples.items()}, state) for samples, state in map(json.loads, lines)]


def killed_while_running(
    orders: list[dict[str, Any]], *, batches: int, pause: float
) -> list[list[tuple[dict[int, str], dict[str, Any]]]]:
    """Start the processes, kill them once the first has made so many batches, and give what each had noted."""
    logs = [Path(order["log"]) for order in orders]
    for log in logs:
        log.unlink(missing_ok=True)
    started = [subprocess.Popen([sys.executable, "-c", LIFE, json.dumps(order)], cwd=ROOT) for order in orders]

    def far_enough() -> bool:
        assert all(process.poll() is None for process in started), "a process ended by itself"
        return all(log.exists() and log.read_bytes().count(b"\n") >= batches for log in logs)

    wait_until(far_enough)
    time.sleep(pause)
    workers = [child for process in started for child in psutil.Process(process.pid).children(recursive=True)]
    for process in started:
        process.kill()
    assert [process.wait() for process in started] == [-9] * len(started)
    assert not psutil.wait_procs(workers, timeout=PATIENCE)[1], "worker processes outlive what they worked for"
    return [noted(log) for log in logs]


def check_lives(folder: Path, lives: Lives, *, seed: int) -> None:
    """Kill one run after the other; each resumes from the last position that all ranks of the previous run reached."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    make_datasets(folder)
    lock = locked(folder, 'view = "late"')
    broken_image(folder / "one", step=2)
    found: dict[int, str] = {}
    state: dict[str, Any] | None = None
    for told in lives:
        common = {"lock": str(lock), "cache": str(folder / "cache"), "state": state, "threads": 0, "workers": 0, **told}
        world = told["world"]
        orders = [{**common, "rank": rank, "log": str(folder / f"log_{rank}")} for rank in range(world)]
        shares = killed_while_running(orders, batches=rng.randrange(1, 9), pause=rng.random() / 50)
        begin = state["draws"] if state else 0
        for rank, share in enumerate(shares):
            draws = [k for samples, _ in share for k in samples]
            assert draws[0] == begin + rank * told["batch_size"]
            for samples, _ in share:
                for k, digest in samples.items():
                    assert found.setdefault(k, digest) == digest, f"draw {k} was another sample in an earlier life"
        state = min((share[-1][1] for share in shares), key=lambda state: state["draws"])
    assert state is not None
    expected: dict[int, str] = {}
    whole = loader_of(lock, folder / "fresh", batch_size=16)
    for batch in islice(whole, max(found) // 16 + 1):
        expected |= digests(batch)
    assert found == {k: expected[k] for k in found}
    assert set(range(state["draws"])) <= found.keys()
    assert whole.broken, "no broken image was drawn"


def test_killed_at_random_it_goes_on_at_the_exact_next_sample(tmp_path: Path) -> None:
    lives = [
        {"world": 1, "batch_size": 4},
        {"world": 2, "batch_size": 3, "threads": 2},
        {"world": 3, "batch_size": 1},
        {"world": 1, "batch_size": 7, "threads": 1},
    ]
    check_lives(tmp_path, lives, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_killed_again_and_again_in_any_world(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    lives = [
        {"world": rng.randrange(1, 4), "batch_size": rng.randrange(1, 9), "threads": rng.randrange(3)}
        for _ in range(12)
    ]
    check_lives(tmp_path, lives, seed=seed)


@pytest.mark.slow
def test_killed_with_worker_processes_of_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra 'finetune'")
    lives = [
        {"world": 1, "batch_size": 4, "workers": 2},
        {"world": 2, "batch_size": 2, "workers": 1},
        {"world": 1, "batch_size": 5, "workers": 3, "threads": 1},
        {"world": 1, "batch_size": 3},
    ]
    check_lives(tmp_path, lives, seed=9)
