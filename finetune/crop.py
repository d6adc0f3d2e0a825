"""The image that OpenVLA's evaluations give a policy: scaled to 224 by way of JPEG, and the middle 90% of it.

A policy that was trained on random crops sees the middle one when it acts. These are TensorFlow's own numbers, computed
without TensorFlow: `tf.image.resize(lanczos3, antialias=True)` and `tf.image.crop_and_resize`.
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

from finetune.images import rgb
from schemas.source import Array

SIZE = 224
QUALITY = 95
AREA = 0.9
RADIUS = 3.0  # of Lanczos' kernel


def as_evaluated(image: Image.Image) -> Image.Image:
    """Scale an image to 224 x 224, if it is of another size, and enlarge its middle 90%."""
    pixels = np.ascontiguousarray(rgb(image))
    if pixels.shape != (SIZE, SIZE, 3):
        pixels = lanczos3(through_jpeg(pixels))
    return Image.fromarray(center_crop(pixels))


def through_jpeg(pixels: Array) -> Array:
    """Encode and decode as TensorFlow does: what Pillow writes is the same, what it reads is not."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return np.asarray(simplejpeg.decode_jpeg(data.getvalue(), fastdct=True, fastupsample=False))


def lanczos3(pixels: Array, size: int = SIZE) -> Array:
    """Scale [H, W, 3] uint8 to [size, size, 3] with the antialiasing of TensorFlow."""
    rows = np.einsum("oh,hwc->owc", _weights(pixels.shape[0], size), pixels.astype(np.float32))
    scaled = np.einsum("ow,hwc->hoc", _weights(pixels.shape[1], size), rows)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def _weights(length: int, size: int) -> Array:
    """Give what each of `length` pixels adds to each of `size`, [size, length] float32."""
    ratio = np.float32(length / size)
    scale = max(ratio, np.float32(1))
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * ratio
    x = np.abs(np.arange(length, dtype=np.float32) + np.float32(0.5) - centres[:, None]) / scale
    kernel = np.where(x < RADIUS, np.sinc(x) * np.sinc(x / RADIUS), 0).astype(np.float32)
    return np.asarray(kernel / kernel.sum(1, keepdims=True))


def center_crop(pixels: Array, size: int = SIZE) -> Array:
    """Enlarge the middle 90% of [H, W, 3] uint8 to [size, size, 3], bilinear."""
    x = pixels.astype(np.float32) / np.float32(255)
    for axis in (0, 1):
        at = _places(x.shape[axis], size)
        low = np.floor(at).astype(np.int64)
        part = (at - low).astype(np.float32)[(slice(None), None) if axis else (slice(None), None, None)]
        first, second = (np.take(x, np.clip(i, 0, x.shape[axis] - 1), axis=axis) for i in (low, low + 1))
        x = first + (second - first) * (part[None] if axis else part)
    return np.asarray(np.clip(np.trunc(np.clip(x, 0, 1) * np.float32(255.5)), 0, 255), np.uint8)


def _places(length: int, size: int) -> Array:
    """Give where in the image each pixel of the crop is taken, [size] float32."""
    side = np.sqrt(np.float32(AREA))
    start = (np.float32(1) - side) / np.float32(2)
    stop = start + side
    step = (stop - start) * np.float32(length - 1) / np.float32(size - 1)
    return np.asarray(start * np.float32(length - 1) + np.arange(size, dtype=np.float32) * step)
