"""Estimates the memory of a run on each device before it starts, without allocating it.

A step is traced on fake tensors with one sample and with two, to count the bytes of activations for each sample.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from finetune.models import lora
from finetune.models.base import build_empty, config_of
from finetune.recipe import Recipe
from finetune.training.saved import blocks, saved
from schemas.source import Array

PROMPT = 32  # tokens of a typical instruction
DIMS = 7  # numbers of a typical action
MOMENTS = 2  # AdamW's moments, each as large as the trained weights
GATHERED = 2  # blocks that FSDP gathers at a time: the current one and the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The most bytes that one of `world` processes needs, by purpose."""

    way: str
    world: int
    micro: int
    checkpointed: bool
    weights: int
    gradients: int
    moments: int
    activations: int
    gathered: int  # blocks that FSDP gathers, or DDP's second copy of the gradients
    accumulates: bool

    @property
    def peak(self) -> int:
        """The most bytes in use at once.

        Activations are freed while gradients are computed, unless gradients accumulate over parts; the optimizer's
        step needs as many bytes again as the gradients.
        """
        backward = [self.activations, self.gradients]
        work = sum(backward) if self.accumulates else max(backward)
        return self.weights + self.moments + self.gathered + max(work, 2 * self.gradients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory of a model: its weights, and the bytes that a step saves for its backward pass.

    `outside` [2], `blocks` and `inputs` [blocks, 2] are bytes for any number of samples, and for each sample: saved
    outside the blocks, saved in each block, and of each block's inputs. `largest` is the largest block's weights in
    compute precision.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    largest: int
    rest: int  # weights outside the blocks, in compute precision
    outside: Array
    blocks: Array
    inputs: Array

    def activations(self, samples: int, *, checkpointed: bool, casts: bool = True) -> int:
        """Return outside + sum of blocks; if checkpointed, outside + sum of inputs + largest block.

        `casts` includes cast copies of the weights.
        """
        at = np.array([casts, samples])
        inside = self.blocks @ at
        in_blocks = (self.inputs @ at).sum() + inside.max() if checkpointed else inside.sum()
        return int(self.outside @ at + in_blocks)

    def need(self, way: str, world: int, *, batch: int, micro: int | None, checkpointed: bool) -> Need:
        """Return the need of each of `world` processes, which has a copy of the model or, with `fsdp`, a shard."""
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
            activations=self.activations(samples, checkpointed=checkpointed, casts=way != "fsdp"),
            gathered=extra,
            accumulates=batch > samples * world,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of a recipe's model, and the need of each way to run it."""

    footprint: Footprint
    ways: Sequence[Need]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of parameters, and the need of each way."""
        counts = {"parameters": self.footprint.parameters, "trained": self.footprint.trained}
        return {**counts, "ways": [{**asdict(need), "peak": need.peak} for need in self.ways]}


def footprint(recipe: Recipe) -> Footprint:
    """Trace a step of the recipe's model."""
    model, trained = _empty_model(recipe)
    half = recipe.train.precision == "bf16"
    width = 2 if half else getattr(torch, recipe.model.dtype).itemsize
    counts = [_count(block) for block in blocks(model)]
    total = _count(model)
    last = recipe.data.chunk * DIMS + 1
    one, two = (saved(model, samples, tokens=PROMPT + last, last=last, half=half) for samples in (1, 2))
    return Footprint(
        parameters=total,
        trained=sum(value.numel() for value in trained),
        weights=sum(value.nbytes for value in model.parameters()),
        gradients=sum(value.nbytes for value in trained),
        largest=max(counts) * width,
        rest=(total - sum(counts)) * width,
        outside=_line(one.outside, two.outside),
        blocks=_line(one.inside, two.inside),
        inputs=_line(one.inputs, two.inputs),
    )


def plan(recipe: Recipe, worlds: Sequence[int] = (1, 2, 4, 8)) -> Plan:
    """Estimate each way to share the recipe's batch among processes, with and without checkpointed activations."""
    memory, train = footprint(recipe), recipe.train
    fitting = [world for world in worlds if train.batch % (world * (train.micro or 1)) == 0]
    ways = [(way, world) for world in fitting for way in (("none",) if world == 1 else ("ddp", "fsdp"))]
    needs = [
        memory.need(way, world, batch=train.batch, micro=train.micro, checkpointed=checkpointed)
        for way, world in ways
        for checkpointed in (False, True)
    ]
    return Plan(memory, needs)


def _empty_model(recipe: Recipe) -> tuple[nn.Module, list[nn.Parameter]]:
    """Build the model without weights, and return it with its trainable parameters."""
    model: Any = build_empty(recipe.model, config_of(recipe.model))
    if recipe.train.mode == "lora":
        model = lora.apply(model, recipe.lora)
    return model.train(), list(lora.trainable(model, recipe.train.mode).values())


def _line(one: Any, two: Any) -> Array:
    """Return the constant part and the part for each sample, [..., 2], from values for one and two samples."""
    first, second = np.asarray(one, float), np.asarray(two, float)
    return np.stack([2 * first - second, second - first], axis=-1)


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
