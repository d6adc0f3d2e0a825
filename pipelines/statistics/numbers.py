"""The numbers that statistics are made of: a dataset's vectors, read from its numeric columns alone."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from schemas.declarations.ops import ROW, Steps
from schemas.errors import DatasetError, UsageError, ViewError, did_you_mean
from schemas.files.folder import Folder
from schemas.mixture import filters
from schemas.source import Array
from schemas.spaces import Space
from schemas.store import columns
from schemas.store.columns import STATE, Span
from schemas.store.dataset import Dataset

ROWS = 1 << 17  # that are in memory at once
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
    splits = dataset.manifest["splits"]
    if selection.split is not None and selection.split not in splits:
        raise UsageError(f"{dataset.uri}: no split '{selection.split}'{did_you_mean(selection.split, splits)}")
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
    groups = table.filter(kept).sort("file", "row").group_by("file", maintain_order=True)
    spans = [
        Span(file=str(file), starts=rows["row"].to_numpy(), lengths=rows["length"].to_numpy())
        for (file,), rows in groups
    ]
    folder, manifest = dataset.folder.absolute(), dataset.manifest["xxh3_128"]
    return [Part(member=member, folder=folder, manifest=manifest, spans=group) for group in _grouped(spans)]


def _grouped(spans: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Put small files together: what a part costs besides its numbers is the same for any size."""
    ends = np.cumsum([span.lengths.sum() for span in spans])
    cuts = np.flatnonzero(np.diff(ends // ROWS)) + 1
    return [tuple(spans[i] for i in group) for group in np.split(np.arange(len(spans)), cuts)]


def spaces(dataset: Dataset, selection: Selection) -> dict[str, Space]:
    """Say what each vector of a selection means: `action`, `state` if there is one, and with chunks two more."""
    action = dataset.view(selection.view).space if selection.view else dataset.columns.action
    state = dataset.columns.state
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


def vectors(part: Part, selection: Selection) -> Iterator[dict[str, Array]]:
    """Read a part: by name as in `spaces`, [N, D] float32, a few episodes after the other; chunks are [N, H * D]."""
    dataset = _opened(part.folder, part.manifest)
    read_by = dataset.view(selection.view).columns if selection.view else frozenset({"action"})
    wanted = sorted(read_by | ({STATE} if dataset.columns.state else set()))
    rows = max(1, ROWS // (selection.chunk or 1))
    read: list[Found] = []
    for span in part.spans:
        for run in columns.runs(dataset, span, columns=wanted, rows=rows):
            steps = columns.arrays(dataset, run.table)
            found = _selected(selection, dataset, steps=steps, starts=run.starts, lengths=run.lengths)
            read.append(_finite(found, dataset.folder.place(span.file)))
            if sum(len(found["action"]) for found in read) >= rows:
                yield _joined(read)
                read = []
    if read:
        yield _joined(read)


def episodes(part: Part, wanted: Collection[str]) -> Iterator[tuple[str, int, Steps]]:
    """Read a part's episodes one by one: file, first row, and those of the `wanted` columns that hold numbers."""
    dataset = _opened(part.folder, part.manifest)
    for span in part.spans:
        rows = iter(span.starts.tolist())
        for run in columns.runs(dataset, span, columns=sorted(wanted), rows=ROWS):
            steps = columns.arrays(dataset, run.table)
            for start, length in zip(run.starts, run.lengths, strict=True):
                yield span.file, next(rows), {name: column[start : start + length] for name, column in steps.items()}


def kept_steps(dataset: Dataset, view: str) -> dict[tuple[str, int], int]:
    """Count the steps that a view keeps of each episode, by its file and its first row there."""
    shown = dataset.view(view)
    return {
        (file, row): len(shown.of_columns({**steps, ROW: np.arange(len(steps["action"]))}).action)
        for part in parts_of(dataset, Selection())
        for file, row, steps in episodes(part, shown.columns)
    }


def _joined(read: Sequence[Found]) -> Found:
    return {name: np.concatenate([found[name] for found in read]) for name in read[0]}


@lru_cache(maxsize=8)
def _opened(folder: Folder, manifest: str) -> Dataset:
    """Open a dataset once per worker and content."""
    dataset = Dataset(folder)
    if dataset.manifest["xxh3_128"] != manifest:
        raise DatasetError(f"{folder.uri}: was replaced while its numbers were read")
    return dataset


def _selected(selection: Selection, dataset: Dataset, *, steps: Steps, starts: Array, lengths: Array) -> Found:
    """Take the episodes' vectors out of what was read."""
    if not selection.view and not selection.chunk:
        rows = _rows(starts, lengths)
        return {name: steps[column][rows] for name, column in VECTORS.items() if column in steps}
    episodes = [
        _episode(selection, dataset, {k: v[a : a + n] for k, v in steps.items()})
        for a, n in zip(starts, lengths, strict=True)
    ]
    return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}


def _rows(starts: Array, lengths: Array) -> Array:
    """List the rows of episodes."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def _episode(selection: Selection, dataset: Dataset, steps: Steps) -> Found:
    """Take one episode's vectors, at the steps that the view keeps."""
    action, state = steps["action"], steps.get(STATE)
    if selection.view:
        viewed = dataset.view(selection.view).of_columns({**steps, ROW: np.arange(len(action))})
        action, state = viewed.action, None if state is None else state[viewed.mask]
    found = {"action": action, **({} if state is None else {"state": state})}
    if selection.chunk:
        found |= _chunks(selection, dataset, action=action, state=state)
    return found


def _chunks(selection: Selection, dataset: Dataset, *, action: Array, state: Array | None) -> Found:
    """Take the chunks that lie inside the episode, one from each step on, flattened; the last steps begin none."""
    size, dims = selection.chunk, action.shape[1]
    if len(action) < size:
        empty = np.zeros((0, size * dims), np.float32)
        return {name: empty for name in spaces(dataset, selection) if name.startswith("action_")}
    windows = np.lib.stride_tricks.sliding_window_view(action, size, axis=0).swapaxes(1, 2)  # [N, H, D]
    found = {"action_chunk": windows.reshape(len(windows), -1)}
    space = dataset.view(selection.view).space if selection.view else dataset.columns.action
    if state is not None and (pairs := _pairs(space, dataset.columns.state)):
        relative = windows.copy()
        relative[:, :, list(pairs)] -= state[: len(windows), None, list(pairs.values())]
        found["action_relative"] = relative.reshape(len(windows), -1)
    return found


def _finite(found: Found, place: str) -> Found:
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ViewError(f"{place}: {name} is not finite everywhere")
    return found
