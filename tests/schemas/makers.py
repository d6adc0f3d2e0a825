"""Small makers of declarations, spaces, episodes, images, and invented sources that `convert` can read."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.convert.convert import convert
from pipelines.convert.records import Options
from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json
from schemas.declarations import catalog, spec
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode
from schemas.source import Array, Column, Field, Ragged
from schemas.spaces import Dim, Space

ARM: Mapping[str, Any] = {"frame": "base", "rotation": "euler_xyz", "gripper": "open_is_1", "origin": "commanded"}
TOY = """
name       = "toy"
embodiment = "widowx_eef_delta"
control_hz = 5
language   = "language_instruction"

[cameras]
primary = "observation.image"

[state]
xyz     = "observation.state[:3]"
rpy     = "observation.state[3:6]"
gripper = "observation.state[6:]"

[action]
xyz     = "action[:3]"
rpy     = "action[3:6]"
gripper = "action[6:] | binarize_gripper"

[views.openvla]
before = ["drop_first(1)"]
after  = ["relabel_achieved_delta(observation.state[:6])"]
space  = { origin = "achieved" }
"""
QUATERNION = ("qx", "qy", "qz", "qw")


def load(text: str = TOY) -> DatasetSpec:
    """Read a declaration."""
    return spec.load(text, where="toy.toml", robot=catalog.robot)


def make_space(**changes: Any) -> Space:
    """Make the Space of a pose and a gripper; `mode` is that of the arm."""
    words = {**ARM, "name": "action", "mode": "delta", "unit": "m", **changes}
    mode, unit = words.pop("mode"), words.pop("unit")
    names = QUATERNION if words["rotation"].startswith("quat") else ("r0", "r1", "r2")
    rotation_unit = "1" if words["rotation"].startswith("quat") else "rad"
    dims = (
        *(Dim(name, unit, mode, "position") for name in "xyz"),
        *(Dim(name, rotation_unit, mode, "rotation") for name in names),
        Dim("gripper", "1", "absolute", "gripper"),
    )
    return Space(**{"dims": dims, **words})


def make_episode(steps: int = 3, **changes: Any) -> Episode:
    """Make an episode with every kind of field; `changes` replace fields."""
    count = np.arange(steps, dtype=np.float32)
    fields: dict[str, Any] = {
        "id": "toy-000000",
        "dataset": "toy",
        "embodiment": "widowx_eef_delta",
        "instructions": ("open the drawer", "close it"),
        "instruction_index": np.minimum(np.arange(steps), 1).astype(np.int32),
        "control_hz": 5.0,
        "action": np.outer(count + 1, np.arange(7)).astype(np.float32) / 100,
        "action_space": make_space(),
        "state": np.outer(count + 2, np.arange(7)).astype(np.float32) / 10,
        "state_space": make_space(name="state", mode="absolute", origin="achieved"),
        "images": {"image": [f"frame {i}".encode() for i in range(steps)]},
        "depth": {"depth": [f"depth {i}".encode() if i else None for i in range(steps)]},
        "timestamp": np.arange(steps) / 5,
        "raw": {
            "points": Ragged(np.arange(steps * 2, dtype=np.int64), (np.full(steps, 2),)),
            "torque": np.outer(count, [1, 2]).astype(np.float64),
            "note": [f"note {i}".encode() for i in range(steps)],
        },
        "is_first": np.arange(steps) == 0,
        "is_last": np.arange(steps) == steps - 1,
        "is_terminal": np.zeros(steps, bool),
        "reward": count,
        "metadata": {"file_path": "/a/b"},
    }
    return Episode(**{**fields, **changes})


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_jpeg(height: int = 16, width: int = 24, *, mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    """Encode random noise as JPEG."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(noise[..., :3], "RGB").convert(mode)
    return encoded(image, "JPEG", **options)


Values = Mapping[str, Column]


def toy_fields() -> list[Field]:
    """List the fields of the source that TOY declares, with raw fields of every kind."""
    image = {"kind": "image", "dtype": "uint8", "shape": (None, None, 3)}
    return [
        Field(path="observation.image", encoding="jpeg", **image),  # type: ignore[arg-type]
        Field(path="observation.wrist", encoding="png", **image),  # type: ignore[arg-type]
        Field(path="observation.state", kind="number", dtype="float32", shape=(7,)),
        Field(path="observation.depth", kind="image", dtype="uint16", shape=(None, None, 1), encoding="png"),
        Field(path="action", kind="number", dtype="float32", shape=(7,)),
        Field(path="torque", kind="number", dtype="float64", shape=(2, 2)),
        Field(path="points", kind="number", dtype="float32", shape=(3,), ragged=2),
        Field(path="note", kind="text"),
        Field(path="language_instruction", kind="text"),
        Field(path="is_first", kind="number", dtype="bool"),
        Field(path="is_last", kind="number", dtype="bool"),
        Field(path="is_terminal", kind="number", dtype="bool"),
        Field(path="reward", kind="number", dtype="float32"),
        Field(path="episode_metadata.file_path", kind="text", per_step=False),
        Field(path="episode_metadata.success", kind="number", dtype="bool", per_step=False),
        Field(path="episode_metadata.weight", kind="number", dtype="float32", per_step=False),
    ]


def toy_values(steps: int, *, seed: int) -> dict[str, Column]:
    """Make one episode of that source; every third wrist frame is missing."""
    rng = np.random.default_rng(seed)
    png = [encoded(Image.new("RGB", (6, 5), (i, seed, 0)), "PNG") for i in range(steps)]
    depth = [encoded(Image.fromarray(rng.integers(0, 60000, (4, 5), np.uint16)), "PNG") for _ in range(steps)]
    outer = rng.integers(0, 3, steps)
    inner = rng.integers(0, 3, outer.sum())
    points = rng.normal(size=(inner.sum(), 3)).astype(np.float32)
    return {
        "observation.image": [make_jpeg(seed=seed * 1000 + i) for i in range(steps)],
        "observation.wrist": [b"" if i % 3 == 2 else frame for i, frame in enumerate(png)],
        "observation.state": rng.normal(size=(steps, 7)).astype(np.float32),
        "observation.depth": depth,
        "action": rng.uniform(-0.5, 1.5, size=(steps, 7)).astype(np.float32),
        "torque": rng.normal(size=(steps, 2, 2)),
        "points": Ragged(points, (outer, inner)),
        "note": [f"note {i} é".encode() for i in range(steps)],
        "language_instruction": [b"open it" if i < steps // 2 else b"close it" for i in range(steps)],
        "is_first": np.arange(steps) == 0,
        "is_last": np.arange(steps) == steps - 1,
        "is_terminal": np.zeros(steps, bool),
        "reward": rng.normal(size=steps).astype(np.float32),
        "episode_metadata.file_path": [f"/lab/{seed}".encode()],
        "episode_metadata.success": np.array([seed % 2 == 0]),
        "episode_metadata.weight": np.array([0.1 * seed], np.float32),
    }


def write_source(folder: Path, fields: Sequence[Field], episodes: Sequence[Values], *, name: str = "toy") -> Path:
    """Write an invented source as RLDS, without TensorFlow."""
    folder.mkdir(parents=True)
    shard, features = (
        TfRecordWriter(folder / f"{name}-train.tfrecord-00000-of-00001"),
        [RldsFeature(field) for field in fields],
    )
    for episode in episodes:
        shard.add({feature: episode[feature.field.path] for feature in features})
    shard.file.close()
    (folder / "features.json").write_text(features_json(features))
    (folder / "dataset_info.json").write_text(info_json(name, {"train": [shard]}, version="1.0.0", description=""))
    return folder


def publish(folder: Path, *, lengths: Sequence[int] = (5, 130, 3), text: str = TOY, **options: Any) -> Path:
    """Convert an invented source with episodes of these lengths; the RLDS source is at `folder / "source"`."""
    episodes = [toy_values(steps, seed=seed) for seed, steps in enumerate(lengths)]
    source = write_source(folder / "source", toy_fields(), episodes)
    convert(load(text), folder / "out", source=str(source), options=Options(**options))
    return folder / "out"


def equal_columns(one: Any, other: Any) -> bool:
    """Whether two columns have the same bits."""
    if isinstance(one, Ragged):
        levels = zip(one.lengths, other.lengths, strict=True)
        return all(map(np.array_equal, *zip(*levels, strict=True))) and equal_columns(one.values, other.values)
    if isinstance(one, np.ndarray):
        same: Array = np.ascontiguousarray(one)
        return (one.dtype, one.shape) == (other.dtype, other.shape) and same.tobytes() == other.tobytes()
    return [None if item is None else bytes(item) for item in one] == [
        None if item is None else bytes(item) for item in other
    ]
