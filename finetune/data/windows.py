"""The numbers of drawn steps and of those around them, read from records."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from finetune.data.sources import File, OpenFiles, Source
from schemas.errors import DatasetError, MixtureError
from schemas.source import Array
from stats.norm import Figures, Method, NormStats, normalized


class Place(NamedTuple):
    """Where B windows of H observations and C actions are."""

    source: Array  # [B]
    position: Array  # [B] of the episode in its dataset
    stored: Array  # [B, H + C] steps of the stored episode, observations first
    history: int  # H


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What the records say of B windows."""

    files: list[File]  # [B]
    rows: Array  # [B, H + C] in the files
    action: Array  # [B, C, D]
    valid: Array  # [B, D]
    state: Array | None  # [B, H, S]
    texts: tuple[str, ...]  # [B]
    ranges: Array  # [B, H, K, 2] offset and length of the images; length 0: there is none
    is_bgr: Array  # [B, K] bool


class Reader:
    """What reads windows; threads may share it."""

    def __init__(self, sources: Sequence[Source], *, method: Method, state: bool) -> None:
        """Check that states may stand in one array, if they are asked for."""
        self._sources, self._method, self._files = list(sources), method, OpenFiles(sources)
        self._action = _stacked([source.norm for source in sources], method)
        self._state = _stacked(_norms_of_state(sources), method) if state else None
        self._states = len(sources[0].dataset.columns.state or ())
        self._valid = np.stack([source.places >= 0 for source in sources])

    def read(self, place: Place) -> Windows:
        """Read the windows, source by source."""
        count, width = place.stored.shape
        dims, cameras = len(self._sources[0].places), len(self._sources[0].cameras)
        files: list[Any] = [None] * count
        texts = [""] * count
        found = Windows(
            files=files,
            rows=np.empty_like(place.stored),
            action=np.empty((count, width - place.history, dims), np.float32),
            valid=self._valid[place.source],
            state=None if self._state is None else np.empty((count, place.history, self._states), np.float32),
            texts=(),
            ranges=np.zeros((count, place.history, cameras, 2), np.int64),
            is_bgr=np.zeros((count, cameras), bool),
        )
        for number in np.unique(place.source).tolist():
            of = np.flatnonzero(place.source == number)
            records = self._records(number, of, place, into=found)
            self._fill(found, of, records, source=self._sources[number])
            for i, text in zip(of.tolist(), records["text"][:, place.history].tolist(), strict=True):
                texts[i] = files[i].records.texts[text] if text >= 0 else ""
        if not np.isfinite(found.action).all():
            i, step = np.argwhere(~np.isfinite(found.action).all(axis=2))[0].tolist()
            raise DatasetError(
                f"{files[i].place}: the action of row {found.rows[i, place.history + step]} is not finite; leave its "
                "episode out by a filter in the mixture"
            )
        state = found.state
        if state is not None and self._state is not None:
            state = normalized(state, _of(self._state, place.source), self._method)
        action = normalized(found.action, _of(self._action, place.source), self._method)
        return replace(found, texts=tuple(texts), action=action, state=state)

    def _records(self, number: int, of: Array, place: Place, *, into: Windows) -> Array:
        """Read the records of those windows that are of one source: [b, H + C]."""
        source = self._sources[number]
        position = place.position[of]
        rows = place.stored[of] + source.row[position][:, None]
        into.rows[of] = rows
        parts, starts, start = [], [], 0
        spans = zip(rows.min(axis=1).tolist(), rows.max(axis=1).tolist(), strict=True)
        for i, file_number, (first, last) in zip(of.tolist(), source.file[position].tolist(), spans, strict=True):
            file = into.files[i] = self._files.get(number, file_number)
            parts.append(file.records.raw(first, last - first + 1))
            starts.append(start - first)
            start += last - first + 1
        table = np.frombuffer(b"".join(parts), source.records.dtype)
        records: Array = table[rows + np.array(starts)[:, None]]
        if records["masked"].any():
            raise MixtureError(f"{source.name}: the view does not show a step that the lock has: lock it again")
        return records

    def _fill(self, found: Windows, of: Array, records: Array, *, source: Source) -> None:
        """Put what records say where it belongs."""
        history = found.ranges.shape[1]
        found.action[of] = source.action(records["action"][:, history:])
        if found.state is not None:
            found.state[of] = records["state"][:, :history]
        for k, camera in enumerate(source.cameras):
            if camera is not None:
                image = records["image"][:, :history, camera[0]]
                found.ranges[of, :, k] = np.stack([image["offset"], image["length"]], axis=-1)
                found.is_bgr[of, k] = camera[1].channels == "bgr"


def _norms_of_state(sources: Sequence[Source]) -> list[NormStats]:
    """Give what each source's state is normalized with; states that do not mean the same have no common array."""
    spaces = {source.name: source.dataset.columns.state for source in sources}
    meant = {name: space.dims if space else () for name, space in spaces.items()}
    if len(set(meant.values())) > 1 or () in meant.values():
        told = "; ".join(f"{name}: {', '.join(dim.name for dim in dims) or 'none'}" for name, dims in meant.items())
        raise MixtureError(f"state: the sources do not have states of the same dimensions and units: {told}")
    return [source.state_norm for source in sources if source.state_norm is not None]


def _stacked(norms: Sequence[NormStats], method: Method) -> Figures:
    """Put the figures of all sources into tables [S, 1, D]."""
    return Figures(*(np.stack(figures)[:, None] for figures in zip(*(n.figures(method) for n in norms), strict=True)))


def _of(tables: Figures, source: Array) -> Figures:
    """Choose those of each sample, [B, 1, D]."""
    return Figures(*(table[source] for table in tables))
