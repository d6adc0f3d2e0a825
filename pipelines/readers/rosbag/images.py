"""Read the images in messages; raw pixels are encoded, and encoded images are kept as they are."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.readers.pixels import encode
from pipelines.readers.rosbag.nal import unit_type, units
from schemas.errors import SourceError
from schemas.images import JPEG, PNG
from schemas.source import Array

RAW = "sensor_msgs/msg/Image"
ENCODED = ("sensor_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedImage", "foxglove.CompressedImage")
# The fields of each message type that together form the image.
TYPES = {
    RAW: ("height", "width", "encoding", "is_bigendian", "step", "data"),
    **dict.fromkeys(ENCODED, ("data",)),
}
VIDEOS = ("CompressedVideo", "FFMPEGPacket")  # last words of types: foxglove_msgs, ffmpeg_image_transport_msgs
VIDEO_FIELDS = ("data", "width", "height", "encoding", "is_bigendian")  # what the frames contain
KNOWN = (RAW, *ENCODED, *VIDEOS)
CODECS = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc"}  # a part of the declared name -> FFmpeg's name
PIXELS = {  # encoding -> dtype and channels
    "rgb8": ("uint8", 3),
    "bgr8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "8UC1": ("uint8", 1),
    "mono16": ("uint16", 1),
    "16UC1": ("uint16", 1),
}
FIRST_UNITS = {
    "h264": {1, 5, 6, 7, 9},
    "hevc": {*range(22), 32, 33, 34, 35, 39},
}  # the types of units that may begin a packet
DEPTH_HEADER = 12  # bytes before the PNG in the compressedDepth transport
MAX_SIDE = 1 << 14  # pixels


def is_video(type_name: str) -> bool:
    """Whether messages of a type are packets of a video."""
    return type_name.replace(".", "/").rpartition("/")[2] in VIDEOS


def is_camera(type_name: str) -> bool:
    """Whether messages of a type are images or packets of a video."""
    return type_name in TYPES or is_video(type_name)


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """The format of a topic's images."""

    dtype: str
    channels: int
    encoding: str  # raw, jpeg, png


def image_format(message: Any, path: str) -> ImageFormat:
    """Return the format of an image; raise SourceError if it is not supported."""
    if hasattr(message, "step"):
        if message.encoding not in PIXELS:
            raise SourceError(
                f"{path}: images encoded as '{message.encoding}' are not supported (known: {', '.join(PIXELS)}); "
                f"leave them out with source.ignore = ['{path}']",
                reason="unsupported_image",
            )
        return ImageFormat(*PIXELS[message.encoding], "raw")
    data = image_bytes(message, path)
    if data.startswith((PNG, JPEG)):
        is_depth = data.startswith(PNG) and data[24:25] == b"\x10"  # bits per channel
        return ImageFormat(
            "uint16" if is_depth else "uint8", 1 if is_depth else 3, "png" if data.startswith(PNG) else "jpeg"
        )
    raise SourceError(
        f"{path}: images of the format '{str(message.format)[:40]}' are neither JPEG nor PNG; "
        f"leave them out with source.ignore = ['{path}']",
        reason="unsupported_image",
    )


def encode_image(message: Any, path: str, images: str) -> bytes:
    """Return an image as encoded bytes; raw pixels are encoded as `images` says, but depth is always PNG."""
    if not hasattr(message, "step"):
        return image_bytes(message, path)
    frame = _pixels(message, path)
    return encode(frame, "png" if frame.dtype == np.uint16 else images)


def video_codec(message: Any, path: str, *, is_declared: bool) -> str | None:
    """Return FFmpeg's name of the codec of a packet; None if the message is a whole JPEG or PNG, or may be one.

    `is_declared` says that the type of the message is one of videos. Raises SourceError for other codecs then.
    """
    data = image_bytes(message, path)
    name = str(getattr(message, "encoding", None) or getattr(message, "format", ""))
    word = name.partition(";")[0].lower()
    codec = next((codec for part, codec in CODECS.items() if part in word.replace(".", "")), None)
    if data.startswith((PNG, JPEG)):
        return None
    if is_declared and codec is None:
        raise SourceError(
            f"{path}: {name[:40] or 'unnamed'} video in messages is not read (known: h264, h265, mjpeg); "
            f"leave it out with source.ignore = ['{path}']",
            reason="unsupported_image",
        )
    first = next(units(data), b"")
    is_packet = bool(first) and codec is not None and unit_type(first, codec) in FIRST_UNITS[codec]
    return codec if is_declared or is_packet else None


def image_bytes(message: Any, path: str) -> bytes:
    """Return the encoded bytes of an image or packet."""
    content = message.data
    try:
        data = base64.b64decode(content, validate=True) if isinstance(content, str) else bytes(content)
    except (ValueError, TypeError) as error:
        raise SourceError(f"{path}: the image is not valid base64", reason="bad_image") from error
    is_depth = data[DEPTH_HEADER:].startswith(PNG) and "compressedDepth" in str(getattr(message, "format", ""))
    if is_depth and str(message.format).startswith("16UC1"):
        return data[DEPTH_HEADER:]
    return data


def _pixels(message: Any, path: str) -> Array:
    """Return an image [H, W, C] in RGB order; raise SourceError if its data do not fit its declared size."""
    name, channels = PIXELS[message.encoding]
    dtype = np.dtype(name).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and row <= step and len(message.data) == height * step):
        declared = f"{height} rows of {step} bytes for {width} pixels"
        raise SourceError(f"{path}: an image with {declared} has {len(message.data)} bytes", reason="bad_image")
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row]
    frame = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    return np.ascontiguousarray(frame[..., ::-1] if message.encoding == "bgr8" else frame).astype(name, copy=False)
