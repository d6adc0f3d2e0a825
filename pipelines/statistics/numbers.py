"""The numbers that statistics are made of: a dataset's vectors, read from its numeric columns alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from schemas.errors import DatasetError, UsageError, ViewError
from schemas.files.folder import Folder
from schemas.mixture import filters
from schemas.source import Array
from schemas.spaces import Space
from schemas.store import columns
from schemas.store.columns import ROWS, STATE, EpisodeRun, Span, StoredSteps
from schemas.store.dataset import Dataset
from schemas.views.views import View

VECTORS = {"action": "action", "state": STATE}
Found: TypeAlias = dict[str, Array]  # vectors by name
RELATIVE = {"position", "joint"}  # kinds of dimension whose plain difference to the state means something


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which numbers of a dataset: a view of the episodes of a split that meet a condition."""

    view: str | None = None  # None: the stored action
    split: str | None = None  # None: all
    filters: str | None = None  # as schemas.mixture.filters spells it
    chunk: int = 0  # also take so many consecutive actions as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A large data file's episodes, or those of several small ones; picklable."""

    member: int
    folder: Folder
    manifest: str  # its digest
    spans: tuple[Span, ...]

    @property
    def episodes(self) -> int:
        """Count them."""
        return sum(len(span.starts) for span in self.spans)


def parts_of(dataset: Dataset, selection: Selection, *, member: int = 0) -> list[Part]:
    """Find the selected episodes; a split or column that is not there, or nothing selected, is a UsageError."""
    dataset.check_split(selection.split)
    condition = filters.parse(selection.filters) if selection.filters else None
    known = dataset.episodes.collect_schema().names()
    asked = condition.columns() & set(known) if condition else set()
    table = dataset.episodes.select(sorted({"file", "row", "length", "split"} | asked)).collect()
    kept = np.ones(len(table), bool)
    if selection.split is not None:
        kept &= (table["split"] == selection.split).to_numpy()
    if condition:
        kept &= condition.mask({name: table[name].to_list() if name in asked else [] for name in known})
    if not dataset.manifest["steps"]:
        raise UsageError(f"{dataset.uri}: the dataset has no steps")
    if not table.filter(kept)["length"].sum():
        which = f"of split '{selection.split}' " if selection.split else ""
        raise UsageError(f"{dataset.uri}: no episode {which}meets '{selection.filters or 'length > 0'}'")
    groups = _grouped(columns.spans(table.filter(kept)))
    folder, manifest = dataset.folder.absolute(), dataset.manifest["xxh3_128"]
    return [Part(member=member, folder=folder, manifest=manifest, spans=group) for group in groups]


def _grouped(spans: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Put small files together: what a part costs besides its numbers is the same for any size."""
    ends = np.cumsum([span.lengths.sum() for span in spans])
    cuts = np.flatnonzero(np.diff(ends // ROWS)) + 1
    return [tuple(spans[i] for i in group) for group in np.split(np.arange(len(spans)), cuts)]


def spaces(dataset: Dataset, selection: Selection) -> dict[str, Space]:
    """Say what each vector of a selection means: `action`, `state` if there is one, and with chunks two more."""
    action, state = dataset.action_space(selection.view), dataset.columns.state
    found = {"action": action, **({"state": state} if state else {})}
    if selection.chunk:
        found["action_chunk"] = replace(action, name="action_chunk")
        if pairs := _pairs(action, state):
            dims = tuple(replace(dim, mode="delta") if i in pairs else dim for i, dim in enumerate(action.dims))
            found["action_relative"] = replace(action, name="action_relative", dims=dims)
    return found


def _pairs(action: Space, state: Space | None) -> dict[int, int]:
    """Find the absolute dimensions of an action that the state measures too: position in the action -> in the state."""
    if state is None or state.frame != action.frame:
        return {}
    named = {(dim.name, dim.unit): i for i, dim in enumerate(state.dims) if dim.mode == "absolute"}
    return {
        i: named[dim.name, dim.unit]
        for i, dim in enumerate(action.dims)
        if dim.mode == "absolute" and dim.kind in RELATIVE and (dim.name, dim.unit) in named
    }


def vectors(part: Part, selection: Selection) -> Iterator[Found]:
    """Read a part: by name as in `spaces`, [N, D] float32, a few episodes after the other; chunks are [N, H * D]."""
    dataset = _opened(part.folder, part.manifest)
    view = dataset.view(selection.view) if selection.view else None
    pairs = _pairs(dataset.action_space(selection.view), dataset.columns.state)
    rows = max(1, ROWS // (selection.chunk or 1))
    read: list[Found] = []
    for span in part.spans:
        for run in columns.runs(dataset, span, view=view, rows=rows):
            if view or selection.chunk:
                found = _joined([_shown(steps, view, chunk=selection.chunk, pairs=pairs) for steps in run.episodes()])
            else:
                found = _stored(run)
            read.append(_finite(found, dataset.folder.place(span.file)))
            if sum(len(found["action"]) for found in read) >= rows:
                yield _joined(read)
                read = []
    if read:
        yield _joined(read)


def kept_steps(dataset: Dataset, view: str) -> dict[tuple[str, int], int]:
    """Count the steps that a view keeps of each episode, by its file and its first row there."""
    shown = dataset.view(view)
    spans = [span for part in parts_of(dataset, Selection()) for span in part.spans]
    read = columns.episodes(dataset, spans, view=shown)
    return {(steps.file, steps.row): len(steps.viewed(shown).action) for steps in read}


def _joined(read: Sequence[Found]) -> Found:
    return {name: np.concatenate([found[name] for found in read]) for name in read[0]}


@lru_cache(maxsize=8)
def _opened(folder: Folder, manifest: str) -> Dataset:
    """Open a dataset once per worker and content."""
    dataset = Dataset(folder)
    if dataset.manifest["xxh3_128"] != manifest:
        raise DatasetError(f"{folder.uri}: was replaced while its numbers were read")
    return dataset


def _stored(run: EpisodeRun) -> Found:
    """Take the vectors of all episodes of a run at once."""
    rows = _rows(run.starts, run.lengths)
    return {name: run.columns[column][rows] for name, column in VECTORS.items() if column in run.columns}


def _rows(starts: Array, lengths: Array) -> Array:
    """List the rows of episodes."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def _shown(steps: StoredSteps, view: View | None, *, chunk: int, pairs: Mapping[int, int]) -> Found:
    """Take one episode's vectors, at the steps that the view keeps."""
    viewed = steps.viewed(view)
    found = {"action": viewed.action}
    if STATE in steps.columns:
        found["state"] = steps.columns[STATE][viewed.mask]
    return {**found, **_chunks(found, chunk, pairs=pairs)} if chunk else found


def _chunks(found: Found, size: int, *, pairs: Mapping[int, int]) -> Found:
    """Take the chunks that lie inside the episode, one from each step on, flattened; the last steps begin none."""
    action = found["action"]
    windows = np.zeros((0, size, action.shape[1]), np.float32)
    if len(action) >= size:
        windows = np.lib.stride_tricks.sliding_window_view(action, size, axis=0).swapaxes(1, 2)  # [N, H, D]
    chunks = {"action_chunk": windows}
    if pairs:
        relative = chunks["action_relative"] = windows.copy()
        relative[:, :, list(pairs)] -= found["state"][: len(windows), None, list(pairs.values())]
    return {name: of.reshape(len(of), size * action.shape[1]) for name, of in chunks.items()}


def _finite(found: Found, place: str) -> Found:
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ViewError(f"{place}: {name} is not finite everywhere")
    return found
