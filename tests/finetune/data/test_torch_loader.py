"""Tensors, worker processes and torchrun: the samples stay those of the loader."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from schemas.errors import MixtureError, OxeError, UsageError
from tests.finetune.data.test_loader import data_file
from tests.finetune.lab import first, make_lab, make_loader
from tests.waiting import PATIENCE

torch = pytest.importorskip("torch", reason="needs the extra 'finetune'")
torch_data = pytest.importorskip("finetune.data.torch_loader")

RANKED = """
import json, sys
from itertools import islice
from finetune.data.loader import Loader, LoaderOptions
from finetune.data.preprocessing import Preprocessing
from finetune.data.torch_loader import TorchLoader

if __name__ == "__main__":
    from os import environ
    lock, out, workers = sys.argv[1:]
    reading = LoaderOptions(preprocessing=Preprocessing(size=None, like_tensorflow=False))
    loader = TorchLoader(Loader(lock, reading, batch_size=3), workers=int(workers))
    found = {int(k): batch.action[i].tolist() for batch in islice(loader, 4) for i, k in enumerate(batch.draw)}
    open(f"{out}/{environ['RANK']}.json", "w").write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("torch"))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_samples_in_the_same_order(lock: Path, workers: int) -> None:
    expected = list(first(make_loader(lock, batch_size=4), 40))
    loader = torch_data.TorchLoader(make_loader(lock, batch_size=4), workers=workers)
    batch = next(iter(loader))
    assert batch.images["primary"].dtype == torch.uint8
    assert batch.action.shape == (4, 1, 4)
    assert loader.state_dict()["draws"] == 4
    found = list(first(loader, 36))
    assert found == expected[4:]
    assert loader.state_dict()["draws"] == 40
    other = make_loader(lock, batch_size=5)
    other.load_state_dict(loader.state_dict())
    assert next(iter(other)).draw[0] == 40


def test_workers_read_views_too(tmp_path: Path) -> None:
    late = make_lab(tmp_path, 'view = "late"')
    expected = list(first(make_loader(late, batch_size=4), 16))
    assert list(first(torch_data.TorchLoader(make_loader(late, batch_size=4), workers=1), 16)) == expected


def test_workers_draw_the_same_paraphrases(tmp_path: Path) -> None:
    path = make_lab(tmp_path, tables='[paraphrases]\n"task 4 ☂" = ["do 4"]\n"task 5 ☂" = ["do 5", "five"]')
    expected = list(first(make_loader(path, batch_size=4), 24))
    assert {"do 4", "five"} < {sample["instruction"] for _, sample in expected}
    assert list(first(torch_data.TorchLoader(make_loader(path, batch_size=4), workers=2), 24)) == expected


def test_a_plain_data_loader_works_too(lock: Path) -> None:
    expected = list(first(make_loader(lock, batch_size=4), 24))
    dataset = torch_data.BatchDataset(make_loader(lock, batch_size=4))
    made = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert list(first(made, 24)) == expected


def test_what_goes_wrong_in_a_worker_is_said(lock: Path, tmp_path: Path) -> None:
    mine = make_lab(tmp_path)
    loader = torch_data.TorchLoader(make_loader(mine, batch_size=2), workers=1)
    for name in ("one", "two"):
        data_file(tmp_path / name).unlink()
    with pytest.raises(Exception, match=r"No such file"):
        next(iter(loader))


def test_an_error_in_a_worker_keeps_its_class_and_text(tmp_path: Path) -> None:
    mine = make_lab(tmp_path)
    list(first(make_loader(mine, batch_size=4), 80))  # the records are cached from here on
    for name in ("one", "two"):
        path = data_file(tmp_path / name)
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(OxeError) as here:
        next(iter(make_loader(mine, batch_size=4)))
    with pytest.raises(OxeError) as there:
        next(iter(torch_data.TorchLoader(make_loader(mine, batch_size=4), workers=1)))
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert "\n" not in str(there.value)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_of_torchrun_share_the_draws(lock: Path, tmp_path: Path, workers: int) -> None:
    script = tmp_path / "ranked.py"
    script.write_text(RANKED)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*run, str(script), str(lock), str(tmp_path), str(workers)], check=True, timeout=PATIENCE)
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert not shares[0].keys() & shares[1].keys()
    found = {int(k): action for share in shares for k, action in share.items()}
    expected = dict(first(make_loader(lock, batch_size=24), 24))
    assert found == {k: sample["action"] for k, sample in expected.items()}


def test_a_share_that_is_not_this_processs_is_refused(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = torch_data.TorchLoader(make_loader(lock, batch_size=4))
    assert next(iter(loader)).draw.tolist() == [4, 5, 6, 7]
    with pytest.raises(UsageError, match="the loader is for rank 0 of 2, this process is rank 1 of 2"):
        torch_data.TorchLoader(make_loader(lock, rank=0, world=2))


def test_a_position_of_another_mixture_is_refused(lock: Path, tmp_path: Path) -> None:
    other = make_lab(tmp_path, "seed = 3")
    with pytest.raises(MixtureError, match="another order"):
        torch_data.TorchLoader(make_loader(other)).load_state_dict(make_loader(lock).state_dict())
    assert len(list(islice(torch_data.TorchLoader(make_loader(other)), 2))) == 2
