"""Small makers of statistics."""

from typing import Any

import numpy as np

from schemas.source import Array
from schemas.spaces import Dim, Space
from stats.moments import Moments
from stats.quantiles import Histogram, Search, quantiles
from stats.record import Member, Statistics
from stats.summary import QUANTILES, Summary


def make_space(dims: int = 2, **changes: Any) -> Space:
    """Make the Space of an arm with `dims` dimensions, the last of them a gripper."""
    names = [f"x{i}" for i in range(dims - 1)]
    arm = tuple(Dim(name, "m", "delta", "position") for name in names)
    made: dict[str, Any] = {
        "name": "action",
        "dims": (*arm, Dim("gripper", "1", "absolute", "gripper")),
        "frame": "base",
        "rotation": "none",
        "gripper": "open_is_1",
        "origin": "commanded",
    }
    return Space(**(made | changes))


def make_numbers(seed: int = 0, *, rows: int = 500, dims: int = 2) -> Array:
    """Draw normal numbers, and a gripper of 0 or 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dims)).astype(np.float32)
    x[:, -1] = rng.random(rows) < 0.3
    return x


def make_summary(x: Array, *, space: Space | None = None, is_action: bool = True) -> Summary:
    space = space or make_space(x.shape[1])
    histogram = Histogram.of(x, Search.of([], dims=x.shape[1]))
    found = quantiles(x, list(QUANTILES.values()))
    return Summary.of(space, Moments.of(x), quantiles=found, histogram=histogram, is_action=is_action)


def make_statistics(x: Array | None = None, *, name: str = "toy", **changes: Any) -> Statistics:
    """Make statistics of a dataset whose state is twice its action."""
    x = make_numbers() if x is None else x
    state = make_summary(2 * x, is_action=False)
    made: dict[str, Any] = {
        "name": name,
        "members": (Member(dataset=name, manifest="00", view_digest=None, episodes=3, steps=len(x)),),
        "view": None,
        "split": None,
        "filters": None,
        "robot": "toy",
        "controller": "eef_delta",
        "control_hz": 10.0,
        "vectors": {"action": make_summary(x), "state": state},
    }
    return Statistics(**(made | changes))
