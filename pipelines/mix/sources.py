"""Find and open the sources of a mixture, and select their episodes and steps."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.beam.progress import Progress
from pipelines.mix.holdout import is_held_out
from pipelines.statistics.motion import motion_hash
from pipelines.statistics.numbers import Selection, parts_of
from schemas.declarations import catalog
from schemas.errors import DatasetError, UsageError, did_you_mean
from schemas.files.folder import is_local
from schemas.mixture.drift import place
from schemas.mixture.lock import TRAIN, VALIDATION, Stage
from schemas.mixture.spec import Holdout, MixtureSpec
from schemas.source import Array
from schemas.spaces import Space
from schemas.store.columns import runs
from schemas.store.dataset import Dataset, open_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """An opened source of a mixture, with its episodes as rows of the lock's table."""

    name: str
    uri: str  # as written in the lock
    dataset: Dataset
    space: Space
    selection: Selection
    rows: list[dict[str, Any]] = field(repr=False)
    instructions: frozenset[str]  # texts of the steps that the view keeps; empty if the mixture has no paraphrases

    def stage(self, part: str | None = None) -> Stage:
        """Count the episodes and steps that the view keeps, in one part, or in both if `part` is None."""
        steps = [row["steps"] for row in self.rows if part in {None, row["part"]} and row["steps"]]
        return Stage(episodes=len(steps), steps=sum(steps))

    def stages(self) -> dict[str, Stage]:
        """Count the episodes and steps of each stage of the selection.

        The stages are the whole dataset, the filtered episodes, the steps that the view keeps, and the two parts.
        """
        return {
            "source": Stage(episodes=len(self.dataset), steps=self.dataset.manifest["steps"]),
            "filtered": Stage(episodes=len(self.rows), steps=sum(row["length"] for row in self.rows)),
            "viewed": self.stage(),
            TRAIN: self.stage(TRAIN),
            VALIDATION: self.stage(VALIDATION),
        }

    def strata(self) -> dict[str, int]:
        """Count the training steps of each stratum."""
        steps: dict[str, int] = {}
        for row in self.rows:
            if row["part"] == TRAIN and row["steps"]:
                steps[row["stratum"]] = steps.get(row["stratum"], 0) + row["steps"]
        return dict(sorted(steps.items()))


def open_mixture_source(spec: MixtureSpec, name: str, *, uri: str, beside: Path, progress: Progress) -> OpenedSource:
    """Open a source and select the steps that the view keeps; raises UsageError if no episode is selected."""
    dataset = open_dataset(place(uri, beside))
    view = dataset.view(spec.view) if spec.view else None
    selection = Selection(view=spec.view, filters=spec.filter_of(name))
    rows = {(row["file"], row["row"]): row for row in _rows(spec, name, dataset)}
    kept: dict[int, dict[str, Any]] = {}
    instructions: set[str] = set()
    more = ["instruction"] if spec.paraphrases else []
    spans = (span for part in parts_of(dataset, selection) for span in part.spans)
    for run in chain.from_iterable(runs(dataset, span, view=view, more=more) for span in spans):
        for steps in run.episodes():
            episode, mask = rows[steps.file, steps.row], steps.viewed(view).mask
            numbers = {"ranges": _ranges(mask), "steps": int(mask.sum()), "motion_hash": motion_hash(steps.columns)}
            kept[episode["position"]] = {**episode, **numbers}
            if spec.paraphrases:
                instructions |= _texts(run.table["instruction"].chunk(0)[steps.at], mask)
            progress(1, 0)
    return OpenedSource(
        name=name,
        uri=uri,
        dataset=dataset,
        space=dataset.action_space(spec.view),
        selection=selection,
        rows=[kept[position] for position in sorted(kept)],
        instructions=frozenset(instructions),
    )


def source_uri(spec: MixtureSpec, name: str, *, beside: Path, data: str | None) -> str:
    """Return the URI of a source's dataset; a path is relative to `beside`, the folder of the lock."""
    declared = spec.sources[name].uri if name in spec.sources else None
    if declared:
        return declared
    wanted = spec.dataset_of(name)
    if data is None:
        raise UsageError(f"no uri; set sources.{name}.uri, or pass --data DIR, the folder of the datasets")
    if not is_local(data):
        return f"{data.rstrip('/')}/{wanted}"
    known = {wanted, catalog.name_of(wanted) or wanted}
    below = [path for path in sorted(Path(data).glob("*/")) if path.name in known or _is_dataset(path, known)]
    if len(below) != 1:
        count = f"{len(below)} folders contain" if below else "no folder contains"
        raise UsageError(f"{data}: {count} the dataset '{wanted}'; set sources.{name}.uri")
    return Path(relpath(below[0], beside)).as_posix()


def _is_dataset(folder: Path, names: set[str]) -> bool:
    try:
        return open_dataset(folder).manifest["dataset"] in names
    except DatasetError:
        return False


def _rows(spec: MixtureSpec, name: str, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield each episode as a row of the lock's table, without the columns that are computed from its steps."""
    table = dataset.episodes.with_row_index("position").collect()
    table = table.with_columns(instruction=table["instructions"].list.first().fill_null(""))
    for column in filter(None, (spec.balance, spec.holdout.by if spec.holdout else None)):
        if column not in table.columns:
            raise UsageError(f"{dataset.uri}: no column '{column}'{did_you_mean(column, table.columns)}")
    for row in table.iter_rows(named=True):
        yield {
            "source": name,
            "stratum": _text(row[spec.balance]) if spec.balance else "",
            "part": _part(spec.holdout, row),
            **{key: row[key] for key in ("position", "id", "split", "instruction", "content_hash", "length")},
            "file": row["file"],
            "row": row["row"],
        }


def _text(value: Any) -> str:
    return "" if value is None else " | ".join(map(str, value)) if isinstance(value, list) else str(value)


def _part(holdout: Holdout | None, row: dict[str, Any]) -> str:
    """Choose the part of an episode by its `holdout.by` value."""
    return VALIDATION if holdout is not None and is_held_out(holdout, _text(row[holdout.by])) else TRAIN


def _ranges(mask: Array) -> list[int]:
    """Return the start and the end of each run of kept steps, in one list.

    >>> _ranges(np.array([False, True, True, False, True]))
    [1, 3, 4, 5]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [int(edge) for edge in edges]


def _texts(instructions: pa.Array, mask: Array) -> set[str]:
    """Return the instructions of the steps in a mask."""
    return {text for text in instructions.filter(pa.array(mask)).unique().to_pylist() if text is not None}
