"""Greedy decoding with a cache, and a check that the image changes the output."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.errors import CheckpointError, UsageError

ROUNDING = 1e-5  # differences below this fraction of the largest logit are considered rounding errors


@dataclass(frozen=True, slots=True)
class Decoded:
    """The predicted tokens [B, A], and their logits [B, A, vocabulary]."""

    ids: Tensor
    logits: Tensor


@torch.inference_mode()
def decode(
    model: Any, input_ids: Tensor, *, pixel_values: Tensor, attention_mask: Tensor | None = None, steps: int
) -> Decoded:
    """Predict the most likely next token `steps` times for each sample.

    The image is encoded only once, because keys and values are cached. Prompts of different lengths must be padded on
    the right. Raises UsageError if a prompt is longer than the model accepts, and CheckpointError if the output is not
    finite.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
    input_ids, mask = with_prefix(input_ids, mask, prefix=model.config.action_prefix_id)
    positions = mask.sum(1) + model.inserted  # position of the next token, [B]
    check_length(model.config, int(positions.max()) + steps, inserted=model.inserted)
    ends, which = (positions - 1).unique(return_inverse=True)  # computing logits for the whole prompt would be slow
    kwargs = {"attention_mask": mask, "use_cache": True, "logits_to_keep": ends}
    out = model(input_ids, pixel_values=pixel_values, **kwargs)
    logits = out.logits[torch.arange(len(mask), device=mask.device), which]
    mask = torch.cat([mask.new_ones(len(mask), model.inserted), mask], dim=1)
    predicted = []
    for step in range(steps):
        predicted.append((logits.argmax(-1), logits))
        if step == steps - 1:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = model(
            predicted[-1][0][:, None],
            attention_mask=mask,
            position_ids=(positions + step)[:, None],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        logits = out.logits[:, -1]
    ids, all_logits = zip(*predicted, strict=True)
    decoded = Decoded(torch.stack(ids, 1), torch.stack(all_logits, 1))
    if not decoded.logits.isfinite().all():
        raise CheckpointError(
            f"{model.config.name_or_path}: the output for this image and instruction is not finite; use another --dtype"
        )
    return decoded


def check_length(config: Any, positions: int, *, inserted: int) -> None:
    """Raise UsageError if a sequence has more positions than a model accepts.

    `positions` counts the instruction's prompt, the action, and the `inserted` tokens, such as those of the image.
    """
    limit = min(config.llm_max_length, config.text_config.max_position_embeddings)
    if positions > limit:
        raise UsageError(
            f"an instruction has {positions} tokens, the model accepts {limit} (both count the {inserted} of the image "
            "and those of the action): shorten it"
        )


def with_prefix(input_ids: Tensor, mask: Tensor, *, prefix: int | None) -> tuple[Tensor, Tensor]:
    """Append the token `prefix` to each prompt that does not end with it, and extend the mask.

    If `prefix` is None, nothing is appended. The original code does not extend the mask, and supports only one prompt
    at a time.
    """
    if (mask[:, 1:] > mask[:, :-1]).any() or not mask[:, 0].all():
        raise UsageError("attention_mask: prompts must be padded on the right and cannot be empty")
    if prefix is None:
        return input_ids, mask
    rows, lengths = torch.arange(len(mask), device=mask.device), mask.sum(1)
    lacking = input_ids[rows, lengths - 1] != prefix
    if not lacking.any():
        return input_ids, mask
    ids, mask = (torch.nn.functional.pad(x, (0, 1)) for x in (input_ids, mask))
    ids[rows[lacking], lengths[lacking]] = prefix
    mask[rows[lacking], lengths[lacking]] = 1
    return ids, mask


@torch.inference_mode()
def check_image_matters(model: Any, *, where: str | None = None) -> None:
    """Raise CheckpointError if two different images give the same output of a model, or one that is not finite.

    The error starts with `where`, by default the name of the model.
    """
    where = where or model.config.name_or_path
    noise = np.random.default_rng(0).standard_normal((6, 224, 224))
    images = torch.tensor(np.stack([noise, noise[:, ::-1]]), dtype=model.dtype, device=model.device)
    bos = model.config.text_config.bos_token_id
    prompt = torch.tensor([[bos, model.config.action_prefix_id or bos]] * 2, device=model.device)
    logits = model.probe(prompt, images)
    if not logits.isfinite().all():
        raise CheckpointError(f"{where}: the self-test returned values that are not finite")
    if (logits[0] - logits[1]).abs().max() <= ROUNDING * logits.abs().max():
        raise CheckpointError(
            f"{where}: the image does not change the output: the weights of the vision "
            "towers or the projector are damaged; download, train or merge the checkpoint again"
        )
