"""A policy is trained with the bounds of its lock, and its statistics undo them."""

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import MixtureError
from schemas.store.dataset import open_dataset
from tests.finetune.lab import locked
from tests.finetune.runs import run, toy
from tests.pipelines.mix.lab import make_datasets
from tests.pipelines.toy import jpeg

torch = pytest.importorskip("torch", reason="training needs the extra finetune")

from finetune.policy.evaluate import EvaluationOptions, evaluate  # noqa: E402 - only where torch is
from finetune.policy.policy import load  # noqa: E402
from finetune.training.parallel import TrainingProcess  # noqa: E402
from finetune.training.task import Task  # noqa: E402

HOLDOUT = '[holdout]\nby = "instruction"\nshare = 0.3'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_datasets(tmp_path_factory.mktemp("task"), {"one": (6, 7, 8, 6, 9), "two": (10, 12, 11)})


def lock(folder: Path, method: str) -> Path:
    return locked(
        folder, 'view = "late"', tables=f'[normalize]\nmethod = "{method}"\ngrippers = "normalize"\n{HOLDOUT}'
    )


def test_a_policy_trained_with_bounds_acts_and_is_judged_by_them(folder: Path, tmp_path: Path) -> None:
    path = lock(folder, "bounds")
    run(path, tmp_path / "run", "train.steps=2")
    trained = tmp_path / "run/step-00000002"
    statistics = json.loads((trained / "dataset_statistics.json").read_text())
    assert statistics["one"]["action"]["method"] == statistics["one"]["proprio"]["method"] == "bounds"
    assert statistics["one"]["action"]["mask"] == [True] * 4
    policy = load(trained, lenient=True)
    (acted,) = policy.act([jpeg(1, size=32)], ["task 1"], unnorm_key="one")
    low, high = (np.array(statistics["one"]["action"][name]) for name in ("min", "max"))
    centres = policy.model.config.action_tokenizer.decode(acted.token_ids)
    is_action = policy.model.config.action_tokenizer.is_action(acted.token_ids)
    expected = np.where(is_action, 0.5 * (centres + 1) * (high - low) + low, (low + high) / 2)
    np.testing.assert_allclose(acted.action, expected, rtol=1e-12)
    scores = evaluate(str(trained), path, EvaluationOptions(limit=4)).steps
    assert len(scores.step) == 4
    for k in range(4):  # the recorded action is that of the dataset: nothing is outside its bounds
        name = sorted(statistics)[int(scores.source[k])]
        stored = open_dataset(folder / name).episode(int(scores.episode[k])).action[int(scores.step[k])]
        np.testing.assert_allclose(scores.recorded[k].ravel(), stored, atol=1e-5)


def test_the_statistics_of_a_task_are_those_of_its_loader(folder: Path) -> None:
    for method in ("bounds", "bounds_q99"):
        path = lock(folder, method)
        task = Task.of(toy(), path)
        here = TrainingProcess(0, 1, torch.device("cpu"))
        loader = task.loader(here, part="train", augmented=False)
        for name, entry in task.norm_stats(loader).items():
            norm, state = loader.norm(name), loader.state_norm(name)
            for figure in ("min", "max", "q01", "q99", "mean", "std"):
                assert entry["action"][figure] == getattr(norm, figure).tolist()
                assert entry["proprio"][figure] == getattr(state, figure).tolist()
            assert entry["action"].get("method", "bounds_q99") == method


def test_what_no_policy_can_undo_is_refused(folder: Path) -> None:
    with pytest.raises(MixtureError) as error:
        Task.of(toy(), lock(folder, "normal"))
    assert "actions are normalized by 'normal', OpenVLA requires bounds_q99 or bounds" in str(error.value)
