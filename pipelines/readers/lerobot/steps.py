"""Read the steps of one episode of a LeRobotDataset, and check their order in time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.readers.folder import safe_path
from pipelines.readers.lerobot import columns
from pipelines.readers.lerobot.cameras import Cameras
from pipelines.readers.lerobot.columns import ParquetRows
from pipelines.readers.lerobot.fields import TASK, TASKS, TIME, DatasetFields
from pipelines.readers.lerobot.paths import EpisodePaths
from schemas.errors import SourceError
from schemas.source import Array, Bytes, Column, Field

FRAME = "frame_index"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReader:
    """Reads the selected fields of episodes, one episode at a time."""

    paths: EpisodePaths
    fields: DatasetFields
    tasks: Mapping[int, str]
    cameras: Cameras
    selected: Collection[str] | None  # paths of fields; None: all

    def columns(self) -> list[str]:
        """Return the columns to read: the selected ones, and those that `read` needs for its checks and the task."""
        required = {TIME, FRAME, *([TASKS] if self._is_selected(TASK) else [])}
        return [name for name in self.fields.stored if name in required or self._is_selected(name)]

    def _is_selected(self, path: str) -> bool:
        return self.selected is None or path in self.selected

    def read(
        self, rows: ParquetRows, row: int, run: tuple[int, int] | None, *, others: Sequence[int] = ()
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns and the per-episode values of the episode that one row of the table lists.

        `run` is the range of the episode's rows in the data file, and `others` are the episodes that the file contains.
        Raises SourceError if these contradict the table.
        """
        declared = self.paths.episodes.row(row)
        if run is None:
            contents = f", but of {_listed(others)}" if others else ""
            index = self.paths.indices[row]
            raise SourceError(f"contains no row of episode {index}{contents}", reason="missing_record")
        count = run[1] - run[0]
        if count != declared["length"]:
            message = f"contains {count} rows of this episode, but meta/ declares {declared['length']}"
            raise SourceError(message, reason="row_count")
        columns.check_size(count, (self.fields.stored[name] for name in rows.columns))
        table = rows.read(*run)
        steps = {name: self._column(table[name], self.fields.stored[name], row) for name in rows.columns}
        check_order(steps)
        if self.fields.has_task and self._is_selected(TASK):
            steps[TASK] = self._texts(np.asarray(steps[TASKS]))
        for key in self.fields.cameras:
            if self._is_selected(key):
                steps[key] = self.cameras.frames(key, row, steps=count)
        metadata = {
            field.path: declared[name] for name, field in self.fields.episode.items() if self._is_selected(field.path)
        }
        return {path: column for path, column in steps.items() if self._is_selected(path)}, metadata

    def _column(self, column: pa.ChunkedArray, field: Field, row: int) -> Column:
        if field.kind == "number":
            return columns.numbers(column, field)
        if field.kind == "text":
            return columns.texts(column)
        images = columns.images(column)
        return [data or self._image(field.path, row, step=step, path=path) for step, (data, path) in enumerate(images)]

    def _image(self, key: str, row: int, *, step: int, path: str | None) -> Bytes:
        """Read the image of a step from the file at `path`; if `path` is None, return empty bytes.

        The path is built from a template instead if info.json has one for images, or if `path` is absolute, because an
        absolute path is only valid on the recording machine.
        """
        if path is None:
            return b""
        info = self.paths.info
        is_usual = info.templates["image_path"] is not None or path.startswith("/")
        name = self.paths.image(key, row, step) if is_usual else safe_path(path, where=info.where)
        return self.cameras.folder.read(name)

    def _texts(self, numbers: Array) -> list[bytes]:
        text_by_number = {number: text.encode() for number, text in self.tasks.items()}
        task_numbers: list[int] = numbers.ravel().tolist()
        if missing := sorted(set(task_numbers) - text_by_number.keys()):
            raise SourceError(f"{TASKS} {missing[0]} has no text in meta/tasks", reason="unknown_task")
        return [text_by_number[number] for number in task_numbers]


def _listed(episodes: Sequence[int]) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"{len(episodes)} others, such as episode {episodes[0]}"


def check_order(steps: Mapping[str, Any]) -> None:
    """Raise SourceError if rows are not in order of time, because they would then be paired with wrong video frames."""
    for name in (TIME, FRAME):
        values = steps.get(name)
        if not isinstance(values, np.ndarray) or values.size != len(values):
            continue
        values = values.ravel().astype(np.float64)
        if not np.isfinite(values).all():
            step = int(np.argmin(np.isfinite(values)))
            raise SourceError(
                f"{name} is {values[step]} at step {step}, expected a finite number", reason="bad_timestamps"
            )
        bad = np.diff(values) <= 0 if name == TIME else np.diff(values) != 1
        if bad.any():
            step = int(np.argmax(bad)) + 1
            message = f"{name} goes from {values[step - 1]:g} to {values[step]:g} at step {step}"
            fix = "; rows that are missing or out of order would get the frames of others. If only the column is wrong"
            fix += f", and the rows are complete and in order, leave it out with source.ignore = ['{name}']"
            raise SourceError(message + fix, reason="bad_timestamps")
