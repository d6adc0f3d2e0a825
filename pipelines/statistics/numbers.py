"""Read the vectors of a dataset, actions and states, from its numeric columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from schemas.errors import DatasetError, UsageError, ViewError
from schemas.files.folder import Folder
from schemas.mixture import filters
from schemas.source import Array
from schemas.spaces import Space
from schemas.store import columns
from schemas.store.columns import ROWS, STATE, EpisodeRun, Span, StoredSteps
from schemas.store.dataset import Dataset
from schemas.store.findings import rules_of_episodes
from schemas.views.views import View

VECTORS = {"action": "action", "state": STATE}
Vectors: TypeAlias = dict[str, Array]  # name -> [N, D] float32
RELATIVE = {"position", "joint"}  # kinds of action dimensions from which the state can be subtracted


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which numbers to read: of which view, split and episodes, and with which length of action chunks."""

    view: str | None = None  # None: the action as stored
    split: str | None = None  # None: all splits
    filters: str | None = None  # a condition of schemas.mixture.filters
    chunk: int = 0  # number of consecutive actions per chunk; 0: no chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPart:
    """A picklable part of a dataset: the episodes of one large data file or of several small ones."""

    member: int  # index of the dataset among those that are counted as one
    folder: Folder
    manifest: str  # digest of the manifest
    spans: tuple[Span, ...]

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return sum(len(span.starts) for span in self.spans)


def parts_of(dataset: Dataset, selection: Selection, *, member: int = 0) -> list[DatasetPart]:
    """Divide the selected episodes into parts.

    Raises UsageError if the split or a column is missing, or if no episode is selected.
    """
    dataset.check_split(selection.split)
    condition = filters.parse(selection.filters) if selection.filters else None
    known = dataset.episodes.collect_schema().names()
    needed = condition.columns() & set(known) if condition else set()
    table = dataset.episodes.select(sorted({"file", "row", "length", "split"} | needed)).collect()
    kept = np.ones(len(table), bool)
    if selection.split is not None:
        kept &= (table["split"] == selection.split).to_numpy()
    if condition:
        columns_read: dict[str, list[Any]] = {name: table[name].to_list() if name in needed else [] for name in known}
        if rules := filters.rules(condition):
            columns_read[filters.FINDING] = rules_of_episodes(dataset, wanted=rules)
        kept &= condition.mask(columns_read)
    if not dataset.manifest["steps"]:
        raise UsageError(f"{dataset.uri}: the dataset has no steps")
    if not table.filter(kept)["length"].sum():
        which = f"of split '{selection.split}' " if selection.split else ""
        raise UsageError(f"{dataset.uri}: no episode {which}meets '{selection.filters or 'length > 0'}'")
    groups = _grouped(columns.spans(table.filter(kept)))
    folder, manifest = dataset.folder.absolute(), dataset.digest
    return [DatasetPart(member=member, folder=folder, manifest=manifest, spans=group) for group in groups]


def _grouped(spans: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Group small files into one part, because each part has a fixed cost."""
    ends = np.cumsum([span.lengths.sum() for span in spans])
    cuts = np.flatnonzero(np.diff(ends // ROWS)) + 1
    return [tuple(spans[i] for i in group) for group in np.split(np.arange(len(spans)), cuts)]


def spaces(dataset: Dataset, selection: Selection) -> dict[str, Space]:
    """Return the Space of each vector: `action` and `state`, and for chunks `action_chunk` and `action_relative`."""
    action, state = dataset.action_space(selection.view), dataset.state_space(selection.view)
    named = {"action": action, **({"state": state} if state else {})}
    if selection.chunk:
        named["action_chunk"] = replace(action, name="action_chunk")
        if pairs := _state_dims(action, state):
            dims = tuple(replace(dim, mode="delta") if i in pairs else dim for i, dim in enumerate(action.dims))
            named["action_relative"] = replace(action, name="action_relative", dims=dims)
    return named


def _state_dims(action: Space, state: Space | None) -> dict[int, int]:
    """Map the index of each absolute action dimension to the index of the state dimension with the same quantity."""
    if state is None or state.frame != action.frame:
        return {}
    named = {(dim.name, dim.unit): i for i, dim in enumerate(state.dims) if dim.mode == "absolute"}
    return {
        i: named[dim.name, dim.unit]
        for i, dim in enumerate(action.dims)
        if dim.mode == "absolute" and dim.kind in RELATIVE and (dim.name, dim.unit) in named
    }


def vectors(part: DatasetPart, selection: Selection) -> Iterator[Vectors]:
    """Yield the vectors of a part by name, for a few episodes at a time.

    The names are those of `spaces`. Vectors are [N, D], and chunks of H actions are [N, H * D].
    """
    dataset = open_once(part.folder, part.manifest)
    view = dataset.view(selection.view) if selection.view else None
    pairs = _state_dims(dataset.action_space(selection.view), dataset.state_space(selection.view))
    rows = max(1, ROWS // (selection.chunk or 1))
    batches: list[Vectors] = []
    for span in part.spans:
        for run in columns.runs(dataset, span, view=view, rows=rows):
            if view or selection.chunk:
                batch = _concatenated(
                    [_of_episode(steps, view, chunk=selection.chunk, pairs=pairs) for steps in run.episodes()]
                )
            else:
                batch = _of_run(run)
            batches.append(_check_finite(batch, dataset.folder.place(span.file)))
            if sum(len(batch["action"]) for batch in batches) >= rows:
                yield _concatenated(batches)
                batches = []
    if batches:
        yield _concatenated(batches)


def kept_steps(dataset: Dataset, view: str) -> dict[tuple[str, int], int]:
    """Count the steps that a view keeps of each episode.

    The key of an episode is its file and its first row in that file.
    """
    selected = dataset.view(view)
    spans = [span for part in parts_of(dataset, Selection()) for span in part.spans]
    read = columns.episodes(dataset, spans, view=selected)
    return {(steps.file, steps.row): len(steps.viewed(selected).action) for steps in read}


def _concatenated(batches: Sequence[Vectors]) -> Vectors:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@lru_cache(maxsize=8)
def open_once(folder: Folder, manifest: str) -> Dataset:
    """Open a dataset once per worker; raises DatasetError if the digest of its manifest is not `manifest`."""
    dataset = Dataset(folder)
    if dataset.digest != manifest:
        raise DatasetError(f"{folder.uri}: was replaced while it was read; run the command again")
    return dataset


def _of_run(run: EpisodeRun) -> Vectors:
    """Return the stored vectors of all episodes of an EpisodeRun."""
    rows = _rows(run.starts, run.lengths)
    return {name: run.columns[column][rows] for name, column in VECTORS.items() if column in run.columns}


def _rows(starts: Array, lengths: Array) -> Array:
    """Return the row numbers of all steps of the episodes."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def _of_episode(steps: StoredSteps, view: View | None, *, chunk: int, pairs: Mapping[int, int]) -> Vectors:
    """Return the vectors of one episode at the steps that the view keeps."""
    viewed = steps.viewed(view)
    episode = {"action": viewed.action, **({} if viewed.state is None else {"state": viewed.state})}
    return {**episode, **_chunks(episode, chunk, pairs=pairs)} if chunk else episode


def _chunks(episode: Vectors, size: int, *, pairs: Mapping[int, int]) -> Vectors:
    """Return one flattened chunk for each step at which a chunk fits into the rest of the episode."""
    action = episode["action"]
    windows = np.zeros((0, size, action.shape[1]), np.float32)
    if len(action) >= size:
        windows = np.lib.stride_tricks.sliding_window_view(action, size, axis=0).swapaxes(1, 2)  # [N, H, D]
    chunks = {"action_chunk": windows}
    if pairs:
        relative = chunks["action_relative"] = windows.copy()
        relative[:, :, list(pairs)] -= episode["state"][: len(windows), None, list(pairs.values())]
    return {name: chunk.reshape(len(chunk), size * action.shape[1]) for name, chunk in chunks.items()}


def _check_finite(batch: Vectors, path: str) -> Vectors:
    for name, values in batch.items():
        if not np.isfinite(values).all():
            raise ViewError(f"{path}: {name} contains values that are not finite")
    return batch
