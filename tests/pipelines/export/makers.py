"""Datasets with images of a useful size, and the contents of their exports."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from schemas.source import Column, Field
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.toy import FIELDS, columns, make_toy, oxe

SIZE = 64
IMAGE = "observation.image"


@cache
def picture(seed: int, *, height: int = SIZE, width: int = SIZE) -> bytes:
    """Draw a smooth picture that differs for each seed."""
    y, x = np.mgrid[:height, :width] / SIZE
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    pixels = np.stack([127 + 100 * np.sin(4 * x + 3 * y + p) for p in phase], axis=-1).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=95))


def episodes(count: int = 3, *, steps: int = 6, size: int = SIZE) -> list[dict[str, Column]]:
    """Make episodes with the toy's columns and distinct pictures."""
    return [
        columns(
            seed,
            steps=steps + seed,
            image=[picture(100 * seed + t, height=size, width=size) for t in range(steps + seed)],
        )
        for seed in range(count)
    ]


def converted(folder: Path, made: Sequence[Mapping[str, Column]], **source: Any) -> Dataset:
    """Write a source with these episodes and convert it."""
    toy = make_toy(folder / "toy", made, **source)
    done = toy.convert()
    assert done.code == 0, done.err
    return open_dataset(toy.out)


def with_field(made: Sequence[dict[str, Column]], field: Field, values: Sequence[Column]) -> dict[str, Any]:
    """Add a column to each episode; returns the additional arguments of `converted`."""
    for episode, column in zip(made, values, strict=True):
        episode[field.path] = column
    return {"fields": (*FIELDS, field)}


def depth_field(path: str = "observation.depth") -> Field:
    return replace(
        next(f for f in FIELDS if f.path == IMAGE), path=path, dtype="uint16", shape=(None, None, 1), encoding="png"
    )


def export(dataset: Dataset, out: Path, *more: str) -> Any:
    """Export to LeRobot; returns the report."""
    done = oxe("export", "lerobot", dataset.path, "--out", out, "--json", *more)
    assert done.code == 0, done.err
    return done.json()


def table(out: Path, name: str = "data") -> pa.Table:
    """Read all Parquet files below a folder of an export as one table."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / name).rglob("*.parquet"))])


def info(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "meta/info.json").read_text())
    return found


def picture_of_depth(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 65536, (6, 8), np.uint16)).save(out, "PNG")
    return out.getvalue()
