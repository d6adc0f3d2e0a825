"""Reads the numbers of a published dataset into memory, so that loading a frame does not read Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.errors import UsageError, ViewError
from schemas.source import Array
from schemas.store import columns
from schemas.store.columns import STATE, Span
from schemas.store.dataset import Dataset
from schemas.views.resample import TIMES
from schemas.views.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """The N steps that a view shows, from E episodes.

    `columns` contains `action` [N, A] and `observation.state` [N, S], both float32; `timestamp` [N] float64;
    `frame_index` [N] int64, the index in the stored episode; and `task_index` [N] int64, an index into `tasks`, or -1
    without an instruction. A dataset without states or timestamps lacks these columns.

    The table takes 4 (A + S) + 24 bytes for each step and 40 bytes for each episode.
    """

    columns: Mapping[str, Array]
    tasks: tuple[str, ...]  # all instructions of the dataset, in order of first appearance
    bounds: Array  # [E + 1] int64: the index of each episode's first step; then N
    episode: Array  # [E] int64: `episode_index` in the dataset
    files: tuple[str, ...]  # [E] path of each episode's file
    row: Array  # [E] int64: row of the stored episode's first step in its file
    first: Array  # [E] int64: row of the same step in the whole dataset


def read(
    dataset: Dataset, *, view: str | None = None, split: str | None = None, episodes: Sequence[int] | None = None
) -> StepTable:
    """Read the steps of episodes into memory.

    If `split` is given, only its episodes are read. If `episodes` is given, only episodes with these values of
    `episode_index` are read. Raises UsageError if an episode is not in the dataset, or if no step is left. Also raises
    an error if the split or the view is not valid.
    """
    chosen = _chosen(dataset, split=split, episodes=episodes)
    texts = dataset.episodes.select(pl.col("instructions").explode()).collect()["instructions"].drop_nulls()
    tasks = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    opened_view = dataset.view(view) if view else None
    stored = chosen.with_row_index("order").sort("file", "row")
    shown = [steps for span in columns.spans(stored) for steps in _read(dataset, span, view=opened_view, tasks=tasks)]
    parts = [shown[i] for i in stored["order"].arg_sort()]
    bounds = np.cumsum([0, *(len(part["action"]) for part in parts)])
    if not bounds[-1]:
        raise UsageError(f"{dataset.uri}: no steps are left: view '{view}' masks them all")
    return StepTable(
        columns={key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        tasks=tuple(tasks),
        bounds=bounds,
        episode=chosen["episode_index"].to_numpy(),
        files=tuple(chosen["file"]),
        row=chosen["row"].to_numpy(),
        first=chosen["first"].to_numpy(),
    )


def _chosen(dataset: Dataset, *, split: str | None, episodes: Sequence[int] | None) -> pl.DataFrame:
    """Return the chosen episodes in the dataset's order, without empty episodes."""
    dataset.check_split(split)
    table = dataset.episodes.select("episode_index", "split", "file", "row", "length").collect()
    table = table.with_columns(first=pl.col("length").cum_sum() - pl.col("length"))
    if episodes is not None:
        known = table["episode_index"].to_list()
        missing = sorted(set(episodes) - set(known))
        if missing:
            bounds = f"episode_index goes from {min(known)} to {max(known)}" if known else "it has no episodes"
            raise UsageError(f"{dataset.uri}: no episode {missing[0]} ({len(missing)} requested are missing): {bounds}")
        table = table.filter(pl.col("episode_index").is_in(list(episodes)))
    if split is not None:
        table = table.filter(pl.col("split") == split)
    table = table.filter(pl.col("length") > 0)
    if not len(table):
        raise UsageError(f"{dataset.uri}: no steps are left: no episode is chosen")
    return table


def _read(
    dataset: Dataset, span: Span, *, view: View | None, tasks: Mapping[str, int]
) -> Iterator[Mapping[str, Array]]:
    """Yield the columns of each episode of one file."""
    for run in columns.runs(dataset, span, view=view, more=[TIMES, "instruction"]):
        others = {"task_index": run.instructions(tasks.__getitem__)}
        others |= {TIMES: run.columns[TIMES]} if TIMES in run.columns else {}
        for steps in run.episodes():
            viewed = steps.viewed(view)
            vectors = {"action": viewed.action, **({} if viewed.state is None else {STATE: viewed.state})}
            for name, vector in vectors.items():
                if not np.isfinite(vector).all():
                    raise ViewError(f"{dataset.folder.place(span.file)}: {name} has values that are not finite")
            kept = np.flatnonzero(viewed.mask)
            shown = {name: column[steps.at][kept] for name, column in others.items()}
            yield {**vectors, "frame_index": kept, **shown}
