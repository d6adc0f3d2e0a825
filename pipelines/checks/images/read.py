"""Decode the images of one episode once for all rules, small and on a sample of its frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.checks.batch import About, NumberBatch
from schemas.codec import decode
from schemas.errors import SourceError
from schemas.images import JPEG
from schemas.source import Array
from schemas.store.columns import STATE
from schemas.store.dataset import Dataset

SIDE = 64  # height and width of the thumbnails
ENDS = 4  # frames at each end that are decoded in colour
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as in a JPEG
SPREAD, WINDOW, SMALL = 16, 64, 16  # frames spread over the episode; following each other; with unusually few bytes
FEW_BYTES = 0.6  # share of a camera's median number of bytes; black frames have much less


@dataclass(frozen=True, kw_only=True)
class CameraFrames:
    """The frames of one camera in one episode of T steps, of which n were decoded."""

    sizes: Array  # [T] stored bytes; 0: the frame is missing
    sums: Array  # [T] their CRC-32C
    steps: Array  # [n] the steps that were decoded, ascending
    grey: Array  # [n, SIDE, SIDE] float32, 0 to 255
    ends: Array  # [2, k, SIDE, SIDE, 3] uint8 RGB: the first and the last ENDS frames, or fewer
    broken: tuple[int, ...]  # steps whose image cannot be decoded

    @cached_property
    def changes(self) -> tuple[Array, Array]:
        """The steps [m] whose next step was decoded too, and the mean difference of the two frames in grey [m]."""
        neighbours = np.flatnonzero(np.diff(self.steps) == 1)
        differences = np.abs(self.grey[neighbours + 1] - self.grey[neighbours]).reshape(-1, SIDE * SIDE)
        return self.steps[neighbours], differences @ np.full(SIDE * SIDE, 1 / SIDE**2, np.float32)


@dataclass(frozen=True, kw_only=True)
class EpisodeImages:
    """The images of one episode, and how its robot moves."""

    about: About
    episode: int
    length: int
    cameras: Mapping[str, CameraFrames]
    state: Array | None  # [T, S]

    @cached_property
    def motion(self) -> Array | None:
        """The motion to the next step, as a share of the usual range of each dimension, [T, S]; None without states."""
        if self.state is None:
            return None
        one = np.array([self.length])
        batch = NumberBatch(
            about=self.about,
            episodes=np.array([self.episode]),
            starts=np.array([0]),
            lengths=one,
            columns={STATE: self.state, "action": np.zeros((self.length, 0), np.float32)},
        )
        return batch.moved


def read(dataset: Dataset, position: int, *, about: About, all_frames: bool) -> EpisodeImages:
    """Read an episode's frames: all of them, or a sample of at most 96 for each camera."""
    path, row, length = dataset.where(position)
    state = None
    if about.state is not None:
        table = dataset.rows(path, row, length, names=[STATE])
        state = np.asarray(table[STATE].chunk(0).flatten()).reshape(length, -1)
    file = dataset.file(path)
    entries = file.index.images[row : row + length]
    cameras = {}
    window = _window(state, length)
    for number, camera in enumerate(dataset.columns.cameras):
        if camera.is_depth:
            continue
        sizes = entries["length"][:, number]
        steps = np.flatnonzero(sizes) if all_frames else _sampled(sizes, window)
        encoded = {step: file.image(row + step, number) or b"" for step in steps.tolist()}
        cameras[camera.leaf] = _frames(entries[:, number], encoded)
    return EpisodeImages(about=about, episode=position, length=length, cameras=cameras, state=state)


def _frames(entries: Array, encoded: Mapping[int, bytes]) -> CameraFrames:
    """Decode the frames at both ends in colour, the others in grey."""
    order = list(encoded)
    coloured = {*order[:ENDS], *order[-ENDS:]}
    decoded = {step: thumbnail(data, "RGB" if step in coloured else "GRAY") for step, data in encoded.items()}
    whole = {step: image for step, image in decoded.items() if image is not None}
    parts = [[whole[step] for step in part if step in whole] for part in (order[:ENDS], order[-ENDS:])]
    count = min(map(len, parts))
    ends = np.array([part[:count] for part in parts], np.uint8).reshape(2, count, SIDE, SIDE, 3)
    grey = [image @ LUMA if step in coloured else image[..., 0] for step, image in whole.items()]
    return CameraFrames(
        sizes=entries["length"],
        sums=entries["crc"],
        steps=np.array(list(whole), np.int64),
        grey=np.array(grey, np.float32).reshape(-1, SIDE, SIDE),
        ends=ends,
        broken=tuple(step for step in encoded if step not in whole),
    )


def _window(state: Array | None, length: int) -> tuple[int, int]:
    """Choose WINDOW steps that follow each other: those in which the state moves most."""
    if length <= WINDOW or state is None:
        return 0, min(length, WINDOW)
    scale = np.ptp(state, axis=0)
    changes = np.abs(np.diff(state, axis=0)) / np.where(scale > 0, scale, np.inf)
    total = np.concatenate([[0], np.cumsum(changes.sum(axis=1))])
    first = int(np.argmax(total[WINDOW - 1 :] - total[: len(total) - WINDOW + 1]))
    return first, first + WINDOW


def _sampled(sizes: Array, window: tuple[int, int]) -> Array:
    """Choose the steps to decode: some of the whole episode, a window, and those with few bytes."""
    present = np.flatnonzero(sizes)
    if not len(present):
        return present
    spread = present[np.unique(np.linspace(0, len(present) - 1, SPREAD).round().astype(np.int64))]
    few = present[sizes[present] < FEW_BYTES * np.median(sizes[present])]
    few = few[np.unique(np.linspace(0, len(few) - 1, SMALL).round().astype(np.int64))] if len(few) else few
    inside = present[(present >= window[0]) & (present < window[1])]
    return np.unique(np.concatenate([spread, inside, few]))


def thumbnail(data: bytes, colours: Literal["GRAY", "RGB"]) -> Array | None:
    """Decode an image to SIDE x SIDE, uint8, [64, 64, 1] or [64, 64, 3]; None if it cannot be decoded.

    A JPEG is decoded at the smallest of its own scales that is large enough, which also bounds the memory.
    """
    try:
        if data[:2] == JPEG:
            pixels = simplejpeg.decode_jpeg(
                data, colours, fastdct=True, fastupsample=True, min_height=SIDE, min_width=SIDE
            )
        else:
            pixels = decode(data)
    except (SourceError, ValueError):
        return None
    if pixels.shape[:2] == (SIDE, SIDE) and (pixels.shape[2] == 1) == (colours == "GRAY"):
        return np.asarray(pixels)
    image = Image.fromarray(pixels.squeeze()).convert("L" if colours == "GRAY" else "RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(SIDE, SIDE, -1)
