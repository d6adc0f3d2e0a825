"""A process that reads a mixture until it is killed, for test_loader_crash.py: it imports nothing but the loader."""

import hashlib
import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from finetune.data.augment import Augmentation
from finetune.data.loader import Loader, LoaderOptions
from finetune.data.preprocessing import Preprocessing

LONG = 1 << 20  # bytes of a log


def loader_of(lock: Path, cache: Path, **arguments: Any) -> Loader:
    """Read everything that is drawn or chosen: augmentation, chunks, history, other steps for a broken image."""
    preprocessing = Preprocessing(size=(12, 10), augment=Augmentation())
    reading = LoaderOptions(history=2, chunk=3, state=True, corrupt="substitute", preprocessing=preprocessing)
    return Loader(lock, reading, cache=cache, **arguments)


def digests(batch: Any) -> dict[int, str]:
    """Hash each sample of a batch with all that it holds."""
    arrays = (
        *(batch.source, batch.episode, batch.step, batch.action, batch.action_is_pad, batch.action_valid),
        *(batch.state, batch.images["primary"], batch.history_is_pad, batch.substituted),
    )
    found = {}
    for i, draw in enumerate(batch.draw.tolist()):
        content = b"".join(array[i : i + 1].tobytes() for array in arrays) + batch.instruction[i].encode()
        found[draw] = hashlib.sha256(content).hexdigest()
    return found


def live(*, lock: str, cache: str, log: str, state: dict[str, Any] | None, workers: int, **place: int) -> None:
    """Iterate until this process is killed; log the samples of each batch and the position after it."""
    loader: Any = loader_of(Path(lock), Path(cache), **place)
    if workers:
        from finetune.data.torch_loader import TorchLoader

        loader = TorchLoader(loader, workers=workers)
    if state:
        loader.load_state_dict(state)
    with Path(log).open("w", encoding="utf-8") as file:
        for batch in loader:
            print(json.dumps([digests(as_arrays(batch)), loader.state_dict()]), file=file, flush=True)
            if file.tell() > LONG:  # on a busy machine the test reads more slowly than this process writes
                time.sleep(0.1)


def as_arrays(batch: Any) -> Any:
    """Convert a batch of tensors to arrays."""

    def array(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: array(own) for key, own in value.items()}
        return value.numpy() if hasattr(value, "numpy") else value

    return replace(batch, **{field.name: array(getattr(batch, field.name)) for field in fields(batch)})
