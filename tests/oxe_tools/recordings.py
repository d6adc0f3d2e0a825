"""Random recordings of a declared dataset, with every key and shape that its declaration names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from schemas.declarations.spec import DatasetSpec
from schemas.source import Array
from tests.makers import write_rlds

UNTOLD = {
    "observation.yaw": 1,
    "observation.gripper_position": 1,
    "observation.joint_position": 7,
}  # widths other than 7
KEPT = {"success": True}


def numbers(spec: DatasetSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and the shape of one value of each field of numbers."""
    images = {camera.key for camera in (*spec.cameras.values(), *spec.depth.values())}
    names = (spec.read_paths() | {path for path, field in spec.fields.items() if field.shape}) - images
    found = {}
    whole = {key.key for key in spec.filters.values()} | ({spec.success.key} if spec.success else set())
    for path in sorted(names - {*spec.language_keys} - whole):
        field = spec.fields.get(path)
        if not path.startswith("episode_metadata") and (field is None or field.dtype != "text"):
            told = field.shape if field else None
            found[path] = (field.dtype if field else "float32", (UNTOLD.get(path, 7),) if told is None else told)
    return found


def episode(spec: DatasetSpec, steps: int, *, seed: int = 0) -> dict[str, Any]:
    """Create the numbers and texts of one episode, flat; rotations are valid, grippers cover their range."""
    rng = np.random.default_rng(seed)
    out: dict[str, Any] = {path: _values(rng, dtype, (steps, *shape)) for path, (dtype, shape) in numbers(spec).items()}
    for path in spec.language_keys:
        out[path] = [f"{path} {seed}"] * steps
    return out


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    if shape[1:] in {(4, 4), (16,)}:
        return np.broadcast_to(np.eye(4, dtype=np.float32).reshape(shape[1:]), shape).astype(dtype)
    if shape[1:] == (24,):
        joints = rng.uniform(-1, 1, (shape[0], 8))
        return np.concatenate([joints, np.broadcast_to(np.eye(4).ravel(), (shape[0], 16))], axis=1).astype(dtype)
    values = rng.uniform(-1, 1, shape) if dtype.startswith("float") else rng.integers(0, 2, shape)
    return values.astype(dtype)


def write(spec: DatasetSpec, folder: Path, *, lengths: tuple[int, ...]) -> Path:
    """Write such episodes with `tensorflow-datasets`."""
    import tensorflow_datasets as tfds

    features = tfds.features
    told: dict[str, Any] = {}
    for path, (dtype, shape) in numbers(spec).items():
        encoding = "zlib" if spec.decode.get(path) == "zlib_float32" else "none"
        kind = np.dtype(dtype)
        told[path] = features.Tensor(shape=shape, dtype=kind, encoding=encoding) if shape else features.Scalar(kind)
    for path in spec.language_keys:
        is_coded = path in spec.decode
        told[path] = features.Tensor(shape=(512,), dtype=np.int32) if is_coded else features.Text()
    for camera in spec.cameras.values():
        told[camera.key] = features.Image(shape=(8, 8, 3), encoding_format="jpeg")
    for depth in spec.depth.values():
        is_image = depth.metres_per_unit is not None
        shape = (8, 8)
        image = features.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png")
        told[depth.key] = image if is_image else features.Tensor(shape=shape, dtype=np.float32)
    whole = {key.key: (features.Scalar(np.bool_), [True, False]) for key in spec.filters.values()}
    if spec.success:
        texts = [spec.success.contains or "", spec.success.failure or ""]
        whole |= {
            spec.success.key: (features.Text(), texts) if texts[0] else (features.Scalar(np.bool_), [True, False])
        }
    episodes = []
    for seed, steps in enumerate(lengths):
        values = {path: _coded(spec, path, column) for path, column in episode(spec, steps, seed=seed).items()}
        for camera in spec.cameras.values():
            values[camera.key] = np.full((steps, 8, 8, 3), seed, np.uint8)
        for depth in spec.depth.values():
            shape = (8, 8, 1) if depth.metres_per_unit is not None else (8, 8)
            values[depth.key] = np.zeros(
                (steps, *shape), np.uint16 if depth.metres_per_unit is not None else np.float32
            )
        rows = [nested({path: column[i] for path, column in values.items()}) for i in range(steps)]
        episodes.append({"steps": rows, **nested({path: ends[seed % 2] for path, (_, ends) in whole.items()})})
    about = nested({path: feature for path, (feature, _) in whole.items()})
    return write_rlds(folder, episodes, {"steps": features.Dataset(nested(told)), **about}, name="recordings")


def _coded(spec: DatasetSpec, path: str, column: Any) -> Any:
    if spec.decode.get(path) != "code_points":
        return column
    return [np.array([*map(ord, text), *[0] * (512 - len(text))], np.int32) for text in column]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted paths into nested dicts."""
    out: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, last = path.split(".")
        place = out
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return out
