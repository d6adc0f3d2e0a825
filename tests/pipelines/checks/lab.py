"""Datasets with smooth motions, into which tests put one fault each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.thresholds import Thresholds
from schemas.spaces import DELTA, Dim, Space
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.toy import FIELDS, Columns, Toy, columns, make_toy, write_source, write_spec

ACTION = Space(name="action", dims=DELTA, frame="base", rotation="euler_xyz", gripper="none", origin="commanded")
STATE = Space(
    name="state",
    dims=tuple(Dim(dim.name, dim.unit, "absolute", dim.kind) for dim in DELTA),
    frame="base",
    rotation="euler_xyz",
    gripper="none",
    origin="achieved",
)


def about(**changes: Any) -> About:
    """Describe a dataset of poses at 10 Hz."""
    known = {
        "member": 0,
        "name": "toy",
        "control_hz": 10.0,
        "action": ACTION,
        "state": STATE,
        "ranges": {},
        "cameras": (),
        "is_derived": False,
        "is_clock": False,
        "rules": Thresholds(),
    }
    fields = About.__dataclass_fields__
    return About(**{name: value for name, value in (known | changes).items() if name in fields})


def episode(seed: int, *, steps: int = 40, **changes: Any) -> Columns:
    """Make one toy episode in which the state follows the commands of a smooth reach that never rests."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 1, steps)[:, None]
    goal, bow = rng.uniform(-0.3, 0.3, (2, 3))
    state = rng.normal(0, 0.02, 3) + goal * phase + bow * np.sin(np.pi * phase) + rng.normal(0, 1e-4, (steps, 3))
    action = np.zeros((steps, 4), np.float32)
    action[:-1, :3] = np.diff(state, axis=0)
    action[:, 3] = phase[:, 0] > 0.5
    made = columns(seed, steps=steps)
    return made | {"observation.state": state.astype(np.float32), "action": action} | changes


def filmed(folder: Path, episodes: Sequence[Columns]) -> Dataset:
    """Convert toy episodes with a second camera, `observation.wrist`; returns the dataset."""
    wrist = replace(next(field for field in FIELDS if field.kind == "image"), path="observation.wrist")
    toy = Toy(folder=folder)
    write_source(toy.source, episodes, fields=(*FIELDS, wrist))
    primary = 'primary = "observation.image"'
    write_spec(folder, replace={primary: f'{primary}\nwrist = "observation.wrist"'})
    assert toy.convert().code == 0
    return open_dataset(toy.out)


def converted(folder: Path, episodes: Sequence[Columns], **arguments: Any) -> Dataset:
    """Convert toy episodes; returns the dataset."""
    toy = make_toy(folder, episodes, **arguments)
    assert toy.convert().code == 0
    return open_dataset(toy.out)
