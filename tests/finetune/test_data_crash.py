"""A training that is killed and goes on from the last position it saved: the same samples, bit for bit.

Every process here is a real one and dies by SIGKILL, at random points.
"""

import hashlib
import json
import random
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from finetune.data import Loader
from finetune.preprocessing import Preprocessing
from schemas.augment import Recipe
from tests.finetune.lab import locked, make_loader
from tests.finetune.test_data import broken_image
from tests.pipelines.mix.lab import make_datasets
from tests.pipelines.toy import ROOT

LIFE = "import json, sys; from tests.finetune.test_data_crash import live; live(**json.loads(sys.argv[1]))"
Lives = list[dict[str, int]]


def loader_of(lock: Path, cache: Path, **arguments: Any) -> Loader:
    """Read everything that is drawn or chosen: augmentation, chunks, history, other steps for a broken image."""
    preprocessing = Preprocessing(size=(12, 10), augment=Recipe())
    about = {"history": 2, "chunk": 3, "state": True, "corrupt": "substitute", "preprocessing": preprocessing}
    return make_loader(lock, cache=cache, **about, **arguments)


def digests(batch: Any) -> dict[int, str]:
    """Hash each sample of a batch with all that it holds."""
    arrays = (
        *(batch.source, batch.episode, batch.step, batch.action, batch.action_is_pad, batch.action_valid),
        *(batch.state, batch.images["primary"], batch.history_is_pad, batch.substituted),
    )
    found = {}
    for i, draw in enumerate(batch.draw.tolist()):
        content = b"".join(array[i : i + 1].tobytes() for array in arrays) + batch.instruction[i].encode()
        found[draw] = hashlib.sha256(content).hexdigest()
    return found


def live(*, lock: str, cache: str, log: str, state: dict[str, Any] | None, workers: int, **place: int) -> None:
    """Iterate until somebody kills this process; of each batch, note its samples and the position behind it."""
    loader: Any = loader_of(Path(lock), Path(cache), **place)
    if workers:
        from finetune.torch_data import TorchLoader

        loader = TorchLoader(loader, workers=workers)
    if state:
        loader.load_state_dict(state)
    with Path(log).open("w", encoding="utf-8") as file:
        for batch in loader:
            print(json.dumps([digests(as_arrays(batch)), loader.state_dict()]), file=file, flush=True)


def as_arrays(batch: Any) -> Any:
    """Give a batch of tensors as one of arrays."""
    from dataclasses import fields, replace

    def array(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: array(own) for key, own in value.items()}
        return value.numpy() if hasattr(value, "numpy") else value

    return replace(batch, **{field.name: array(getattr(batch, field.name)) for field in fields(batch)})


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
    end = time.monotonic() + 60
    while any(len(noted(log)) < batches for log in logs) and time.monotonic() < end:
        assert all(process.poll() is None for process in started), "a process ended by itself"
        time.sleep(0.002)
    time.sleep(pause)
    for process in started:
        process.kill()
    assert [process.wait() for process in started] == [-9] * len(started)
    return [noted(log) for log in logs]


def check_lives(folder: Path, lives: Lives, *, seed: int) -> None:
    """Kill one life after the other; each goes on from the last position that all ranks of the one before had."""
    rng = random.Random(seed)
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
    rng = random.Random(seed)
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
