"""Loads a trained policy from a folder: a full checkpoint, or adapters and their base."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers.utils.logging import disable_progress_bar

from finetune.models import checkpoint, components, layouts, lora
from finetune.models.acting import Policy
from finetune.models.decoding import check_image_matters
from finetune.models.layouts import Stated
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.processor import PrismaticProcessor
from schemas.errors import CheckpointError

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


def load(
    folder: Path,
    *,
    base: str | None = None,
    stated: Stated | None = None,
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

    `base` is the checkpoint with the weights that the folder lacks; by default the one that its adapters name. `stated`
    is what an original checkpoint of OpenVLA-OFT does not record. `say` gets notes, for example if adapters do not
    record their base.
    """
    if not sys.stderr.isatty():
        disable_progress_bar()
    has_base, stated = is_adapter(folder), stated or Stated()
    norm_stats = norm_stats or (checkpoint.statistics(folder) if has_base else None)
    model: Any = OpenVLAForActionPrediction.from_pretrained(
        (base or base_of(folder)) if has_base else folder,
        base=None if has_base else base,
        processor=processor,
        norm_stats=norm_stats,
        unnorm_key=unnorm_key,
        dtype=getattr(torch, dtype),
        self_test=not has_base,  # adapters are tested together with their base
        say=say,
        **({} if has_base else asdict(stated)),
    )
    if has_base:
        model.preprocessing = checkpoint.preprocessing(folder)
        lora.load(model, folder, say=say)
        oft = layouts.recognized(folder, norm_stats or model.norm_stats, stated)
        if oft is not None:
            components.attach(model, oft, where=str(folder))
            check_image_matters(model.eval(), where=str(folder))
    return replace(model.to(device).policy, center_crop=center_crop, lenient=lenient, say=say)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder contains adapters without a base."""
    return (folder / lora.CONFIG).exists() and not (folder / "config.json").exists()


def processor_of(folder: Path, base: str | None) -> Path:
    """Return the folder with the processor of a checkpoint: its own, or that of its base."""
    if PrismaticProcessor.is_in(folder) or (base is None and not is_adapter(folder)):
        return folder
    return checkpoint.local_folder(base or base_of(folder), {})


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
