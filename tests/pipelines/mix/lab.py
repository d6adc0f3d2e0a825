"""Published toy datasets in one folder, and mixtures of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.mix.make import make_lock
from schemas.mixture.lock import Lock
from schemas.mixture.spec import MixtureSpec, load
from tests.pipelines.toy import columns, make_toy, write_source

LENGTHS = {"one": (3, 4, 5, 6), "two": (10, 20)}


def make_datasets(folder: Path, lengths: dict[str, tuple[int, ...]] | None = None) -> Path:
    """Convert a toy source for each name; each episode i has its own seed and the instruction `task i`."""
    seed = 0
    for name, counts in (lengths or LENGTHS).items():
        toy = make_toy(folder / f"work_{name}", [columns(seed + i, steps=n) for i, n in enumerate(counts)])
        seed += len(counts)
        assert toy.convert().code == 0
        toy.out.rename(folder / name)
    return folder


def mix(text: str = "", *, weights: str = "one = 1.0\ntwo = 1.0", tables: str = "") -> MixtureSpec:
    """Read a mixture of `one` and `two`, which are in the same folder."""
    words = text if "weighting" in text else f'weighting = "relative"\n{text}'
    sources = "" if "[sources]" in tables else '[sources]\none = { uri = "one" }\ntwo = { uri = "two" }\n'
    return load(f'name = "toy"\n{words}\n[weights]\n{weights}\n{sources}{tables}', where="mix.toml")


def made(folder: Path, text: str = "", **arguments: Any) -> tuple[Lock, pa.Table]:
    return make_lock(mix(text, **arguments), beside=folder)


def again(folder: Path, name: str, *, seed: int) -> None:
    """Replace a dataset by one with other episodes."""
    toy = make_toy(folder / f"new_{name}")
    write_source(toy.source, [columns(seed, steps=4)])
    assert toy.convert().code == 0
    (folder / name).rename(folder / f"old_{name}")
    toy.out.rename(folder / name)


def total(values: Any) -> float:
    return float(np.sum(list(values)))
