"""The files of a checkpoint, checked before any weight is read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from finetune.data.preprocessing import Preprocessing
from schemas.errors import CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
STATISTICS, TINY_VISION = "dataset_statistics.json", "tiny_vision.json"
PREPROCESSING = "preprocessing.json"
WANTED = ("*.json", "*.safetensors", "tokenizer.model")
FETCHING = ("cache_dir", "force_download", "local_files_only", "revision", "token")
NAMED = 3  # keys that an error names of each kind

Shape = tuple[int, ...]


def local_folder(place: Any, told: Mapping[str, Any], *, wanted: Sequence[str] = WANTED) -> Path:
    """Give the folder of a checkpoint; the name of one on the Hub is fetched as `told` says, never with code."""
    fetching = {key: told[key] for key in FETCHING if key in told}
    folder = Path(place)
    if folder.is_dir():
        return folder
    if folder.exists() or str(place).count("/") != 1:
        raise CheckpointError(f"{place}: no such folder, and no name of a model on the Hub (OWNER/NAME)")
    try:
        return Path(snapshot_download(str(place), allow_patterns=list(wanted), **fetching))
    except (OSError, ValueError) as error:  # what the Hub's client raises is one of these
        raise CheckpointError(f"{place}: no such folder, and it cannot be fetched from the Hub ({error})") from error


def read_json(path: Path) -> Any:
    """Read one file of a checkpoint."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; is {path.parent} a checkpoint?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def write_json(path: Path, value: Any) -> None:
    """Write one file of a checkpoint, the same bytes each time."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def statistics(folder: Path) -> dict[str, Any] | None:
    """Give `dataset_statistics.json`, which counts more than `config.json`, if it is there."""
    path = folder / STATISTICS
    return read_json(path) if path.exists() else None


def preprocessing(folder: Path) -> Preprocessing | None:
    """Give what was done to the images of the training; published checkpoints do not say it."""
    path = folder / PREPROCESSING
    return Preprocessing.of(read_json(path), where=str(path)) if path.exists() else None


def tiny_vision(folder: Path) -> list[dict[str, Any]] | None:
    """Give the dims of vision towers that are not the real ones, if they are told."""
    path = folder / TINY_VISION
    if not path.exists():
        return None
    told = read_json(path)
    if not isinstance(told, dict) or not isinstance(told.get("vision"), list):
        raise CheckpointError(f'{path}: expected an object with a list "vision"')
    return list(told["vision"])


def check_layout(folder: Path, expected: Mapping[str, Shape]) -> None:
    """Refuse a checkpoint whose tensors are not exactly the expected ones; only their headers are read."""
    check_shapes(stored(folder), expected, where=f"{folder}: not the layout of OpenVLA")


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], *, where: str) -> None:
    """Refuse tensors that are not exactly the expected ones, by name and shape."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = [
        f"{key} is {_sized(found[key])} and not {_sized(expected[key])}"
        for key in sorted(expected.keys() & found.keys())
        if found[key] != expected[key]
    ]
    problems = [
        *([f"{len(missing)} tensors are missing ({_named(missing)})"] if missing else []),
        *([f"{len(extra)} have no place ({_named(extra)})"] if extra else []),
        *([f"{len(other)} are of another shape than config.json says ({_named(other)})"] if other else []),
    ]
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems)}")


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a checkpoint."""
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(_weight_map(folder).values()))]
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    raise CheckpointError(f"{folder}: no weights: neither {INDEX} nor {SINGLE} is there")


def stored(folder: Path) -> dict[str, Shape]:
    """Read the names and shapes of all tensors from the headers of the safetensors files."""
    found: dict[str, Shape] = {}
    for path in weight_files(folder):
        found.update(_header(path))
    if (folder / INDEX).exists() and found.keys() != _weight_map(folder).keys():
        different = found.keys() ^ _weight_map(folder).keys()
        raise CheckpointError(f"{folder / INDEX}: does not list what the files hold ({_named(different)})")
    return found


def _weight_map(folder: Path) -> dict[str, str]:
    index = read_json(folder / INDEX)
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in found.values()
    ):
        raise CheckpointError(f"{folder / INDEX}: no weight_map of files beside it")
    return found


def _header(path: Path) -> dict[str, Shape]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, and the index names it; fetch it again") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); fetch it again") from error


def _sized(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"


def _named(keys: Iterable[str]) -> str:
    """Name the first few keys."""
    listed = sorted(keys)
    more = len(listed) - NAMED
    return ", ".join([*listed[:NAMED], *([f"and {more} more"] if more > 0 else [])])
