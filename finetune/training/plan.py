"""Estimates how much memory a run needs on each device, before it starts and without allocating the memory.

A step is traced twice on fake tensors, with one sample and with two. The difference is the number of bytes that each
further sample needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finetune.models import lora
from finetune.models.base import build_empty, config_of
from finetune.models.oft import OFTSettings
from finetune.recipe import Recipe
from finetune.training import ema
from finetune.training.saved import blocks, saved
from finetune.training.task import oft_settings
from schemas.mixture import lock as locks
from schemas.mixture.lock import Lock
from schemas.source import Array
from stats.locked import constant_warnings, constants

PROMPT = 32  # tokens of a typical instruction
DIMS, PROPRIO = 7, 8  # numbers of a typical action and of a typical proprio
MOMENTS = 2  # AdamW keeps two moments, each as large as the trained weights
GATHERED = 2  # FSDP gathers two blocks at a time: the current one and the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many bytes each of `world` processes needs at most, by purpose."""

    way: str
    world: int
    micro: int
    checkpointed: bool
    weights: int
    gradients: int
    moments: int
    average: int  # the moving average of the weights (`train.ema`)
    activations: int
    gathered: int  # blocks that FSDP gathers, or DDP's second copy of the gradients
    accumulates: bool  # whether a step sums the gradients of several parts

    @property
    def peak(self) -> int:
        """The largest number of bytes in use at once.

        Activations are freed while gradients are computed, so only the larger of the two counts. If gradients
        accumulate over several parts, both count. The optimizer's step temporarily needs as many bytes again as the
        gradients.
        """
        backward = [self.activations, self.gradients]
        work = sum(backward) if self.accumulates else max(backward)
        return self.weights + self.moments + self.average + self.gathered + max(work, 2 * self.gradients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory of a model: its weights, and the bytes that a step saves for its backward pass.

    `outside` [2] are bytes saved outside the blocks, `blocks` [blocks, 2] those saved in each block, and `inputs`
    [blocks, 2] those of each block's inputs. The first of the two numbers does not depend on the number of samples; the
    second is for each sample.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    average: int  # bytes of the moving average; 0 if the recipe has none
    largest: int  # weights of the largest block, in compute precision
    rest: int  # weights outside the blocks, in compute precision
    outside: Array
    blocks: Array
    inputs: Array

    def activations(self, samples: int, *, checkpointed: bool, casts: bool = True) -> int:
        """Return the bytes of activations for a number of samples.

        These are the bytes saved outside the blocks and in all blocks. If `checkpointed`, blocks save only their
        inputs, and what one block saves while it is computed again is added. With `casts`, copies of the weights in
        another dtype are included.
        """
        at = np.array([casts, samples])
        inside = self.blocks @ at
        in_blocks = (self.inputs @ at).sum() + inside.max() if checkpointed else inside.sum()
        return int(self.outside @ at + in_blocks)

    def need(self, way: str, world: int, *, batch: int, micro: int | None, checkpointed: bool) -> Need:
        """Return what each of `world` processes needs. With `fsdp`, it has a shard of the model, otherwise a copy."""
        share = world if way == "fsdp" else 1
        samples = micro or max(1, batch // world)
        extra = {"none": 0, "ddp": self.gradients, "fsdp": self.rest + GATHERED * self.largest}[way]
        return Need(
            way=way,
            world=world,
            micro=samples,
            checkpointed=checkpointed,
            weights=self.weights // share,
            gradients=self.gradients // share,
            moments=MOMENTS * self.gradients // share,
            average=self.average // share,
            activations=self.activations(samples, checkpointed=checkpointed, casts=way != "fsdp"),
            gathered=extra,
            accumulates=batch > samples * world,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of a recipe's model, and what each way to run it needs."""

    footprint: Footprint
    ways: Sequence[Need]
    constant: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by source: dimensions that never change
    warnings: Sequence[str] = ()  # about those of them that a policy will not reproduce

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of parameters, the memory that each way needs, and the constant dimensions of the data."""
        counts = {"parameters": self.footprint.parameters, "trained": self.footprint.trained}
        ways = [{**asdict(need), "peak": need.peak} for need in self.ways]
        return {**counts, "ways": ways, "constant": dict(self.constant), "warnings": list(self.warnings)}


def footprint(recipe: Recipe, *, lock: Lock | None = None) -> Footprint:
    """Compute the footprint of a recipe's model by tracing a step.

    Without the `lock` of the data, typical numbers of an action and of a proprio are assumed.
    """
    actions = lock.dims if lock else _numbered(DIMS)
    proprio = _numbered(PROPRIO) if recipe.oft and recipe.oft.proprio else ()
    oft = oft_settings(recipe, method="bounds_q99", actions=actions, proprio=proprio)
    model, trained = _empty_model(recipe, oft)
    half = recipe.train.precision == "bf16"
    width = 2 if half else getattr(torch, recipe.model.dtype).itemsize
    counts = [_count(block) for block in blocks(model)]
    total, count = _count(model), sum(value.numel() for value in trained)
    last = recipe.data.chunk * len(actions) + 1
    one, two = (saved(model, samples, tokens=PROMPT + last, last=last, half=half, oft=oft) for samples in (1, 2))
    return Footprint(
        parameters=total,
        trained=count,
        weights=sum(value.nbytes for value in model.parameters()),
        gradients=sum(value.nbytes for value in trained),
        average=ema.BYTES * count if recipe.train.ema else 0,
        largest=max(counts) * width,
        rest=(total - sum(counts)) * width,
        outside=_line(one.outside, two.outside),
        blocks=_line(one.inside, two.inside),
        inputs=_line(one.inputs, two.inputs),
    )


def plan(recipe: Recipe, worlds: Sequence[int] = (1, 2, 4, 8), *, lock: Path | None = None) -> Plan:
    """Estimate the memory of each way to run a recipe, with and without checkpointed activations.

    `worlds` are numbers of processes. Those that cannot share the recipe's batch evenly are left out. If there is a
    `lock`, the constant dimensions of its sources are listed.
    """
    locked = locks.read(lock)[0] if lock else None
    memory, train = footprint(recipe, lock=locked), recipe.train
    fitting = [world for world in worlds if train.batch % (world * (train.micro or 1)) == 0]
    ways = [(way, world) for world in fitting for way in (("none",) if world == 1 else ("ddp", "fsdp"))]
    needs = [
        memory.need(way, world, batch=train.batch, micro=train.micro, checkpointed=checkpointed)
        for way, world in ways
        for checkpointed in (False, True)
    ]
    if locked is None:
        return Plan(memory, needs)
    never = {name: dims for name in locked.sources if (dims := constants(locked, name))}
    warnings = [warning for name in locked.sources for warning in constant_warnings(locked, name)]
    return Plan(memory, needs, constant=never, warnings=warnings)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _empty_model(recipe: Recipe, oft: OFTSettings | None) -> tuple[nn.Module, list[nn.Parameter]]:
    """Build the model on the meta device, and return it with its trainable parameters."""
    model: Any = build_empty(recipe.model, config_of(recipe.model))
    if recipe.train.mode == "lora":
        model = lora.apply(model, recipe.lora)
    if oft is not None:
        inside: Any = model.get_base_model() if recipe.train.mode == "lora" else model
        inside.extend(oft)
    return model.train(), list(lora.trainable(model, recipe.train.mode).values())


def _line(one: Any, two: Any) -> Array:
    """Return the constant amount and the amount per sample, [..., 2], from values measured with one and two samples."""
    first, second = np.asarray(one, float), np.asarray(two, float)
    return np.stack([2 * first - second, second - first], axis=-1)


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
