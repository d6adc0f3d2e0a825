"""What a run takes of each device's memory, reckoned before it starts: nothing is allocated.

A step is traced on tensors without content, for one sample and for two, so activations are counted and not guessed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from finetune.models import lora
from finetune.models.base import config_of, outlined
from finetune.recipe import Recipe
from finetune.training.saved import blocks, saved
from schemas.source import Array

PROMPT = 32  # tokens of a usual instruction
DIMS = 7  # numbers of a usual action
MOMENTS = 2  # of AdamW, as large as what is trained
GATHERED = 2  # blocks that FSDP has whole at a time: the one that computes, and the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that one of `world` processes takes at most, and of what."""

    way: str
    world: int
    micro: int
    checkpointed: bool
    weights: int
    gradients: int
    moments: int
    activations: int
    gathered: int  # parts of the model that FSDP puts together, or DDP's second copy of the gradients
    accumulates: bool

    @property
    def peak(self) -> int:
        """Add what is there at once.

        Gradients come while activations go, unless gradients of an earlier part are there; the optimizer's step
        takes as much again as the gradients.
        """
        backward = [self.activations, self.gradients]
        work = sum(backward) if self.accumulates else max(backward)
        return self.weights + self.moments + self.gathered + max(work, 2 * self.gradients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the model takes: numbers, and bytes that a step saves for its backward pass, b samples at a time.

    `outside`, `blocks` and `inputs` are [2] and [blocks, 2]: bytes for any b, and for each sample, outside the blocks,
    inside each, and of what goes into each. `largest` is the largest block, in the bytes of what is computed with.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    largest: int
    rest: int  # weights outside the blocks, in the bytes of what is computed with
    outside: Array
    blocks: Array
    inputs: Array

    def activations(self, samples: int, *, checkpointed: bool, casts: bool = True) -> int:
        """Give outside + sum of blocks; or outside + sum of inputs + largest block; `casts` counts cast weights."""
        at = np.array([casts, samples])
        inside = self.blocks @ at
        kept = (self.inputs @ at).sum() + inside.max() if checkpointed else inside.sum()
        return int(self.outside @ at + kept)

    def need(self, way: str, world: int, *, batch: int, micro: int | None, checkpointed: bool) -> Need:
        """Give what each of `world` processes takes, of which each has a copy of the model or, by `fsdp`, a part."""
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
    """What a recipe's model takes, and each way to run it."""

    footprint: Footprint
    ways: Sequence[Need]

    def to_json(self) -> dict[str, Any]:
        """Give the numbers of parameters, and what each way takes."""
        counts = {"parameters": self.footprint.parameters, "trained": self.footprint.trained}
        return {**counts, "ways": [{**asdict(need), "peak": need.peak} for need in self.ways]}


def footprint(recipe: Recipe) -> Footprint:
    """Trace a step of the recipe's model."""
    model, trained = _outlined(recipe)
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
    """Reckon each way to share the recipe's batch among processes, with and without checkpointed activations."""
    found, train = footprint(recipe), recipe.train
    fitting = [world for world in worlds if train.batch % (world * (train.micro or 1)) == 0]
    ways = [(way, world) for world in fitting for way in (("none",) if world == 1 else ("ddp", "fsdp"))]
    needs = [
        found.need(way, world, batch=train.batch, micro=train.micro, checkpointed=checkpointed)
        for way, world in ways
        for checkpointed in (False, True)
    ]
    return Plan(found, needs)


def _outlined(recipe: Recipe) -> tuple[nn.Module, list[nn.Parameter]]:
    """Build the model without weights, and say what of it is trained."""
    model: Any = outlined(recipe.model, config_of(recipe.model))
    if recipe.train.mode == "lora":
        model = lora.apply(model, recipe.lora)
    return model.train(), list(lora.trainable(model, recipe.train.mode).values())


def _line(one: Any, two: Any) -> Array:
    """Give what does not depend on the samples, and what each adds, [..., 2]."""
    first, second = np.asarray(one, float), np.asarray(two, float)
    return np.stack([2 * first - second, second - first], axis=-1)


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
