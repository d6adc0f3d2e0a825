"""Reads and checks the files of a checkpoint before any weight is loaded."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from finetune.data.preprocessing import Preprocessing
from schemas.errors import CheckpointError
from schemas.files import durable
from schemas.parsing import parse_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
STATISTICS, TINY_VISION = "dataset_statistics.json", "tiny_vision.json"
PREPROCESSING, MERGED = "preprocessing.json", "merged.json"
WANTED = ("*.json", "*.safetensors", "tokenizer.model")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
LISTED = 3  # how many keys of each kind an error message lists

Shape = tuple[int, ...]


def local_folder(place: Any, options: Mapping[str, Any], *, wanted: Sequence[str] = WANTED) -> Path:
    """Return the folder of a checkpoint. If `place` is the name of a model on the Hub, download it first.

    `options` may contain options of the download. Code in the model's repository is not downloaded. Raises
    CheckpointError if there is no such folder and the model cannot be downloaded.
    """
    hub_options = {key: options[key] for key in HUB_OPTIONS if key in options}
    folder = Path(place)
    if folder.is_dir():
        return folder
    if folder.exists() or str(place).count("/") != 1:
        raise CheckpointError(f"{place}: no such folder, and not the name of a model on the Hub (OWNER/NAME)")
    try:
        return Path(snapshot_download(str(place), allow_patterns=list(wanted), **hub_options))
    except (OSError, ValueError) as error:  # the base classes of the Hub client's errors
        raise CheckpointError(f"{place}: no such folder, and it cannot be downloaded from the Hub ({error})") from error


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint."""
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; is {path.parent} a checkpoint?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file of a checkpoint. Equal values always give the same bytes."""
    durable.write(path, json.dumps(value, indent=2).encode() + b"\n")


def statistics(folder: Path) -> dict[str, Any] | None:
    """Read `dataset_statistics.json`. Returns None if there is no such file.

    Its statistics have precedence over those in `config.json`.
    """
    path = folder / STATISTICS
    return read_json(path) if path.exists() else None


def preprocessing(folder: Path) -> Preprocessing | None:
    """Read how images were preprocessed in training. Returns None for published checkpoints, which do not state it."""
    path = folder / PREPROCESSING
    return Preprocessing.of(read_json(path), where=str(path)) if path.exists() else None


def tiny_vision(folder: Path) -> list[dict[str, Any]] | None:
    """Read the dims of small vision towers. Returns None if the checkpoint has the towers of OpenVLA."""
    path = folder / TINY_VISION
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("vision"), list):
        raise CheckpointError(f'{path}: expected an object with a list "vision"')
    return list(content["vision"])


def merged(folder: Path) -> tuple[str, ...]:
    """Read the digests of the adapters that `oxe merge` merged into the weights."""
    path = folder / MERGED
    content = read_json(path) if path.exists() else {"adapters": []}
    if not isinstance(content, dict) or not isinstance(content.get("adapters"), list):
        raise CheckpointError(f'{path}: expected an object with a list "adapters"')
    return tuple(map(str, content["adapters"]))


def check_layout(folder: Path, expected: Mapping[str, Shape]) -> None:
    """Raise CheckpointError if a checkpoint's tensors are not exactly the expected ones. Reads only file headers."""
    check_shapes(stored(folder), expected, where=f"{folder}: not the layout of OpenVLA")


def check_shapes(shapes: Mapping[str, Shape], expected: Mapping[str, Shape], *, where: str) -> None:
    """Raise CheckpointError if the names and shapes of tensors are not exactly the expected ones."""
    missing, extra = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    different = [
        f"{key}: expected {_sized(expected[key])}, got {_sized(shapes[key])}"
        for key in sorted(expected.keys() & shapes.keys())
        if shapes[key] != expected[key]
    ]
    problems = [
        *([f"{len(missing)} tensors are missing ({_named(missing)})"] if missing else []),
        *([f"{len(extra)} are unexpected ({_named(extra)})"] if extra else []),
        *([f"{len(different)} differ from config.json in shape ({_named(different)})"] if different else []),
    ]
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems)}")


def has_weights(folder: Path) -> bool:
    """Whether a folder has the weights of a model."""
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a checkpoint."""
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(_weight_map(folder).values()))]
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    raise CheckpointError(f"{folder}: no weights: neither {INDEX} nor {SINGLE} was found")


def stored(folder: Path) -> dict[str, Shape]:
    """Read the names and shapes of all tensors from the headers of the safetensors files."""
    shapes: dict[str, Shape] = {}
    for path in weight_files(folder):
        shapes.update(_header(path))
    if (folder / INDEX).exists() and shapes.keys() != _weight_map(folder).keys():
        different = shapes.keys() ^ _weight_map(folder).keys()
        raise CheckpointError(f"{folder / INDEX}: differs from the tensors in the files ({_named(different)})")
    return shapes


def _weight_map(folder: Path) -> dict[str, str]:
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in weight_map.values()
    ):
        raise CheckpointError(f"{folder / INDEX}: weight_map: expected names of files in the same folder")
    return weight_map


def _header(path: Path) -> dict[str, Shape]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, but the index lists it; download it again") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); download it again") from error


def _sized(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _named(keys: Iterable[str]) -> str:
    """Return the first few keys, joined by commas."""
    listed = sorted(keys)
    more = len(listed) - LISTED
    return ", ".join([*listed[:LISTED], *([f"and {more} more"] if more > 0 else [])])
