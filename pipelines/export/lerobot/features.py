"""The features of a LeRobotDataset: Parquet columns, their entries in `info.json`, and how to compute their values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from pipelines.export.cameras import ExportCamera
from pipelines.export.declaration import free_name
from pipelines.export.recorded import recorded_vector
from schemas.episode import Episode
from schemas.source import Array, Field
from schemas.spaces import Space
from schemas.store.arrow import IMAGE, RAW, frames_to_arrow, to_arrow
from schemas.store.dataset import Dataset

ACTION, STATE, TIMES = "action", "observation.state", "recorded_timestamp"
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # LeRobot's standard columns, in its order
FLAGS = {"is_first": "bool", "is_last": "bool", "is_terminal": "bool", "reward": "float32"}
MAX_AXES = 5  # LeRobot's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedEpisode:
    """An episode with its numbers in the export."""

    episode: Episode
    number: int  # episode_index
    first: int  # index of its first step
    fps: float
    tasks: Mapping[str, int]  # instruction -> task_index

    def texts(self) -> list[str]:
        """Return the instruction of each step; an empty text if the episode has none."""
        episode = self.episode
        if episode.instruction_index is None:
            return [""] * len(episode)
        return [episode.instructions[i] for i in episode.instruction_index]


Getter: TypeAlias = Callable[[NumberedEpisode], Array | pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFeature:
    """One Parquet column: numbers of one shape, texts or encoded images."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    get: Getter
    is_depth: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type: a scalar, a list of fixed size for a vector, nested lists for more axes."""
        if self.dtype == "image":
            return IMAGE
        arrow_type = pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))
        if self.shape == (1,):
            return arrow_type
        if len(self.shape) == 1:
            return pa.list_(arrow_type, self.shape[0])
        for _ in self.shape:
            arrow_type = pa.list_(arrow_type)
        return arrow_type

    def info(self) -> dict[str, Any]:
        """Return the feature's entry in `info.json`."""
        about = {"info": {"is_depth_map": True}} if self.is_depth else {}
        names = list(self.names) if self.names else None
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names, **about}

    def array(self, numbered: NumberedEpisode) -> pa.Array:
        """Return the column for one episode."""
        values = self.get(numbered)
        if not isinstance(values, np.ndarray):
            return values
        return to_arrow(values, self.arrow_type) if len(self.shape) == 1 else _nested(values)


def _nested(values: Array) -> pa.Array:
    """Convert [T, a, b, ...] to nested lists, as the `datasets` library stores arrays."""
    out = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        size = values.shape[axis]
        count = int(np.prod(values.shape[:axis]))
        out = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(size)), out)
    return out


def features(
    dataset: Dataset, space: Space, cameras: tuple[ExportCamera, ...], *, view: str | None
) -> tuple[tuple[ExportFeature, ...], dict[str, str], dict[str, str]]:
    """Return the features, and two mappings.

    The first maps each raw feature to its field in the source. The second maps each column that is left out to the
    reason.
    """
    action, state = recorded_vector(dataset, "action", view=view), recorded_vector(dataset, "state", view=view)
    listed = [_vector(ACTION, space, action.values if action else attrgetter("action"))]
    if state_space := dataset.state_space(view):
        listed.append(_vector(STATE, state_space, state.values if state else attrgetter("state")))
    listed += [_images(camera) for camera in cameras if not camera.is_video]
    raw, left_out = ([], {}) if view else _raw(dataset)
    listed += [*_recorded(dataset, view), *(feature for feature, _ in raw), *_index()]
    return tuple(listed), {feature.name: path for feature, path in raw}, left_out


def _vector(name: str, space: Space, get: Callable[[Episode], Any]) -> ExportFeature:
    def values(numbered: NumberedEpisode) -> Array:
        vector = np.asarray(get(numbered.episode))
        return vector.reshape(-1) if len(space) == 1 else vector

    names = tuple(dim.name for dim in space.dims)
    return ExportFeature(name=name, dtype="float32", shape=(len(space),), names=names, get=values)


def _images(camera: ExportCamera) -> ExportFeature:
    def get(numbered: NumberedEpisode) -> pa.Array:
        return frames_to_arrow(camera.frames(numbered.episode, where=f"episode {numbered.number}"))

    return ExportFeature(
        name=camera.key,
        dtype="image",
        shape=camera.shape,
        names=("height", "width", "channels"),
        get=get,
        is_depth=camera.source.is_depth,
    )


def _recorded(dataset: Dataset, view: str | None) -> list[ExportFeature]:
    """Return features for the recorded flags, rewards and times.

    The reward and the end of an episode are also written under LeRobot's names, `next.reward` and `next.done`.
    """
    origins = dataset.columns.origins
    recomputed = {"is_first", "is_last"} if view else set()
    ours = {name: name for name in FLAGS if origins[name] and name not in recomputed}
    done = next((name for name in ("is_terminal", "is_last") if name in ours), None)
    theirs = {"next.reward": "reward"} if "reward" in ours else {}
    theirs |= {"next.done": done} if done else {}
    listed = [_scalar(name, FLAGS[flag], _attribute(flag)) for name, flag in (theirs | ours).items()]
    return listed + ([_scalar(TIMES, "float64", _attribute("timestamp"))] if has_times(dataset, view) else [])


def has_times(dataset: Dataset, view: str | None) -> bool:
    """Whether the steps have times that cannot be computed from the control rate."""
    origin = dataset.columns.origins["timestamp"]
    return origin is not None and (origin != "control_hz" or view is not None)


def _attribute(name: str) -> Getter:
    return lambda numbered: np.asarray(getattr(numbered.episode, name))


def _scalar(name: str, dtype: str, get: Getter) -> ExportFeature:
    return ExportFeature(name=name, dtype=dtype, shape=(1,), names=None, get=get)


def _raw(dataset: Dataset) -> tuple[list[tuple[ExportFeature, str]], dict[str, str]]:
    """Return a feature for each raw field, and the columns that are left out, with the reasons."""
    listed, left_out, taken = list[tuple[ExportFeature, str]](), dict[str, str](), set[str]()
    for field in dataset.columns.raw:
        if why := _why_left_out(field):
            left_out[RAW + field.path] = why
            continue
        name = free_name(RAW + field.path.replace("/", "_"), taken)
        taken.add(name)
        listed.append((_raw_feature(name, field), field.path))
    return listed, left_out


def _why_left_out(field: Field) -> str:
    if field.ragged or None in field.shape:
        return "LeRobot has no type for values of variable length"
    if field.kind not in {"number", "text"}:
        return f"LeRobot has no type for {field.kind} values"
    return f"LeRobot supports at most {MAX_AXES} axes" if len(field.shape) > MAX_AXES else ""


def _raw_feature(name: str, field: Field) -> ExportFeature:
    path, shape = field.path, tuple(size for size in field.shape if size is not None) or (1,)
    if field.kind == "text":
        return ExportFeature(
            name=name,
            dtype="string",
            shape=(1,),
            names=None,
            get=lambda p: to_arrow(p.episode.raw[path], pa.string()),
        )

    def get(numbered: NumberedEpisode) -> Array:
        values = np.asarray(numbered.episode.raw[path])
        return values.reshape(len(values)) if shape == (1,) else values

    return ExportFeature(name=name, dtype=np.dtype(field.dtype).name, shape=shape, names=None, get=get)


def _index() -> list[ExportFeature]:
    def steps(numbered: NumberedEpisode) -> Array:
        return np.arange(len(numbered.episode))

    getters: dict[str, Getter] = {
        "timestamp": lambda p: (steps(p) / p.fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": lambda p: np.full(len(p.episode), p.number),
        "index": lambda p: p.first + steps(p),
        "task_index": lambda p: np.array([p.tasks[text] for text in p.texts()], np.int64),
    }
    return [_scalar(name, "float32" if name == "timestamp" else "int64", getters[name]) for name in INDEX]
