"""What a run takes is known before it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.finetune.vla import tensors_of_7b
from tests.makers import PEAK

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.recipe import Recipe, load  # noqa: E402
from finetune.training.plan import Footprint, Need, footprint, plan  # noqa: E402 - only where torch is

GIB = 2**30
MEASURE = """
import resource, sys
import torch
from finetune.models import lora
from finetune.models.base import build
from tests.finetune.training.test_plan import recipe

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

mode, batch, checkpointed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
told = recipe(mode=mode)
build(told.model)
ids, pixels = torch.randint(3, 700, (batch, 40)), torch.randn(batch, 6, 224, 224)
before = resident()
model = build(told.model)
if checkpointed:
    model.checkpoint_activations()
if mode == "lora":
    model = lora.apply(model, told.lora)
optimizer = torch.optim.AdamW(lora.trainable(model.train(), mode).values())
for _ in range(3):
    kept = torch.arange(288, 296)
    logits = model(ids, pixel_values=pixels, use_cache=False, logits_to_keep=kept).logits.float()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, :8].flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
print(PEAK * 1024 - before)
"""


def recipe(base: str = "tiny", **train: Any) -> Recipe:
    lines = (f"{key} = {json.dumps(value)}" for key, value in train.items())
    return load("\n".join(['name = "x"', "[model]", f'base = "{base}"', "[train]", *lines]), where="x")


def of(found: Footprint, way: str, world: int, **told: Any) -> Need:
    return found.need(way, world, **{"batch": 16, "micro": None, "checkpointed": False, **told})


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells resident memory on Linux alone")
@pytest.mark.parametrize("mode", ["full", "lora", "frozen-vision"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_tiny_model_takes_what_was_reckoned_up_to_a_tenth(mode: str, *, checkpointed: bool) -> None:
    """Freed memory is given back at once here; glibc otherwise keeps up to as much again on a CPU."""
    command = [sys.executable, "-c", MEASURE.replace("PEAK", PEAK), mode, "64", str(checkpointed)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    need = of(footprint(recipe(mode=mode)), "none", 1, batch=64, checkpointed=checkpointed)
    assert need.peak == pytest.approx(int(done.stdout.split()[-1]), rel=0.1)


def test_the_model_of_7b_is_reckoned_without_memory_or_files() -> None:
    found = footprint(recipe("openvla/openvla-7b", mode="full", precision="bf16"))
    expected = sum(torch.Size(shape).numel() for shape in tensors_of_7b().values())
    assert found.parameters == expected == 7_541_237_184
    assert found.weights == 4 * expected
    assert of(found, "fsdp", 8).peak < 80 * GIB < of(found, "none", 1).peak


def test_adapters_of_7b_fit_on_one_large_device() -> None:
    text = 'name = "x"\n[model]\nbase = "openvla/openvla-7b"\ndtype = "bfloat16"\n[train]\nprecision = "bf16"'
    found = footprint(load(text, where="x"))
    assert found.parameters - found.trained >= 7_541_237_184
    assert found.trained == pytest.approx(110e6, rel=0.02)
    assert of(found, "none", 1, batch=1, checkpointed=True).peak < 24 * GIB < of(found, "none", 1).peak < 80 * GIB


def test_activations_grow_with_samples_and_shrink_where_they_are_computed_again() -> None:
    found = footprint(recipe(mode="full"))
    once, twice = (found.activations(samples, checkpointed=False) for samples in (8, 16))
    assert twice == pytest.approx(2 * once, rel=0.01)
    assert found.activations(16, checkpointed=True) < once


def test_parts_take_less_than_copies_and_copies_more_than_one_process() -> None:
    found = footprint(recipe(mode="full"))
    one = of(found, "none", 1, batch=4)
    copies, parts = (of(found, way, 4, batch=16) for way in ("ddp", "fsdp"))
    assert copies.peak == one.peak + found.gradients
    assert (parts.weights, parts.moments) == (one.weights // 4, one.moments // 4)
    assert parts.peak < one.peak


def test_gradients_of_an_earlier_part_are_there_beside_activations() -> None:
    found = footprint(recipe(mode="full"))
    assert of(found, "none", 1, micro=4).peak == of(found, "none", 1, batch=4).peak + found.gradients


def test_only_ways_that_can_share_the_batch_are_listed() -> None:
    needs = plan(recipe(batch=12, micro=3)).ways
    assert {(need.way, need.world) for need in needs} == {("none", 1), ("ddp", 2), ("fsdp", 2), ("ddp", 4), ("fsdp", 4)}
