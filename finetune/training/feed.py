"""The samples of each step, read and tokenized while the step before is computed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from finetune.data.assemble import Batch
from finetune.data.torch_loader import TorchLoader
from finetune.training.batches import Collator, Inputs
from finetune.training.engine import Part
from schemas.errors import UsageError


def feed(loader: TorchLoader, collate: Collator, *, parts: int) -> Iterator[list[Part]]:
    """Give `parts` batches for each step, without end; they begin where the loader is.

    Workers take a seed from torch's random numbers when they start: they shall not change those of the training.
    """
    batches = iter(loader)
    with ThreadPoolExecutor(1, thread_name_prefix="oxe-feed") as pool:
        with torch.random.fork_rng():
            ready = _step(batches, collate, parts)
        while True:
            coming = pool.submit(_step, batches, collate, parts)
            yield ready
            ready = coming.result()


def evaluated(loader: TorchLoader, collate: Collator, *, limit: int, spare: Inputs) -> Iterator[Part]:
    """Give the first batches of a loader, from its start each time.

    Of the last ones a process may have no sample: there it gets `spare`, since all have to compute together.
    """
    loader.load_state_dict({**loader.state_dict(), "draws": 0})
    with torch.random.fork_rng():
        for batch in islice(loader, limit):
            yield _part(batch, collate) if len(batch) else (batch, spare.unlabelled())


def _step(batches: Iterator[Batch], collate: Collator, parts: int) -> list[Part]:
    return [_part(batch, collate) for batch in islice(batches, parts)]


def _part(batch: Batch, collate: Collator) -> Part:
    try:
        return batch, collate(batch)
    except UsageError as error:
        raise UsageError(f"{error} (one of episodes {list(map(int, batch.episode))})") from error
