"""Which encoded images the readers of each format open, and how to re-encode those that they cannot."""

from collections.abc import Callable
from typing import TypeAlias

from pipelines.readers.pixels import encode
from schemas.codec import decode
from schemas.episode import Frames
from schemas.errors import DatasetError, SourceError
from schemas.images import ImageHeader, Sniffer

DEEP = 16  # bits per channel
Check: TypeAlias = Callable[[ImageHeader], str]  # returns why an image cannot be opened; empty if it can be


def why_not_lerobot(header: ImageHeader, *, is_depth: bool) -> str:
    """Return why LeRobot would read wrong colours from an image in an image column; empty if it reads it.

    LeRobot converts what Pillow opens to a tensor, whatever the channels mean.
    """
    if header.format == "jpeg" and header.channels > 3:
        return "a JPEG in CMYK, whose inks LeRobot would read as colours"
    if header.is_palette:
        return "a PNG with a palette, whose numbers LeRobot would read as colours"
    if header.channels == 1 and header.bits == DEEP and not is_depth:
        return "a grey PNG with 16 bits, which LeRobot would read as depth"
    return ""


def lerobot_channels(header: ImageHeader) -> int:
    """Return the number of channels that LeRobot reads; Pillow opens grey with alpha and 16 bits as RGBA."""
    return 4 if header.channels == 2 and header.bits == DEEP else header.channels


def rlds_channels(header: ImageHeader) -> int:
    """Return the number of channels that TensorFlow decodes from an image.

    TensorFlow converts CMYK to RGB. It cannot decode grey with alpha to two channels, so that becomes RGB as well.
    """
    return min(header.channels, 3) if header.format == "jpeg" else {2: 3}.get(header.channels, header.channels)


def why_not_rlds(header: ImageHeader, first: ImageHeader, *, is_depth: bool) -> str:
    """Return why TensorFlow cannot decode an image, in a feature that the camera's first image describes.

    The result is empty if it can. Colours with 16 bits are decoded to 8, as our loader does; depth keeps its values.
    """
    if header.format == "jpeg" and header.bits > 8:
        return f"a JPEG with {header.bits} bits per channel, which TensorFlow cannot decode"
    if is_depth and header.bits != first.bits:
        return f"{header.bits} bits per channel, but the camera's first image has {first.bits}"
    if rlds_channels(first) == 1 and rlds_channels(header) > 1:
        return "colours, but the camera's first image is grey, so TensorFlow would decode it as grey"
    return ""


def checked(frames: Frames, check: Check, *, where: str) -> Frames:
    """Return the images; raise DatasetError for the first one that cannot be opened."""
    sniff = Sniffer()
    for step, frame in enumerate(frames):
        if frame is not None and (why := check(sniff(frame))):
            raise DatasetError(f"{where}: step {step} is {why}")
    return frames


def as_png(frames: Frames, *, where: str) -> Frames:
    """Re-encode images as RGB PNGs with 8 bits; raise DatasetError if one cannot be decoded."""
    try:
        return [None if frame is None else encode(decode(frame), "png") for frame in frames]
    except SourceError as error:
        raise DatasetError(f"{where}: {error.message}") from error
