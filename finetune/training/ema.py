"""An exponential moving average of the trained weights (`train.ema`), in float32.

With decay d, the average is that of all weights w so far:

    average_0 = w_0, the weights before the first step
    average_n = d average_(n - 1) + (1 - d) w_n, after step n

Checkpoints have the average as their weights, and evaluations during a run use it. The steps train the weights
themselves. A sharded weight has a sharded average.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from finetune.models.weights import check_finite
from finetune.training.parallel import TrainingProcess, gathered, inside, like
from finetune.training.snapshots import STATE, read
from schemas.errors import CheckpointError

AVERAGE = "average.safetensors"
BYTES = torch.float32.itemsize  # for each trained weight


@dataclass(frozen=True, slots=True)
class WeightAverage:
    """The average of the trained weights of a model, by name. Both mappings are empty if `decay` is 0."""

    decay: float
    weights: Mapping[str, nn.Parameter]
    average: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, decay: float) -> Self:
        """Start with the current weights."""
        named = inside(model).named_parameters()
        weights = {name: value for name, value in named if value.requires_grad and decay}
        return cls(decay, weights, {name: _float32(value).clone() for name, value in weights.items()})

    @property
    def is_on(self) -> bool:
        """Whether there is an average, which differs from the weights."""
        return self.decay > 0

    def update(self) -> None:
        """Include the current weights in the average. Called after each optimizer step."""
        if self.is_on:
            weights = [_float32(value) for value in self.weights.values()]
            get_ema_multi_avg_fn(self.decay)(list(self.average.values()), weights, None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in place of the weights, in their dtype. At the end, the weights are as before."""
        before = {name: value.detach().clone() for name, value in self.weights.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(before)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.weights.items():
            value.copy_(values[name])

    def save(self, folder: Path | None, *, here: TrainingProcess) -> None:
        """Write the average. All processes must call this. `folder` is None in all processes but the first."""
        if self.is_on:
            values = gathered(self.average, here=here)
            if folder is not None:
                save_file(values, folder / STATE / AVERAGE)

    def restore(self, folder: Path) -> None:
        """Read the average of a checkpoint. Raises CheckpointError if a tensor is missing or not finite."""
        if not self.is_on:
            return
        path, missing = folder / STATE / AVERAGE, set(self.average)
        for name, value in read(path, self.average):
            self.average[name].copy_(like(value, self.average[name]))
            missing.discard(name)
        check_finite([path])
        if missing:
            raise CheckpointError(f"{path}: {len(missing)} trained weights are missing, for example {min(missing)}")


OFF = WeightAverage(0, {}, {})


def _float32(value: Tensor) -> Tensor:
    return value.detach().float()
