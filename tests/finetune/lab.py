"""Locked toy mixtures to load from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.assemble import Batch
from finetune.data.loader import Loader, LoaderOptions
from finetune.data.preprocessing import Preprocessing
from schemas.mixture import lock as locks
from schemas.mixture.lock import Lock
from schemas.source import Array
from tests.pipelines.mix.lab import made, make_datasets

PLAIN = Preprocessing(size=None, like_tensorflow=False)


def locked(folder: Path, text: str = "", **arguments: Any) -> Path:
    """Lock a mixture of the datasets in a folder."""
    path = folder / f"{len(list(folder.glob('*.lock')))}.lock"
    locks.write(path, *made(folder, text, **arguments))
    return path


def make_lab(folder: Path, text: str = "", **arguments: Any) -> Path:
    """Convert `one` and `two`, and lock their mixture."""
    make_datasets(folder)
    return locked(folder, text, **arguments)


def reading(**changes: Any) -> LoaderOptions:
    """Read the toys' images as they are."""
    return LoaderOptions(**{"preprocessing": PLAIN, **changes})


def make_loader(lock: Path, **arguments: Any) -> Loader:
    told = {key: arguments.pop(key) for key in list(arguments) if key in LoaderOptions.__slots__}
    return Loader(lock, reading(**told), **arguments)


def first(loader: Any, draws: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the first draws, keyed by their number."""
    found = 0
    for batch in loader:
        for i in range(len(batch)):
            yield int(batch.draw[i]), sample(batch, i)
        found += len(batch)
        if found >= draws:
            return


def sample(batch: Batch, i: int) -> dict[str, Any]:
    """Return one draw of a batch in a form that can be compared."""
    arrays: dict[str, Array] = {"source": batch.source, "episode": batch.episode, "step": batch.step}
    arrays |= {"action": batch.action, "pad": batch.action_is_pad, **batch.images}
    listed = {name: np.asarray(array[i]).tolist() for name, array in arrays.items()}
    return {**listed, "instruction": batch.instruction[i]}


def read(lock: Path) -> Lock:
    return locks.read(lock)[0]
