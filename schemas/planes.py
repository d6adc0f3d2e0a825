"""Images as planes [C, H, W] float32, and memory for them that is used again.

Arithmetic on planes runs along contiguous memory. Fresh memory for each step would cost as much as the arithmetic: the
kernel clears every page of it.
"""

import math
import threading

import numpy as np

from schemas.source import Array

F = np.float32


class _Buffers(threading.local):
    """The buffers of one thread, by what they are for."""

    def __init__(self) -> None:
        self.held: dict[str, Array] = {}


_BUFFERS = _Buffers()


def scratch(purpose: str, shape: tuple[int, ...]) -> Array:
    """Give this thread's float32 buffer for a purpose; whoever asks for it next overwrites it."""
    size = math.prod(shape)
    held = _BUFFERS.held.get(purpose)
    if held is None or held.size < size:
        held = _BUFFERS.held[purpose] = np.empty(size, F)
    return held[:size].reshape(shape)


def to_planes(image: Array) -> Array:
    """Turn [H, W, C] uint8 or float32 into [C, H, W] float32, in a buffer."""
    planes = padded("image", (image.shape[2], *image.shape[:2]))
    planes[...] = image.transpose(2, 0, 1)
    return planes


def turn(planes: Array) -> Array:
    """Exchange height and width of [C, H, W], in a buffer.

    Along the last axis every operation is slow that treats its elements differently, so one turns, and turns back.
    """
    turned = padded("turned", (planes.shape[0], planes.shape[2], planes.shape[1]))
    np.copyto(turned, planes.transpose(0, 2, 1))
    return turned


def padded(purpose: str, shape: tuple[int, int, int]) -> Array:
    """Give a buffer whose rows do not begin at multiples of 256 bytes: turning such ones takes three times as long."""
    channels, height, width = shape
    return scratch(purpose, (channels, height, width + (8 if width % 64 == 0 else 0)))[..., :width]


def to_image(planes: Array, dtype: type = np.uint8) -> Array:
    """Turn [C, H, W] into [H, W, C]; uint8 takes the whole part."""
    image = np.empty((*planes.shape[1:], len(planes)), dtype)
    for channel, plane in enumerate(planes):  # several times as fast as copying the transposed array
        image[..., channel] = plane
    return image
