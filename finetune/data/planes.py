"""Images as matrices and planes of float32, and memory for them that is used again.

Arithmetic runs along contiguous memory, and fresh memory for each step would cost as much as the arithmetic: the kernel
clears every page of it. An image [H, W, C] is a matrix [H, W * C]; turned, it is one of columns, [W, C, H].
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


def padded(purpose: str, shape: tuple[int, int]) -> Array:
    """Give a buffer whose rows do not begin at multiples of 256 bytes: turning such a matrix takes twice as long."""
    height, width = shape
    return scratch(purpose, (height, width + (8 if width % 64 == 0 else 0)))[:, :width]


def to_matrix(image: Array) -> Array:
    """Turn [H, W, C] uint8 or float32 into [H, W * C] float32, in a buffer."""
    height, width, channels = image.shape
    matrix = padded("image", (height, width * channels))
    matrix[...] = image.reshape(height, width * channels)
    return matrix


def turn(matrix: Array) -> Array:
    """Exchange rows and columns, in a buffer.

    Along the last axis every operation is slow that treats its elements differently, so one turns, and turns back.
    """
    turned = scratch("turned", (matrix.shape[1], matrix.shape[0]))
    np.copyto(turned, matrix.T)
    return turned


def from_columns(columns: Array, dtype: type) -> Array:
    """Turn columns [W, C, H] into [H, W, C]; uint8 takes the whole part."""
    width, channels, height = columns.shape
    flat: Array = columns.reshape(width * channels, height).astype(dtype)
    return np.ascontiguousarray(flat.T).reshape(height, width, channels)


def from_planes(planes: Array) -> Array:
    """Turn planes [C, H, W] into [H, W, C] uint8, taking the whole part."""
    image = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for channel, plane in enumerate(planes):  # several times as fast as copying the transposed array
        image[..., channel] = plane
    return image
