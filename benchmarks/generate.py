"""Write the two benchmark sets as RLDS: deterministic, about 440 MB together.

    python benchmarks/generate.py --data DIR

Set A: 64 shards of 10-step episodes, 4 cameras of 64x64, a 512-float embedding. Set B: 16 shards of 40-step episodes,
2 cameras of 256x256. Every frame is a distinct JPEG: a window that moves over a smooth scene with some texture.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from pipelines.readers.rlds.example import encode
from pipelines.readers.rlds.tfrecord import frame
from schemas.source import Array, Bytes

HERE = Path(__file__).parent
VERSION = "1.0.0"
INSTRUCTIONS = (b"put the spoon on the towel", b"open the drawer", b"stack the green block on the yellow block", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSet:
    """The contents of one set."""

    name: str
    seed: int
    shards: int
    episodes: int  # per shard
    steps: int  # per episode
    cameras: int
    pixels: int  # height and width
    grain: float  # standard deviation of the texture (0 to 255); determines the size of JPEGs
    embedding: int = 0

    @property
    def declaration(self) -> Path:
        """The path of its declaration."""
        return HERE / f"{self.name.replace('bench', 'set')}.toml"

    def source(self, data: Path) -> Path:
        """Return the path of the RLDS version folder."""
        return data / self.name / VERSION

    def shard(self, number: int) -> str:
        """Return the file name of a shard."""
        return f"{self.name}-train.tfrecord-{number:05d}-of-{self.shards:05d}"


SET_A = BenchSet(
    name="bench_a", seed=1, shards=64, episodes=24, steps=10, cameras=4, pixels=64, grain=8.0, embedding=512
)
SET_B = BenchSet(name="bench_b", seed=2, shards=16, episodes=14, steps=40, cameras=2, pixels=256, grain=1.0)
SETS = {"A": SET_A, "B": SET_B}  # sets for all benchmarks; bench_loader.py writes its own
SET_L = BenchSet(name="bench_l", seed=5, shards=16, episodes=14, steps=40, cameras=1, pixels=256, grain=3.0)


def ensure(which: BenchSet, data: Path) -> Path:
    """Write the set if it is missing; returns its version folder."""
    folder = which.source(data)
    if not folder.is_dir():
        tmp = folder.with_name("tmp")
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
        _write(which, tmp)
        tmp.rename(folder)
    return folder


def _write(which: BenchSet, folder: Path) -> None:
    rng = np.random.default_rng(which.seed)
    scenes = [_scene(which, rng) for _ in range(24)]
    for number in range(which.shards):
        with (folder / which.shard(number)).open("wb") as file:
            for _ in range(which.episodes):
                file.write(frame(encode(_episode(which, rng, scenes))))
    (folder / "features.json").write_text(json.dumps(_features(which), indent=1))
    (folder / "dataset_info.json").write_text(json.dumps(_info(which, folder), indent=1))


def _scene(which: BenchSet, rng: np.random.Generator) -> Array:
    """Draw a canvas twice as wide and high as a frame: [2P, 2P, 3] uint8."""
    cells, size = 8, 2 * which.pixels
    corners = rng.uniform(20, 235, (cells + 1, cells + 1, 3))
    at = np.linspace(0, cells, size, endpoint=False)
    low, part = at.astype(int), at % 1
    rows = corners[low] * (1 - part)[:, None, None] + corners[low + 1] * part[:, None, None]
    smooth = rows[:, low] * (1 - part)[:, None] + rows[:, low + 1] * part[:, None]
    return (smooth + rng.normal(0, which.grain, (size, size, 1))).clip(0, 255).astype(np.uint8)


def _episode(which: BenchSet, rng: np.random.Generator, scenes: list[Array]) -> dict[str, Array | list[Bytes]]:
    steps = np.arange(which.steps)
    action = rng.normal(0, [0.01] * 3 + [0.05] * 3 + [0.0], (which.steps, 7)).astype(np.float32)
    action[:, 6] = steps < which.steps // 2
    state = np.cumsum(action, axis=0, dtype=np.float32)
    state[:, 6] = action[:, 6]
    is_last = steps == which.steps - 1
    instruction = INSTRUCTIONS[rng.integers(len(INSTRUCTIONS))]
    embedding = np.tile(rng.normal(0, 0.05, which.embedding).astype(np.float32), which.steps)
    return {
        "steps/action": action.ravel(),
        "steps/observation/state": state.ravel(),
        **{f"steps/observation/image_{i}": _camera(which, rng, scenes) for i in range(which.cameras)},
        **({"steps/language_embedding": embedding} if which.embedding else {}),
        "steps/language_instruction": [instruction] * which.steps,
        "steps/is_first": steps == 0,
        "steps/is_last": is_last,
        "steps/is_terminal": is_last,
        "steps/reward": is_last.astype(np.float32),
        "steps/discount": np.ones(which.steps, np.float32),
    }


def _camera(which: BenchSet, rng: np.random.Generator, scenes: list[Array]) -> list[Bytes]:
    """Render an episode: the window moves over one scene."""
    canvas = scenes[rng.integers(len(scenes))]
    walk = rng.integers(0, which.pixels // 2, 2) + np.cumsum(rng.integers(-2, 3, (which.steps, 2)), axis=0)
    frames: list[Bytes] = []
    for y, x in walk.clip(0, which.pixels):
        window = np.ascontiguousarray(canvas[y : y + which.pixels, x : x + which.pixels])
        frames.append(simplejpeg.encode_jpeg(window, quality=95, colorsubsampling="420"))
    return frames


def _features(which: BenchSet) -> dict[str, Any]:
    """Write the metadata files of `tensorflow-datasets`."""
    observation = {
        **{f"image_{i}": _image(which.pixels) for i in range(which.cameras)},
        "state": _tensor(7),
    }
    steps = {
        "action": _tensor(7),
        "observation": _dict(observation),
        **({"language_embedding": _tensor(which.embedding)} if which.embedding else {}),
        "language_instruction": {"pythonClassName": _class("text_feature.Text"), "text": {}},
        **{name: _scalar("bool") for name in ("is_first", "is_last", "is_terminal")},
        **{name: _scalar("float32") for name in ("reward", "discount")},
    }
    rows = {"pythonClassName": _class("dataset_feature.Dataset"), "sequence": {"feature": _dict(steps), "length": "-1"}}
    return _dict({"steps": rows})


def _class(name: str) -> str:
    return f"tensorflow_datasets.core.features.{name}"


def _dict(features: Mapping[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": _class("features_dict.FeaturesDict"), "featuresDict": {"features": dict(features)}}


def _image(pixels: int) -> dict[str, Any]:
    image = {"shape": {"dimensions": [str(pixels), str(pixels), "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}
    return {"pythonClassName": _class("image_feature.Image"), "image": image}


def _tensor(size: int) -> dict[str, Any]:
    tensor = {"shape": {"dimensions": [str(size)]}, "dtype": "float32", "encoding": "none"}
    return {"pythonClassName": _class("tensor_feature.Tensor"), "tensor": tensor}


def _scalar(dtype: str) -> dict[str, Any]:
    return {"pythonClassName": _class("scalar.Scalar"), "tensor": {"shape": {}, "dtype": dtype, "encoding": "none"}}


def _info(which: BenchSet, folder: Path) -> dict[str, Any]:
    size = sum((folder / which.shard(number)).stat().st_size for number in range(which.shards))
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(size),
        "shardLengths": [str(which.episodes)] * which.shards,
    }
    return {"name": which.name, "version": VERSION, "fileFormat": "tfrecord", "splits": [split]}


def main() -> None:
    """Write both sets."""
    parser = argparse.ArgumentParser(description="Write the benchmark sets.")
    parser.add_argument("--data", type=Path, required=True, help="folder for the generated sets")
    data = parser.parse_args().data
    for letter, which in SETS.items():
        folder = ensure(which, data)
        size = sum(path.stat().st_size for path in folder.iterdir())
        steps = which.shards * which.episodes * which.steps
        print(f"set {letter}: {folder}: {size / 1e6:.0f} MB, {which.shards} shards, {steps} steps")


if __name__ == "__main__":
    main()
