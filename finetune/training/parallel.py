"""The processes of a run: one, or several of torchrun that each have a copy (DDP) or a part (FSDP2) of the model."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from schemas.errors import OxeError, UsageError

Result = TypeVar("Result")
Way: TypeAlias = Literal["none", "ddp", "fsdp"]
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # by torchrun


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes this is, and where it computes."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Say whether this process writes and shows."""
        return self.rank == 0

    def total(self, row: Tensor) -> Tensor:
        """Add what all processes have; each gets the sum."""
        row = row.to(self.device)
        if self.world > 1:
            dist.all_reduce(row)
        return row

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world > 1:
            dist.barrier()

    def first_says(self, value: Any) -> Any:
        """Give all processes what the first one has."""
        told = [value]
        if self.world > 1:
            dist.broadcast_object_list(told, src=0)
        return told[0]

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Let the first process do what all wait for, and give all its result, or its error."""
        found: Any = None
        if self.is_first:
            try:
                found = work()
            except (OxeError, OSError) as error:
                found = error
        found = self.first_says(found)
        if isinstance(found, Exception):
            raise found
        return cast("Result", found)

    def all_say(self, row: Tensor) -> list[Tensor]:
        """Give all processes the rows of all, which have one shape."""
        if self.world == 1:
            return [row]
        rows = [torch.empty_like(row, device=self.device) for _ in range(self.world)]
        dist.all_gather(rows, row.to(self.device))
        return [one.cpu() for one in rows]


@contextmanager
def place() -> Iterator[Place]:
    """Join the processes that torchrun started, if it did; one without torchrun is alone."""
    rank, world, local = (int(os.environ.get(name, default)) for name, default in zip(TOLD, "010", strict=True))
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        yield Place(rank, world, device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def way(asked: Literal["auto", "none", "ddp", "fsdp"], *, mode: str, world: int) -> Way:
    """Choose: alone there is nothing to choose; whole copies suffice where few weights are trained."""
    if asked == "none" and world > 1:
        raise UsageError(f'train.parallel = "none": torchrun started {world} processes; say "auto", "ddp" or "fsdp"')
    if world == 1 or asked == "none":
        return "none"
    if asked != "auto":
        return asked
    return "ddp" if mode in {"lora", "last-layer"} else "fsdp"


def spread(model: nn.Module, way: Way, *, here: Place) -> nn.Module:
    """Put a model on each process's device, and give each the same gradients where there are several."""
    model.to(here.device)
    if way == "ddp":
        return DistributedDataParallel(model, device_ids=[here.device] if here.device.type == "cuda" else None)
    return model


def share(
    outline: nn.Module, weights: nn.Module | None, *, here: Place, precision: Literal["float32", "bf16"]
) -> nn.Module:
    """Share the weights among the processes by FSDP2: each gets a part of every tensor.

    The first process has the `weights` in its own memory, all have the same model without any. One tensor is handed
    out after the other, so no device, and no other process, ever has the whole model.
    """
    mesh = dist.device_mesh.init_device_mesh(here.device.type, (here.world,))
    cast_to = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=cast_to, reduce_dtype=torch.float32)
    for layer in [module for module in outline.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(outline, mesh=mesh, mp_policy=policy)
    outline.to_empty(device=here.device)
    told = dict(chain(weights.named_parameters(), weights.named_buffers())) if weights else {}
    with torch.no_grad():
        for name, value in chain(outline.named_parameters(), outline.named_buffers()):
            _hand_out(told.get(name), value)
    return outline


def _hand_out(found: Tensor | None, to: Tensor) -> None:
    """Give all processes what the first one found, each its part if it is to have one."""
    whole_one = torch.empty(to.shape, dtype=to.dtype, device=to.device) if found is None else found.to(to.device)
    if isinstance(to, DTensor):
        part = distribute_tensor(whole_one, to.device_mesh, to.placements, src_data_rank=0)
        to.to_local().copy_(part.to_local())
    else:
        dist.broadcast(whole_one, src=0)
        to.copy_(whole_one)


def inside(model: nn.Module) -> Any:
    """Give the model without what spreads it."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def quiet(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Keep copies from exchanging gradients before the last part of a batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        silent: AbstractContextManager[None] = model.no_sync()
        return silent
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """Put the parts of a tensor together; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, spread_one: Tensor) -> Tensor:
    """Give a whole tensor the device, and the parts, of one that is spread."""
    value = value.to(spread_one.device, spread_one.dtype)
    if not isinstance(spread_one, DTensor):
        return value
    return distribute_tensor(value, spread_one.device_mesh, spread_one.placements, src_data_rank=None)


def gathered(named: Mapping[str, Tensor], *, here: Place) -> dict[str, Tensor]:
    """Put whole tensors together in the first process's own memory, one after the other; others get nothing."""
    out = {}
    for name, tensor in named.items():
        found = whole(tensor.detach())
        if here.is_first:
            out[name] = found.to("cpu", copy=True)
    return out
