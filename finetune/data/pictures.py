"""Decodes the images of drawn steps with the loader's preprocessing.

The memory of images is reused once no batch references it. New memory has to be cleared by the operating system, which
would make decoding 10% slower.
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

BLOCKS_PER_SIZE = 4  # how many blocks of one size each thread keeps


class Pictures(NamedTuple):
    """The decoded images of a batch."""

    images: dict[str, Array]  # by camera: [B, H, h, w, 3] uint8 RGB
    missing: dict[str, Array]  # by camera: [B, H] bool; missing images are black
    broken: tuple[str, ...]  # [B] why an image could not be decoded, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Decodes the images of batches."""

    cameras: tuple[str, ...]
    preprocessing: Preprocessing
    seed: int
    may_lack: bool
    may_break: bool

    def decode(self, windows: Windows, draws: Array) -> Pictures:
        """Decode the images of `windows`.

        Raises DatasetError if an image is missing, unless `may_lack`, or damaged, unless `may_break`.
        """
        images: dict[str, Array] = {}
        missing: dict[str, Array] = {}
        broken = [""] * len(draws)
        for k, camera in enumerate(self.cameras):
            ranges = windows.ranges[:, :, k]
            missing[camera] = ranges[..., 1] == 0
            if not self.may_lack and missing[camera].any():
                i, h = np.argwhere(missing[camera])[0].tolist()
                raise DatasetError(
                    f"{_where(windows, camera, i, h)}: has no image; missing='black' returns a black image"
                )
            size = self.preprocessing.size or _first_size(windows.files, ranges)
            images[camera] = _fresh((*ranges.shape[:2], *size, 3))
            for i, spans in enumerate(ranges.tolist()):
                change = self.preprocessing.change(self.seed, int(draws[i]), camera=k)
                for h, span in enumerate(spans):
                    try:
                        self._decode(windows, (i, h, k), span, change=change, out=images[camera][i, h])
                    except SourceError as error:
                        broken[i] = f"{_where(windows, camera, i, h)}: {error}"
                        if not self.may_break:
                            fix = "corrupt='substitute' replaces such steps by others"
                            raise DatasetError(f"{broken[i]}; {fix}") from error
        return Pictures(images, missing, tuple(broken))

    def _decode(
        self, windows: Windows, at: tuple[int, int, int], span: list[int], *, change: Change | None, out: Array
    ) -> None:
        """Decode one image into `out`."""
        i, _, k = at
        if not span[1]:
            out[...] = 0
            return
        data = windows.files[i].image(*span)
        pixels = self.preprocessing.decoded(data, out if self.preprocessing.size is None else None)
        if windows.is_bgr[i, k]:
            pixels = pixels[..., ::-1].copy()
        pixels = self.preprocessing.augmented(pixels, change)
        if pixels.shape != out.shape:
            raise UsageError(
                f"{windows.files[i].place}: an image is {pixels.shape[0]} x {pixels.shape[1]}, others of the batch are "
                f"{out.shape[0]} x {out.shape[1]}: set a size in the preprocessing"
            )
        if not np.may_share_memory(pixels, out):
            out[...] = pixels


def _where(windows: Windows, camera: str, i: int, h: int) -> str:  # noqa: PLR0917 - i and h are one position
    return f"{windows.files[i].place}: camera '{camera}', row {windows.rows[i, h]}"


def _first_size(files: Sequence[File], ranges: Array) -> tuple[int, int]:
    """Return the size of the first image whose header can be read."""
    for file, spans in zip(files, ranges.tolist(), strict=True):
        for span in spans:
            if span[1]:
                with suppress(SourceError):  # `Decoder.decode` reports damaged images
                    header = sniff(file.image(*span))
                    return header.height, header.width
    raise UsageError("no image of the batch can be read: set a size in the preprocessing")


# Memory


class _Blocks(threading.local):
    """The blocks of memory that a thread reuses, by size."""

    def __init__(self) -> None:
        self.by_size: dict[int, list[Array]] = {}


_BLOCKS = _Blocks()


def _references(blocks: list[Array]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


UNUSED = _references([np.empty(0)])[0]  # reference count of an unused block, which depends on the Python version


def _fresh(shape: tuple[int, ...]) -> Array:
    """Return an uninitialized uint8 array that nothing else references.

    Views of the array, and tensors that share its memory, count as references to the block.
    """
    size = math.prod(shape)
    blocks = _BLOCKS.by_size.setdefault(size, [])
    for block, count in zip(blocks, _references(blocks), strict=True):
        if count == UNUSED:
            return block.reshape(shape)
    block = np.empty(size, np.uint8)
    if len(blocks) < BLOCKS_PER_SIZE:
        blocks.append(block)
    return block.reshape(shape)
