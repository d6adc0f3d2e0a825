"""One action from files: a checkpoint, an image and an instruction."""

from collections.abc import Sequence
from pathlib import Path

import torch

from finetune.memory import enough_memory
from finetune.models import checkpoint
from finetune.models.acting import Prediction
from finetune.models.images import decoded, rgb
from finetune.models.processor import PrismaticProcessor, prompt
from finetune.policy.policy import Dtype, base_of, is_adapter, load
from schemas.errors import CheckpointError, UsageError


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
    prompt(instruction)
    _check_device(device)
    image = _read(images[0])
    folder = checkpoint.local_folder(model, {})
    own = PrismaticProcessor.from_pretrained(processor or (base_of(folder) if is_adapter(folder) else folder))
    with enough_memory(CheckpointError, _fix(dtype)):
        policy = load(folder, processor=own, unnorm_key=unnorm_key, center_crop=center_crop, dtype=dtype, device=device)
        return policy.act([image], [instruction], unnorm_key=unnorm_key)[0]


def _read(path: Path) -> bytes:
    """Read an image, still encoded; one that the model could not see is refused."""
    try:
        data = path.read_bytes()
        picture = decoded(data)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such image") from error
    except OSError as error:
        raise UsageError(f"{path}: an image that cannot be decoded ({error})") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    rgb(picture)
    return data


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error


def _fix(dtype: Dtype) -> str:
    return "use --dtype bfloat16, which takes half" if dtype == "float32" else "use a device with more memory"
