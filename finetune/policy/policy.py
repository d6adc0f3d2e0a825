"""Loads a trained policy from a folder: a full checkpoint, or adapters and their base."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers.utils.logging import disable_progress_bar

from finetune.models import checkpoint, lora
from finetune.models.acting import Policy
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.processor import PrismaticProcessor
from schemas.errors import CheckpointError

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


def load(
    folder: Path,
    *,
    processor: PrismaticProcessor | None = None,
    norm_stats: Mapping[str, Any] | None = None,
    unnorm_key: str | None = None,
    center_crop: bool | None = None,
    lenient: bool = False,
    dtype: Dtype = "float32",
    device: str = "cpu",
    say: lora.Say = lora.silent,
) -> Policy:
    """Load a policy. If given, `processor` and `norm_stats` replace those of the checkpoint.

    `say` gets a note if adapters do not record their base.
    """
    if not sys.stderr.isatty():
        disable_progress_bar()
    has_base = is_adapter(folder)
    model: Any = OpenVLAForActionPrediction.from_pretrained(
        base_of(folder) if has_base else folder,
        processor=processor,
        norm_stats=norm_stats or (checkpoint.statistics(folder) if has_base else None),
        unnorm_key=unnorm_key,
        dtype=getattr(torch, dtype),
        self_test=not has_base,  # adapters are tested together with their base
    )
    if has_base:
        model.preprocessing = checkpoint.preprocessing(folder)
        lora.load(model, folder, say=say)
    return replace(model.to(device).policy, center_crop=center_crop, lenient=lenient)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder contains adapters without a base."""
    return (folder / lora.CONFIG).exists() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """Return the base model of adapters: a folder, or a name on the Hub.

    If the base's folder is not where the adapters say, a folder with the same name next to `folder` is used. Raises
    CheckpointError if the adapters do not name a base.
    """
    config = lora.read_config(folder)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{folder / lora.CONFIG}: base_model_name_or_path is missing; name the base (--base)")
    moved = folder.parent / Path(base).name
    return str(moved) if not Path(base).exists() and moved.is_dir() else base
