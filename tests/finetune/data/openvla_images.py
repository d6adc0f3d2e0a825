"""What OpenVLA's own code made of four images with TensorFlow 2.15; tests/data/openvla_images holds both."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.codec import decode
from schemas.source import Array

FOLDER = Path(__file__).parents[2] / "data/openvla_images"
IMAGES = range(4)


@cache
def reference() -> dict[str, Array]:
    with np.load(FOLDER / "reference.npz", allow_pickle=False) as file:
        return dict(file)


def original(i: int) -> Array:
    with Image.open(io.BytesIO((FOLDER / f"in{i}.png").read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def decoded(i: int) -> Array:
    """Decode the JPEG that TensorFlow made of an image."""
    return decode((FOLDER / f"tf_jpeg_{i}.jpg").read_bytes(), like_tensorflow=True)
