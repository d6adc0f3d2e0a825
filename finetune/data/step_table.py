"""The numbers of a published dataset in memory, so that a loader reads no Parquet once it has started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.declarations.ops import ROW
from schemas.errors import UsageError, ViewError, did_you_mean
from schemas.source import Array
from schemas.store import columns
from schemas.store.arrow import as_numpy, optional_column
from schemas.store.columns import STATE, Run, Span
from schemas.store.dataset import Dataset
from schemas.views.views import View

ROWS = 1 << 17  # that are read at once


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
    tasks = tuple(dataset.episodes.select(pl.col("instructions").explode()).collect()["instructions"].drop_nulls())
    tasks = tuple(dict.fromkeys(tasks))
    seen = dataset.view(view) if view else None
    shown: dict[int, Mapping[str, Array]] = {}
    for _, rows in chosen.with_row_index("order").sort("row").group_by("file", maintain_order=True):
        span = Span(file=rows["file"][0], starts=rows["row"].to_numpy(), lengths=rows["length"].to_numpy())
        shown |= zip(rows["order"].to_list(), _read(dataset, span, view=seen, tasks=tasks), strict=True)
    parts = [shown[i] for i in range(len(chosen))]
    bounds = np.cumsum([0, *(len(part["action"]) for part in parts)])
    if not bounds[-1]:
        raise UsageError(f"{dataset.uri}: no steps are left: view '{view}' masks them all")
    return StepTable(
        columns={key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        tasks=tasks,
        bounds=bounds,
        episode=chosen["episode_index"].to_numpy(),
        files=tuple(chosen["file"]),
        row=chosen["row"].to_numpy(),
        first=chosen["first"].to_numpy(),
    )


def _chosen(dataset: Dataset, *, split: str | None, episodes: Sequence[int] | None) -> pl.DataFrame:
    """Find the episodes, in the dataset's order; those without any step show nothing."""
    splits = dataset.manifest["splits"]
    if split is not None and split not in splits:
        raise UsageError(f"{dataset.uri}: no split '{split}'{did_you_mean(split, splits)}")
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


def _read(dataset: Dataset, span: Span, *, view: View | None, tasks: Sequence[str]) -> Iterator[Mapping[str, Array]]:
    """Read the episodes of one file, one after the other."""
    numbers = (view.columns if view else frozenset({"action"})) | ({STATE} if dataset.columns.state else set())
    for run in columns.runs(dataset, span, columns=sorted(numbers | {"timestamp", "instruction"}), rows=ROWS):
        steps = columns.arrays(dataset, run.table)
        timestamp = optional_column(run.table["timestamp"].chunk(0))
        beside = {"task_index": _tasks(run, tasks), **({} if timestamp is None else {"timestamp": timestamp})}
        beside |= {STATE: steps[STATE]} if STATE in steps else {}
        for start, length in zip(run.starts, run.lengths, strict=True):
            of, step = slice(start, start + length), np.arange(length)
            action = steps["action"][of]
            if view:
                viewed = view.of_columns({**{name: column[of] for name, column in steps.items()}, ROW: step})
                action, step = np.asarray(viewed.action, np.float32), np.flatnonzero(viewed.mask)
            if not np.isfinite(action).all():
                raise ViewError(f"{dataset.folder.place(span.file)}: action is not finite everywhere")
            shown = {name: column[of][step] for name, column in beside.items()}
            yield {"action": action, "frame_index": step, **shown}


def _tasks(run: Run, tasks: Sequence[str]) -> Array:
    """Say which task each step has."""
    encoded = run.table["instruction"].chunk(0).dictionary_encode()
    number = {text: i for i, text in enumerate(tasks)}
    known = np.array([*(number[text] for text in encoded.dictionary.to_pylist()), -1], np.int64)
    return np.asarray(known[as_numpy(encoded.indices.fill_null(len(known) - 1))])
