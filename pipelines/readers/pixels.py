"""Raw pixels become encoded images: the one place where a frame is compressed."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from schemas.errors import SourceError, SpecError
from schemas.source import Array

NEAR = {2: 0.25, 4: 0.01, 8: 0.01}  # of 255, by the bytes of a float: how far a pixel may be from a whole number


def encode(frame: Array, images: str, *, subsampling: str = "444") -> bytes:
    """Encode one frame [H, W, C] uint8, C 1 or 3: `png` loses nothing, `jpeg 95` is a tenth of the size.

    `subsampling` is that of a JPEG's colours; more than the frame ever had would only take space.

    As `png` it may also be uint16, C 1.
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


def unpadded(rows: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Take the zeros behind encoded images; a row of nothing but zeros is a SourceError: nobody wrote its frame."""
    for number, row in enumerate(rows):
        image = row.rstrip(b"\0")
        if not image:
            raise SourceError(
                f"{path}: row {number} holds zeros alone: its frame was never written", reason="bad_image"
            )
        yield image


def gathered(frames: Iterable[bytes], path: str, *, limit: int) -> list[bytes]:
    """List encoded frames as they come; more bytes than `limit` are a SourceError."""
    found: list[bytes] = []
    held = 0
    for frame in frames:
        found.append(frame)
        held += len(frame)
        if held > limit:
            raise SourceError(f"{path}: more than {limit} bytes in one episode", reason="too_large")
    return found


@dataclass(frozen=True, slots=True)
class Pixels:
    """How an array [T, ...] holds frames."""

    is_channels_first: bool
    has_alpha: bool  # a fourth channel, which is left out
    white: float | None  # of float pixels; None: bytes

    @classmethod
    def of(cls, words: str = "hwc") -> "Pixels":
        """Read a declaration.

        >>> Pixels.of("chw 0..1")
        Pixels(is_channels_first=True, has_alpha=False, white=1.0)
        """
        axes, *more = words.split()
        limits = [word for word in more if ".." in word]
        return cls(axes == "chw", "rgba" in more, float(limits[0].rpartition("..")[2]) if limits else None)

    def channels(self, kind: Any, shape: tuple[int, ...]) -> int | None:
        """Count the channels of the images that come of an array of this type and shape; None if it holds none."""
        fits = np.issubdtype(kind, np.floating) if self.white else kind == np.uint8
        if not fits or len(shape) != 4 or 0 in shape[1:]:
            return None
        held = shape[1] if self.is_channels_first else shape[3]
        if self.has_alpha:
            return 3 if held == 4 else None
        return held if held in {1, 3} else None

    def declared_channels(self, kind: Any, shape: tuple[int, ...], *, path: str) -> int:
        """Do what `channels` does for a field that a declaration names; one that holds no images is a SpecError."""
        if (found := self.channels(kind, shape)) is None:
            raise SpecError(
                f"source.frames: {path} is {np.dtype(kind).name} {list(shape)}, which does not fit; images are uint8, "
                "or floats with their range such as 'hwc 0..1', with 1 or 3 channels, or with 4 as 'hwc rgba'"
            )
        return found

    def __call__(self, block: Array, path: str) -> Array:
        """Give frames [T, H, W, C] uint8; float pixels that are no bytes are a SourceError."""
        frames = np.moveaxis(block, 1, -1) if self.is_channels_first else block
        if self.has_alpha:
            frames = frames[..., :3]
        if self.white is None:
            return frames
        scaled = np.nan_to_num(frames.astype(np.float64) * (255 / self.white), nan=-1, posinf=-1, neginf=-1)
        whole = np.rint(scaled)
        if (np.abs(scaled - whole) > NEAR[block.dtype.itemsize]).any() or whole.min() < 0 or whole.max() > 255:
            message = f"{path}: pixels that are no whole numbers of 0..255 when 255 is {self.white:g}"
            raise SourceError(message, reason="bad_image")
        return whole.astype(np.uint8)
