"""Reads windows from records: the numbers of a drawn step, and of the steps before and after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from finetune.data.records import FileRecords, Records
from finetune.data.sources import File, LockedSource, OpenFiles
from schemas.errors import DatasetError, MixtureError
from schemas.source import Array
from stats.norm import Figures, Method, NormStats, normalized


class WindowIndex(NamedTuple):
    """The source, episode and steps of B windows of H observations and C actions."""

    source: Array  # [B]
    position: Array  # [B] position of the episode in its dataset
    stored: Array  # [B, H + C] indices of steps in the stored episode: H for observations, then C for actions
    history: int  # H


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The numbers of B windows, and the byte ranges of their images."""

    files: list[File]  # [B]
    rows: Array  # [B, H + C] row of each step in the file
    action: Array  # [B, C, D]
    valid: Array  # [B, D] bool: False for dimensions that the source lacks
    state: Array | None  # [B, H, S]
    texts: tuple[str, ...]  # [B]
    ranges: Array  # [B, H, K, 3] offset, length and CRC-32C of each image; length 0 if there is none, CRC -1 if unknown
    is_bgr: Array  # [B, K] bool: whether the camera's images have the channel order BGR


class WindowReader:
    """Reads windows from records. Several threads may use it at once."""

    def __init__(self, sources: Sequence[LockedSource], *, method: Method, state: bool) -> None:
        """Raise MixtureError if `state` is set and the sources' states differ in dimensions or units."""
        self._sources, self._method, self._files = list(sources), method, OpenFiles(sources)
        self._action = _stacked([source.norm for source in sources], method)
        norms = _norms_of_state(sources) if state else []
        self._state = _stacked(norms, method) if norms else None
        self._states = len(norms[0].names) if norms else 0
        self._valid = np.stack([source.places >= 0 for source in sources])

    def read(self, index: WindowIndex) -> Windows:
        """Read the windows of a batch, and normalize their actions and states."""
        count, width = index.stored.shape
        dims, cameras = len(self._sources[0].places), len(self._sources[0].cameras)
        files: list[Any] = [None] * count
        texts = [""] * count
        windows = Windows(
            files=files,
            rows=np.empty_like(index.stored),
            action=np.empty((count, width - index.history, dims), np.float32),
            valid=self._valid[index.source],
            state=None if self._state is None else np.empty((count, index.history, self._states), np.float32),
            texts=(),
            ranges=np.zeros((count, index.history, cameras, 3), np.int64),
            is_bgr=np.zeros((count, cameras), bool),
        )
        for number in np.unique(index.source).tolist():
            samples = np.flatnonzero(index.source == number)
            records = self._records(number, samples, index, into=windows)
            self._fill(windows, samples, records, source=self._sources[number])
            for i, text in zip(samples.tolist(), records["text"][:, index.history].tolist(), strict=True):
                texts[i] = files[i].records.texts[text] if text >= 0 else ""
        _check_finite(windows.action, "action", rows=windows.rows[:, index.history :], files=files)
        state = windows.state
        if state is not None and self._state is not None:
            _check_finite(state, "state", rows=windows.rows, files=files)
            state = normalized(state, _rows(self._state, index.source), self._method)
        action = normalized(windows.action, _rows(self._action, index.source), self._method)
        return replace(windows, texts=tuple(texts), action=action, state=state)

    def _records(self, number: int, samples: Array, index: WindowIndex, *, into: Windows) -> Array:
        """Read the records of those windows that are from source `number`, [b, H + C]; `samples` are their indices."""
        source = self._sources[number]
        position = index.position[samples]
        rows = index.stored[samples] + source.row[position][:, None]
        into.rows[samples] = rows
        for i, file_number in zip(samples.tolist(), source.file[position].tolist(), strict=True):
            into.files[i] = self._files.get(number, file_number)
        files = [into.files[i].records for i in samples.tolist()]
        records, damaged = _gather(source.records, files, rows)
        if damaged is not None:
            for file in {files[i] for i in np.flatnonzero(damaged).tolist()}:
                file.renew()
            records, damaged = _gather(source.records, files, rows)
        if damaged is not None:
            raise files[damaged.argmax()].failing()
        if records["masked"].any():
            raise MixtureError(f"{source.name}: the view masks a step that the lock contains: lock the mixture again")
        return records

    def _fill(self, windows: Windows, samples: Array, records: Array, *, source: LockedSource) -> None:
        """Copy the records of one source into its windows; `samples` are their indices."""
        history = windows.ranges.shape[1]
        windows.action[samples] = source.action(records["action"][:, history:])
        if windows.state is not None:
            windows.state[samples] = records["state"][:, :history]
        for k, camera in enumerate(source.cameras):
            if camera is not None:
                image = records["image"][:, :history, camera[0]]
                windows.ranges[samples, :, k, 0] = image["offset"]
                windows.ranges[samples, :, k, 1] = image["length"]
                windows.ranges[samples, :, k, 2] = image["crc"] if source.records.has_crc else -1
                windows.is_bgr[samples, k] = camera[1].channels == "bgr"


def _check_finite(vectors: Array, name: str, *, rows: Array, files: Sequence[File]) -> None:
    """Raise DatasetError if a vector [B, T, D] is not finite; `rows` [B, T] are their rows in `files` [B]."""
    if not np.isfinite(vectors).all():
        i, step = np.argwhere(~np.isfinite(vectors).all(axis=2))[0].tolist()
        raise DatasetError(
            f"{files[i].place}: the {name} in row {rows[i, step]} is not finite; exclude its episode with a filter in "
            "the mixture"
        )


def _gather(records: Records, files: Sequence[FileRecords], rows: Array) -> tuple[Array, Array | None]:
    """Read the records in the `rows` [B, N] of files [B]; also returns which windows have a damaged one, if any."""
    parts, starts, start = [], [], 0
    spans = zip(rows.min(axis=1).tolist(), rows.max(axis=1).tolist(), strict=True)
    for file, (first, last) in zip(files, spans, strict=True):
        parts.append(file.raw(first, last - first + 1))
        starts.append(start - first)
        start += last - first + 1
    table = np.frombuffer(b"".join(parts), records.dtype)
    gathered: Array = table[rows + np.array(starts)[:, None]]
    return gathered, records.sums.damaged(gathered, rows)


def _norms_of_state(sources: Sequence[LockedSource]) -> list[NormStats]:
    """Return the NormStats of each source's state. Raises MixtureError if their dimensions or units differ."""
    spaces = {source.name: source.state_norm.space if source.state_norm else None for source in sources}
    states = {name: space.dims if space else () for name, space in spaces.items()}
    if len(set(states.values())) > 1 or () in states.values():
        listed = "; ".join(f"{name}: {', '.join(dim.name for dim in dims) or 'none'}" for name, dims in states.items())
        raise MixtureError(f"state: the sources' states differ in dimensions or units: {listed}")
    return [source.state_norm for source in sources if source.state_norm is not None]


def _stacked(norms: Sequence[NormStats], method: Method) -> Figures:
    """Stack the figures that the method needs from all S sources into tables [S, 1, D]."""
    return Figures(*(np.stack(figures)[:, None] for figures in zip(*(n.figures(method) for n in norms), strict=True)))


def _rows(tables: Figures, source: Array) -> Figures:
    """Return the figures of each sample's source, [B, 1, D]."""
    return Figures(*(table[source] for table in tables))
