"""What a loader hands out."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B drawn steps with what lies around them: C actions from the step on, H observations up to it.

    Arrays are numpy's, or tensors in a torch loader.
    """

    end: int  # draws of all ranks after this batch
    draw: Any  # [B] int64: the k of the sampling law
    source: Any  # [B] int64: of the loader's `sources`
    episode: Any  # [B] int64: position in its dataset
    step: Any  # [B] int64: place in the stored episode
    action: Any  # [B, C, D] float32, normalized
    action_is_pad: Any  # [B, C] bool: behind the episode's end, where the last action is repeated
    action_valid: Any  # [B, D] bool: the dimensions that the source has; 0 elsewhere
    state: Any  # [B, H, S] float32, normalized; or None
    images: dict[str, Any]  # by camera: [B, H, h, w, 3] uint8 RGB
    image_is_missing: dict[str, Any]  # by camera: [B, H] bool; black there
    history_is_pad: Any  # [B, H] bool: before the episode's start, where the first step is repeated
    instruction: tuple[str, ...]  # "" where the step has none
    broken: tuple[str, ...]  # what could not be decoded, in whose place another step of the same stratum stands
    substituted: Any  # [B] bool: where one stands

    def __len__(self) -> int:
        """Count the drawn steps."""
        return len(self.instruction)

    def put(self, i: int, other: "Batch") -> None:
        """Overwrite sample i by the one that another batch holds, all but its draw and what is not an array."""
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, dict):
                for camera, array in ours.items():
                    array[i] = theirs[camera][0]
            elif isinstance(ours, np.ndarray):
                ours[i] = theirs[0]
