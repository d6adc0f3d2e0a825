"""Images as float32 matrices and planes, in reused buffers.

Arithmetic runs along contiguous memory. Buffers are reused because clearing fresh pages would take as long as the
arithmetic. An image [H, W, C] is a matrix [H, W * C]; its transpose has columns, [W, C, H].
"""

import math
import threading

import numpy as np

from schemas.source import Array

F = np.float32


class _Buffers(threading.local):
    """The buffers of one thread, by purpose."""

    def __init__(self) -> None:
        self.by_purpose: dict[str, Array] = {}


_BUFFERS = _Buffers()


def scratch(purpose: str, shape: tuple[int, ...]) -> Array:
    """Return this thread's float32 buffer for a purpose; the next call with the same purpose overwrites it."""
    size = math.prod(shape)
    buffer = _BUFFERS.by_purpose.get(purpose)
    if buffer is None or buffer.size < size:
        buffer = _BUFFERS.by_purpose[purpose] = np.empty(size, F)
    return buffer[:size].reshape(shape)


def padded(purpose: str, shape: tuple[int, int]) -> Array:
    """Return a buffer whose rows are not aligned to 256 bytes; transposing aligned rows takes twice as long."""
    height, width = shape
    return scratch(purpose, (height, width + (8 if width % 64 == 0 else 0)))[:, :width]


def to_matrix(image: Array) -> Array:
    """Convert [H, W, C] uint8 or float32 to [H, W * C] float32, in a buffer."""
    height, width, channels = image.shape
    matrix = padded("image", (height, width * channels))
    matrix[...] = image.reshape(height, width * channels)
    return matrix


def turn(matrix: Array) -> Array:
    """Transpose a matrix into a buffer.

    Operations that treat the elements of the last axis differently are slow, so it is transposed before and after.
    """
    turned = scratch("turned", (matrix.shape[1], matrix.shape[0]))
    np.copyto(turned, matrix.T)
    return turned


def from_columns(columns: Array, dtype: type) -> Array:
    """Convert columns [W, C, H] to an image [H, W, C]; for uint8, values are truncated."""
    width, channels, height = columns.shape
    flat: Array = columns.reshape(width * channels, height).astype(dtype)
    return np.ascontiguousarray(flat.T).reshape(height, width, channels)


def from_planes(planes: Array) -> Array:
    """Convert planes [C, H, W] to an image [H, W, C] uint8; values are truncated."""
    image = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for channel, plane in enumerate(planes):  # several times as fast as copying the transposed array
        image[..., channel] = plane
    return image
