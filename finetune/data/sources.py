"""The datasets of a lock as a loader reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from finetune.data.cache import BlockCache, LocalRanges, Ranges, RemoteRanges
from finetune.data.records import FileRecords, Records
from schemas.errors import MixtureError, OxeError, UnreachableError, did_you_mean
from schemas.mixture.drift import cannot_compare, changes, place
from schemas.mixture.lock import Lock
from schemas.source import Array
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset, open_dataset
from stats.norm import KNOWN, NormStats
from stats.record import Statistics

OPEN = 128  # data files of a loader; each takes two descriptors, of which a process may have 1024 as a rule


class File(NamedTuple):
    """One data file, and the records of its steps."""

    place: str
    images: Ranges
    records: FileRecords


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset: where its episodes are, what its records hold, and how its actions become those of the mixture."""

    name: str
    dataset: Dataset
    records: Records
    cameras: tuple[tuple[int, Camera] | None, ...]  # those that are asked for: number in the index; None: it has none
    places: Array  # [D] int64: the mixture's dimensions in this source's own, -1 where it has none
    norm: NormStats  # of the mixture's dimensions
    state_norm: NormStats | None  # None: it has no state
    files: list[str]
    file: Array  # [E] int64: which of the files each episode is in
    row: Array  # [E] int64: its first row there
    cache: BlockCache

    def open(self, name: str) -> File:
        """Open a data file and its records."""
        folder = self.dataset.folder
        if folder.local is not None:
            images: Ranges = LocalRanges(folder.local / name)
        else:
            images = RemoteRanges(folder, name, key=self.dataset.manifest["xxh3_128"], cache=self.cache)
        return File(folder.place(name), images, self.records.of(name))

    def action(self, action: Array) -> Array:
        """Give actions [..., D] of the mixture; what this source does not have is 0."""
        valid = self.places >= 0
        own = np.zeros((*action.shape[:-1], len(self.places)), np.float32)
        own[..., valid] = action[..., self.places[valid]]
        return own


class OpenFiles:
    """The files that one process has open."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._open: dict[tuple[int, int], File] = {}

    def get(self, source: int, number: int) -> File:
        """Give a file by its number in a source's list; the one that was opened first makes room."""
        found = self._open.get((source, number))
        if found is None:
            opened = self._sources[source]
            found = opened.open(opened.files[number])
            while len(self._open) >= OPEN:
                self._open.pop(next(iter(self._open)), None)
            self._open[source, number] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind."""
        return {**self.__dict__, "_open": {}}


def opened(lock: Lock, beside: Path, *, cameras: Sequence[str], may_lack: bool, cache: BlockCache) -> list[Source]:
    """Open the datasets of a lock; what is missing or has changed since is a MixtureError that names it."""
    if why := cannot_compare(lock):
        raise MixtureError(f"{lock.name}: {why}")
    found, wrong = [], []
    for name, source in lock.sources.items():
        try:
            dataset = open_dataset(place(source.uri, beside))
            wrong += [f"{name}: {what}" for what in changes(lock, source, dataset)]
            found.append(dataset)
        except UnreachableError:
            raise
        except OxeError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise MixtureError(
            f"{lock.name}: not what was locked: {'; '.join(wrong[:3])}{more}; 'oxe mix verify' names all, and "
            "'oxe mix lock' locks what is there now"
        )
    return [
        _source(lock, name, dataset, cameras=_cameras(dataset, cameras, may_lack=may_lack), cache=cache)
        for name, dataset in zip(lock.sources, found, strict=True)
    ]


def _source(
    lock: Lock, name: str, dataset: Dataset, *, cameras: tuple[tuple[int, Camera] | None, ...], cache: BlockCache
) -> Source:
    key = lock.sources[name].statistics
    statistics = Statistics.from_json(lock.statistics[key], where=f"{lock.name}: statistics of {key}")
    places = lock.places(name)
    table = dataset.episodes.select("file", "row").collect()
    files = table["file"].unique(maintain_order=True)
    return Source(
        name=name,
        dataset=dataset,
        records=Records(dataset, view=lock.view, cache=cache.folder.parent),
        cameras=cameras,
        places=places,
        norm=_placed(statistics.norm(), places, lock.dims),
        state_norm=statistics.norm("state") if dataset.columns.state else None,
        files=files.to_list(),
        file=table["file"].replace_strict(files, range(len(files)), return_dtype=pl.Int64).to_numpy(),
        row=table["row"].to_numpy(),
        cache=cache,
    )


def _placed(norm: NormStats, places: Array, names: tuple[str, ...]) -> NormStats:
    """Give statistics of the mixture's dimensions; one that the source lacks passes through."""
    valid = places >= 0
    figures = {word: own for word in KNOWN if (own := getattr(norm, word)) is not None}
    placed: dict[str, Any] = {word: np.where(valid, own[..., places], 0.0) for word, own in figures.items()}
    return NormStats(names=names, mask=valid & norm.mask[places], **placed)


def _cameras(dataset: Dataset, names: Sequence[str], *, may_lack: bool) -> tuple[tuple[int, Camera] | None, ...]:
    """Find cameras by leaf or role."""
    known = dataset.columns.colour_cameras()
    for name in names:
        if name not in known and not may_lack:
            raise MixtureError(
                f"{dataset.uri}: no colour camera '{name}'{did_you_mean(name, known)}; missing='black' shows black "
                "where there is none"
            )
    return tuple(known.get(name) for name in names)
