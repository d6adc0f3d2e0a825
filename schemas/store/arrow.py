"""Convert episodes to and from Arrow, with one row per step.

The metadata of the Arrow schema has the meaning of each column.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Self

import numpy as np
import pyarrow as pa

from schemas.episode import Episode, Frames
from schemas.errors import SourceError, SpecError
from schemas.source import Array, Bytes, Column, Field, Ragged
from schemas.spaces import Space
from schemas.store.manifest import SCHEMA_VERSION
from schemas.views.views import Viewed

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
META = b"oxe"  # metadata key, on the schema and on every field
IMAGES, DEPTH, RAW = "observation.images.", "observation.depth.", "raw."
NUMPY = {"halffloat": "float16", "float": "float32", "double": "float64"}  # Arrow type name -> numpy's, if it differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One stream of images."""

    leaf: str  # last part of the column's name
    path: str  # path in the source
    role: str | None = None  # declared role
    is_depth: bool = False
    metres_per_unit: float | None = None
    channels: str = "rgb"  # "bgr": red and blue are swapped after decoding

    @property
    def column(self) -> str:
        """The name of the column."""
        return (DEPTH if self.is_depth else IMAGES) + self.leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializedView:
    """A view that is stored as the column `action.<name>`; steps that the view drops are null.

    The state of a view that computes its own is the column `observation.state.<name>`.
    """

    name: str
    space: Space
    digest: str
    state: Space | None = None  # Space of its own state; None if it has the stored one

    @property
    def column(self) -> str:
        """The name of the column with the actions."""
        return f"action.{self.name}"

    @property
    def state_column(self) -> str:
        """The name of the column with the states, if the view computes its own."""
        return f"observation.state.{self.name}"

    @property
    def spaces(self) -> dict[str, Space]:
        """The Space of each of its columns."""
        return {self.column: self.space, **({self.state_column: self.state} if self.state else {})}

    def columns(self, viewed: Viewed) -> dict[str, Array]:
        """Return the vectors of each of its columns, at the steps that the view keeps."""
        own = {} if self.state is None or viewed.state is None else {self.state_column: viewed.state}
        return {self.column: viewed.action, **own}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form. It has no `state` if that is None, as in datasets of earlier versions."""
        return {name: value for name, value in asdict(self).items() if name != "state" or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        state = Space.from_json(data["state"]) if "state" in data else None
        return cls(**{**data, "space": Space.from_json(data["space"]), "state": state})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of a dataset and their meaning."""

    dataset: str
    action: Space
    state: Space | None
    cameras: tuple[Camera, ...]
    raw: tuple[Field, ...]
    metadata: tuple[Field, ...]  # per-episode fields
    views: tuple[MaterializedView, ...]
    origins: Mapping[str, str | None]  # column (timestamp, instruction, ...) -> path in the source, or None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form used in the manifest."""
        return {**asdict(self), "views": [view.to_json() for view in self.views]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        return cls(
            dataset=data["dataset"],
            action=Space.from_json(data["action"]),
            state=Space.from_json(data["state"]) if data["state"] else None,
            cameras=tuple(Camera(**camera) for camera in data["cameras"]),
            raw=tuple(Field(**{**field, "shape": tuple(field["shape"])}) for field in data["raw"]),
            metadata=tuple(Field(**{**field, "shape": tuple(field["shape"])}) for field in data["metadata"]),
            views=tuple(MaterializedView.from_json(view) for view in data["views"]),
            origins=data["origins"],
        )

    def colour_cameras(self) -> dict[str, tuple[int, Camera]]:
        """Return each colour camera, with its number in the index, by leaf and role. If both match, the leaf wins."""
        numbered = [(i, camera) for i, camera in enumerate(self.cameras) if not camera.is_depth]
        roles = {camera.role: (i, camera) for i, camera in numbered if camera.role}
        return roles | {camera.leaf: (i, camera) for i, camera in numbered}

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, with the `huggingface` key that lets `datasets` decode the images."""
        vector = _vector_type(len(self.action))
        fields = [
            _field("episode_index", pa.int64(), doc="ordinal in the source over all splits"),
            _field("step_index", pa.int32(), doc="ordinal in the episode"),
            _field("timestamp", pa.float64(), unit="s", source=self.origins.get("timestamp")),
            *(
                _field(name, pa.bool_(), source=self.origins.get(name))
                for name in ("is_first", "is_last", "is_terminal")
            ),
            _field("reward", pa.float32(), source=self.origins.get("reward")),
            _field("instruction", pa.string(), source=self.origins.get("instruction")),
            *(_camera_field(camera) for camera in self.cameras),
            *(
                [_field("observation.state", _vector_type(len(self.state)), space=self.state.to_json())]
                if self.state
                else []
            ),
            _field("action", vector, space=self.action.to_json(), source=self.origins.get("action")),
            *(
                _field(column, pa.list_(pa.float32()), space=space.to_json(), digest=view.digest)
                for view in self.views
                for column, space in view.spaces.items()
            ),
            *(
                _field(RAW + field.path, arrow_type(field), doc=field.doc or None, source=field.path)
                for field in self.raw
            ),
        ]
        ours = {"schema_version": SCHEMA_VERSION, "dataset": self.dataset}
        features = {field.name: hugging_feature(field.type) for field in fields}
        hugging = {"info": {"features": features}}
        return pa.schema(fields, metadata={META: json.dumps(ours), b"huggingface": json.dumps(hugging)})


def _vector_type(size: int) -> pa.DataType:
    return pa.list_(pa.float32(), size)


def _field(name: str, kind: pa.DataType, **meaning: Any) -> pa.Field:
    kept = {key: value for key, value in meaning.items() if value is not None}
    return pa.field(name, kind, metadata={META: json.dumps(kept, sort_keys=True)} if kept else None)


def _camera_field(camera: Camera) -> pa.Field:
    channels = camera.channels if camera.channels != "rgb" else None
    meaning = {"role": camera.role, "metres_per_unit": camera.metres_per_unit, "channels": channels}
    return _field(camera.column, IMAGE, source=camera.path, **meaning)


def hugging_feature(kind: pa.DataType) -> dict[str, Any]:
    """Return the feature of the `datasets` library for a type."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": hugging_feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": hugging_feature(kind.value_type), "_type": "List"}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


def list_levels(field: Field) -> int:
    """Return the number of variable-length list levels between a step and a value."""
    inner = len(field.shape) if field.kind == "bytes" or (field.kind == "number" and None in field.shape) else 0
    return field.ragged + inner


def arrow_type(field: Field) -> pa.DataType:
    """Return the type of a `raw.*` or metadata column. Raises SpecError if Arrow has no such type."""
    if field.kind == "number":
        try:
            kind = pa.from_numpy_dtype(np.dtype(field.dtype))
        except (pa.ArrowNotImplementedError, TypeError) as error:
            raise SpecError(f"{field.path}: cannot store numbers of type {field.dtype} ({error})") from error
        if 0 in field.shape:
            raise SpecError(f"{field.path}: cannot store values of shape {list(field.shape)}, which are empty")
        for size in reversed(field.shape) if None not in field.shape else ():
            kind = pa.list_(kind, size)
    else:
        kind = pa.string() if field.kind == "text" else pa.binary()
    for _ in range(list_levels(field)):
        kind = pa.list_(kind)
    return kind


def to_arrow(column: Column, kind: pa.DataType) -> pa.Array:
    """Convert a column of T values to an Arrow array of type `kind`, without copying numbers."""
    if isinstance(column, Ragged):
        inner = to_arrow(column.values, _innermost_list(kind, len(column.lengths)))
        for lengths in reversed(column.lengths):
            inner = pa.ListArray.from_arrays(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), inner)
        return inner
    if not isinstance(column, np.ndarray):
        return _binary(column).cast(kind)
    out = pa.array(column.reshape(-1))
    for size in reversed(column.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out


def _innermost_list(kind: pa.DataType, levels: int) -> pa.DataType:
    for _ in range(levels):
        kind = kind.value_type
    return kind


def from_arrow(array: pa.Array, field: Field) -> Column:
    """Convert an Arrow array that `to_arrow` returned back to a column."""
    lengths = []
    for _ in range(list_levels(field)):
        offsets = as_numpy(array.offsets)
        lengths.append(np.diff(offsets).astype(np.int64))
        array = array.flatten()
    values: Column
    if field.kind != "number":
        values = array.cast(pa.binary()).to_pylist()
    else:
        shape = field.shape if None not in field.shape else ()
        for _ in shape:
            array = array.flatten()
        values = as_numpy(array).reshape(-1, *shape)
    return Ragged(values, tuple(lengths)) if lengths else values  # type: ignore[arg-type]


def frames_to_arrow(frames: Frames) -> pa.Array:
    """Convert T encoded images to Arrow structs; a missing frame becomes a null struct."""
    missing = np.array([frame is None for frame in frames], bool)
    data = _binary([b"" if frame is None else frame for frame in frames])
    mask = pa.array(missing) if missing.any() else None
    return pa.StructArray.from_arrays([data, pa.nulls(len(frames), pa.string())], fields=list(IMAGE), mask=mask)


def _binary(items: Sequence[Bytes]) -> pa.Array:
    """Join byte strings into one array with one copy, because `pa.array` of memoryviews never releases their memory."""
    offsets = np.concatenate(([0], np.cumsum([len(item) for item in items], dtype=np.int64)))
    if offsets[-1] > np.iinfo(np.int32).max:
        raise SourceError(f"a column of one episode has {offsets[-1]} bytes: the limit is 2 GiB", reason="too_large")
    data = b"".join(items)
    return pa.Array.from_buffers(
        pa.binary(), len(items), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    )


OPTIONAL = ("timestamp", "is_first", "is_last", "is_terminal", "reward")  # all null if the source does not have it


def to_batch(
    episodes: Sequence[Episode], layout: Layout, schema: pa.Schema, *, views: Mapping[str, Sequence[Viewed]]
) -> pa.RecordBatch:
    """Convert episodes to rows, one per step; `views` has the result of each materialized view for each episode."""
    lengths = [len(episode) for episode in episodes]
    arrays = {name: pa.nulls(sum(lengths), schema.field(name).type) for name in OPTIONAL}
    for name in OPTIONAL:
        if getattr(episodes[0], name) is not None:
            arrays[name] = pa.array(np.concatenate([getattr(episode, name) for episode in episodes]))
    arrays["episode_index"] = pa.array(np.repeat([episode.index for episode in episodes], lengths))
    arrays["step_index"] = pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]))
    arrays["instruction"] = _instructions(episodes)
    for camera in layout.cameras:
        frames = [(e.depth if camera.is_depth else e.images)[camera.leaf] for e in episodes]
        arrays[camera.column] = frames_to_arrow(list(chain.from_iterable(frames)))
    columns: dict[str, list[Column | None]] = {
        "action": [episode.action for episode in episodes],
        **({"observation.state": [episode.state for episode in episodes]} if layout.state else {}),
        **{RAW + field.path: [episode.raw[field.path] for episode in episodes] for field in layout.raw},
    }
    for name, parts in columns.items():
        arrays[name] = to_arrow(joined([part for part in parts if part is not None]), schema.field(name).type)
    for view in layout.views:
        mask = np.concatenate([viewed.mask for viewed in views[view.name]])
        for column in view.spaces:
            kept = np.concatenate([view.columns(viewed)[column] for viewed in views[view.name]])
            arrays[column] = _view_column(kept, mask)
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def joined(columns: Sequence[Column]) -> Column:
    """Concatenate the same column of several episodes."""
    first = columns[0]
    if isinstance(first, Ragged):
        parts = [column for column in columns if isinstance(column, Ragged)]
        lengths = zip(*(part.lengths for part in parts), strict=True)
        values = joined([part.values for part in parts])
        return Ragged(values, tuple(np.concatenate(level) for level in lengths))  # type: ignore[arg-type]
    if isinstance(first, np.ndarray):
        return first if len(columns) == 1 else np.concatenate(columns)  # type: ignore[arg-type]
    return list(chain.from_iterable(columns))  # type: ignore[arg-type]


def _instructions(episodes: Sequence[Episode]) -> pa.Array:
    texts = [text for episode in episodes for text in episode.instructions]
    starts = np.cumsum([0, *(len(episode.instructions) for episode in episodes)])
    index = [
        np.full(len(e), -1) if e.instruction_index is None else e.instruction_index + start
        for e, start in zip(episodes, starts, strict=False)
    ]
    rows = np.concatenate(index)
    return pa.array(texts, pa.string()).take(pa.array(rows, mask=rows < 0))


def _view_column(kept: Array, mask: Array) -> pa.Array:
    """Return one value per stored step: the view's vector, or null where `mask` [T] is false.

    The lists have no fixed size, because Parquet's fixed-size lists cannot be null.
    """
    offsets = np.concatenate(([0], np.cumsum(mask))).astype(np.int32) * np.int32(kept.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(kept.reshape(-1)), mask=pa.array(~mask))


def as_numpy(array: pa.Array) -> Array:
    """Convert an Arrow array without nulls to numpy, without a copy.

    `to_numpy` is not used, because it imports pandas, which takes longer than reading a small dataset.
    """
    data = array.buffers()[1]
    if data is None:
        return np.empty(0, NUMPY.get(str(array.type), str(array.type)))
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[array.offset : array.offset + len(array)].astype(bool)
    dtype = np.dtype(NUMPY.get(str(array.type), str(array.type)))
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def vectors(array: pa.Array, size: int) -> Array:
    """Convert a [T, size] float32 column to numpy."""
    return as_numpy(array.flatten()).reshape(-1, size)


def optional_column(array: pa.Array) -> Array | None:
    """Convert a column of numbers to numpy; None if all values are null."""
    return None if array.null_count else as_numpy(array)


def instruction_column(array: pa.Array) -> tuple[tuple[str, ...], Array | None]:
    """Return the distinct instructions in order of appearance, and the index of each step's instruction."""
    if array.null_count:
        return (), None
    encoded = array.dictionary_encode()
    return tuple(encoded.dictionary.to_pylist()), as_numpy(encoded.indices).astype(np.int32)


def metadata_schema(layout: Layout) -> list[pa.Field]:
    """Return the columns of `meta/episodes.parquet` that come from the source, named by their paths."""
    fields = []
    for field in layout.metadata:
        kind = arrow_type(replace(field, shape=()) if field.kind == "number" else field)
        for _ in field.shape if field.kind == "number" else ():
            kind = pa.list_(kind)
        fields.append(pa.field(f"metadata.{field.path}", kind))
    return fields
