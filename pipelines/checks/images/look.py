"""How an episode looks: hashes of a few frames of each camera, which tell two recordings of one path apart.

Scripted demonstrations repeat a path in new scenes, so equal paths alone are no duplicates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.beam.counts import Mergeable
from pipelines.checks.images.read import SIDE, thumbnail
from pipelines.checks.parts import CheckPart
from pipelines.checks.table import MeasureTable
from schemas.source import Array
from schemas.store.dataset import Dataset

KEYS = 5  # frames, from the first to the last one
LOW = 8  # the lowest frequencies in each direction make a hash of 64 bits
FLAT = 3.0  # standard deviation of grey values below which a frame has no structure, and hash 0
COSINES = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(LOW)[:, None])  # [LOW, SIDE] of a DCT-II


@dataclass(frozen=True, slots=True)
class LooksPass:
    """A picklable CountFunction that returns how the episodes of a part look, with the key `<dataset>.episodes`."""

    def __call__(self, part: CheckPart) -> Iterator[tuple[str, Mergeable]]:
        """Read one part."""
        dataset, positions = part.open(), np.concatenate(part.positions)
        looks = np.array([_looks(dataset, position) for position in positions.tolist()])
        yield f"{part.about.member}.episodes", MeasureTable([{"episode": positions, "look": looks}])


def _looks(dataset: Dataset, position: int) -> Array:
    """Return the hashes of the colour cameras, [C, KEYS] uint64; 0 for a frame that is missing, broken or flat."""
    path, row, length = dataset.where(position)
    file = dataset.file(path)
    rows = row + np.linspace(0, length - 1, KEYS).round().astype(np.int64)
    cameras = [i for i, camera in enumerate(dataset.columns.cameras) if not camera.is_depth]
    out = np.zeros((len(cameras), KEYS), np.uint64)
    for number, camera in enumerate(cameras):
        frames = [file.image(at, camera) for at in rows.tolist()]
        out[number] = [phash(pixels) if (pixels := _grey(data)) is not None else 0 for data in frames]
    return out


def _grey(data: bytes | memoryview | None) -> Array | None:
    pixels = thumbnail(bytes(data), "GRAY") if data else None
    return None if pixels is None else pixels[..., 0].astype(np.float64)


def phash(grey: Array) -> int:
    """Return the perceptual hash of a grey image [SIDE, SIDE]: which low frequencies are above their median.

    See Zauner (2010), "Implementation and benchmarking of perceptual image hash functions".
    """
    if grey.std() < FLAT:
        return 0
    frequencies = (COSINES @ grey @ COSINES.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def apart(first: Array, second: Array) -> Array:
    """Return the mean number of bits by which looks [..., C, KEYS] differ; 0 without cameras."""
    if not first.shape[-2]:
        return np.zeros(first.shape[:-2])
    return np.asarray(np.bitwise_count(first ^ second).mean(axis=(-2, -1)))
