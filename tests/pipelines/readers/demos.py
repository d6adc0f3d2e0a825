"""A small file in robomimic's layout, and helpers that read HDF5 files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.convert.convert import convert
from pipelines.readers.reader import Reader
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.store.dataset import Dataset, open_dataset
from tests.makers import write_hdf5
from tests.pipelines.readers.reading import ARM, Opener, Reading

DEMOS = "data/demo_*"
SPEC = f"""
name       = "toy"
control_hz = 20
id         = "episode_path"
{ARM}
[action]
joints = "actions"
"""


def make_demo(seed: int = 0, *, steps: int = 4, **more: Any) -> dict[str, Any]:
    """Make one episode as robomimic lays it out."""
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.normal(size=(steps, 2)),
        "obs/eef_pos": rng.normal(size=(steps, 3)).astype(np.float32),
        "obs/agentview_image": rng.integers(0, 256, (steps, 8, 6, 3), np.uint8),
        "dones": np.arange(steps) == steps - 1,
        **more,
    }


def write_demos(file: Path, count: int = 3, **more: Any) -> Path:
    demos = {f"data/demo_{i + 8}": make_demo(i, **more) for i in range(count)}
    attrs = {"data": {"env_args": '{"env_name": "Lift"}'}, **{path: {"num_samples": 4} for path in demos}}
    return write_hdf5(file, demos, attrs)


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    import h5py

    with h5py.File(file, "a") as opened:
        change(opened)


def opened(uri: Path | str, **layout: Any) -> Reader:
    """Open a source; `layout` contains keys of a declaration."""
    return opener(uri, **({"episodes": DEMOS, **layout} if layout else {}))


opener = Opener("hdf5")
reading = Reading(opened)
read, episodes, outcome, details = reading.read, reading.episodes, reading.outcome, reading.details


def declare(folder: Path, source: str, *, replace: Mapping[str, str] | None = None) -> Path:
    text = SPEC
    for old, new in (replace or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "toy.toml").write_text(f"source = {source}\n{text}")
    return folder / "toy.toml"


def converted(folder: Path, uri: Path, source: str, **arguments: Any) -> Dataset:
    convert(catalog.dataset(str(declare(folder, source))), folder / "out", source=str(uri), **arguments)
    assert verify(open_dataset(folder / "out"), source=str(uri)).first == []
    return open_dataset(folder / "out")
