"""A published dataset as a map-style torch Dataset of single frames, following LeRobot's conventions."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from finetune.data import deltas
from finetune.data.cameras import Images
from finetune.data.deltas import Deltas
from finetune.data.step_table import StepTable
from schemas.errors import UsageError, did_you_mean
from schemas.source import Array
from schemas.spaces import Space
from schemas.store.columns import STATE
from schemas.store.dataset import Dataset
from stats.record import Statistics

Item: TypeAlias = dict[str, Tensor | str]


class FrameDataset(data.Dataset[Item]):
    """One item for each frame that a view shows. docs/torch.md lists the keys of an item.

    All numbers are in memory. Images are read from memory-mapped files. May be pickled and forked.
    """

    def __init__(
        self,
        dataset: Dataset,
        table: StepTable,
        *,
        action_space: Space,
        state_space: Space | None,
        control_hz: float | None,
        images: Images,
        statistics: Callable[[], Statistics],
        delta_timestamps: Deltas,
        tolerance_s: float = 1e-4,
    ) -> None:
        """Raise UsageError if `delta_timestamps` has an unknown key or offsets that are not valid."""
        self.uri, self.tasks = dataset.uri, table.tasks
        self.fps = deltas.frame_rate(table, control_hz=control_hz)
        known = [key for key in ("action", STATE) if key in table.columns] + list(images.chosen)
        for key in delta_timestamps:
            if key not in known:
                raise UsageError(f"{dataset.uri}: delta_timestamps: no key '{key}'{did_you_mean(key, known)}")
        self._offsets = deltas.offsets(delta_timestamps, table, fps=self.fps, tolerance_s=tolerance_s)
        # Columns are tensors, because a DataLoader shares the memory of tensors with spawned workers.
        self._columns = {key: torch.from_numpy(column) for key, column in table.columns.items()}
        self._table, self._images, self._statistics = replace(table, columns={}), images, statistics
        spaces = {"action": action_space, STATE: state_space}
        self._names = {key: [dim.name for dim in space.dims] for key, space in spaces.items() if space}

    def __len__(self) -> int:
        """Return the number of frames."""
        return int(self._table.bounds[-1])

    def __getitem__(self, i: int) -> Item:
        """Read one frame, with the neighbouring frames that `delta_timestamps` selects."""
        row = operator.index(i)
        row = row + len(self) if row < 0 else row
        if not 0 <= row < len(self):
            raise IndexError(f"{self.uri}: no frame {i}: the dataset has {len(self)}")
        episode = int(np.searchsorted(self._table.bounds, row, "right")) - 1
        start, end = self._table.bounds[episode : episode + 2].tolist()
        windows = {key: deltas.window(row, offset, start=start, end=end) for key, offset in self._offsets.items()}
        item: Item = {f"{key}_is_pad": torch.from_numpy(pad) for key, (_, pad) in windows.items()}
        for key, column in self._columns.items():
            item[key] = column[torch.from_numpy(windows[key][0])] if key in windows else column[row].clone()
        for key in self._images.chosen:
            item |= self._pictures(key, episode, windows[key][0] if key in windows else row)
        task = int(self._columns["task_index"][row])
        item["task"] = self.tasks[task] if task >= 0 else ""
        item["episode_index"] = torch.tensor(int(self._table.episode[episode]))
        item["index"] = self._columns["frame_index"][row] + int(self._table.first[episode])
        return item

    def _pictures(self, key: str, episode: int, rows: int | Array) -> Item:
        """Return one camera's image [3, H, W] of one frame, or images [D, 3, H, W] of several."""
        steps = self._columns["frame_index"][np.atleast_1d(rows)] + int(self._table.row[episode])
        pictures, is_missing = self._images.read(key, self._table.files[episode], steps.tolist())
        if isinstance(rows, int):
            pictures, is_missing = pictures[0], is_missing[0]
        if self._images.transforms is not None:
            pictures = self._images.transforms(pictures)
        return {key: pictures, **({f"{key}_is_missing": is_missing} if self._images.missing == "black" else {})}

    @cached_property
    def stats(self) -> Statistics:
        """The exact statistics of this view and split. `stats.norm("action")` returns the NormStats of the actions."""
        return self._statistics()

    @property
    def cameras(self) -> tuple[str, ...]:
        """The keys of the images in an item."""
        return tuple(self._images.chosen)

    @property
    def episode_data_index(self) -> dict[str, Tensor]:
        """The index of each episode's first frame ("from") and one past its last ("to"), for LeRobot's samplers."""
        bounds = torch.from_numpy(self._table.bounds.copy())
        return {"from": bounds[:-1], "to": bounds[1:]}

    @cached_property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """The dtype, shape and names of each key of an item, in LeRobot's form. Shapes are those of a single frame."""
        names = ["channels", "height", "width"]
        features: dict[str, Mapping[str, Any]] = {
            key: {"dtype": "image", "shape": (3, *self._images.size(key)), "names": names}
            for key in self._images.chosen
        }
        for key, column in self._columns.items():
            dtype, shape = str(column.dtype).removeprefix("torch."), tuple(column.shape[1:]) or (1,)
            features[key] = {"dtype": dtype, "shape": shape, "names": self._names.get(key)}
        whole = {"dtype": "int64", "shape": (1,), "names": None}
        return {**features, "episode_index": whole, "index": whole}
