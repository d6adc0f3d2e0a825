"""Resizes images in numpy with the same results as TensorFlow, which resized OpenVLA's training data.

For each axis, the filter is a matrix [out, in] of weights. Most weights are 0, so it is applied as small dense blocks.
"""

from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np

from finetune.data.planes import F, from_columns, padded, scratch, to_matrix, turn
from schemas.errors import UsageError, did_you_mean
from schemas.source import Array

Method: TypeAlias = Literal["lanczos3", "bilinear", "area"]
BLOCK = 8  # output pixels of one matrix product; for larger products, BLAS starts threads, which is slower

Blocks: TypeAlias = tuple[tuple[slice, slice, Array], ...]  # rows of the result, rows of the input, weights


def resize(image: Array, size: tuple[int, int], *, method: Method = "lanczos3", antialias: bool = True) -> Array:
    """Resize [H, W, C] to `size` (height, width), as `tf.image.resize` does.

    uint8 values are rounded half to even and clipped, as in OpenVLA's pipeline. float32 values are neither rounded nor
    clipped. With `antialias`, the filter is wider when an image shrinks. For the method "area" it always is.

    >>> resize(np.uint8([[[0], [100], [200], [40]]]), (1, 2), method="area").ravel().tolist()
    [50, 120]
    """
    if image.ndim != 3 or image.dtype not in {np.dtype(np.uint8), np.dtype(np.float32)}:
        raise UsageError(f"an image must be [H, W, C] uint8 or float32, got {list(image.shape)} {image.dtype}")
    if image.shape[:2] == size:
        return image.copy()
    columns = resize_columns(image, size, method=method, antialias=antialias)
    if image.dtype == np.uint8:
        to_levels(columns)
    return from_columns(columns, image.dtype.type)


def resize_columns(
    image: Array, size: tuple[int, int], *, method: Method = "lanczos3", antialias: bool = True
) -> Array:
    """Resize [H, W, C] to columns [w, C, h] float32. Values are neither rounded nor clipped.

    Resizes the height first, as TensorFlow does. The result is in a buffer that the next call overwrites.
    """
    (height, width, channels), (high, wide) = image.shape, size
    down = blocks(height, high, method=method, antialias=antialias)
    across = blocks(width, wide, method=method, antialias=antialias)
    rows = _filtered(to_matrix(image), down, padded("rows", (high, width * channels)))
    columns = turn(rows).reshape(width, channels * high)
    return _filtered(columns, across, scratch("resized", (wide, channels * high))).reshape(wide, channels, high)


def _filtered(matrix: Array, filters: Blocks, out: Array) -> Array:
    for target, used, weights in filters:
        np.matmul(weights, matrix[used], out=out[target])
    return out


def to_levels(values: Array) -> None:
    """Round half to even and clip to 0..255, in place."""
    np.clip(np.rint(values, out=values), F(0), F(255), out=values)


@lru_cache(maxsize=64)
def blocks(size: int, wanted: int, *, method: Method, antialias: bool) -> Blocks:
    """Compute the matrix of a filter, and split it into blocks that contain all nonzero weights."""
    if method not in get_args(Method):
        raise UsageError(f"unknown filter '{method}'{did_you_mean(method, get_args(Method))}")
    if min(size, wanted) < 1:
        raise UsageError(f"cannot resize {size} pixels to {wanted}")
    if method == "area":
        matrix = _area(size, wanted)
    elif method == "bilinear" and not antialias:
        matrix = _two_taps(size, wanted)
    else:
        matrix = _spans(size, wanted, method=method, antialias=antialias)
    nonzero = []
    for start in range(0, wanted, BLOCK):
        rows = slice(start, min(start + BLOCK, wanted))
        pixels = np.flatnonzero(matrix[rows].any(axis=0))
        used = slice(int(pixels[0]), int(pixels[-1]) + 1)
        nonzero.append((rows, used, np.ascontiguousarray(matrix[rows, used])))
    return tuple(nonzero)


def _spans(size: int, wanted: int, *, method: Method, antialias: bool) -> Array:
    """Return the weights of TensorFlow's ScaleAndTranslate, [wanted, size]. Uses the same float32 operations."""
    radius = F(3 if method == "lanczos3" else 1)
    inverse = F(1) / (F(wanted) / F(size))
    scale = max(inverse, F(1)) if antialias else F(1)
    sample = (np.arange(wanted, dtype=F) + F(0.5)) * inverse
    first = np.ceil(sample - radius * scale - F(0.5)).clip(0, size - 1).astype(np.int64)
    last = np.floor(sample + radius * scale - F(0.5)).clip(0, size - 1).astype(np.int64)
    matrix, total = np.zeros((wanted, size), F), np.zeros(wanted, F)
    for tap in range(int((last - first).max()) + 1):  # in TensorFlow's order, because each addition is rounded
        source = first + tap
        rows = np.flatnonzero(source <= last)
        distance = np.abs((source.astype(F) + F(0.5) - sample) / scale)[rows]
        weight = _lanczos3(distance) if method == "lanczos3" else np.maximum(F(1) - distance, F(0))
        matrix[rows, source[rows]] = weight
        total[rows] += weight
    return np.asarray(matrix * (F(1) / total)[:, None], F)


def _lanczos3(x: Array) -> Array:
    pi = F(np.pi)
    safe = np.maximum(x, F(1e-3))
    lobes = F(3) * np.sin(pi * safe) * np.sin(pi * safe / F(3)) / (pi * pi * safe * safe)
    return np.where(x > 3, F(0), np.where(x <= F(1e-3), F(1), lobes)).astype(F)


def _two_taps(size: int, wanted: int) -> Array:
    """Return the weights of TensorFlow's ResizeBilinear with half-pixel centers."""
    sample = (np.arange(wanted, dtype=F) + F(0.5)) * (F(size) / F(wanted)) - F(0.5)
    below = np.floor(sample)
    part, rows, matrix = sample - below, np.arange(wanted), np.zeros((wanted, size), F)
    np.add.at(matrix, (rows, below.clip(0, size - 1).astype(np.int64)), F(1) - part)
    np.add.at(matrix, (rows, np.ceil(sample).clip(0, size - 1).astype(np.int64)), part)
    return matrix


def _area(size: int, wanted: int) -> Array:
    """Return the weights of TensorFlow's ResizeArea: which part of each output pixel an input pixel covers."""
    scale = F(size) / F(wanted)
    start = (np.arange(wanted, dtype=F) * scale)[:, None]
    end = (np.arange(1, wanted + 1, dtype=F) * scale)[:, None]
    pixel, after = np.arange(size, dtype=F), np.arange(1, size + 1, dtype=F)
    begins_before = np.where(after > end, scale, after - start)
    covered = np.where(pixel < start, begins_before, np.where(after > end, end - pixel, F(1)))
    return np.where((pixel >= np.floor(start)) & (pixel < np.ceil(end)), covered / scale, F(0)).astype(F)
