"""The numbers of a published dataset in memory, so that a loader reads no Parquet once it has started."""

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
    """The N steps that are shown of E episodes: 4 (A + S) + 24 bytes a step, 40 an episode.

    `columns` are `action` [N, A] and `observation.state` [N, S] float32, `timestamp` [N] float64, and int64 [N]
    `frame_index` (in the stored episode) and `task_index` (into `tasks`; -1 where there is no instruction). State and
    timestamp may not be there.
    """

    columns: Mapping[str, Array]
    tasks: tuple[str, ...]  # of the whole dataset, in order of appearance
    bounds: Array  # [E + 1] int64: the first of the N steps of each episode, and N
    episode: Array  # [E] int64: ordinal in the source
    files: tuple[str, ...]  # [E]
    row: Array  # [E] int64: of the stored episode's first step in its file
    first: Array  # [E] int64: of the same step in the whole dataset


def read(
    dataset: Dataset, *, view: str | None = None, split: str | None = None, episodes: Sequence[int] | None = None
) -> StepTable:
    """Read the numbers of the episodes of a split, or of those with an `episode_index` in `episodes`, or both.

    A split, episode or view that is not there, or nothing that is left, is an error.
    """
    chosen = _chosen(dataset, split=split, episodes=episodes)
    texts = dataset.episodes.select(pl.col("instructions").explode()).collect()["instructions"].drop_nulls()
    tasks = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    seen = dataset.view(view) if view else None
    stored = chosen.with_row_index("order").sort("file", "row")
    shown = [steps for span in columns.spans(stored) for steps in _read(dataset, span, view=seen, tasks=tasks)]
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
    """Find the episodes, in the dataset's order; those without any step show nothing."""
    dataset.check_split(split)
    table = dataset.episodes.select("episode_index", "split", "file", "row", "length").collect()
    table = table.with_columns(first=pl.col("length").cum_sum() - pl.col("length"))
    if episodes is not None:
        known = table["episode_index"].to_list()
        missing = sorted(set(episodes) - set(known))
        if missing:
            there = f"episode_index goes from {min(known)} to {max(known)}" if known else "there is none"
            raise UsageError(f"{dataset.uri}: no episode {missing[0]} ({len(missing)} of those asked for): {there}")
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
    """Read the episodes of one file, one after the other."""
    for run in columns.runs(dataset, span, view=view, more=[TIMES, "instruction"]):
        beside = {"task_index": run.instructions(tasks.__getitem__)}
        beside |= {name: run.columns[name] for name in (TIMES, STATE) if name in run.columns}
        for steps in run.episodes():
            viewed = steps.viewed(view)
            if not np.isfinite(viewed.action).all():
                raise ViewError(f"{dataset.folder.place(span.file)}: action is not finite everywhere")
            kept = np.flatnonzero(viewed.mask)
            shown = {name: column[steps.at][kept] for name, column in beside.items()}
            yield {"action": viewed.action, "frame_index": kept, **shown}
