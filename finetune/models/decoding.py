"""Greedy decoding with a cache, and the test that images matter."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.errors import CheckpointError, UsageError

NOTHING = 1e-5  # of the largest logit: a smaller difference is rounding


@dataclass(frozen=True, slots=True)
class Decoded:
    """The tokens that were taken, [B, A], and the logits they were taken from, [B, A, vocabulary]."""

    ids: Tensor
    logits: Tensor


@torch.inference_mode()
def decode(
    model: Any, input_ids: Tensor, *, pixel_values: Tensor, attention_mask: Tensor | None = None, steps: int
) -> Decoded:
    """Take the likeliest token of the whole vocabulary, `steps` times; the image is seen once.

    Prompts of different lengths are padded on the right. What has been computed is kept in a cache.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
    input_ids, mask = with_prefix(input_ids, mask, prefix=model.config.action_prefix_id)
    positions = mask.sum(1) + model.inserted  # of the next token, [B]
    ends, which = (positions - 1).unique(return_inverse=True)  # logits of the whole prompt would take longer than it
    told = {"attention_mask": mask, "use_cache": True, "logits_to_keep": ends}
    out = model(input_ids, pixel_values=pixel_values, **told)
    logits = out.logits[torch.arange(len(mask), device=mask.device), which]
    mask = torch.cat([mask.new_ones(len(mask), model.inserted), mask], dim=1)
    taken = []
    for step in range(steps):
        taken.append((logits.argmax(-1), logits))
        if step == steps - 1:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = model(
            taken[-1][0][:, None],
            attention_mask=mask,
            position_ids=(positions + step)[:, None],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        logits = out.logits[:, -1]
    ids, all_logits = zip(*taken, strict=True)
    return Decoded(torch.stack(ids, 1), torch.stack(all_logits, 1))


def with_prefix(input_ids: Tensor, mask: Tensor, *, prefix: int | None) -> tuple[Tensor, Tensor]:
    """End each prompt with the token that stands before the first action, and mask it in, too.

    The original forgets the mask, and cannot do more than one prompt.
    """
    if (mask[:, 1:] > mask[:, :-1]).any() or not mask[:, 0].all():
        raise UsageError("attention_mask: prompts must be padded on the right, none may be empty")
    if prefix is None:
        return input_ids, mask
    rows, lengths = torch.arange(len(mask), device=mask.device), mask.sum(1)
    wanted = input_ids[rows, lengths - 1] != prefix
    if not wanted.any():
        return input_ids, mask
    ids, mask = (torch.nn.functional.pad(x, (0, 1)) for x in (input_ids, mask))
    ids[rows[wanted], lengths[wanted]] = prefix
    mask[rows[wanted], lengths[wanted]] = 1
    return ids, mask


@torch.inference_mode()
def check_image_matters(model: Any) -> None:
    """Refuse a model that answers the same whatever it sees: what is wrong with it would show only on a robot."""
    noise = np.random.default_rng(0).standard_normal((6, 224, 224))
    images = torch.tensor(np.stack([noise, noise[:, ::-1]]), dtype=model.dtype, device=model.device)
    bos = model.config.text_config.bos_token_id
    prompt = torch.tensor([[bos, model.config.action_prefix_id or bos]] * 2, device=model.device)
    logits = model(prompt, pixel_values=images, logits_to_keep=1).logits.float()
    if not logits.isfinite().all():
        raise CheckpointError(f"{model.config.name_or_path}: the self-test gave numbers that are not finite")
    if (logits[0] - logits[1]).abs().max() <= NOTHING * logits.abs().max():
        raise CheckpointError(
            f"{model.config.name_or_path}: the image does not change the output, so the weights of the vision "
            "towers or the projector are broken; fetch or merge the checkpoint again"
        )
