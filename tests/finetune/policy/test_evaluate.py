"""An evaluation compares what the policy itself would do, with what it was trained to see."""

import json
import shutil
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from finetune.data.augment import center_crop
from schemas.codec import decode
from schemas.errors import MixtureError
from schemas.mixture import lock as locks
from schemas.store.dataset import open_dataset
from tests.finetune.lab import locked, make_lab
from tests.finetune.runs import ADAPTERS, make_lock, run, toy
from tests.finetune.vla import BASE, image
from tests.pipelines.toy import jpeg, oxe

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.data.loader import Loader, LoaderOptions  # noqa: E402
from finetune.data.preprocessing import Preprocessing  # noqa: E402
from finetune.policy.evaluate import EvaluationOptions, _loader, _other_images, evaluate  # noqa: E402
from finetune.policy.policy import load as load_policy  # noqa: E402
from finetune.recipe import load  # noqa: E402
from finetune.training.batches import Collator  # noqa: E402 - only where torch is
from finetune.training.parallel import TrainingProcess  # noqa: E402
from finetune.training.task import Task  # noqa: E402

Trained = tuple[Path, Path]  # a lock, and a checkpoint trained on it


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lock(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def cropped(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train on crops, as OpenVLA is."""
    out = tmp_path_factory.mktemp("cropped") / "run"
    run(lock, out, "train.steps=3")
    return lock, out / "step-00000003"


@pytest.fixture(scope="module")
def plain(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("plain") / "run"
    run(lock, out, "train.steps=3", "data.augment=false")
    return lock, out / "step-00000003"


def inside(lock: Path, folder: Path, vla: Any) -> tuple[Loader, Collator]:
    """Open what the training itself evaluates with."""
    task = Task.of(load((folder / "recipe.toml").read_text(), where="recipe.toml"), lock)
    loader = task.loader(TrainingProcess(0, 1, torch.device("cpu")), part="val", augmented=False)
    return loader, Collator(processor=vla.processor, config=vla.config, cameras=("primary",))


def stored(lock: Path, name: str, *, episode: int, step: int) -> bytes:
    """Return the stored image of a step."""
    (frames,) = open_dataset(lock.parent / name).episode(episode).images.values()
    data = frames[step]
    assert data is not None
    return bytes(data)


def predicted(folder: Path, image: Path, instruction: str, *more: str) -> Any:
    done = oxe(
        "predict", "--model", folder, "--image", image, "--instruction", instruction, "--json", "--lenient", *more
    )
    assert done.code == 0, done.err
    return done.json()


def evaluated(trained: Trained, out: Path, *more: str) -> Any:
    lock, folder = trained
    done = oxe("eval", "--open-loop", "--model", folder, "--lock", lock, "--out", out, "--json", *more)
    assert done.code == 0, done.err
    return done.json()


# What is seen


def test_only_training_draws_paraphrases(plain: Trained, tmp_path: Path) -> None:
    shutil.copytree(plain[0].parent, tmp_path / "lab")
    recorded = set(locks.read(plain[0])[1]["instruction"].to_pylist())
    table = "".join(f'"{text}" = ["other words"]\n' for text in recorded)
    holdout = '[holdout]\nby = "id"\nshare = 0.4\n'
    lock = locked(tmp_path / "lab", 'view = "late"', tables=f"{holdout}[paraphrases]\n{table}")
    task, here = Task.of(toy(), lock), TrainingProcess(0, 1, torch.device("cpu"))
    loaders = {
        (part, augmented): task.loader(here, part=part, augmented=augmented)
        for part in ("train", "val")
        for augmented in (True, False)
    }
    loaders |= {
        (part, "oxe eval"): _loader(plain[1], lock, EvaluationOptions(part=part), oft=None) for part in ("train", "val")
    }
    for (part, use), loader in loaders.items():
        texts = {text for batch in islice(loader, 9) for text in batch.instruction}
        assert ("other words" in texts) == ((part, use) == ("train", True))
        assert texts - {"other words"} <= recorded


@pytest.mark.parametrize("name", ["cropped", "plain"])
def test_predict_is_the_prediction_inside_the_training_bit_for_bit(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lock, folder = request.getfixturevalue(name)
    policy = load_policy(folder, lenient=True)  # three steps of training do not teach what an action is
    loader, collate = inside(lock, folder, policy.model)
    batch = next(iter(loader))
    pixels = collate(batch).pixel_values.clone()
    for i in range(len(batch)):
        source = loader.sources[int(batch.source[i])]
        inputs = policy.inputs([np.zeros((224, 224, 3), np.uint8)], [batch.instruction[i]])
        (expected,) = policy.predict({**inputs, "pixel_values": pixels[i : i + 1]}, unnorm_key=source)
        (tmp_path / "frame.jpg").write_bytes(
            stored(lock, source, episode=int(batch.episode[i]), step=int(batch.step[i]))
        )
        found = predicted(folder, tmp_path / "frame.jpg", batch.instruction[i], "--unnorm-key", source)
        assert found == expected.to_json()


def test_a_policy_of_crops_sees_the_middle_unless_told_not_to(cropped: Trained, plain: Trained) -> None:
    data = jpeg(3, size=40)
    for folder, middle in ((cropped[1], True), (plain[1], False)):
        whole = Preprocessing().seen(data)
        for told, is_cropped in ((None, middle), (False, False), (True, True)):
            found = load_policy(folder, center_crop=told).seen(data)
            np.testing.assert_array_equal(found, center_crop(whole) if is_cropped else whole)


def test_the_python_api_sees_the_same_of_bytes_and_resizes_pixels_alike(plain: Trained, tmp_path: Path) -> None:
    vla = load_policy(plain[1]).model
    data = jpeg(3, size=40)
    (tmp_path / "frame.jpg").write_bytes(data)
    expected = predicted(plain[1], tmp_path / "frame.jpg", "lift", "--unnorm-key", "one")["action"]
    pixels = decode(data, like_tensorflow=True)
    for seen in (data, pixels, Image.fromarray(pixels)):
        assert vla.predict_action(seen, "lift", "one", lenient=True).tolist() == expected
    both = vla.predict_action([data, pixels], ["lift", "lift"], "one", lenient=True)
    assert both.tolist() == [expected, expected]


def test_a_checkpoint_that_does_not_say_what_it_saw_is_shown_the_image_as_it_is() -> None:
    policy = load_policy(BASE)
    assert policy.model.preprocessing is None
    assert policy.seen(picture := image(0)) is picture


def test_what_was_seen_stays_with_a_checkpoint_that_is_saved_again(cropped: Trained, tmp_path: Path) -> None:
    load_policy(cropped[1]).model.save_pretrained(tmp_path)
    assert (tmp_path / "preprocessing.json").read_bytes() == (cropped[1] / "preprocessing.json").read_bytes()


def test_adapters_act_beside_their_base_and_as_merged(lock: Path, tmp_path: Path) -> None:
    run(lock, tmp_path / "run", *ADAPTERS, "train.steps=3", "optimizer.lr=1e-2")
    folder, merged = tmp_path / "run/step-00000003", tmp_path / "merged"
    (tmp_path / "frame.jpg").write_bytes(jpeg(1))
    beside = predicted(folder, tmp_path / "frame.jpg", "lift", "--unnorm-key", "one")
    done = oxe("merge", "--adapter", folder, "--out", merged)
    assert done.code == 0, done.err
    assert predicted(merged, tmp_path / "frame.jpg", "lift", "--unnorm-key", "one") == beside
    assert (merged / "preprocessing.json").read_bytes() == (folder / "preprocessing.json").read_bytes()
    assert json.loads((merged / "licences.json").read_text()) == json.loads((folder / "licences.json").read_text())


# What is said


def test_the_figures_are_those_of_predicting_each_step_alone(plain: Trained, tmp_path: Path) -> None:
    lock, folder = plain
    found = evaluated(plain, tmp_path)
    loader = Loader(lock, LoaderOptions(preprocessing=Preprocessing()), part="val")
    vla = load_policy(folder).model
    errors: dict[str, list[Any]] = {}
    means: dict[str, list[Any]] = {}
    for batch in loader:
        source = loader.sources[int(batch.source[0])]
        norm = loader.norm(source)
        action = norm.unnormalize(np.asarray(batch.action[0, 0], np.float64))
        pixels = np.array(batch.images["primary"][0, 0])
        did = vla.predict_action(pixels, batch.instruction[0], source, lenient=True)
        errors.setdefault(source, []).append(np.abs(did - action))
        means.setdefault(source, []).append(np.abs(norm.mean - action))
    assert found["sources"].keys() == errors.keys()
    assert found["steps"] == loader.steps == sum(map(len, errors.values()))
    for source, told in found["sources"].items():
        for d, one in enumerate(told["dims"].values()):
            assert one["l1_metric"] == pytest.approx(np.mean(errors[source], axis=0)[d])
            assert one["mean_action"]["l1_metric"] == pytest.approx(np.mean(means[source], axis=0)[d])
        assert [one["unit"] for one in told["dims"].values()] == ["m", "m", "m", "1"]
    assert json.loads((tmp_path / "eval.json").read_text()) == {k: v for k, v in found.items() if k != "out"}


def test_other_statistics_in_the_checkpoint_judge_in_its_own_tokens(plain: Trained, tmp_path: Path) -> None:
    lock, folder = plain
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    told = json.loads((other / "dataset_statistics.json").read_text())
    for source in told.values():
        source["action"]["q99"] = [figure + 1 for figure in source["action"]["q99"]]
    (other / "dataset_statistics.json").write_text(json.dumps(told))
    ours, theirs = (evaluate(str(each), lock, EvaluationOptions()) for each in (folder, other))
    np.testing.assert_array_equal(ours.steps.recorded, theirs.steps.recorded)
    np.testing.assert_array_equal(ours.steps.tokens, theirs.steps.tokens)
    assert (theirs.steps.predicted >= ours.steps.predicted).all()
    first = theirs.sources[int(theirs.steps.source[0])].name
    norm = load_policy(other).statistics.named(first)
    expected = theirs.tokenizer.encode(norm.normalize(theirs.steps.recorded[0]))
    np.testing.assert_array_equal(theirs.steps.truth[0], expected)
    assert (theirs.steps.truth != ours.steps.truth).any()


def test_train_is_gone_through_once_and_limit_ends_earlier(plain: Trained, tmp_path: Path) -> None:
    lock, folder = plain
    scores = evaluate(str(folder), lock, EvaluationOptions(part="train", batch=5))
    places = set(zip(scores.steps.source, scores.steps.episode, scores.steps.step, strict=True))
    assert len(scores.steps.step) == Loader(lock, part="train").steps
    assert len(places) > 0.6 * len(scores.steps.step)  # the law draws with the weights of the mixture
    assert evaluated(plain, tmp_path, "--part", "train", "--limit", "7", "--batch", "4")["steps"] == 7


@pytest.mark.parametrize("part", ["val", "train"])
def test_shuffled_images_are_those_of_other_steps_of_the_same_part(part: Any, plain: Trained) -> None:
    lock, folder = plain
    asked = EvaluationOptions(part=part, shuffle=True)
    loader = Loader(lock, LoaderOptions(preprocessing=Preprocessing()), part=part)
    own = [np.array(batch.images["primary"][0, 0]) for batch in islice(loader, loader.steps)]
    open_loader = partial(_loader, folder, lock, asked, oft=None)
    others = [images[0] for images in islice(_other_images(open_loader, part, steps=loader.steps), loader.steps)]
    same = [np.array_equal(one, other) for one, other in zip(own, others, strict=True)]
    assert not any(same) if part == "val" else np.mean(same) < 0.2
    if part == "val":
        assert sorted(map(bytes, own)) == sorted(map(bytes, others))
    scores = [
        evaluate(str(folder), lock, EvaluationOptions(part=part, shuffle=shuffle)).steps for shuffle in (False, True)
    ]
    np.testing.assert_array_equal(scores[0].truth, scores[1].truth)


def test_the_picture_is_svg_with_a_panel_for_each_number_and_episode(plain: Trained, tmp_path: Path) -> None:
    evaluated(plain, tmp_path)
    root = ET.fromstring((tmp_path / "eval.svg").read_text())  # noqa: S314 - we wrote it ourselves
    name = "{http://www.w3.org/2000/svg}"
    steps = json.loads((tmp_path / "eval.json").read_text())["steps"]
    lines = root.findall(f"{name}polyline")
    assert len(lines) % 4 == 0
    assert len(root.findall(f"{name}circle")) <= 4 * steps
    assert {"x [m]", "gripper [1]"} <= {text.text for text in root.findall(f"{name}text")}


def test_it_is_printed_for_people_too(plain: Trained, tmp_path: Path) -> None:
    done = oxe("eval", "--open-loop", "--model", plain[1], "--lock", plain[0], "--out", tmp_path)
    assert "always predicting the mean action: token accuracy" in done.out
    assert done.out.splitlines()[-1] == f"figures and plot: {tmp_path}"


# What is refused


def test_a_dataset_that_the_checkpoint_has_no_statistics_of_is_named(lock: Path, tmp_path: Path) -> None:
    done = oxe("eval", "--open-loop", "--model", BASE, "--lock", lock, "--out", tmp_path)
    assert done.code == 2
    assert "no statistics for 'one'" in done.err


def test_evaluating_in_another_way_is_refused(plain: Trained) -> None:
    done = oxe("eval", "--model", plain[1], "--lock", plain[0])
    assert done.code == 2
    assert "--open-loop is required" in done.err


def test_a_part_without_steps_is_refused(plain: Trained, tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match="the part 'val' has no step to draw"):
        evaluate(str(plain[1]), make_lab(tmp_path), EvaluationOptions())


# Where it is written


def test_it_is_written_beside_the_model_and_replaces_nothing(plain: Trained) -> None:
    lock, folder = plain
    words = ("eval", "--open-loop", "--model", folder, "--lock", lock, "--limit", "2", "--json")
    first = oxe(*words).json()
    assert Path(first["out"]) == folder.parent / "eval-run-step-00000003-val"
    before = (Path(first["out"]) / "eval.json").read_bytes()
    refused = oxe(*words)
    assert (refused.code, "exists; pass --overwrite" in refused.err) == (2, True)
    assert (Path(first["out"]) / "eval.json").read_bytes() == before
    assert oxe(*words, "--overwrite").code == 0
    shuffled = oxe(*words, "--shuffle-images", "--part", "train").json()
    assert Path(shuffled["out"]) == folder.parent / "eval-run-step-00000003-train-shuffled"
    assert run(lock, folder.parent, "train.steps=3", "data.augment=false").step == 3  # the run goes on beside it
