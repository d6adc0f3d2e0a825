"""Encode raw pixels as images; all readers compress frames here."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from schemas.errors import SourceError, SpecError
from schemas.limits import above_limit
from schemas.source import Array

TOLERANCE = {2: 0.25, 4: 0.01, 8: 0.01}  # tolerance of float pixels in 1/255, keyed by item size in bytes


def encode(frame: Array, images: str, *, subsampling: str = "444") -> bytes:
    """Encode one frame: [H, W, C] uint8 with C = 1 or 3, or [H, W, 1] uint16, which must be PNG.

    `images` is `png`, which is lossless, or `jpeg` and a quality. A file with `jpeg 95` has about a tenth of the size
    of a PNG. `subsampling` is the chroma subsampling of a JPEG.
    """
    form, _, quality = images.partition(" ")
    if form == "jpeg":
        space = "RGB" if frame.shape[-1] == 3 else "GRAY"
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=int(quality), colorspace=space, colorsubsampling=subsampling
        )
        return encoded
    out = io.BytesIO()
    Image.fromarray(frame if frame.shape[-1] == 3 else frame[..., 0]).save(out, "PNG", compress_level=1)
    return out.getvalue()


def strip_padding(rows: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Strip the trailing zeros from encoded images; raise SourceError for a row that has only zeros."""
    for number, row in enumerate(rows):
        image = row.rstrip(b"\0")
        if not image:
            raise SourceError(
                f"{path}: row {number} contains only zeros, so its frame was never written", reason="bad_image"
            )
        yield image


def collect_bytes(items: Iterable[bytes], path: str, *, limit: int) -> list[bytes]:
    """Collect byte strings into a list; raise SourceError if they have more than `limit` bytes in total."""
    collected: list[bytes] = []
    size = 0
    for item in items:
        collected.append(item)
        size += len(item)
        if size > limit:
            raise above_limit(limit, "bytes in one episode", what=path)
    return collected


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How an array [T, ...] stores frames."""

    is_channels_first: bool
    has_alpha: bool  # a fourth channel, which is dropped
    white: float | None  # the value of white if pixels are floats; None if they are uint8

    @classmethod
    def of(cls, words: str = "hwc") -> "PixelLayout":
        """Parse a declaration.

        >>> PixelLayout.of("chw 0..1")
        PixelLayout(is_channels_first=True, has_alpha=False, white=1.0)
        """
        axes, *options = words.split()
        ranges = [word for word in options if ".." in word]
        return cls(axes == "chw", "rgba" in options, float(ranges[0].rpartition("..")[2]) if ranges else None)

    def channels(self, kind: Any, shape: tuple[int, ...]) -> int | None:
        """Return the number of channels of the encoded images; None if the array's type or shape is not an image's."""
        fits = np.issubdtype(kind, np.floating) if self.white else kind == np.uint8
        if not fits or len(shape) != 4 or 0 in shape[1:]:
            return None
        channels = shape[1] if self.is_channels_first else shape[3]
        if self.has_alpha:
            return 3 if channels == 4 else None
        return channels if channels in {1, 3} else None

    def declared_channels(self, kind: Any, shape: tuple[int, ...], *, path: str) -> int:
        """Return the number of channels of a declared image field; raise SpecError if it does not hold images."""
        if (channels := self.channels(kind, shape)) is None:
            raise SpecError(
                f"source.frames: {path} is {np.dtype(kind).name} {list(shape)}, but an image is uint8, "
                "or floats with a declared range such as 'hwc 0..1', with 1 or 3 channels, or with 4 and 'hwc rgba'"
            )
        return channels

    def __call__(self, block: Array, path: str) -> Array:
        """Convert stored frames to [T, H, W, C] uint8.

        Raises SourceError if float pixels, scaled by 255 / `white`, are not whole numbers from 0 to 255.
        """
        frames = np.moveaxis(block, 1, -1) if self.is_channels_first else block
        if self.has_alpha:
            frames = frames[..., :3]
        if self.white is None:
            return frames
        scaled = np.nan_to_num(frames.astype(np.float64) * (255 / self.white), nan=-1, posinf=-1, neginf=-1)
        whole = np.rint(scaled)
        if (np.abs(scaled - whole) > TOLERANCE[block.dtype.itemsize]).any() or whole.min() < 0 or whole.max() > 255:
            message = f"{path}: pixels are not whole numbers in 0..255 after scaling {self.white:g} to 255"
            raise SourceError(message, reason="bad_image")
        return whole.astype(np.uint8)
