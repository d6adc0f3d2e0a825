"""The steps of one episode of a LeRobotDataset: columns, images and the text of its task, checked for their order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.readers.folder import inside
from pipelines.readers.lerobot import columns
from pipelines.readers.lerobot.cameras import Cameras
from pipelines.readers.lerobot.columns import Rows
from pipelines.readers.lerobot.fields import TASK, TASKS, TIME, Features
from pipelines.readers.lerobot.places import Places
from schemas.errors import SourceError
from schemas.source import Array, Bytes, Column, Field

FRAME = "frame_index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What is to be read of each episode."""

    places: Places
    features: Features
    tasks: Mapping[int, str]
    cameras: Cameras
    wanted: Collection[str] | None  # paths; None: all

    def columns(self) -> list[str]:
        """Name the columns that are needed: those wanted, and those that tell the order."""
        needed = {TIME, FRAME, *([TASKS] if self._wants(TASK) else [])}
        return [name for name in self.features.stored if name in needed or self._wants(name)]

    def _wants(self, path: str) -> bool:
        return self.wanted is None or path in self.wanted

    def read(self, rows: Rows, row: int, run: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the episode of one row of the table: what it has per step, and what it has once."""
        told = self.places.episodes.row(row)
        if run is None:
            raise SourceError("holds no row of this episode", reason="missing_record")
        count = run[1] - run[0]
        if count != told["length"]:
            message = f"holds {count} rows of this episode, meta/ says {told['length']}"
            raise SourceError(message, reason="row_count")
        columns.check_size(count, (self.features.stored[name] for name in rows.columns))
        table = rows.read(*run)
        steps = {name: self._column(table[name], self.features.stored[name], row) for name in rows.columns}
        check_order(steps)
        if self.features.has_task and self._wants(TASK):
            steps[TASK] = self._texts(np.asarray(steps[TASKS]))
        for key in self.features.beside:
            if self._wants(key):
                steps[key] = self.cameras.frames(key, row, steps=count)
        metadata = {field.path: told[name] for name, field in self.features.episode.items() if self._wants(field.path)}
        return {path: column for path, column in steps.items() if self._wants(path)}, metadata

    def _column(self, column: pa.ChunkedArray, field: Field, row: int) -> Column:
        if field.kind == "number":
            return columns.numbers(column, field)
        if field.kind == "text":
            return columns.texts(column)
        held = columns.images(column)
        return [data or self._image(field.path, row, step=step, path=path) for step, (data, path) in enumerate(held)]

    def _image(self, key: str, row: int, *, step: int, path: str | None) -> Bytes:
        """Read an image from the file that the table names; where it names none, the frame is missing.

        Names from the machine that recorded it are of no use: there LeRobot's own place is looked at.
        """
        if path is None:
            return b""
        info = self.places.info
        is_usual = info.templates["image_path"] is not None or path.startswith("/")
        name = self.places.image(key, row, step) if is_usual else inside(path, where=info.where)
        return self.cameras.folder.read(name)

    def _texts(self, numbers: Array) -> list[bytes]:
        known = {number: text.encode() for number, text in self.tasks.items()}
        found: list[int] = numbers.ravel().tolist()
        if missing := sorted(set(found) - known.keys()):
            raise SourceError(f"{TASKS} {missing[0]} has no text in meta/tasks", reason="unknown_task")
        return [known[number] for number in found]


def check_order(steps: Mapping[str, Any]) -> None:
    """Refuse rows that are not in the order of time: then frames of a video would lie beside other steps."""
    for name in (TIME, FRAME):
        values = steps.get(name)
        if not isinstance(values, np.ndarray) or values.size != len(values):
            continue
        values = values.ravel().astype(np.float64)
        if not np.isfinite(values).all():
            step = int(np.argmin(np.isfinite(values)))
            raise SourceError(f"{name} is {values[step]} at step {step}", reason="bad_timestamps")
        bad = np.diff(values) <= 0 if name == TIME else np.diff(values) != 1
        if bad.any():
            step = int(np.argmax(bad)) + 1
            message = f"{name} goes from {values[step - 1]:g} to {values[step]:g} at step {step}"
            advice = f"; should that be so, leave it out with source.ignore = ['{name}']"
            raise SourceError(message + advice, reason="bad_timestamps")
