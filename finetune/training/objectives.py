"""The losses: cross-entropy of tokens, L1 of actions, and the squared error of predicted noise.

Each is summed over what counts, because the engine divides by the number of terms of all processes.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from finetune.models.heads import DDIM, TRAIN_STEPS
from finetune.models.openvla import IGNORED
from finetune.models.vit import PATCHES
from finetune.training.batches import Inputs

Objective: TypeAlias = Callable[[Any, Inputs], tuple[Tensor, Tensor]]  # model, inputs -> summed loss, predictions


def tokens_in_turn(model: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the loss of OpenVLA, and the most likely tokens [B, T - 1], each predicted from the recorded ones.

    Logits are computed only for the tail, because the logits of image and prompt would take most of the memory.
    """
    columns, which = (inputs.tail - 1).unique(return_inverse=True)
    logits = model(
        inputs.input_ids,
        pixel_values=inputs.pixel_values,
        attention_mask=inputs.attention_mask,
        logits_to_keep=columns + PATCHES,
        use_cache=False,
    ).logits
    return _cross_entropy(logits[torch.arange(len(which), device=which.device)[:, None], which], inputs)


def tokens_at_once(model: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the loss of the tokens of a chunk that are predicted in one pass, and the most likely ones, [B, T - 1]."""
    return _cross_entropy(model(inputs.input_ids, **_observed(inputs)), inputs)


def l1(model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return the absolute error of normalized actions, and the predicted ones [B, K, A]."""
    predicted = model(inputs.input_ids, **_observed(inputs)).float()
    return ((predicted - inputs.actions).abs() * inputs.known).sum(), predicted


def diffusion(model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return the squared error of the predicted noise, and actions [B, K, A].

    In training, these are estimated from the noise that was predicted. In evaluations, they are sampled in as many
    steps as the diffusion has.
    """
    sampler, observed, start, times = DDIM(), _observed(inputs), inputs.noise, inputs.timesteps
    noisy = sampler.noisy(inputs.actions, start, times)
    noise = model(inputs.input_ids, **observed, noisy=noisy, timesteps=times).float()
    loss = ((noise - start).square() * inputs.known).sum()
    if torch.is_grad_enabled():
        return loss, sampler.clean(noisy, noise.detach(), times)
    return loss, model(inputs.input_ids, **observed, noisy=start, steps=TRAIN_STEPS).float()


OBJECTIVES: Mapping[str, Objective] = {"l1": l1, "diffusion": diffusion, "discrete": tokens_at_once}  # by head


def _observed(inputs: Inputs) -> dict[str, Any]:
    return {
        "pixel_values": inputs.pixel_values,
        "attention_mask": inputs.attention_mask,
        "tail": inputs.tail,
        "proprio": inputs.proprio,
    }


def _cross_entropy(logits: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the summed loss of logits [B, T, vocabulary], and the most likely action tokens [B, T - 1]."""
    tail = logits.float()
    loss = nn.functional.cross_entropy(
        tail.flatten(0, 1), inputs.targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, tail[:, :-1].argmax(-1)
