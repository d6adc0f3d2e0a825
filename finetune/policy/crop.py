"""The image that OpenVLA's evaluations give a policy: scaled to 224 by way of JPEG, and the middle 90% of it.

A policy that was trained on random crops sees the middle one when it acts.
"""

import io

import numpy as np
from PIL import Image

from finetune.data.augment import center_crop
from finetune.data.resize import resize
from finetune.models.images import rgb
from schemas.codec import decode
from schemas.source import Array

SIZE = 224
QUALITY = 95


def as_evaluated(image: Image.Image) -> Image.Image:
    """Scale an image to 224 x 224, if it is of another size, and enlarge its middle 90%."""
    pixels = np.ascontiguousarray(rgb(image))
    if pixels.shape != (SIZE, SIZE, 3):
        pixels = resize(through_jpeg(pixels), (SIZE, SIZE))
    return Image.fromarray(center_crop(pixels))


def through_jpeg(pixels: Array) -> Array:
    """Encode and decode as TensorFlow does: what Pillow writes is the same, what it reads is not."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return decode(data.getvalue(), like_tensorflow=True)
