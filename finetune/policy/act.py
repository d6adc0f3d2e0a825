"""Predicts an action from a checkpoint, image files and an instruction (`oxe predict`)."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import ExifTags, Image

from finetune.memory import enough_memory
from finetune.models import checkpoint, layouts
from finetune.models.acting import Prediction, Sampling
from finetune.models.images import decoded, rgb
from finetune.models.layouts import Stated
from finetune.models.lora import Say, silent
from finetune.models.processor import PrismaticProcessor, prompt
from finetune.policy.policy import Dtype, is_adapter, load, processor_of
from schemas.errors import CheckpointError, UsageError
from schemas.exif import TURNED, UPRIGHT


def act(
    model: str,
    images: Sequence[Path],
    instruction: str,
    *,
    base: str | None = None,
    stated: Stated | None = None,
    processor: str | None = None,
    proprio: Sequence[float] | None = None,
    sampling: Sampling | None = None,
    unnorm_key: str | None = None,
    center_crop: bool | None = None,
    lenient: bool = False,
    ignore_exif: bool = False,
    dtype: Dtype = "float32",
    device: str = "cpu",
    say: Say = silent,
) -> Prediction:
    """Load a checkpoint and predict an action, or a chunk. The inputs are checked before any weights are read.

    `images` are those of one observation: the oldest step first, within a step in the order of the checkpoint's
    cameras. `base` has the weights that the checkpoint lacks, and `stated` is what an original checkpoint of
    OpenVLA-OFT does not record; see `load`. `proprio` [P] is in the units of the dataset.

    If the checkpoint contains the preprocessing that was used in training, the image is preprocessed in the same way.
    Otherwise only the checkpoint's image transform is applied. If `center_crop` is not None, it decides whether the
    image is cropped.

    Images are used as they are stored. An image whose EXIF data turn it is an error, unless `ignore_exif`. `lenient`
    counts predicted tokens that are not actions, which are an error otherwise. `say` gets notes.
    """
    prompt(instruction)
    _check_device(device)
    observation = [_read(image, ignore_exif=ignore_exif) for image in images]
    folder = checkpoint.local_folder(model, {}, wanted=layouts.WANTED)
    layouts.check_parts(folder, None if is_adapter(folder) else base)
    layouts.check_images(folder, len(images), stated or Stated())
    own = PrismaticProcessor.from_pretrained(processor or processor_of(folder, base))
    with enough_memory(CheckpointError, _fix(dtype)):
        policy = load(
            folder,
            base=base,
            stated=stated,
            processor=own,
            unnorm_key=unnorm_key,
            center_crop=center_crop,
            lenient=lenient,
            dtype=dtype,
            device=device,
            say=say,
        )
        return policy.act([observation], [instruction], unnorm_key=unnorm_key, proprio=proprio, sampling=sampling)[0]


def _read(path: Path, *, ignore_exif: bool) -> bytes:
    """Read an encoded image. Raises UsageError if it cannot be decoded, is not RGB, or is turned by its EXIF data."""
    try:
        data = path.read_bytes()
        picture = decoded(data)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such image") from error
    except OSError as error:
        raise UsageError(f"{path}: the image cannot be decoded ({error})") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    rgb(picture)
    with Image.open(io.BytesIO(data)) as header:  # decoding a TIFF turns it, and forgets its orientation
        turned = header.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    if turned in TURNED and not ignore_exif:
        raise UsageError(
            f"{path}: its EXIF data turn the image (orientation {turned}), but a policy sees the pixels as they are "
            "stored, as in training: store it upright, or pass --ignore-exif if the recordings were stored like this"
        )
    return data


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error


def _fix(dtype: Dtype) -> str:
    return "use --dtype bfloat16, which takes half" if dtype == "float32" else "use a device with more memory"
