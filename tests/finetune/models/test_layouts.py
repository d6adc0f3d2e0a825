"""Which checkpoints are OpenVLA-OFT, which chunk they predict, and what is refused, in Python and in `oxe predict`."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import CheckpointError, UsageError
from tests.finetune.oft_fixtures import (
    ALOHA,
    BRIDGE,
    LIBERO,
    Case,
    images,
    load,
    meta,
    model,
    processor,
    reference,
    variant,
)
from tests.finetune.vla import BASE, DATA
from tests.pipelines.toy import Run, oxe

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from safetensors.torch import load_file, save_file  # noqa: E402

from finetune.models import layouts  # noqa: E402 - only where torch is
from finetune.models.layouts import LAYOUTS  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.policy.merge import merge  # noqa: E402

HEAD, PROPRIO, NOISY = (
    f"{name}--20_checkpoint.pt" for name in ("action_head", "proprio_projector", "noisy_action_projector")
)
STATISTICS = "dataset_statistics.json"
ZEROS = [0.0] * 7


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint of ours, which records its cameras."""
    folder = tmp_path_factory.mktemp("own") / "model"
    variant(model("libero"), cameras=("front", "wrist"), actions=tuple("abcdefg")).save_pretrained(folder)
    return folder


def predict(folder: Path, *more: str | Path, platform: str = "bridge", count: int = 1, base: Path | None = BASE) -> Run:
    """Predict with the command, by default with heads for Bridge and the weights of the base model."""
    seen = [word for i in range(count) for word in ("--image", DATA / f"io_oft_{platform}/image{i}.png")]
    weights = ("--base", base) if base else ()
    ask = ("--instruction", meta(platform)["instructions"][0], "--processor", BASE, "--json")
    return oxe("predict", "--model", folder, *weights, *seen, *ask, *more)


# Which chunk


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("libero", ("l1", 8, 7, 8, "bounds_q99", False)),
        ("aloha", ("l1", 25, 14, 14, "bounds", True)),
        ("bridge", ("diffusion", 5, 7, 7, "bounds_q99", False)),
    ],
)
def test_the_chunk_of_an_original_layout_follows_from_its_dimensions(platform: str, expected: tuple[Any, ...]) -> None:
    oft = model(platform).oft
    assert oft is not None
    assert (oft.head, oft.chunk, len(oft.actions), len(oft.proprio), oft.method, oft.film) == expected
    constants = meta(platform)
    assert expected[1:4] == tuple(constants[key] for key in ("NUM_ACTIONS_CHUNK", "ACTION_DIM", "PROPRIO_DIM"))
    assert LAYOUTS[expected[2:4]] == (expected[1], expected[4])


def test_a_base_model_is_not_oft() -> None:
    assert OpenVLAForActionPrediction.from_pretrained(BASE, self_test=False).oft is None


def test_unknown_dimensions_need_both_options(tmp_path: Path) -> None:
    folder = copied(BRIDGE, tmp_path)
    statistics = json.loads((folder / STATISTICS).read_text())
    del statistics["tiny_bridge"]["proprio"]
    (folder / STATISTICS).write_text(json.dumps(statistics))
    (folder / PROPRIO).unlink()
    for stated in ({}, {"chunk": 3}, {"normalize": "bounds"}):
        with pytest.raises(UsageError, match=r"actions of 7 and proprios of 0 numbers .* --chunk N and --normalize"):
            recognized(folder, **stated)
        done = predict(folder, *(word for key, value in stated.items() for word in (f"--{key}", str(value))))
        assert (done.code, "--chunk N and --normalize bounds_q99 or bounds" in done.err) == (2, True)
    done = predict(folder, "--chunk", "3", "--normalize", "bounds", "--seed", "1", "--diffusion-steps", "1")
    assert (done.code, np.shape(done.json()["action"])) == (0, (3, 7))


def recognized(folder: Path, **stated: Any) -> Any:
    norm_stats = json.loads((folder / STATISTICS).read_text())
    return layouts.recognized(folder, norm_stats, layouts.Stated(**stated))


def test_stated_values_replace_those_of_the_dimensions() -> None:
    one = recognized(BRIDGE, chunk=2, normalize="bounds").settings
    assert (one.chunk, one.method) == (2, "bounds")
    quick = ("--seed", "1", "--diffusion-steps", "1", "--proprio", str(ZEROS))
    plain, wide = (predict(BRIDGE, *quick, *more).json()["action"] for more in ((), ("--normalize", "bounds")))
    assert np.abs(np.array(wide) - plain).max() > 1e-4


def test_a_discrete_head_is_stated_whether_or_not_there_are_files_of_heads(tmp_path: Path) -> None:
    expected = reference("bridge")["discrete_1img.actions"]
    done = predict(BRIDGE, "--head", "discrete")
    assert done.json()["action"] == pytest.approx(expected, abs=1e-12)
    assert np.shape(done.json()["token_ids"]) == (5, 7)
    bare = copied(BRIDGE, tmp_path)
    for path in bare.glob("*.pt"):
        path.unlink()
    done = predict(bare, "--head", "discrete")
    assert done.json()["action"] == pytest.approx(expected, abs=1e-12)
    vla = OpenVLAForActionPrediction.from_pretrained(bare, base=BASE, head="discrete", self_test=False)
    assert vla.predict_action(images("bridge", 1), meta("bridge")["instructions"][0]) == pytest.approx(
        expected, abs=1e-12
    )


def test_ours_record_what_they_predict(own: Path) -> None:
    settings = json.loads((own / layouts.SETTINGS).read_text())
    assert (settings["chunk"], settings["method"], settings["cameras"]) == (8, "bounds_q99", ["front", "wrist"])
    case = Case("libero", "l1_proprio_multi")
    assert case.proprio is not None
    done = predict(own, "--proprio", json.dumps(case.proprio.tolist()), platform="libero", count=2, base=None)
    np.testing.assert_allclose(done.json()["action"], reference("libero")["l1_proprio_multi.actions"], atol=1e-4)
    assert done.json()["names"] == list("abcdefg")
    assert "token_ids" not in done.json()


# Which folders


@pytest.mark.parametrize(
    ("platform", "name"), [("libero", "l1_proprio_multi"), ("aloha", "l1_proprio_multi"), ("bridge", "diffusion_T10")]
)
def test_the_command_prints_the_chunk_of_the_original(platform: str, name: str) -> None:
    case, base = Case(platform, name), None if platform == "libero" else BASE
    assert case.proprio is not None
    if name.startswith("diffusion"):  # the command has no option for the noise of a reference
        done = predict(
            DATA / f"oft_{platform}",
            "--seed",
            "3",
            "--diffusion-steps",
            "2",
            "--proprio",
            json.dumps(case.proprio.tolist()),
        )
        expected = case.predict(model(platform), noise=None, seed=3, diffusion_steps=2)
    else:
        count = len(case.images)
        done = predict(
            DATA / f"oft_{platform}",
            "--proprio",
            json.dumps(case.proprio.tolist()),
            platform=platform,
            count=count,
            base=base,
        )
        expected = reference(platform)[f"{name}.actions"]
    assert done.code == 0, done.err
    np.testing.assert_allclose(done.json()["action"], expected, atol=1e-4)
    assert list(done.json()) == ["action"]


def test_the_chunk_is_printed_for_people_too() -> None:
    ask = ("--instruction", "close the pot", "--processor", BASE, "--image", DATA / "io_oft_bridge/image0.png")
    done = oxe("predict", "--model", BRIDGE, "--base", BASE, *ask, "--diffusion-steps", "1", "--proprio", str(ZEROS))
    lines = done.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"action {i}" for i in range(1, 6)]
    assert {len(line.split()) for line in lines} == {2 + 7}


def test_adapters_beside_merged_weights_are_not_used_with_a_note() -> None:
    notes: list[str] = []
    load("libero", say=notes.append)
    assert notes == [
        f"{LIBERO / 'lora_adapter'}: not used: these adapters are already merged into the weights of {LIBERO}"
    ]
    load("bridge", say=notes.append)
    assert len(notes) == 1


def test_adapters_that_are_not_merged_are_merged_in_memory_or_by_the_command(tmp_path: Path) -> None:
    folder = copied(LIBERO, tmp_path)
    (folder / "model.safetensors").unlink()
    case, expected = Case("libero", "l1_proprio_multi"), reference("libero")["trainmodel_unmerged.actions"]
    vla = OpenVLAForActionPrediction.from_pretrained(folder, base=BASE)
    np.testing.assert_allclose(case.predict(vla), expected, atol=1e-4)
    merged = tmp_path / "merged"
    arguments = ("--base", BASE, "--adapter", folder / "lora_adapter", "--out", merged, "--dtype", "float32")
    assert oxe("merge", *arguments).code == 0
    vla = OpenVLAForActionPrediction.from_pretrained(folder, base=merged)
    np.testing.assert_allclose(case.predict(vla), expected, atol=1e-4)


def test_with_film_the_adapters_of_the_towers_come_from_their_own_file(tmp_path: Path) -> None:
    folder, case = copied(ALOHA, tmp_path), Case("aloha", "l1_proprio_1img")
    adapters = load_file(LIBERO / "lora_adapter/adapter_model.safetensors")
    config = (LIBERO / "lora_adapter/adapter_config.json").read_text()
    vision = {name: name.replace("vision_backbone.", "vision_backbone.vision_backbone.") for name in adapters}
    named = {vision[name].replace(".blocks.0.", ".blocks.0.block."): value for name, value in adapters.items()}
    (folder / "lora_adapter/adapter_config.json").write_text(config)
    save_file(named, folder / "lora_adapter/adapter_model.safetensors")
    own = case.predict(OpenVLAForActionPrediction.from_pretrained(folder, base=BASE))
    language = {name: value for name, value in adapters.items() if "vision_backbone" not in name}
    towers = {name: torch.zeros_like(value) for name, value in adapters.items() if "vision_backbone" in name}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text(config)
    save_file(language | towers, tmp_path / "adapter/adapter_model.safetensors")
    merge(str(BASE), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    shutil.rmtree(folder / "lora_adapter")
    apart = case.predict(OpenVLAForActionPrediction.from_pretrained(folder, base=tmp_path / "merged"))
    np.testing.assert_allclose(own, apart, atol=1e-5)
    assert np.abs(own - reference("aloha")[f"{case.name}.actions"]).max() > 1e-3  # the language model is adapted


# What is only noted


def test_a_missing_proprio_or_image_is_a_warning_for_an_original_layout() -> None:
    vla, ask = model("libero"), (meta("libero")["instructions"][0], "tiny_libero")
    with pytest.warns(UserWarning, match="no proprio: the model was trained with a proprio of 8 numbers"):
        vla.predict_action(images("libero", 2), *ask)
    with pytest.warns(UserWarning, match="images: 1 for each observation: .* others with these dimensions have 2"):
        vla.predict_action(images("libero", 1), *ask, proprio=[0.0] * 8)
    done = predict(LIBERO, platform="libero", base=None)
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert done.code == 0
    assert [("not used" in n, "images: 1 for" in n, "no proprio" in n) for n in notes] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_nothing_is_noted_if_nothing_is_missing(recwarn: pytest.WarningsRecorder) -> None:
    model("libero").predict_action(images("libero", 2), "close the pot", proprio=[0.0] * 8)
    assert not recwarn.list


# What is refused


def change(name: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Return a change of a JSON file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def edit_tensors(name: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Return a change of a file of torch."""

    def apply(folder: Path) -> None:
        tensors = torch.load(folder / name, weights_only=True)
        edit(tensors)
        torch.save(tensors, folder / name)

    return apply


def truncated(folder: Path) -> None:
    data = (folder / HEAD).read_bytes()
    (folder / HEAD).write_bytes(data[: len(data) // 2])


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1/0",))


def other_statistics(platform: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(DATA / f"oft_{platform}" / STATISTICS, folder / STATISTICS)


@dataclass(frozen=True)
class Bad:
    """What is wrong with a folder, with what is stated about it, or with the observation.

    `flags` are the options of the command; None if there is none for it. `folder` is BRIDGE, unless it is another
    reference checkpoint, or "own".
    """

    message: str
    change: Callable[[Path], object] | None = None
    loading: dict[str, Any] = field(default_factory=dict)
    calling: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] | None = ()
    folder: Path | str = BRIDGE
    images: int = 1
    is_command_only: bool = False


def bad() -> dict[str, Bad]:
    no_proprio = change(STATISTICS, lambda content: content["tiny_bridge"].pop("proprio"))
    given = {"proprio": ZEROS}
    return {
        "a head for another number of actions than the statistics": Bad(
            "head or projector is for actions of 7 numbers, those of the statistics have 14", other_statistics("aloha")
        ),
        "a projector for another proprio than the statistics": Bad(
            "head or projector is for proprios of 7 numbers, those of the statistics have 8", other_statistics("libero")
        ),
        "statistics with several numbers of proprios": Bad(
            "its statistics are of proprios of 7 or 8 numbers; keep those of one size",
            lambda folder: (
                (folder / PROPRIO).unlink(),
                change(STATISTICS, lambda c: c.update(json.loads((LIBERO / STATISTICS).read_text())))(folder),
            ),
        ),
        "no file of the head": Bad(
            f"contains {PROPRIO}, but no action_head--STEP_checkpoint.pt", lambda folder: (folder / HEAD).unlink()
        ),
        "a head that is stated, but has no file": Bad(
            "no action_head--STEP_checkpoint.pt: copy it to this folder",
            lambda folder: (folder / HEAD).unlink(),
            loading={"head": "l1"},
            flags=("--head", "l1"),
        ),
        "no projector of noisy actions": Bad(
            "a diffusion head, but no noisy_action_projector--STEP_checkpoint.pt", lambda f: (f / NOISY).unlink()
        ),
        "files of several steps": Bad(
            "several files of action_head (action_head--20_checkpoint.pt, action_head--40_checkpoint.pt)",
            lambda folder: shutil.copy(folder / HEAD, folder / "action_head--40_checkpoint.pt"),
        ),
        "a head of another kind": Bad(
            "a head of kind diffusion, got head l1", loading={"head": "l1"}, flags=("--head", "l1")
        ),
        "a file with code": Bad(
            "with more than tensors, which could run code; it is not read",
            lambda folder: (folder / HEAD).write_bytes(pickle.dumps({"x": Malicious()}, protocol=2)),
        ),
        "a torch file with code": Bad(
            "with more than tensors, which could run code; it is not read",
            lambda folder: torch.save({"x": Malicious()}, folder / HEAD),
        ),
        "a truncated file": Bad("cannot be read (", truncated),
        "an empty file": Bad("download it again", lambda folder: (folder / HEAD).write_bytes(b"")),
        "a file with other things": Bad(
            "expected tensors by name", lambda folder: torch.save({"epoch": 3}, folder / HEAD)
        ),
        "a head with NaN": Bad(
            "noise_predictor.mlp_resnet.fc1.bias has values that are not finite",
            edit_tensors(HEAD, lambda t: t["module.noise_predictor.mlp_resnet.fc1.bias"].fill_(torch.nan)),
        ),
        "a head without a tensor": Bad(
            "does not fit the model: 1 tensors are missing (noise_predictor.mlp_resnet.fc1.bias)",
            edit_tensors(HEAD, lambda t: t.pop("module.noise_predictor.mlp_resnet.fc1.bias")),
        ),
        "a head of another width": Bad(
            "does not fit the model: 1 differ from config.json in shape",
            edit_tensors(HEAD, lambda t: t.update({"module.noise_predictor.mlp_resnet.fc1.bias": torch.zeros(23)})),
        ),
        "not a head": Bad(
            "no tensor fc2.weight: not a component of OpenVLA-OFT",
            lambda folder: torch.save({"x": torch.zeros(1)}, folder / HEAD),
        ),
        "weights of its own and a base": Bad(
            "has its own weights, so no base can be named: leave out --base",
            folder=LIBERO,
            loading={"base": BASE},
            flags=("--base", str(BASE)),
        ),
        "a head without weights": Bad(
            "contains a head, but no weights of the model: name their folder with --base", loading={"base": None}
        ),
        "a chunk of nothing": Bad("chunk 0: must be at least 1 action", loading={"chunk": 0}, flags=("--chunk", "0")),
        "a negative chunk": Bad("chunk -1: must be at least 1", loading={"chunk": -1}, flags=("--chunk", "-1")),
        "a chunk that is too long": Bad(
            "chunk 10000: more than 10,000 numbers", loading={"chunk": 10_000}, flags=("--chunk", "10000")
        ),
        "a chunk of a base model": Bad(
            "a chunk or a normalization can be stated only for OpenVLA-OFT",
            folder=BASE,
            loading={"chunk": 8},
            flags=("--chunk", "8", "--unnorm-key", "tiny_bridge"),
        ),
        "a normalization of a base model": Bad(
            "add --head discrete",
            folder=BASE,
            loading={"normalize": "bounds"},
            flags=("--normalize", "bounds", "--unnorm-key", "tiny_bridge"),
        ),
        "a proprio for a base model": Bad(
            "proprio, noise, seed and diffusion steps: only for checkpoints of OpenVLA-OFT",
            folder=BASE,
            calling={"proprio": [0.0], "unnorm_key": "tiny_bridge"},
            flags=("--proprio", "[0]", "--unnorm-key", "tiny_bridge"),
        ),
        "two images for a base model": Bad(
            "an observation has 2 images, the model was trained with 1",
            folder=BASE,
            calling={"unnorm_key": "tiny_bridge"},
            flags=("--unnorm-key", "tiny_bridge"),
            images=2,
        ),
        "a proprio of another length": Bad(
            "proprio: expected 7 finite numbers for each of 1 observations, got [1, 8]",
            calling={"proprio": [0.0] * 8},
            flags=("--proprio", str([0.0] * 8)),
        ),
        "a proprio with NaN": Bad(
            "got [1, 7], not all finite",
            calling={"proprio": [float("nan")] * 7},
            flags=("--proprio", "[NaN, 0, 0, 0, 0, 0, 0]"),
        ),
        "a proprio of no physical size": Bad(
            "not all finite and below 1e+07",
            calling={"proprio": [1e300] * 7},
            flags=("--proprio", str([1e300] * 7)),
        ),
        "a proprio of words": Bad("proprio: expected 7 numbers", calling={"proprio": ["x"] * 7}, flags=None),
        "a proprio of huge integers": Bad(
            "int too large", calling={"proprio": [10**400] * 7}, flags=("--proprio", str([10**400] * 7))
        ),
        "a proprio that is not a list": Bad(
            "--proprio: expected a JSON list of numbers",
            flags=("--proprio", "{}"),
            calling=given,
            is_command_only=True,
        ),
        "a proprio that is not JSON": Bad(
            "--proprio: not valid JSON", flags=("--proprio", "0, 1"), calling=given, is_command_only=True
        ),
        "a proprio for a model without one": Bad(
            "proprio: this model was trained without one; leave it out",
            lambda f: (f / PROPRIO).unlink(),
            calling=given,
            flags=("--proprio", str(ZEROS)),
        ),
        "statistics without the proprio": Bad(
            'no statistics of the proprio, which the model was trained with: add "proprio" with q01 and q99',
            no_proprio,
            calling=given,
            flags=("--proprio", str(ZEROS)),
        ),
        "statistics of the proprio without quantiles": Bad(
            "tiny_bridge: proprio: q99 is missing",
            change(STATISTICS, lambda content: content["tiny_bridge"]["proprio"].pop("q99")),
            calling=given,
            flags=("--proprio", str(ZEROS)),
        ),
        "no step of diffusion": Bad(
            "diffusion steps: 0: expected 1 to 50",
            calling={**given, "diffusion_steps": 0},
            flags=("--diffusion-steps", "0", "--proprio", str(ZEROS)),
        ),
        "more steps of diffusion than in training": Bad(
            "diffusion steps: 51: expected 1 to 50",
            calling={**given, "diffusion_steps": 51},
            flags=("--diffusion-steps", "51", "--proprio", str(ZEROS)),
        ),
        "a seed that the generator does not know": Bad(
            "seed 4294967296: expected 0 to 4294967295",
            calling={**given, "seed": 1 << 32},
            flags=("--seed", str(1 << 32), "--proprio", str(ZEROS)),
        ),
        "a negative seed": Bad("seed -1: expected 0 to", calling={**given, "seed": -1}, flags=None),
        "noise of another shape": Bad(
            "noise: expected [1, 5, 7] finite numbers, got [1, 4, 7]",
            calling={**given, "noise": np.zeros((4, 7))},
            flags=None,
        ),
        "noise with infinity": Bad(
            "noise: expected [1, 5, 7] finite numbers", calling={**given, "noise": np.full((5, 7), np.inf)}, flags=None
        ),
        "noise of words": Bad("noise: expected [1, 5, 7] finite numbers", calling={**given, "noise": "x"}, flags=None),
        "a seed for a head without noise": Bad(
            "only for diffusion heads, this is a head of kind l1",
            folder=LIBERO,
            images=2,
            calling={"proprio": [0.0] * 8, "seed": 1},
            flags=("--seed", "1", "--proprio", str([0.0] * 8)),
        ),
        "steps for tokens": Bad(
            "only for diffusion heads, this is a head of kind discrete",
            loading={"head": "discrete"},
            calling={"diffusion_steps": 5},
            flags=("--head", "discrete", "--diffusion-steps", "5"),
        ),
        "noise for a head without noise": Bad(
            "only for diffusion heads, this is a head of kind l1",
            folder=LIBERO,
            images=2,
            calling={"proprio": [0.0] * 8, "noise": np.zeros((8, 7))},
            flags=None,
        ),
        "an unknown dataset": Bad(
            "no statistics for 'tiny_brige'; did you mean 'tiny_bridge'?",
            calling={**given, "unnorm_key": "tiny_brige"},
            flags=("--unnorm-key", "tiny_brige", "--proprio", str(ZEROS)),
        ),
        "too few images for ours": Bad(
            "an observation has 1 images, the model was trained with 2 (front, wrist)",
            folder="own",
            calling={"proprio": [0.0] * 8},
            flags=("--proprio", str([0.0] * 8)),
        ),
        "too many images for ours": Bad(
            "an observation has 3 images, the model was trained with 2 (front, wrist)",
            folder="own",
            images=3,
            calling={"proprio": [0.0] * 8},
            flags=("--proprio", str([0.0] * 8)),
        ),
        "no proprio for ours": Bad(
            "proprio is required: the model was trained with a proprio of 8 numbers (--proprio)", folder="own", images=2
        ),
        "another chunk than ours has": Bad(
            "oft.json: chunk is 8, got 5: this checkpoint states it; leave it out",
            folder="own",
            images=2,
            loading={"chunk": 5},
            flags=("--chunk", "5"),
        ),
        "another normalization than ours has": Bad(
            "oft.json: normalize is bounds_q99, got bounds",
            folder="own",
            images=2,
            loading={"normalize": "bounds"},
            flags=("--normalize", "bounds"),
        ),
        "another head than ours has": Bad(
            "oft.json: head is l1, got discrete",
            folder="own",
            images=2,
            loading={"head": "discrete"},
            flags=("--head", "discrete"),
        ),
        "settings of ours that are not valid": Bad(
            "oft.json: not valid (head: unknown value 'l3'",
            change("oft.json", lambda c: c.update(head="l3")),
            folder="own",
            images=2,
        ),
        "settings of ours that lack a key": Bad(
            "oft.json: not valid ('cameras')", change("oft.json", lambda c: c.pop("cameras")), folder="own", images=2
        ),
        "settings of ours with an unknown key": Bad(
            "oft.json: not valid", change("oft.json", lambda c: c.update(colour=1)), folder="own", images=2
        ),
        "a projector of ours that is missing": Bad(
            "no proprio_projector--STEP_checkpoint.pt: copy it to this folder",
            lambda folder: next(folder.glob("proprio_projector--*")).unlink(),
            folder="own",
            images=2,
        ),
        "FiLM for which the head has no model": Bad(
            "does not fit the model",
            edit_tensors("vision_backbone--30_checkpoint.pt", lambda t: t.popitem()),
            folder=ALOHA,
            images=3,
        ),
    }


def act(folder: Path, case: Bad, **loading: Any) -> None:
    vla = OpenVLAForActionPrediction.from_pretrained(folder, processor=processor(), self_test=False, **loading)
    vla.predict_action(images("aloha", case.images), "close the pot", **case.calling)


@pytest.mark.parametrize("what", bad())
def test_each_bad_input_is_one_message_in_python_and_in_the_command(what: str, own: Path, tmp_path: Path) -> None:
    case = bad()[what]
    source = own if case.folder == "own" else Path(case.folder)
    folder = copied(source, tmp_path) if case.change else source
    if case.change:
        case.change(folder)
    has_weights = any(source.glob("*.safetensors"))
    loading = {"base": None if has_weights else BASE} | case.loading
    if not case.is_command_only:
        with pytest.raises((CheckpointError, UsageError)) as caught:
            act(folder, case, **loading)
        assert case.message in str(caught.value)
    if case.flags is not None:
        base = None if "--base" in case.flags else loading["base"]
        done = predict(folder, *case.flags, platform="aloha", count=case.images, base=base)
        lines = done.err.strip().splitlines()
        assert (done.code, lines[-1].startswith("oxe: "), case.message in lines[-1]) == (2, True, True), done.err
        assert not [line for line in lines[:-1] if not line.startswith("note: ")]
        assert not done.out
