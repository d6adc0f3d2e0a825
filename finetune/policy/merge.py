"""Merges adapters into their base, offline, and proves before it writes that the model is the same."""

import shutil
import uuid
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.models import checkpoint, lora
from finetune.models.acting import Policy
from finetune.models.config import OpenVLAConfig
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.vit import IMAGE
from finetune.policy.policy import Dtype, load
from finetune.training.folders import LOCK, RECIPE
from finetune.training.licences import LICENCES
from schemas.errors import CheckpointError, UsageError

EXACT = 1e-4  # of the largest logit: what float32 may lose by adding the adapters up beforehand
LOST = 0.5  # of what the adapters change: what the rounding of the merged weights may change at most
CARRIED = (checkpoint.PREPROCESSING, LICENCES, LOCK, f"{LOCK}.parquet", RECIPE)
PROBES = ("close the pot", "put the spoon to the right of the towel")


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged checkpoint, and root mean squares over the logits of its self-test: what adapters and merging change."""

    out: str
    dtype: str
    effect: float
    exact: float  # in float32
    rounded: float  # with the weights as they are written

    def to_json(self) -> dict[str, Any]:
        """Give all of it."""
        return asdict(self)


def merge(base: str, adapter: Path, out: Path, *, dtype: Dtype | None = None) -> Merged:
    """Write `base` with the adapters merged, in the base's type or `dtype`; computed in float32.

    Refused, and nothing is written, if the merged model answers otherwise than the unmerged one.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already; name another --out")
    folder = checkpoint.local_folder(base, {})
    kind = dtype or str(OpenVLAConfig.of(folder).dtype or "float32").removeprefix("torch.")
    policy = load(folder, norm_stats=checkpoint.statistics(adapter))
    model, inputs = policy.model, _probes(policy)
    without = _logits(model, inputs)
    adapted = lora.load(model, adapter)
    unmerged = _logits(adapted, inputs)
    _untie(model)
    model = adapted.merge_and_unload()
    exact = _logits(model, inputs)
    _round(model, getattr(torch, kind))
    found = Merged(
        str(out),
        kind,
        effect=_rms(unmerged - without),
        exact=_rms(exact - unmerged),
        rounded=_rms(_logits(model, inputs) - unmerged),
    )
    _judge(found, scale=float(unmerged.abs().max()), adapter=adapter)
    _write(model.to(getattr(torch, kind)), out, adapter=adapter)
    return found


def _judge(found: Merged, *, scale: float, adapter: Path) -> None:
    """Refuse what is not the same model."""
    if not found.effect:
        raise CheckpointError(f"{adapter}: changes no output at all: it was not trained, or its weights are zeros")
    if not found.exact <= EXACT * scale:
        raise CheckpointError(
            f"{adapter}: the merged model answers otherwise: its logits differ by {found.exact:.3g} (root mean square; "
            f"allowed: {EXACT * scale:.3g}); nothing was written"
        )
    if not found.rounded <= max(LOST * found.effect, EXACT * scale):
        raise CheckpointError(
            f"{adapter}: rounding the merged weights to {found.dtype} changes the logits by {found.rounded:.3g}, "
            f"and all that was learned by {found.effect:.3g}; use --dtype float32. Nothing was written"
        )


@torch.inference_mode()
def _logits(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(**inputs).logits


def _probes(policy: Policy) -> dict[str, Tensor]:
    """Make two images of noise and two prompts."""
    noise = np.random.default_rng(0).integers(0, 256, (len(PROBES), IMAGE, IMAGE, 3), np.uint8)
    return policy.inputs(list(noise), PROBES)


def _untie(model: OpenVLAForActionPrediction) -> None:
    """Give a head that is the embedding, and is adapted, weights of its own: the embedding stays as it is."""
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
    """Write beside `out` and rename, so that there is a whole checkpoint or none."""
    staged = out.with_name(f"tmp-{uuid.uuid4().hex}")
    try:
        model.save_pretrained(staged)
        for name in CARRIED:
            if (adapter / name).exists():
                shutil.copy(adapter / name, staged / name)
        staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
