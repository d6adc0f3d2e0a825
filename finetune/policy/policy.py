"""A trained policy from its folder: a whole checkpoint, or adapters and the base they name."""

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
    dtype: Dtype = "float32",
    device: str = "cpu",
) -> Policy:
    """Load it, with its own processor and statistics unless others are given."""
    if not sys.stderr.isatty():
        disable_progress_bar()
    has_base = is_adapter(folder)
    model: Any = OpenVLAForActionPrediction.from_pretrained(
        base_of(folder) if has_base else folder,
        processor=processor,
        norm_stats=norm_stats or (checkpoint.statistics(folder) if has_base else None),
        unnorm_key=unnorm_key,
        dtype=getattr(torch, dtype),
    )
    if has_base:
        model.preprocessing = checkpoint.preprocessing(folder)
        lora.load(model, folder)
    return replace(model.to(device).policy, center_crop=center_crop)


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds adapters alone."""
    return (folder / lora.CONFIG).exists() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """Give the base that adapters name: a checkpoint's folder, from theirs if it is not where it was, or its name."""
    found = lora.read_config(folder)
    told = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    if not isinstance(told, str) or not told:
        raise CheckpointError(f"{folder / lora.CONFIG}: names no base; name it (--base)")
    beside = folder.parent / Path(told).name
    return str(beside) if not Path(told).exists() and beside.is_dir() else str(told)
