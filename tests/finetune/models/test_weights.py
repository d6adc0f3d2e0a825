"""Stored tensors have one digest, however they are divided, and no value that is not a number."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import CheckpointError

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from safetensors.torch import save_file  # noqa: E402 - only where torch is

from finetune.models.weights import CHUNK, check_finite, checked_digest, metadata  # noqa: E402

TYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.float8_e5m2fnuz,
    torch.float8_e4m3fnuz,
)


FNUZ = {torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float8_e4m3fnuz: "F8_E4M3FNUZ"}


def tensors(seed: int = 0) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    return {f"layer.{i}": torch.randn(3, 4 + i, generator=draw) for i in range(5)}


def written(folder: Path, *parts: dict[str, Any]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.safetensors" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        save_file(part, path)
    return paths


def rename_type(path: Path, key: str, name: str) -> None:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header[key]["dtype"] = name
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[end:])


def test_the_digest_is_that_of_the_tensors_and_not_of_their_files(tmp_path: Path) -> None:
    whole = tensors()
    shards = [{key: whole[key] for key in sorted(whole)[i::3]} for i in (2, 0, 1)]
    one = checked_digest(written(tmp_path / "one", whole))
    assert one == checked_digest(written(tmp_path / "three", *shards))
    assert one == checked_digest(written(tmp_path / "turned", *shards)[::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["layer.1"].view(-1)[7].add_(1e-7),
        lambda found: found.update({"layer.1": found["layer.1"].bfloat16()}),
        lambda found: found.update({"layer.1": found["layer.1"].reshape(5, 3)}),
        lambda found: found.update({"layer.9": found.pop("layer.1")}),
        lambda found: found.update({"layer.0": found["layer.1"], "layer.1": found["layer.0"]}),
        lambda found: found.pop("layer.1"),
    ],
)
def test_any_other_value_type_shape_or_name_has_another_digest(change: Any, tmp_path: Path) -> None:
    before = checked_digest(written(tmp_path / "before", tensors()))
    found = tensors()
    change(found)
    assert checked_digest(written(tmp_path / "after", found)) != before


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -448.0])
def test_exactly_what_torch_calls_not_finite_is_refused_in_every_type(dtype: Any, value: float, tmp_path: Path) -> None:
    tensor = torch.zeros(2, 3)
    tensor[1, 2] = value
    stored = tensor.to(dtype)
    try:
        (path,) = written(tmp_path, {"fine": torch.ones(2), "odd": stored})
    except KeyError:  # safetensors before 0.8 cannot write two of the types
        (path,) = written(tmp_path, {"fine": torch.ones(2), "odd": stored.view(torch.uint8)})
        rename_type(path, "odd", FNUZ[dtype])
    if stored.float().isfinite().all():
        check_finite([path])
        return
    for check in (check_finite, checked_digest):
        with pytest.raises(CheckpointError, match=r"0\.safetensors: odd\[1, 2\] is NaN or infinite"):
            check([path])


@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
def test_the_first_of_them_is_found_wherever_it_is(place: int, tmp_path: Path) -> None:
    tensor = torch.full((2 * CHUNK + 6,), 60000.0, dtype=torch.float16)
    tensor[place] = float("nan")
    with pytest.raises(CheckpointError, match=rf"long\[{place}\] is NaN"):
        check_finite(written(tmp_path, {"long": tensor}))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_numbers_that_are_not_floating_point_are_quantized(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"layer has the type .*: quantized weights are not supported"):
        check_finite(written(tmp_path, {"layer": torch.ones(3).to(dtype)}))


def test_an_empty_tensor_and_a_scalar_are_fine(tmp_path: Path) -> None:
    (path,) = written(tmp_path, {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0)})
    check_finite([path])
    assert metadata(path) == {}


@pytest.mark.parametrize("data", [b"", b"abc", (99).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[}"])
def test_a_file_that_is_not_safetensors_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: cannot be read"):
        metadata(tmp_path / "x.safetensors")


def test_metadata_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"base": "x"})
    assert metadata(tmp_path / "a.safetensors") == json.loads('{"base": "x"}')
