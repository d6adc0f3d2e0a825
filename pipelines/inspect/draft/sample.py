"""The numbers and texts of a source's first episodes, from which a declaration is drafted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.readers.reader import Reader, plan
from schemas.source import Array, Field, RawEpisode

EPISODES, STEPS = 50, 20_000  # default number of episodes; no episode is added after this many steps
FEW = 3  # episodes in which the rows of wide fields and texts are counted
MAX_WIDTH = 64  # numbers per step; wider fields are embeddings or simulator states, not poses


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The first episodes of a source, and the reader's description of it."""

    fields: Mapping[str, Field]
    episodes: tuple[Mapping[str, Array], ...]  # number columns, [T, k] float64
    texts: Mapping[str, str]  # the first text of each text column
    metadata: tuple[Mapping[str, Any], ...]  # per-episode values of each episode
    description: Mapping[str, Any]
    total: int  # episodes of the source
    rows: Mapping[str, tuple[int, ...]]  # other field with a value per step -> its rows in the first episodes

    @property
    def is_whole(self) -> bool:
        """Whether the sample contains every episode of the source."""
        return len(self.episodes) == self.total

    @property
    def steps(self) -> int:
        """Number of steps."""
        return sum(max(map(len, episode.values()), default=0) for episode in self.episodes)

    def columns(self, path: str, start: int = 0, stop: int | None = None) -> list[Array]:
        """Return columns `start` to `stop` of a field, one array [T, k] per episode."""
        return [episode[path][:, start:stop] for episode in self.episodes if path in episode]


def read_sample(reader: Reader, *, limit: int | None = None) -> Sample:
    """Read the numbers and texts of the first `limit` episodes, or 50 if it is None; skips unreadable ones."""
    fields = {field.path: field for field in reader.fields}
    paths = {path for path, field in fields.items() if not field.per_step or _is_read(field)}
    episodes: list[Mapping[str, Array]] = []
    metadata: list[Mapping[str, Any]] = []
    texts: dict[str, str] = {}
    indices: list[int] = []
    steps, count = 0, sum(part.count for parts in reader.files().values() for part in parts)
    for ref in plan(reader.files(), limit=EPISODES if limit is None else limit):
        for raw in reader.read(ref, paths):
            if isinstance(raw, RawEpisode) and steps < STEPS:
                indices.append(raw.index)
                episodes.append(_numbers(raw, fields))
                metadata.append(raw.metadata)
                steps += max(map(len, episodes[-1].values()), default=0)
                for path, column in raw.steps.items():
                    if fields[path].kind == "text" and len(column):
                        texts.setdefault(path, bytes(column[0]).decode(errors="replace"))  # type: ignore[index]
    unread = [field for field in fields.values() if field.per_step and not (field.kind == "number" and _is_read(field))]
    cameras = {field.path for field in unread if field.kind == "image"}
    others = {field.path for field in unread} - cameras
    return Sample(
        fields=fields,
        episodes=tuple(episodes),
        texts=texts,
        metadata=tuple(metadata),
        description=reader.description(),
        total=count,
        rows=_rows(reader, cameras, indices[:1]) | _rows(reader, others, indices[:FEW]),
    )


def _rows(reader: Reader, paths: Collection[str], indices: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Count the rows of fields in some episodes; fields that cannot be read in one of them are left out."""
    counts: dict[str, list[int]] = {path: [] for path in paths}
    for ref in plan(reader.files(), limit=indices[-1] + 1) if paths and indices else ():
        for raw in reader.read(ref, paths):
            if isinstance(raw, RawEpisode) and raw.index in indices:
                for path, column in raw.steps.items():
                    counts[path].append(len(column))
    return {path: tuple(rows) for path, rows in counts.items() if len(rows) == len(indices)}


def _is_read(field: Field) -> bool:
    single = not field.ragged and None not in field.shape
    width = int(np.prod([size or 0 for size in field.shape]))
    return single and (field.kind == "text" or (field.kind == "number" and 0 < width <= MAX_WIDTH))


def _numbers(raw: RawEpisode, fields: Mapping[str, Field]) -> dict[str, Array]:
    columns = {}
    for path, column in raw.steps.items():
        if fields[path].kind == "number" and isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
            columns[path] = column.reshape(len(column), -1).astype(np.float64) if len(column) else np.zeros((0, 0))
    return {path: column for path, column in columns.items() if column.size}
