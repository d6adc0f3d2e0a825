"""A trained policy from its folder: a whole checkpoint, or adapters and the base they name."""

import sys
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from finetune.models import checkpoint, lora
from finetune.models.openvla import OpenVLAForActionPrediction
from schemas.errors import CheckpointError


def policy(place: str, **told: Any) -> OpenVLAForActionPrediction:
    """Load it; `told` goes to `from_pretrained`."""
    folder = Path(place)
    if not sys.stderr.isatty():
        disable_progress_bar()
    if not is_adapter(folder):
        return OpenVLAForActionPrediction.from_pretrained(place, **told)
    told.setdefault("norm_stats", checkpoint.statistics(folder))
    base = OpenVLAForActionPrediction.from_pretrained(base_of(folder), **told)
    base.preprocessing = checkpoint.preprocessing(folder)
    lora.load(base, folder)
    return base


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds adapters alone."""
    return (folder / lora.CONFIG).exists() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """Give the base that adapters name: a checkpoint's folder, from theirs if it is not where it was, or its name."""
    found = lora.described(folder)
    told = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    if not isinstance(told, str) or not told:
        raise CheckpointError(f"{folder / lora.CONFIG}: names no base; name it (--base)")
    beside = folder.parent / Path(told).name
    return str(beside) if not Path(told).exists() and beside.is_dir() else str(told)
