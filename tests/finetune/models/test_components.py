"""Checkpoints of OpenVLA-OFT are written as the original writes them: loading and saving change no byte of a tensor."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.models.weights import stored_tensors
from tests.finetune.oft_fixtures import PLATFORMS, load, processor, variant
from tests.finetune.vla import BASE, DATA

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models import components, layouts  # noqa: E402 - only where torch is
from finetune.models.components import NAMES, find  # noqa: E402
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402

OTHER_FILES = ("config.json", "dataset_statistics.json", "generation_config.json", "preprocessor_config.json")


def tensors(path: Path) -> list[tuple[str, Any, tuple[int, ...], bytes]]:
    """List names, dtypes, shapes and bytes of a file of torch, in its order."""
    content = torch.load(path, weights_only=True)
    return [(key, value.dtype, tuple(value.shape), raw(value)) for key, value in content.items()]


def raw(value: Any) -> bytes:
    return bytes(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())


def weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtypes, shapes and bytes of the tensors in safetensors files by name."""
    result = (tensor for path in folder.glob("*.safetensors") for tensor in stored_tensors(path))
    return {tensor.name: (tensor.dtype, tensor.shape, tensor.raw.tobytes()) for tensor in result}


@pytest.fixture(scope="module", params=PLATFORMS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Load a reference checkpoint and save it."""
    folder = tmp_path_factory.mktemp("written") / request.param
    load(request.param).save_pretrained(folder)
    return request.param, folder


def test_every_file_has_the_names_the_order_the_dtypes_the_shapes_and_the_bytes_of_the_original(
    written: tuple[str, Path],
) -> None:
    platform, folder = written
    theirs = {path.name: tensors(path) for path in (DATA / f"oft_{platform}").glob("*.pt")}
    assert theirs
    assert {path.name: tensors(path) for path in folder.glob("*.pt")} == theirs
    source = DATA / "oft_libero" if platform == "libero" else BASE
    assert weights(folder) == weights(source)


def test_no_other_files_are_written_than_the_original_has(written: tuple[str, Path]) -> None:
    platform, folder = written
    theirs = {path.name for path in (DATA / f"oft_{platform}").iterdir() if path.is_file()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in folder.iterdir()} == theirs | {"model.safetensors"} | tokenizer
    for name in OTHER_FILES:
        ours, expected = (json.loads((place / name).read_text()) for place in (folder, DATA / f"oft_{platform}"))
        if name == "config.json":
            ours, expected = (
                {k: v for k, v in c.items() if k not in {"text_config", "norm_stats", "_name_or_path"}}
                for c in (ours, expected)
            )
        assert ours == expected


def test_what_is_written_loads_alone_and_is_written_again_without_a_change(
    written: tuple[str, Path], tmp_path: Path
) -> None:
    platform, folder = written
    vla = OpenVLAForActionPrediction.from_pretrained(folder, self_test=False)
    before = load(platform)
    assert vla.oft == before.oft
    ours, theirs = vla.state_dict(), before.state_dict()
    assert list(ours) == list(theirs)
    assert all(raw(ours[key]) == raw(theirs[key]) for key in theirs)
    vla.save_pretrained(tmp_path / "again")
    assert weights(tmp_path / "again") == weights(folder)
    for path in folder.glob("*.pt"):
        assert tensors(tmp_path / "again" / path.name) == tensors(path)


def test_bfloat16_is_written_in_bfloat16_and_projectors_as_in_their_files(tmp_path: Path) -> None:
    load("bridge", dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert weights(tmp_path) == weights(BASE)
    for path in (DATA / "oft_bridge").glob("*.pt"):
        assert tensors(tmp_path / path.name) == tensors(path)


def test_weights_that_changed_are_written_with_all_their_bits(tmp_path: Path) -> None:
    vla = load("bridge")
    with torch.no_grad():
        vla.action_head.noise_predictor.mlp_resnet.fc1.bias += 1e-7
    vla.save_pretrained(tmp_path)
    dtypes = {dtype for _, dtype, _, _ in tensors(tmp_path / "action_head--20_checkpoint.pt")}
    assert dtypes == {torch.float32}
    assert weights(tmp_path) == weights(BASE)


@pytest.mark.parametrize("change", [{"chunk": 4}, {"cameras": ("front",)}, {"head": "discrete"}])
def test_settings_are_written_if_the_original_layout_does_not_say_the_same(
    change: dict[str, Any], tmp_path: Path
) -> None:
    vla = variant(load("bridge", head=change.get("head")), **change)
    vla.save_pretrained(tmp_path)
    again = OpenVLAForActionPrediction.from_pretrained(tmp_path, self_test=False)
    assert (tmp_path / layouts.SETTINGS).exists()
    assert again.oft == vla.oft


def test_the_steps_of_the_files_are_kept(tmp_path: Path) -> None:
    shutil.copytree(DATA / "oft_bridge", tmp_path / "model")
    for path in (tmp_path / "model").glob("*--20_*.pt"):
        path.rename(path.with_name(path.name.replace("--20_", "--latest_")))
    vla = OpenVLAForActionPrediction.from_pretrained(tmp_path / "model", base=BASE, processor=processor())
    vla.save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").glob("*.pt")} == {
        f"{name}--latest_checkpoint.pt" for name in ("action_head", "proprio_projector", "noisy_action_projector")
    }


def test_names_without_the_prefix_of_distributed_training_are_read(tmp_path: Path) -> None:
    shutil.copytree(DATA / "oft_bridge", tmp_path / "model")
    path = tmp_path / "model/action_head--20_checkpoint.pt"
    content = torch.load(path, weights_only=True)
    torch.save({key.removeprefix("module."): value for key, value in content.items()}, path)
    ours = OpenVLAForActionPrediction.from_pretrained(tmp_path / "model", base=BASE, self_test=False).action_head
    theirs = load("bridge").action_head.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_files_of_a_checkpoint_are_found_by_their_components(platform: str, tmp_path: Path) -> None:
    folder = DATA / f"oft_{platform}"
    listed = {name: path.name for name in NAMES if (path := find(folder, name))}
    assert sorted(listed.values()) == sorted(path.name for path in folder.glob("*.pt"))
    assert find(tmp_path, "action_head") is None


def test_film_layers_beside_adapters_are_written_and_read_alone(tmp_path: Path) -> None:
    vla = load("aloha")
    film = {key: value for key, value in vla.vision_backbone.state_dict().items() if components.FILM_LAYER.search(key)}
    components.save(vla, tmp_path, vla.state_dict(), is_adapter=True)
    path = find(tmp_path, components.FILM)
    assert path is not None
    assert find(tmp_path, components.VISION) is None
    stored = components.read(path).tensors
    assert stored.keys() == film.keys()
    assert all(torch.equal(stored[key], value) for key, value in film.items())
