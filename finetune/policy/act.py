"""One action from files: a checkpoint, an image and an instruction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image, UnidentifiedImageError

from finetune.memory import enough_memory
from finetune.models import checkpoint
from finetune.models.decoding import Prediction
from finetune.models.images import as_trained, rgb
from finetune.models.processor import PrismaticProcessor, prompt
from finetune.policy.crop import as_evaluated
from finetune.policy.policy import base_of, is_adapter, policy
from schemas.errors import CheckpointError, UsageError

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


def act(
    model: str,
    images: Sequence[Path],
    instruction: str,
    *,
    processor: str | None = None,
    unnorm_key: str | None = None,
    center_crop: bool | None = None,
    dtype: Dtype = "float32",
    device: str = "cpu",
) -> Prediction:
    """Load a checkpoint and predict; what is wrong with the inputs is said before any weight is read.

    A checkpoint that says what was done to the images of its training sees the same here, cropped if they were cropped
    unless `center_crop` says otherwise. Another sees the image as its preprocessor makes it, by default uncropped.
    """
    if len(images) != 1:
        raise UsageError(f"--image: this model sees 1 image, got {len(images)}")
    asked, place = prompt(instruction), _device(device)
    published = rgb(_opened(images[0]))
    folder = checkpoint.local_folder(model, {})
    trained = checkpoint.preprocessing(folder)
    if trained is not None:
        seen: Any = as_trained(images[0].read_bytes(), trained.acting(center_crop=center_crop))
    else:
        seen = as_evaluated(published) if center_crop else published
    own = PrismaticProcessor.from_pretrained(processor or (base_of(folder) if is_adapter(folder) else folder))
    with enough_memory(CheckpointError, _fix(dtype)):
        vla = policy(str(folder), unnorm_key=unnorm_key, dtype=getattr(torch, dtype))
        own.check_fits(vla.config)
        inputs = own(asked, seen)
        vla.to(place)  # type: ignore[arg-type]  # transformers wraps it with a wrong signature
        return vla.predictor(**inputs.to(place), unnorm_key=unnorm_key)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such image") from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path}: no image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: an image that cannot be decoded ({error})") from error


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error


def _fix(dtype: Dtype) -> str:
    return "use --dtype bfloat16, which takes half" if dtype == "float32" else "use a device with more memory"
