"""Images as float32 matrices and planes, in reused buffers.

Arithmetic is fast along contiguous memory. Buffers are reused, because clearing new memory would take as long as the
arithmetic. An image [H, W, C] is stored as a matrix [H, W * C]. The transpose of that matrix has the shape [W, C, H],
which this package calls columns.
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
    """Return a buffer whose rows are not aligned to 256 bytes, because transposing aligned rows takes twice as long."""
    height, width = shape
    return scratch(purpose, (height, width + (8 if width % 64 == 0 else 0)))[:, :width]


def to_matrix(image: Array) -> Array:
    """Copy an image [H, W, C] uint8 or float32 to a buffer [H, W * C] float32."""
    height, width, channels = image.shape
    matrix = padded("image", (height, width * channels))
    matrix[...] = image.reshape(height, width * channels)
    return matrix


def turn(matrix: Array) -> Array:
    """Transpose a matrix into a buffer.

    Operations that treat each element of the last axis differently are slow. Transpose before such an operation, so
    that this axis comes first, and transpose back after it.
    """
    turned = scratch("turned", (matrix.shape[1], matrix.shape[0]))
    np.copyto(turned, matrix.T)
    return turned


def from_columns(columns: Array, dtype: type) -> Array:
    """Convert columns [W, C, H] to an image [H, W, C]. For uint8, values are truncated to integers."""
    width, channels, height = columns.shape
    flat: Array = columns.reshape(width * channels, height).astype(dtype)
    return np.ascontiguousarray(flat.T).reshape(height, width, channels)


def from_planes(planes: Array) -> Array:
    """Convert planes [C, H, W] to an image [H, W, C] uint8. Values are truncated to integers."""
    image = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for channel, plane in enumerate(planes):  # several times as fast as copying the transposed array
        image[..., channel] = plane
    return image
