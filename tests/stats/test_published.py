"""Recompute the published statistics of real datasets; docs/statistics.md explains the differences."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.source import Array
from stats.moments import Moments
from stats.quantiles import quantiles

V20 = "lerobot_v20/gr1_picknplace/demo_data/robot_sim.PickNPlace"
V30 = "lerobot_v30/rebot_devarm"
WANTED = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
pytestmark = pytest.mark.realdata


def recorded(folder: Path, column: str) -> Array:
    files = sorted(folder.glob("data/**/*.parquet"))
    return np.concatenate([np.array(pq.read_table(f, columns=[column])[column].to_pylist(), np.float32) for f in files])


def ours(x: Array) -> dict[str, Array]:
    moments = Moments.of(x)
    exact = {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}
    return exact | dict(zip(WANTED, quantiles(x, list(WANTED.values())), strict=True))


def off(x: Array, published: dict[str, Any]) -> dict[str, float]:
    """Return the largest difference of each statistic, as a share of its dimension's range."""
    exact = ours(x)
    span = np.where(exact["max"] > exact["min"], exact["max"] - exact["min"], 1)
    return {name: float(np.max(np.abs(exact[name] - published[name]) / span)) for name in exact if name in published}


@pytest.mark.parametrize("column", ["action", "observation.state"])
def test_lerobot_v20_has_exact_quantiles_and_moments_in_float32(column: str, realdata: Path) -> None:
    x = recorded(realdata / V20, column)
    published = json.loads((realdata / V20 / "meta/stats.json").read_text())[column]
    differences = off(x, published)
    assert (differences["min"], differences["max"]) == (0, 0)
    assert max(differences["q01"], differences["q99"]) < 1e-13
    assert 1e-4 < differences["mean"] < 3e-4  # the publisher added in float32; the same sum gives the same digits
    assert np.array_equal(x.mean(axis=0), np.float32(published["mean"]))
    assert np.array_equal(x.std(axis=0), np.float32(published["std"]))


@pytest.mark.parametrize("column", ["action", "observation.state"])
def test_lerobot_v30_has_approximate_quantiles_even_of_one_episode(column: str, realdata: Path) -> None:
    x = recorded(realdata / V30, column)
    published = json.loads((realdata / V30 / "meta/stats.json").read_text())[column]
    differences = off(x, published)
    assert (differences["min"], differences["max"]) == (0, 0)
    assert differences["mean"] < 2e-6
    assert differences["std"] < 1e-5
    assert 0.003 < max(differences["q01"], differences["q99"]) < 0.01  # shares of the range
    assert 1e-4 < max(differences["q10"], differences["q50"], differences["q90"]) < 2e-4
