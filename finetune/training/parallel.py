"""The processes of a run. torchrun starts several, each with a copy (DDP) or a shard (FSDP2) of the model."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from schemas.errors import OxeError, UsageError

Result = TypeVar("Result")
Way: TypeAlias = Literal["none", "ddp", "fsdp"]
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # set by torchrun


@dataclass(frozen=True, slots=True)
class TrainingProcess:
    """This process: its rank, the number of processes, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which writes files and shows progress."""
        return self.rank == 0

    def total(self, row: Tensor) -> Tensor:
        """Return the sum of the rows of all processes. Every process gets it."""
        row = row.to(self.device)
        if self.world > 1:
            dist.all_reduce(row)
        return row

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world > 1:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """Return the value of the first process. Every process gets it."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Call `work` in the first process only. Its result is returned, or its error raised, in all processes."""
        result: Any = None
        if self.is_first:
            try:
                result = work()
            except (OxeError, OSError) as error:
                result = error
        result = self.broadcast(result)
        if isinstance(result, Exception):
            raise result
        return cast("Result", result)

    def gather(self, row: Tensor) -> list[Tensor]:
        """Return the rows of all processes, by rank. Every process gets them. All rows must have the same shape."""
        if self.world == 1:
            return [row]
        rows = [torch.empty_like(row, device=self.device) for _ in range(self.world)]
        dist.all_gather(rows, row.to(self.device))
        return [each.cpu() for each in rows]


@contextmanager
def joined() -> Iterator[TrainingProcess]:
    """Join the process group of torchrun. Without torchrun, this process is the only one.

    At the end, all processes leave the group together. What still refers to it, such as a DDP model, must be released
    before: the last reference ends the group's threads, which may wait for a lock that this thread has.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in zip(VARIABLES, "010", strict=True))
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    here = TrainingProcess(rank, world, device)
    try:
        yield here
        with suppress(RuntimeError):  # another process has failed, and reports it
            here.wait()  # a process that leaves early closes the connections that others still read from
    finally:
        gc.collect()  # a DDP model is part of a cycle
        if dist.is_initialized():
            dist.destroy_process_group()


def way(requested: Literal["auto", "none", "ddp", "fsdp"], *, mode: str, world: int) -> Way:
    """Choose how processes share the model. "auto" selects DDP if few weights are trained, and FSDP otherwise."""
    if requested == "none" and world > 1:
        raise UsageError(f'train.parallel = "none": torchrun started {world} processes; use "auto", "ddp" or "fsdp"')
    if world == 1 or requested == "none":
        return "none"
    if requested != "auto":
        return requested
    return "ddp" if mode in {"lora", "last-layer"} else "fsdp"


def spread(model: nn.Module, way: Way, *, here: TrainingProcess) -> nn.Module:
    """Move a model to this process's device. With DDP, it is wrapped so that gradients are averaged over processes."""
    model.to(here.device)
    if way == "ddp":
        return DistributedDataParallel(model, device_ids=[here.device] if here.device.type == "cuda" else None)
    return model


def share(
    outline: nn.Module, weights: nn.Module | None, *, here: TrainingProcess, precision: Literal["float32", "bf16"]
) -> nn.Module:
    """Shard the weights over the processes with FSDP2, so that each process gets a part of every tensor.

    `outline` is the model without weights, which all processes have. `weights` is the model with weights in the first
    process, and None in the others. Tensors are distributed one at a time: no device ever holds the whole
    model, and only the first process has all of it in memory.
    """
    mesh = dist.device_mesh.init_device_mesh(here.device.type, (here.world,))
    cast_to = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=cast_to, reduce_dtype=torch.float32)
    for layer in [module for module in outline.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(outline, mesh=mesh, mp_policy=policy)
    outline.to_empty(device=here.device)
    tensors = dict(chain(weights.named_parameters(), weights.named_buffers())) if weights else {}
    with torch.no_grad():
        for name, value in chain(outline.named_parameters(), outline.named_buffers()):
            _distribute(tensors.get(name), value)
    return outline


def _distribute(value: Tensor | None, to: Tensor) -> None:
    """Copy the first process's value into `to` in all processes. If `to` is a shard, only its part is copied."""
    full = torch.empty(to.shape, dtype=to.dtype, device=to.device) if value is None else value.to(to.device)
    if isinstance(to, DTensor):
        part = distribute_tensor(full, to.device_mesh, to.placements, src_data_rank=0)
        to.to_local().copy_(part.to_local())
    else:
        dist.broadcast(full, src=0)
        to.copy_(full)


def inside(model: nn.Module) -> Any:
    """Return the model without the DDP wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def quiet(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Return a context in which DDP does not exchange gradients, unless this is the last part of a batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        silent: AbstractContextManager[None] = model.no_sync()
        return silent
    return nullcontext()


def reshard(model: nn.Module) -> None:
    """Free the weights that FSDP still has unsharded after a forward pass without a backward pass.

    Otherwise the model would keep using them when its shards change, and its parameters would not be its shards.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor, gathered from its shards. All processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, other: Tensor) -> Tensor:
    """Convert a full tensor to the device, dtype and sharding of another tensor."""
    value = value.to(other.device, other.dtype)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def gathered(named: Mapping[str, Tensor], *, here: TrainingProcess) -> dict[str, Tensor]:
    """Gather full tensors in the memory of the first process, one at a time. Other processes get an empty dict."""
    out = {}
    for name, tensor in named.items():
        full = whole(tensor.detach())
        if here.is_first:
            out[name] = full.to("cpu", copy=True)
    return out
