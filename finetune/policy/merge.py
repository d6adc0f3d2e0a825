"""Merges adapters into their base. Before the result is written, its outputs are compared with the unmerged model's."""

import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.models import checkpoint, components, layouts, lora
from finetune.models.acting import Policy
from finetune.models.config import OpenVLAConfig
from finetune.models.layouts import Stated
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.vit import IMAGE
from finetune.policy.policy import Dtype, load
from finetune.training.folders import LOCK, RECIPE
from finetune.training.licences import LICENCES
from schemas.errors import CheckpointError, UsageError
from schemas.files import durable

EXACT = 1e-4  # allowed change of the logits by merging in float32, relative to the largest logit
LOST = 0.5  # allowed change of the logits by merging and rounding, relative to their change by the adapters
CARRIED = (checkpoint.PREPROCESSING, LICENCES, LOCK, f"{LOCK}.parquet", RECIPE)
PROBES = ("close the pot", "put the spoon to the right of the towel")


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged checkpoint, and how much the logits, or chunks, changed in its self-test (root mean square)."""

    out: str
    dtype: str
    effect: float  # change by the adapters
    exact: float  # change by merging in float32
    rounded: float  # change by merging and rounding to `dtype`

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def merge(base: str, adapter: Path, out: Path, *, dtype: Dtype | None = None, say: lora.Say = lora.silent) -> Merged:
    """Merge adapters into `base`, and write the merged checkpoint to `out`.

    The weights are merged in float32 and written as `dtype`. If `dtype` is None, the dtype of the base is used. Raises
    CheckpointError, and writes nothing, if the merged model's outputs differ from those of the unmerged model. `say`
    gets a note if the adapters do not record their base.
    """
    if out.exists():
        raise UsageError(f"{out}: already exists; name another --out")
    folder = checkpoint.local_folder(base, {})
    kind = dtype or str(OpenVLAConfig.of(folder).dtype or "float32").removeprefix("torch.")
    policy = load(folder, norm_stats=checkpoint.statistics(adapter))
    model, prompts = policy.model, _probes(policy)
    adapted = lora.load(model, adapter, say=say)
    oft = layouts.recognized(adapter, model.norm_stats, Stated())
    if oft is not None:
        components.attach(model, oft, where=str(adapter))
    unmerged = _outputs(model, prompts)
    with adapted.disable_adapter():
        without = _outputs(model, prompts)
    _untie(model)
    model = adapted.merge_and_unload()
    exact = _outputs(model, prompts)
    _round(model, getattr(torch, kind))
    merged = Merged(
        str(out),
        kind,
        effect=_rms(unmerged - without),
        exact=_rms(exact - unmerged),
        rounded=_rms(_outputs(model, prompts) - unmerged),
    )
    _check(merged, scale=float(unmerged.abs().max()), adapter=adapter)
    model.config.merged = (*model.config.merged, lora.digest(adapter))
    _write(model.to(getattr(torch, kind)), out, adapter=adapter)
    return merged


def _check(merged: Merged, *, scale: float, adapter: Path) -> None:
    """Raise CheckpointError if the merged model's outputs differ from the unmerged model's."""
    if not merged.effect:
        raise CheckpointError(f"{adapter}: does not change the output: it was not trained, or its weights are zeros")
    if not merged.exact <= EXACT * scale:
        raise CheckpointError(
            f"{adapter}: the merged model's logits differ by {merged.exact:.3g} (root mean square; "
            f"allowed: {EXACT * scale:.3g}); nothing was written"
        )
    if not merged.rounded <= max(LOST * merged.effect, EXACT * scale):
        raise CheckpointError(
            f"{adapter}: rounding the merged weights to {merged.dtype} changes the logits by {merged.rounded:.3g}, "
            f"the adapters by {merged.effect:.3g}; use --dtype float32; nothing was written"
        )


@torch.inference_mode()
def _outputs(model: OpenVLAForActionPrediction, prompts: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return what a model predicts for each prompt: logits of all its tokens, or with OFT, a chunk."""
    if model.oft is None:
        return torch.cat([model(**inputs).logits.flatten() for inputs in prompts])
    return torch.cat([model.probe(inputs["input_ids"], inputs["pixel_values"]).flatten() for inputs in prompts])


def _probes(policy: Policy) -> list[dict[str, Tensor]]:
    """Return the model's inputs for two random images with one prompt each."""
    noise = np.random.default_rng(0).integers(0, 256, (len(PROBES), IMAGE, IMAGE, 3), np.uint8)
    return [policy.inputs([image], [prompt]) for image, prompt in zip(noise, PROBES, strict=True)]


def _untie(model: OpenVLAForActionPrediction) -> None:
    """Copy the weights that an adapted head shares with the embedding, because the embedding must not change."""
    layer: Any = getattr(model.get_output_embeddings(), "base_layer", None)
    if layer is None or not model.config.text_config.tie_word_embeddings:
        return
    layer.weight = nn.Parameter(layer.weight.detach().clone())
    model.config.text_config = deepcopy(model.config.text_config)
    model.config.text_config.tie_word_embeddings = False


@torch.no_grad()
def _round(model: nn.Module, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def _rms(difference: Tensor) -> float:
    return float(difference.double().square().mean().sqrt())


def _write(model: OpenVLAForActionPrediction, out: Path, *, adapter: Path) -> None:
    """Write the checkpoint to a temporary folder, and rename that to `out`."""
    with durable.replacing_folder(out) as staged:
        model.save_pretrained(staged)
        for name in CARRIED:
            if (adapter / name).exists():
                shutil.copy(adapter / name, staged / name)
