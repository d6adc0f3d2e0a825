"""A flat buffer in the layout of D4RL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.makers import write_hdf5

LENGTHS = [10, 15, 15]
ROWS = sum(LENGTHS)


def make_buffer(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.normal(size=(ROWS, 2)).astype("f4"),
        "observations": rng.normal(size=(ROWS, 9)).astype("f4"),
        "rewards": np.zeros(ROWS, "f4"),
    }


def write_buffer(
    file: Path, *, flags: Sequence[str], ends: Sequence[int] = (10, 25, 40), more: Mapping[str, Any] | None = None
) -> Path:
    """Write a buffer; the first flag is true at the ends of all but the last episode, the last flag at the last end."""
    columns = {flag: np.zeros(ROWS, bool) for flag in flags}
    for end in ends[:-1]:
        columns[flags[0]][end - 1] = True
    columns[flags[-1]][ends[-1] - 1] = True
    return write_hdf5(file, {"/": {**make_buffer(), **columns, **(more or {})}})
