"""Converted datasets, and their statistics computed with numpy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from schemas.source import Array
from schemas.store.dataset import Dataset
from stats.record import Statistics
from stats.summary import QUANTILES
from tests.pipelines.toy import Toy, columns, make_toy

LENGTHS = (3, 40, 200, 7, 1, 90)
RAW_VIEW = """
[views.torque]
action = ["raw.observation.torque", "action[0]", "action[3:]"]

[views.torque.space.parts]
torque  = { kind = "joint", dims = ["t0", "t1", "x"], unit = "1", mode = "absolute" }
gripper = { kind = "gripper", dims = ["gripper"], unit = "1", mode = "absolute" }

[views.nothing]
before = ["drop_first(1000)"]
"""


def make_counted(folder: Path, *, replace: dict[str, str] | None = None, seed: int = 0, extra: str = RAW_VIEW) -> Toy:
    toy = make_toy(folder, [columns(seed + i, steps=n) for i, n in enumerate(LENGTHS)], splits={"train": 4, "val": 2})
    text = toy.spec.read_text()
    for old, new in (replace or {}).items():
        assert old in text
        text = text.replace(old, new)
    toy.spec.write_text(text + extra)
    assert toy.convert().code == 0
    return toy


def check(found: Statistics, vector: str, x: Array) -> None:
    """Compare with numpy, bit for bit except for sums."""
    wide, summary = x.astype(np.float64), found.vectors[vector]
    for name, q in QUANTILES.items():
        assert np.array_equal(getattr(summary, name), np.quantile(wide, q, axis=0)), name
    assert np.array_equal(summary.min, wide.min(axis=0))
    assert np.array_equal(summary.max, wide.max(axis=0))
    assert summary.count == len(x)
    np.testing.assert_allclose(summary.mean, wide.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(summary.std, wide.std(axis=0), rtol=1e-12, atol=1e-15)


def episodes(dataset: Dataset, kept: Callable[[Any], bool] = lambda _: True, view: str | None = None) -> list[Any]:
    return [episode for i in range(len(dataset)) if kept(episode := dataset.episode(i, view))]


def joined(found: list[Any], name: str = "action") -> Array:
    return np.concatenate([getattr(episode, name) for episode in found])
