"""The loader for torch: batches of tensors, made in this process or in several worker processes."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.utils import data

from finetune.data.assemble import Batch
from finetune.data.loader import Loader
from schemas.errors import UsageError


class BatchDataset(data.IterableDataset[Batch]):
    """What a DataLoader iterates over (`batch_size=None`): each of its workers makes every so-many-th batch."""

    def __init__(self, loader: Loader) -> None:
        """Begin where the loader is."""
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        """Make this worker's batches."""
        worker = data.get_worker_info()
        if worker:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        own = self.loader.batches(worker.id, worker.num_workers) if worker else self.loader.batches()
        return map(as_tensors, own)


class TorchLoader:
    """Batches of tensors in the order of a Loader, whatever number of worker processes makes them.

    Under `torchrun`, or where torch.distributed has been set up, each process gets its share.
    """

    def __init__(self, loader: Loader, *, workers: int = 0, pin_memory: bool = False) -> None:
        """Take over a loader; one that was made for another rank than this process has is a UsageError."""
        if workers < 0:
            raise UsageError(f"workers {workers}: not possible")
        rank, world = _place()
        if loader.world == 1 < world:
            loader = loader.sharded(rank, world)
        if (loader.rank, loader.world) != (rank, world) and world > 1:
            raise UsageError(f"a loader for rank {loader.rank} of {loader.world} in the process {rank} of {world}")
        self.loader, self.workers, self.pin_memory = loader, workers, pin_memory

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches from where the last one ended."""
        for batch in self._batches():
            self.loader.count(batch)
            yield batch

    def _batches(self) -> Iterator[Batch]:
        dataset = BatchDataset(self.loader)
        if not self.workers:
            return iter(dataset)
        made = data.DataLoader(
            dataset,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            multiprocessing_context="forkserver",  # a fork of a process with threads may hang
        )
        return iter(made)

    def state_dict(self) -> dict[str, Any]:
        """Give the position behind the last batch that was handed out, whatever was made ahead."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at a position."""
        self.loader.load_state_dict(state)


def as_tensors(batch: Batch) -> Batch:
    """Give the same batch with tensors that share its memory."""
    return replace(batch, **{field.name: _tensor(getattr(batch, field.name)) for field in fields(batch)})


def _tensor(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensor(array) for key, array in value.items()}
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def _end_with_parent() -> None:
    """End this process once the one that asked for it is gone.

    torch looks for another parent, which never comes: that is the fork server, and it waits for its children.
    """
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _unchanged(batch: Any) -> Any:
    return batch


def _place() -> tuple[int, int]:
    """Tell rank and number of the processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
