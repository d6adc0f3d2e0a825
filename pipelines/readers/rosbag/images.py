"""Images in messages: raw pixels, which are encoded, and encoded ones, which pass through."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.readers.pixels import encode
from schemas.errors import SourceError
from schemas.images import JPEG, PNG
from schemas.source import Array

RAW = "sensor_msgs/msg/Image"
ENCODED = ("sensor_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedImage", "foxglove.CompressedImage")
# The types, and which of their fields become the image.
TYPES = {
    RAW: ("height", "width", "encoding", "is_bigendian", "step", "data"),
    **dict.fromkeys(ENCODED, ("data",)),
}
PIXELS = {  # encoding -> dtype and channels
    "rgb8": ("uint8", 3),
    "bgr8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "8UC1": ("uint8", 1),
    "mono16": ("uint16", 1),
    "16UC1": ("uint16", 1),
}
DEPTH_HEADER = 12  # bytes before the PNG of the transport compressedDepth
SIDE = 1 << 14  # pixels


@dataclass(frozen=True, slots=True)
class Look:
    """What one topic's images have in common."""

    dtype: str
    channels: int
    encoding: str  # raw, jpeg, png


def look(message: Any, path: str) -> Look:
    """Tell how an image is held; one that is not read is a SourceError."""
    if hasattr(message, "step"):
        if message.encoding not in PIXELS:
            raise SourceError(
                f"{path}: images encoded as '{message.encoding}', which are not read (known: {', '.join(PIXELS)}); "
                f"leave them out with source.ignore = ['{path}']",
                reason="unsupported_image",
            )
        return Look(*PIXELS[message.encoding], "raw")
    data = _bytes(message, path)
    if data.startswith((PNG, JPEG)):
        is_deep = data.startswith(PNG) and data[24:25] == b"\x10"  # the bits of a channel
        return Look("uint16" if is_deep else "uint8", 1 if is_deep else 3, "png" if data.startswith(PNG) else "jpeg")
    raise SourceError(
        f"{path}: images of the format '{str(message.format)[:40]}' that are neither JPEG nor PNG; "
        f"leave them out with source.ignore = ['{path}']",
        reason="unsupported_image",
    )


def encoded(message: Any, path: str, how: str) -> bytes:
    """Give an image's bytes: raw pixels are encoded as `how` says, depth always as PNG."""
    if not hasattr(message, "step"):
        return _bytes(message, path)
    frame = _pixels(message, path)
    return encode(frame, "png" if frame.dtype == np.uint16 else how)


def _bytes(message: Any, path: str) -> bytes:
    held = message.data
    try:
        data = base64.b64decode(held, validate=True) if isinstance(held, str) else bytes(held)
    except (ValueError, TypeError) as error:
        raise SourceError(f"{path}: an image that is no base64", reason="bad_image") from error
    is_depth = data[DEPTH_HEADER:].startswith(PNG) and "compressedDepth" in str(message.format)
    if is_depth and str(message.format).startswith("16UC1"):
        return data[DEPTH_HEADER:]
    return data


def _pixels(message: Any, path: str) -> Array:
    """Give an image as [H, W, C], red first; one whose size is not what its header says is a SourceError."""
    name, channels = PIXELS[message.encoding]
    dtype = np.dtype(name).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if not (0 < height <= SIDE and 0 < width <= SIDE and row <= step and len(message.data) == height * step):
        says = f"{height} rows of {step} bytes for {width} pixels"
        raise SourceError(f"{path}: an image of {says} holds {len(message.data)} bytes", reason="bad_image")
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row]
    frame = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    return np.ascontiguousarray(frame[..., ::-1] if message.encoding == "bgr8" else frame).astype(name, copy=False)
