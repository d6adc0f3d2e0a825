"""The features of a LeRobotDataset: what each Parquet column holds, what `info.json` says of it, and what fills it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from pipelines.export.cameras import Kept
from pipelines.export.declaration import free_name
from schemas.episode import Episode
from schemas.source import Array, Field
from schemas.spaces import Space
from schemas.store.arrow import IMAGE, RAW, frames_to_arrow, to_arrow
from schemas.store.dataset import Dataset

ACTION, STATE, TIMES = "action", "observation.state", "recorded_timestamp"
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # LeRobot's own columns, in its order
FLAGS = {"is_first": "bool", "is_last": "bool", "is_terminal": "bool", "reward": "float32"}
MAX_AXES = 5  # that LeRobot's features can have


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An episode at its place in the export."""

    episode: Episode
    number: int  # its episode_index
    first: int  # the index of its first step
    fps: float
    tasks: Mapping[str, int]

    def texts(self) -> list[str]:
        """Give the instruction of each step; an empty one where the source has none."""
        episode = self.episode
        if episode.instruction_index is None:
            return [""] * len(episode)
        return [episode.instructions[i] for i in episode.instruction_index]


Fill: TypeAlias = Callable[[Placed], Array | pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column: numbers of one shape, texts or encoded images."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    fill: Fill
    is_depth: bool = False

    @property
    def kind(self) -> pa.DataType:
        """Give the Arrow type: one number as it is, a vector as a list of fixed size, more axes as nested lists."""
        if self.dtype == "image":
            return IMAGE
        number = pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))
        if self.shape == (1,):
            return number
        if len(self.shape) == 1:
            return pa.list_(number, self.shape[0])
        for _ in self.shape:
            number = pa.list_(number)
        return number

    def info(self) -> dict[str, Any]:
        """Give what `info.json` says."""
        about = {"info": {"is_depth_map": True}} if self.is_depth else {}
        names = list(self.names) if self.names else None
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names, **about}

    def array(self, placed: Placed) -> pa.Array:
        """Fill the column for one episode."""
        values = self.fill(placed)
        if not isinstance(values, np.ndarray):
            return values
        return to_arrow(values, self.kind) if len(self.shape) == 1 else _nested(values)


def _nested(values: Array) -> pa.Array:
    """Turn [T, a, b, ...] into lists of lists, which is how `datasets` stores its arrays."""
    out = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        size = values.shape[axis]
        count = int(np.prod(values.shape[:axis]))
        out = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(size)), out)
    return out


def features(
    dataset: Dataset, space: Space, cameras: tuple[Kept, ...], *, view: str | None
) -> tuple[tuple[Feature, ...], dict[str, str], dict[str, str]]:
    """List the columns; second come the raw fields, by feature, third the columns left out, with the reason."""
    columns = dataset.columns
    found = [_vector(ACTION, space, lambda placed: placed.episode.action)]
    if columns.state:
        found.append(_vector(STATE, columns.state, lambda placed: placed.episode.state))
    found += [_images(kept) for kept in cameras if not kept.is_video]
    raw, left_out = ([], {}) if view else _raw(dataset)
    found += [*_told(dataset, view), *(feature for feature, _ in raw), *_index()]
    return tuple(found), {feature.name: path for feature, path in raw}, left_out


def _vector(name: str, space: Space, fill: Callable[[Placed], Any]) -> Feature:
    names = tuple(dim.name for dim in space.dims)
    if len(space) == 1:
        return Feature(name=name, dtype="float32", shape=(1,), names=names, fill=lambda p: fill(p).reshape(-1))
    return Feature(name=name, dtype="float32", shape=(len(space),), names=names, fill=fill)


def _images(kept: Kept) -> Feature:
    def fill(placed: Placed) -> pa.Array:
        episode, leaf = placed.episode, kept.camera.leaf
        return frames_to_arrow(episode.depth[leaf] if kept.camera.is_depth else episode.images[leaf])

    return Feature(
        name=kept.key,
        dtype="image",
        shape=kept.shape,
        names=("height", "width", "channels"),
        fill=fill,
        is_depth=kept.camera.is_depth,
    )


def _told(dataset: Dataset, view: str | None) -> list[Feature]:
    """Add what the source told of each step: flags and reward under their names and LeRobot's, recorded times."""
    origins = dataset.columns.origins
    renewed = {"is_first", "is_last"} if view else set()
    told = {name: name for name in FLAGS if origins[name] and name not in renewed}
    done = next((name for name in ("is_terminal", "is_last") if name in told), None)
    theirs = {"next.reward": "reward"} if "reward" in told else {}
    theirs |= {"next.done": done} if done else {}
    found = [_scalar(name, FLAGS[ours], _attribute(ours)) for name, ours in (theirs | told).items()]
    return found + ([_scalar(TIMES, "float64", _attribute("timestamp"))] if has_times(dataset, view) else [])


def has_times(dataset: Dataset, view: str | None) -> bool:
    """Say whether the steps' times are others than those that follow from the control rate."""
    origin = dataset.columns.origins["timestamp"]
    return origin is not None and (origin != "control_hz" or view is not None)


def _attribute(name: str) -> Fill:
    return lambda placed: np.asarray(getattr(placed.episode, name))


def _scalar(name: str, dtype: str, fill: Fill) -> Feature:
    return Feature(name=name, dtype=dtype, shape=(1,), names=None, fill=fill)


def _raw(dataset: Dataset) -> tuple[list[tuple[Feature, str]], dict[str, str]]:
    """Take the source's own numbers and texts; what LeRobot has no type for is left out."""
    found, left_out, taken = list[tuple[Feature, str]](), dict[str, str](), set[str]()
    for field in dataset.columns.raw:
        if why := _why_not(field):
            left_out[RAW + field.path] = why
            continue
        name = free_name(RAW + field.path.replace("/", "_"), taken)
        taken.add(name)
        found.append((_raw_feature(name, field), field.path))
    return found, left_out


def _why_not(field: Field) -> str:
    if field.ragged or None in field.shape:
        return "LeRobot has no values of unknown length"
    if field.kind not in {"number", "text"}:
        return f"LeRobot has no {field.kind}"
    return f"LeRobot has no more than {MAX_AXES} axes" if len(field.shape) > MAX_AXES else ""


def _raw_feature(name: str, field: Field) -> Feature:
    path, shape = field.path, tuple(size for size in field.shape if size is not None) or (1,)
    if field.kind == "text":
        return Feature(
            name=name,
            dtype="string",
            shape=(1,),
            names=None,
            fill=lambda p: to_arrow(p.episode.raw[path], pa.string()),
        )

    def fill(placed: Placed) -> Array:
        values = np.asarray(placed.episode.raw[path])
        return values.reshape(len(values)) if shape == (1,) else values

    return Feature(name=name, dtype=np.dtype(field.dtype).name, shape=shape, names=None, fill=fill)


def _index() -> list[Feature]:
    def steps(placed: Placed) -> Array:
        return np.arange(len(placed.episode))

    fills: dict[str, Fill] = {
        "timestamp": lambda p: (steps(p) / p.fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": lambda p: np.full(len(p.episode), p.number),
        "index": lambda p: p.first + steps(p),
        "task_index": lambda p: np.array([p.tasks[text] for text in p.texts()], np.int64),
    }
    return [_scalar(name, "float32" if name == "timestamp" else "int64", fills[name]) for name in INDEX]
