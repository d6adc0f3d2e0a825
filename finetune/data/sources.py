"""Opens the datasets of a lock for a loader."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.data.cache import BlockCache, RemoteRanges
from finetune.data.records import FileRecords, Records
from schemas.errors import MixtureError, OxeError, SourceError, UnreachableError, did_you_mean
from schemas.mixture.drift import cannot_compare, changes, place
from schemas.mixture.lock import Lock
from schemas.source import Array
from schemas.store.arrow import Camera
from schemas.store.checks import FIX, crc
from schemas.store.dataset import Dataset, open_dataset
from schemas.store.ranges import LocalRanges, Ranges
from stats.locked import locked_norm, locked_state_norm
from stats.norm import NormStats

OPEN = 128  # most data files open at once; each uses two descriptors, and a process usually may have 1024


class File(NamedTuple):
    """One data file, and the records of its steps."""

    place: str
    images: Ranges
    records: FileRecords

    def image(self, start: int, length: int, expected: int) -> bytes:
        """Read an image and compare it with its CRC-32C; -1 if that is not known.

        Raises SourceError if it is damaged, also when it is read again.
        """
        data = self.images.read(start, length)
        if expected in {-1, crc(data)}:
            return data
        data = self.images.again(start, length)
        if crc(data) != expected:
            raise SourceError(f"damaged (the image does not have the CRC-32C of the index); {FIX}", reason="bad_image")
        return data


@dataclass(frozen=True, kw_only=True)
class LockedSource:
    """One dataset of a lock, opened: its records, cameras, files, and the mapping of its actions to the mixture's."""

    name: str
    dataset: Dataset
    records: Records
    cameras: tuple[tuple[int, Camera] | None, ...]  # requested cameras, with their numbers in the index; or None
    places: Array  # [D] int64: index of each mixture dimension in this source's actions; -1 if it is missing
    norm: NormStats  # statistics of the actions, in the mixture's dimensions
    state_norm: NormStats | None  # statistics of the view's states; None if there are none
    files: list[str]
    file: Array  # [E] int64: index of each episode's file
    row: Array  # [E] int64: the episode's first row in its file
    cache: BlockCache

    def open(self, name: str) -> File:
        """Open a data file and its records."""
        folder = self.dataset.folder
        if folder.local is not None:
            images: Ranges = LocalRanges(folder.local / name)
        else:
            images = RemoteRanges(folder, name, key=self.dataset.digest, cache=self.cache)
        return File(folder.place(name), images, self.records.of(name))

    def action(self, action: Array) -> Array:
        """Convert this source's actions to the mixture's dimensions, [..., D]. Missing dimensions are 0."""
        valid = self.places >= 0
        mixed = np.zeros((*action.shape[:-1], len(self.places)), np.float32)
        mixed[..., valid] = action[..., self.places[valid]]
        return mixed


class OpenFiles:
    """The open data files of one process."""

    def __init__(self, sources: Sequence[LockedSource]) -> None:
        self._sources = sources
        self._open: dict[tuple[int, int], File] = {}

    def get(self, source: int, number: int) -> File:
        """Return a file by its number in a source's list. If too many are open, the one opened first is closed."""
        file = self._open.get((source, number))
        if file is None:
            file = self._sources[source].open(self._sources[source].files[number])
            while len(self._open) >= OPEN:
                self._open.pop(next(iter(self._open)), None)
            self._open[source, number] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open files."""
        return {**self.__dict__, "_open": {}}


def open_sources(
    lock: Lock, folder: Path, *, cameras: Sequence[str], may_lack: bool, cache: BlockCache
) -> list[LockedSource]:
    """Open the datasets of a lock that is in `folder`. Raises MixtureError if a dataset is missing or has changed."""
    if why := cannot_compare(lock):
        raise MixtureError(f"{lock.name}: {why}")
    datasets, problems = [], []
    for name, source in lock.sources.items():
        try:
            dataset = open_dataset(place(source.uri, folder))
            problems += [f"{name}: {change}" for change in changes(lock, source, dataset)]
            datasets.append(dataset)
        except UnreachableError:
            raise
        except OxeError as error:
            problems.append(f"{name}: {error}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise MixtureError(
            f"{lock.name}: the datasets differ from the lock: {'; '.join(problems[:3])}{more}; 'oxe mix verify' lists "
            "all differences, 'oxe mix lock' locks the current datasets"
        )
    return [
        _source(lock, name, dataset, cameras=_cameras(dataset, cameras, may_lack=may_lack), cache=cache)
        for name, dataset in zip(lock.sources, datasets, strict=True)
    ]


def _source(
    lock: Lock, name: str, dataset: Dataset, *, cameras: tuple[tuple[int, Camera] | None, ...], cache: BlockCache
) -> LockedSource:
    rows = dataset.index.rows
    return LockedSource(
        name=name,
        dataset=dataset,
        records=Records(dataset, view=lock.view, cache=cache.folder.parent),
        cameras=cameras,
        places=lock.places(name),
        norm=locked_norm(lock, name),
        state_norm=locked_state_norm(lock, name),
        files=[file["path"] for file in dataset.manifest["files"]],
        file=rows["file"].astype(np.int64),
        row=rows["row"].astype(np.int64),
        cache=cache,
    )


def _cameras(dataset: Dataset, names: Sequence[str], *, may_lack: bool) -> tuple[tuple[int, Camera] | None, ...]:
    """Find cameras by role or leaf. Returns None for each missing camera, or raises MixtureError unless `may_lack`."""
    known = dataset.columns.colour_cameras()
    for name in names:
        if name not in known and not may_lack:
            raise MixtureError(
                f"{dataset.uri}: no colour camera '{name}'{did_you_mean(name, known)}; missing='black' returns black "
                "images for a missing camera"
            )
    return tuple(known.get(name) for name in names)
