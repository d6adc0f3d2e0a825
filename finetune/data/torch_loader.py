"""The loader for torch: batches of tensors, from this process or from worker processes."""

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
from schemas.errors import DatasetError, OxeError, UsageError


class BatchDataset(data.IterableDataset[Batch]):
    """Batches for a DataLoader with `batch_size=None`. If there are n workers, each yields every n-th batch."""

    def __init__(self, loader: Loader) -> None:
        """Start at the loader's position."""
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's batches."""
        worker = data.get_worker_info()
        if worker:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        batches = self.loader.batches(worker.id, worker.num_workers) if worker else self.loader.batches()
        return map(as_tensors, batches)


class _ReportedBatches(data.IterableDataset[Batch | Exception]):
    """Batches of a worker. An error is yielded in place of the batch that failed: raised, it would lose its text."""

    def __init__(self, loader: Loader) -> None:
        self.batches = BatchDataset(loader)

    def __iter__(self) -> Iterator[Batch | Exception]:
        try:
            yield from self.batches
        except (OxeError, OSError) as error:
            yield error


class TorchLoader:
    """Batches of tensors in the order of a Loader, however many worker processes are used.

    Under `torchrun`, or if torch.distributed is initialized, each training process gets its share of the batches.
    """

    def __init__(self, loader: Loader, *, workers: int = 0, pin_memory: bool = False) -> None:
        """Wrap a loader. Raises UsageError if the loader was opened for another rank than that of this process."""
        if workers < 0:
            raise UsageError(f"workers {workers}: must be at least 0")
        rank, world = _rank_and_world()
        if loader.world == 1 < world:
            loader = loader.sharded(rank, world)
        if (loader.rank, loader.world) != (rank, world) and world > 1:
            raise UsageError(
                f"the loader is for rank {loader.rank} of {loader.world}, this process is rank {rank} of {world}"
            )
        self.loader, self.workers, self.pin_memory = loader, workers, pin_memory

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches, starting after the last one that was returned.

        Raises DatasetError if a worker was killed.
        """
        for batch in self._received():
            if isinstance(batch, Exception):
                raise batch
            self.loader.count(batch)
            yield batch

    def _received(self) -> Iterator[Batch | Exception]:
        try:
            yield from self._batches()
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if not self.workers or str(error).startswith("Caught "):  # an error that a worker itself reports
                raise
            raise DatasetError(
                "a process that reads data was killed, often because memory ran out; use fewer workers (data.workers) "
                "or a machine with more memory"
            ) from error

    def _batches(self) -> Iterator[Batch | Exception]:
        if not self.workers:
            return iter(BatchDataset(self.loader))
        batches = data.DataLoader(
            _ReportedBatches(self.loader),
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            multiprocessing_context="forkserver",  # forking a process that has threads may hang
        )
        return iter(batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last returned batch. Batches that workers have prepared do not count."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a saved position. Raises MixtureError if it was saved by a loader with another order."""
        self.loader.load_state_dict(state)


def as_tensors(batch: Batch) -> Batch:
    """Return the batch as tensors that share its memory."""
    return replace(batch, **{field.name: _tensor(getattr(batch, field.name)) for field in fields(batch)})


def _tensor(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensor(array) for key, array in value.items()}
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def _end_with_parent() -> None:
    """Exit this worker when the process that started it has ended.

    torch's own check does not work here. It watches the parent of a worker, which is the fork server, and the fork
    server does not end before its workers.
    """
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _unchanged(batch: Any) -> Any:
    return batch


def _rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
