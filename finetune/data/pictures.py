"""The images of drawn steps, decoded as the preprocessing says.

Their memory is used again once nobody holds a batch that it was in: the kernel clears fresh memory page by page, which
would cost a tenth of decoding.
"""

import math
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from finetune.data.augment import Change
from finetune.data.preprocessing import Preprocessing
from finetune.data.sources import File
from finetune.data.windows import Windows
from schemas.errors import DatasetError, SourceError, UsageError
from schemas.images import sniff
from schemas.source import Array

HELD = 4  # blocks of a thread, of one size


class Pictures(NamedTuple):
    """What became of them."""

    images: dict[str, Array]  # by camera: [B, H, h, w, 3] uint8 RGB
    missing: dict[str, Array]  # by camera: [B, H] bool; black there
    broken: tuple[str, ...]  # [B] why an image could not be decoded, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """How the images of all batches are decoded."""

    cameras: tuple[str, ...]
    preprocessing: Preprocessing
    seed: int
    may_lack: bool
    may_break: bool

    def decode(self, windows: Windows, draws: Array) -> Pictures:
        """Decode the images of some windows; one that may not be missing, or broken, is a DatasetError."""
        images: dict[str, Array] = {}
        missing: dict[str, Array] = {}
        broken = [""] * len(draws)
        for k, camera in enumerate(self.cameras):
            ranges = windows.ranges[:, :, k]
            missing[camera] = ranges[..., 1] == 0
            if not self.may_lack and missing[camera].any():
                i, h = np.argwhere(missing[camera])[0].tolist()
                raise DatasetError(
                    f"{_place(windows, camera, i, h)}: there is no image; missing='black' shows black there"
                )
            size = self.preprocessing.size or _first_size(windows.files, ranges)
            images[camera] = _fresh((*ranges.shape[:2], *size, 3))
            for i, spans in enumerate(ranges.tolist()):
                change = self.preprocessing.change(self.seed, int(draws[i]), camera=k)
                for h, span in enumerate(spans):
                    try:
                        self._decode(windows, (i, h, k), span, change=change, out=images[camera][i, h])
                    except SourceError as error:
                        broken[i] = f"{_place(windows, camera, i, h)}: {error}"
                        if not self.may_break:
                            more = "corrupt='substitute' draws other steps in place of such ones"
                            raise DatasetError(f"{broken[i]}; {more}") from error
        return Pictures(images, missing, tuple(broken))

    def _decode(
        self, windows: Windows, at: tuple[int, int, int], span: list[int], *, change: Change | None, out: Array
    ) -> None:
        """Decode one image into its place."""
        i, _, k = at
        if not span[1]:
            out[...] = 0
            return
        data = windows.files[i].images.read(*span)
        pixels = self.preprocessing.decoded(data, out if self.preprocessing.size is None else None)
        if windows.is_bgr[i, k]:
            pixels = pixels[..., ::-1].copy()
        pixels = self.preprocessing.augmented(pixels, change)
        if pixels.shape != out.shape:
            raise UsageError(
                f"{windows.files[i].place}: images of {pixels.shape[0]} x {pixels.shape[1]} and of {out.shape[0]} x "
                f"{out.shape[1]} in one batch: give the preprocessing a size"
            )
        if not np.may_share_memory(pixels, out):
            out[...] = pixels


def _place(windows: Windows, camera: str, i: int, h: int) -> str:  # noqa: PLR0917 - two of them are one place
    return f"{windows.files[i].place}: camera '{camera}', row {windows.rows[i, h]}"


def _first_size(files: Sequence[File], ranges: Array) -> tuple[int, int]:
    """Tell the size of the first image that is one."""
    for file, spans in zip(files, ranges.tolist(), strict=True):
        for start, length in spans:
            if length:
                with suppress(SourceError):  # decoding says so
                    header = sniff(file.images.read(start, length))
                    return header.height, header.width
    raise UsageError("a batch without any image that can be read: give the preprocessing a size")


# Memory


class _Blocks(threading.local):
    """The blocks of one thread, by size."""

    def __init__(self) -> None:
        self.held: dict[int, list[Array]] = {}


_BLOCKS = _Blocks()


def _references(held: list[Array]) -> list[int]:
    return [sys.getrefcount(block) for block in held]


OURS = _references([np.empty(0)])[0]  # of a block that nobody else has; Python 3.14 counts fewer than those before


def _fresh(shape: tuple[int, ...]) -> Array:
    """Give an uint8 array that nobody else holds, with any content.

    Views of a numpy array, and tensors that share its memory, hold a reference to the block, which is counted.
    """
    size = math.prod(shape)
    held = _BLOCKS.held.setdefault(size, [])
    for block, count in zip(held, _references(held), strict=True):
        if count == OURS:
            return block.reshape(shape)
    block = np.empty(size, np.uint8)
    if len(held) < HELD:
        held.append(block)
    return block.reshape(shape)
