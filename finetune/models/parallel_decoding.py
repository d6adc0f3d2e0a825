"""Parallel decoding of OpenVLA-OFT: one pass predicts a whole chunk of actions, and every token attends to all others.

After the prompt come K * A placeholders, one for each number of the chunk, and the stop token. The hidden state before
each placeholder predicts its number.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from finetune.models.decoding import check_length, with_prefix
from finetune.models.heads import DDIM, timestep_embedding
from schemas.errors import CheckpointError, UsageError

MASKED = ("sdpa", "eager")  # implementations that take a mask of any form
PLACEHOLDER = 1  # id at the placeholders; its embedding is not used


def with_placeholders(input_ids: Tensor, mask: Tensor, *, size: int, stop: int, pad: int) -> tuple[Tensor, ...]:
    """Append `size` placeholders and the stop token to each prompt.

    Returns ids and mask, [B, L + size + 1] and padded on the right, and the positions of what was appended,
    [B, size + 1].
    """
    tail = mask.sum(1, keepdim=True) + torch.arange(size + 1, device=mask.device)
    ids = torch.nn.functional.pad(input_ids.masked_fill(mask == 0, pad), (0, size + 1), value=pad).scatter(
        1, tail[:, :-1], PLACEHOLDER
    )
    return ids.scatter(1, tail[:, -1:], stop), torch.nn.functional.pad(mask, (0, size + 1)).scatter(1, tail, 1), tail


def check_attention(kind: str) -> None:
    """Raise UsageError if an implementation of attention cannot let every token attend to all others."""
    if kind in MASKED:
        return
    function: Any = ALL_ATTENTION_FUNCTIONS.get(kind) if kind.startswith("flash_attention") else None
    if function is None or "is_causal" not in inspect.signature(function).parameters:
        raise UsageError(
            f"attention '{kind}': cannot be used with parallel decoding, because it is causal: a token would not "
            f"attend to those after it; use {' or '.join(MASKED)}"
        )


@dataclass(frozen=True, slots=True)
class ChunkSequence:
    """The input of the language model for B observations.

    `text` [B, L, H] has zeros at the placeholders. `inserted` [B, E, H] are the images and the proprio, which are
    inserted after the first token. `tail` [B, K * A + 1] are the positions of the placeholders and the stop token in L.
    """

    text: Tensor
    inserted: Tensor
    mask: Tensor | None  # [B, L]
    tail: Tensor


def sequence(
    model: Any,
    input_ids: Tensor,
    *,
    pixel_values: Tensor,
    tail: Tensor,
    attention_mask: Tensor | None = None,
    proprio: Tensor | None = None,
    film_pads: bool | None = None,
) -> ChunkSequence:
    """Embed the prompts of `with_placeholders`, their images, and their normalized proprios [B, P].

    `film_pads` decides whether FiLM includes the padding; None: as the model's settings say.
    """
    embeddings = model.get_input_embeddings()(input_ids)
    pads = model.oft.film_pads if film_pads is None else film_pads
    is_action = torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, tail[:, :-1], value=True)
    language = _language(embeddings, ~is_action, attention_mask, pads=pads) if model.oft.film else None
    images = model.image_tokens(pixel_values, language).to(embeddings.dtype)
    if len(images) != len(embeddings):
        raise UsageError(f"{len(embeddings)} prompts, images of {len(images)} observations: expected one of each")
    inserted = [images]
    if proprio is not None:
        inserted.append(model.proprio_projector(proprio)[:, None].to(embeddings.dtype))
    return ChunkSequence(
        text=embeddings.masked_fill(is_action[..., None], 0),
        inserted=torch.cat(inserted, dim=1),
        mask=attention_mask,
        tail=tail,
    )


def hidden(model: Any, chunk: ChunkSequence, *, noisy: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
    """Return the last hidden states that predict the numbers of the chunk and the stop token, [B, K * A + 1, H].

    Diffusion needs noisy actions [B, K, A], which replace the placeholders, and their timesteps [B].
    """
    text, inserted = chunk.text, chunk.inserted
    if noisy is not None and timesteps is not None:
        features = model.noisy_action_projector(noisy.flatten(1)[..., None]).to(text.dtype)
        places = chunk.tail[:, :-1, None].expand(-1, -1, text.shape[-1])
        text = text.scatter(1, places, features)
        time = timestep_embedding(timesteps, text.shape[-1])[:, None].to(text.dtype)
        inserted = torch.cat([inserted, time], dim=1)
    count = inserted.shape[1]
    check_length(model.config, text.shape[1] + count, inserted=count)
    out = model.language_model.model(
        inputs_embeds=torch.cat([text[:, :1], inserted, text[:, 1:]], dim=1),
        attention_mask=_attention_mask(model.language_model.config, chunk.mask, text, inserted=count),
        use_cache=False,
        is_causal=False,
    ).last_hidden_state
    places = (chunk.tail - 1 + count)[..., None].expand(-1, -1, out.shape[-1])
    return out.gather(1, places)


def predicted(
    model: Any, chunk: ChunkSequence, *, noisy: Tensor | None = None, timesteps: Tensor | None = None
) -> Tensor:
    """Return what the head predicts.

    l1: normalized actions [B, K, A]. diffusion: the noise in noisy actions [B, K, A]. discrete: the logits of the
    chunk's tokens and of the stop token, [B, K * A + 1, vocabulary].
    """
    states = hidden(model, chunk, noisy=noisy, timesteps=timesteps)
    if model.oft.head == "discrete":
        return model.get_output_embeddings()(states)
    return model.action_head(states[:, :-1])


def denoised(model: Any, chunk: ChunkSequence, noise: Tensor, *, steps: int) -> Tensor:
    """Turn noise [B, K, A] into normalized actions with `steps` steps of DDIM. Images are encoded only once."""
    sampler, actions = DDIM(), noise
    for time in sampler.timesteps(steps):
        timesteps = torch.full((len(noise),), time, device=noise.device)
        actions = sampler.step(actions, predicted(model, chunk, noisy=actions, timesteps=timesteps), time, count=steps)
    return actions


@torch.inference_mode()
def decode_chunk(
    model: Any,
    input_ids: Tensor,
    *,
    pixel_values: Tensor,
    attention_mask: Tensor | None = None,
    proprio: Tensor | None = None,
    noise: Tensor | None = None,
    steps: int,
) -> Tensor:
    """Predict the chunks of prompts that the processor returned: normalized actions [B, K, A], or tokens [B, K * A].

    The padding of a batch changes nothing: a prediction is the same as for the observation alone.

    Raises UsageError if a prompt is longer than the model accepts, and CheckpointError if the output is not finite.
    """
    config = model.config
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
    ids, mask = with_prefix(input_ids, mask, prefix=config.action_prefix_id)
    stop, pad = config.text_config.eos_token_id, config.pad_token_id
    ids, mask, tail = with_placeholders(ids, mask, size=model.oft.size, stop=stop, pad=pad)
    out = model(
        ids,
        pixel_values=pixel_values,
        attention_mask=None if mask.all() else mask,
        tail=tail,
        proprio=proprio,
        film_pads=False,
        **({} if noise is None else {"noisy": noise, "steps": steps}),
    )
    if not out.isfinite().all():
        raise CheckpointError(
            f"{config.name_or_path}: the output for this observation is not finite; use another --dtype"
        )
    return out[:, :-1].argmax(-1) if model.oft.head == "discrete" else out.float()


def _language(embeddings: Tensor, is_language: Tensor, mask: Tensor | None, *, pads: bool) -> Tensor:
    """Return the mean embedding of each prompt and its stop token, [B, H]; with `pads`, also of its padding."""
    counted = is_language if pads or mask is None else is_language & mask.bool()
    weights = counted[..., None].to(embeddings.dtype)
    return (embeddings * weights).sum(1) / weights.sum(1)


def _attention_mask(config: Any, mask: Tensor | None, text: Tensor, *, inserted: int) -> Tensor | None:
    """Return a mask that hides nothing but padding. It has one row, because it is the same for every token."""
    kind = config._attn_implementation  # noqa: SLF001 - the setting has no public name
    check_attention(kind)
    if mask is None and kind != "eager":
        return None
    shown = torch.ones(text.shape[:2], device=text.device) if mask is None else mask
    shown = torch.cat([shown[:, :1], shown.new_ones(len(shown), inserted), shown[:, 1:]], dim=1)
    if kind not in MASKED:
        return shown
    hidden_keys = (shown == 0)[:, None, None, :]
    return torch.zeros(hidden_keys.shape, dtype=text.dtype, device=text.device).masked_fill(
        hidden_keys, torch.finfo(text.dtype).min
    )
