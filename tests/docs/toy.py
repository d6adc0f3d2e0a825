"""A small recording with everything the format has a rule for, and the documentation's own blocks."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json
from schemas.source import Array, Bytes, Column, Field, Ragged

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"train": (90, 0, 460), "val": (7,)}  # per episode; train needs two row groups
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of one language on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [match["text"] for match in BLOCK.finditer(text) if match["language"] == language]


def record(folder: Path) -> Path:
    """Write the recordings of `my_lab` of docs/declarations.md, with missing frames, depth and ragged values."""
    folder.mkdir(parents=True)
    features: dict[RldsFeature, Column] = {}
    splits: dict[str, list[TfRecordWriter]] = {}
    for split, lengths in STEPS.items():
        shard = TfRecordWriter(folder / f"my_lab-{split}.tfrecord-00000-of-00001")
        for seed, steps in enumerate(lengths):
            features = {RldsFeature(field): column for field, column in _columns(seed, steps)}
            shard.add(features)
        shard.file.close()
        splits[split] = [shard]
    (folder / "features.json").write_text(features_json(list(features)))
    (folder / "dataset_info.json").write_text(info_json("my_lab", splits, version="1.0.0", description=""))
    return folder


def _columns(seed: int, steps: int) -> list[tuple[Field, Column]]:
    rng = np.random.default_rng(seed)
    colour: list[Bytes] = [b"" if t % 10 == 3 else _jpeg(rng) for t in range(steps)]
    distance: list[Bytes] = [_png16(rng) for _ in range(steps)]
    texts: list[Bytes] = [b"open the drawer" if t < 5 else "close the drawer \u00e4".encode() for t in range(steps)]
    counts = np.arange(steps, dtype=np.int64) % 3
    return [
        (Field(path="observation.front", kind="image", dtype="uint8", shape=(None, None, 3), encoding="jpeg"), colour),
        (Field(path="observation.range", kind="image", dtype="uint16", shape=(6, 8, 1), encoding="png"), distance),
        _numbers("observation.tcp_mm", rng.normal(size=(steps, 3)).astype(np.float32) * 1000),
        _numbers("observation.rpy_deg", rng.normal(size=(steps, 3)).astype(np.float32) * 90),
        _numbers("observation.gripper_closed", rng.integers(0, 2, steps).astype(np.float32)),
        _numbers("observation.ticks", rng.integers(0, 9, (steps, 2, 3)).astype(np.int32)),
        _numbers("command", np.append(rng.normal(size=(steps, 6)), rng.random((steps, 1)), axis=1).astype(np.float32)),
        _numbers("reward", np.linspace(0, 1, steps, dtype=np.float32)),
        (Field(path="instruction", kind="text"), texts),
        (
            Field(path="contacts", kind="number", dtype="float32", ragged=1),
            Ragged(rng.normal(size=counts.sum()).astype(np.float32), (counts,)),
        ),
        (Field(path="episode_metadata.operator", kind="text", per_step=False), [f"op {seed}".encode()]),
        (Field(path="episode_metadata.mass_kg", kind="number", dtype="float32", per_step=False), np.float32([0.1])),
    ]


def _numbers(path: str, values: Array) -> tuple[Field, Array]:
    return Field(path=path, kind="number", dtype=values.dtype.name, shape=values.shape[1:]), values


def _jpeg(rng: np.random.Generator) -> bytes:
    return _encoded(rng.integers(0, 255, (12, 16, 3), np.uint8), "JPEG")


def _png16(rng: np.random.Generator) -> bytes:
    return _encoded(rng.integers(0, 60000, (6, 8), np.uint16), "PNG")


def _encoded(pixels: Array, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()
