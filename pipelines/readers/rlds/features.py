"""Read `features.json`, and decode the values of an RLDS dataset as `tensorflow-datasets` stored them.

`tensorflow-datasets` (`core/example_serializer.py`, `core/features/`) flattens the tree of features with "/" and
concatenates the values in `steps` over all steps. Sequences inside a step become `ragged_flat_values` and
`ragged_row_lengths_i`. Integers and booleans are stored as int64, floats (including float64) as float32, and uint64 is
bit-cast. A tensor with an encoding is one byte string per step; with several unknown dimensions, its shape is stored as
another feature.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.readers.rlds import example
from schemas.errors import SourceError
from schemas.limits import above_limit
from schemas.parsing import parse_json
from schemas.source import Array, Bytes, Column, Field, Ragged

STEPS = "steps"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # the default for names of shards
MAX_INFLATED = 1 << 32  # bytes of all encoded tensors of one field in an episode
MAX_VALUES = 1 << 32  # values in one tensor


@dataclass(frozen=True)
class ExampleFeature:
    """A feature of a `tf.train.Example`: the key that its values are stored under, and the field that they become."""

    field: Field
    key: str
    dynamic: bool = False  # the shape is stored as another feature
    bfloat16: bool = False  # widened to float32
    optional: bool = False  # a per-episode value that may be missing

    @property
    def ragged_levels(self) -> int:
        """The number of stored lists of row lengths; there is none for the outermost list of a per-episode value."""
        return self.field.ragged if self.field.per_step else max(0, self.field.ragged - 1)

    def decode(self, features: Mapping[str, example.Value]) -> Column:
        """Decode the values of an episode: one per step, the items of a per-episode sequence, or a single value.

        Raises SourceError, which names the field, if the values contradict features.json.
        """
        try:
            return self._ragged(features) if self.ragged_levels else self._values(features)
        except SourceError as error:
            raise error.at(prefix=self.field.path) from error

    def decode_metadata(self, features: Mapping[str, example.Value]) -> Any:
        """Decode a per-episode value to a number, str, bytes or list of these; None if it is missing."""
        if self.optional and self.key not in features:
            return None
        column = self.decode(features)
        values = _to_lists(column, text=self.field.kind == "text", path=self.field.path)
        if not self.field.ragged and len(values) != 1:
            raise SourceError(
                f"{self.field.path}: expected one value per episode, got {len(values)}", reason="contradicts_features"
            )
        return values if self.field.ragged else values[0]

    @property
    def _value_key(self) -> str:
        return f"{self.key}/value" if self.dynamic else self.key

    def _ragged(self, features: Mapping[str, example.Value]) -> Ragged:
        lengths = tuple(
            example.ints(_stored(features, f"{self._value_key}/ragged_row_lengths_{level}"))
            for level in range(self.ragged_levels)
        )
        values = self._values(features, "/ragged_flat_values")
        for rows, count in zip(lengths, [*map(len, lengths[1:]), len(values)], strict=True):
            if ((rows < 0) | (rows > count)).any() or rows.sum() != count:
                raise SourceError("the row lengths do not add up", reason="contradicts_features")
        if isinstance(values, Ragged):
            return Ragged(values.values, (*lengths, *values.lengths))
        return Ragged(values if isinstance(values, np.ndarray) else list(values), lengths)

    def _values(self, features: Mapping[str, example.Value], suffix: str = "") -> Column:
        value = _stored(features, self._value_key + suffix)
        if self.field.kind != "number":
            return self._byte_strings(example.blobs(value))
        if self.field.encoding:
            items = example.blobs(value)
            return self._tensors(items, self._shapes(features, suffix, len(items)))
        dtype = np.dtype(self.field.dtype)
        if dtype.kind == "f":
            values = example.floats(value).astype(dtype, copy=False)
        else:
            values = example.ints(value)
            values = values.view(np.uint64) if dtype == np.uint64 else values.astype(dtype, copy=False)
        return self._reshape(values)

    def _reshape(self, values: Array) -> Array:
        """Reshape stored values; the first axis has the steps, the items of a sequence, or a single value."""
        size, shape = self._size_and_shape
        if size == 0 or len(values) % size or (shape[0] == 1 and -1 not in shape and len(values) != size):
            raise SourceError(
                f"{len(values)} stored values do not fit the shape {list(self.field.shape)}",
                reason="contradicts_features",
            )
        return values.reshape(shape)

    @cached_property
    def _size_and_shape(self) -> tuple[int, tuple[int, ...]]:
        """The product of the known sizes of one value, and the shape of all values, with -1 for unknown sizes."""
        value_shape = tuple(-1 if d is None else d for d in self.field.shape)
        is_repeated = self.field.per_step or self.field.ragged
        return math.prod(d for d in value_shape if d >= 0), (-1 if is_repeated else 1, *value_shape)

    def _byte_strings(self, items: list[Bytes]) -> Column:
        if self.field.kind == "image" or not self.field.shape:
            return items
        shape = self._reshape(np.arange(len(items))).shape
        counts = np.cumprod(shape)
        return Ragged(items, tuple(np.full(n, d) for n, d in zip(counts, shape[1:], strict=False)))

    def _shapes(self, features: Mapping[str, example.Value], suffix: str, count: int) -> list[tuple[int, ...]]:
        """Return the shape of every encoded tensor.

        At most one dimension is -1, which means that it follows from the number of elements.
        """
        declared = self.field.shape
        if not self.dynamic:
            return [tuple(-1 if d is None else d for d in declared)] * count
        stored = example.ints(_stored(features, f"{self.key}/shape{suffix}"))
        if len(stored) != count * len(declared):
            raise SourceError("the stored shapes do not belong to the stored values", reason="contradicts_features")
        for shape in (shapes := [tuple(row) for row in stored.reshape(count, len(declared)).tolist()]):
            if any(n < 0 or d not in {None, n} for d, n in zip(declared, shape, strict=True)):
                raise SourceError(f"the stored shape {shape} is not {list(declared)}", reason="contradicts_features")
        return shapes

    def _tensors(self, items: Sequence[Bytes], shapes: Sequence[tuple[int, ...]]) -> Column:
        arrays, remaining = [], MAX_INFLATED
        for item, shape in zip(items, shapes, strict=True):
            arrays.append(self._tensor(item, shape, remaining))
            # A tensor without values still takes memory for its row lengths.
            remaining -= arrays[-1].nbytes or 8 * math.prod(max(1, d) for d in shape)
            if remaining < 0:
                raise above_limit(MAX_INFLATED, "bytes", what="the tensors")
        if None in self.field.shape:
            return ragged_of(arrays, rank=len(self.field.shape), dtype=self.field.dtype)
        value_shape = tuple(d or 0 for d in self.field.shape)
        return np.stack(arrays) if arrays else np.zeros((0, *value_shape), self.field.dtype)

    def _tensor(self, item: Bytes, shape: tuple[int, ...], limit: int) -> Array:
        stored = np.dtype(np.uint16 if self.bfloat16 else self.field.dtype)
        if -1 not in shape:
            limit = min(limit, math.prod(shape) * stored.itemsize)
        try:
            data = _inflate(item, limit) if self.field.encoding == "zlib" else item
            array = np.frombuffer(data, stored).reshape(shape)
        except (ValueError, zlib.error) as error:
            raise SourceError(
                f"an encoded tensor does not fit its type and shape ({error})", reason="contradicts_features"
            ) from error
        return (array.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else array


def ragged_of(arrays: list[Array], *, rank: int, dtype: str) -> Ragged:
    """Convert arrays to nested sequences of scalars; the arrays have the same rank, but different shapes."""
    lengths = [np.array([len(a) for a in arrays], np.int64)]
    for level in range(1, rank):
        repeats = [math.prod(a.shape[:level]) for a in arrays]
        lengths.append(np.repeat(np.array([a.shape[level] for a in arrays], np.int64), repeats))
    flat = [a.ravel() for a in arrays]
    return Ragged(np.concatenate(flat) if flat else np.zeros(0, dtype), tuple(lengths))


def _stored(features: Mapping[str, example.Value], key: str) -> example.Value:
    value = features.get(key)
    if value is None:
        raise SourceError(f"the record has no '{key}', which features.json declares", reason="contradicts_features")
    return value


def _to_lists(column: Column, *, text: bool, path: str) -> list[Any]:
    if isinstance(column, Ragged):
        values = _to_lists(column.values, text=text, path=path)
        for lengths in reversed(column.lengths):
            ends = np.cumsum(lengths)
            values = [values[end - n : end] for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)]
        return values
    if isinstance(column, np.ndarray):
        return list(column.tolist())
    try:
        return [str(item, "utf-8") if text else bytes(item) for item in column]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 ({error})", reason="bad_utf8") from error


def _inflate(item: Bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(item, limit + 1)
    if len(data) > limit:
        raise above_limit(limit, "bytes", what="the inflated zlib tensor")
    if not inflater.eof:
        raise SourceError("the zlib tensor ends early", reason="contradicts_features")
    return data


def load(text: str | bytes, name: str) -> tuple[ExampleFeature, ...]:
    """Read `features.json`: the features of `steps` and those of the episode, each sorted by path.

    Raises SourceError, which names the file `name`, if it is not an RLDS tree of supported features.
    """
    try:
        tree = parse_json(text)
        _require_steps(tree)
        features = sorted(_features(tree, ()), key=lambda feature: (not feature.field.per_step, feature.field.path))
    except SourceError as error:
        raise error.at(name) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SourceError(f"not a features.json ({error!r})", reason="bad_features", file=name) from error
    for one, other in pairwise(features):
        if (one.field.per_step, one.field.path) == (other.field.per_step, other.field.path):
            raise SourceError(
                f"'{one.key}' and '{other.key}' have the same path {one.field.path}", reason="bad_features", file=name
            )
    return tuple(features)


def _require_steps(tree: Mapping[str, Any]) -> None:
    steps = tree.get("featuresDict", {}).get("features", {}).get(STEPS, {})
    if "featuresDict" not in steps.get("sequence", {}).get("feature", {}):
        raise SourceError("no dataset 'steps' with named features: this is TFDS, but not RLDS", reason="bad_features")


def _features(node: Mapping[str, Any], keys: tuple[str, ...], sequences: int = 0) -> Iterator[ExampleFeature]:
    if "featuresDict" in node:
        for key, child in node["featuresDict"].get("features", {}).items():
            yield from _features(child, (*keys, key), sequences)
    elif "sequence" in node:
        yield from _features(node["sequence"]["feature"], keys, sequences + (keys != (STEPS,)))
    elif "video" in node:
        frame = {**node["video"], "shape": {"dimensions": node["video"].get("shape", {}).get("dimensions", [])[1:]}}
        yield _feature({**node, "image": frame}, keys, sequences + 1)
    else:
        yield _feature(node, keys, sequences)


def _feature(node: Mapping[str, Any], keys: tuple[str, ...], sequences: int) -> ExampleFeature:
    per_step = keys[0] == STEPS
    path = ".".join(keys[1:] if per_step else keys)
    common: dict[str, Any] = {"path": path, "per_step": per_step, "ragged": sequences, "doc": _doc(node)}
    key = "/".join(keys)
    if "image" in node:
        image = node["image"]
        return ExampleFeature(
            Field(
                **common,
                kind="image",
                dtype=image.get("dtype", "uint8"),
                shape=_shape(image),
                encoding=image.get("encodingFormat") or None,
            ),
            key,
        )
    if "text" in node:
        return ExampleFeature(Field(**common, kind="text"), key)
    if "classLabel" in node:
        return ExampleFeature(Field(**common, kind="number", dtype="int64"), key)
    if "boundingBox" in node:
        return ExampleFeature(Field(**common, kind="number", dtype="float32", shape=(4,)), key)
    if "tensor" not in node:
        raise SourceError(
            f"{path}: feature {node.get('pythonClassName', '?')} is not supported; please report it",
            reason="bad_features",
        )
    return _tensor_feature(node["tensor"], key, common)


def _tensor_feature(tensor: Mapping[str, Any], key: str, common: dict[str, Any]) -> ExampleFeature:
    path, shape, dtype = common["path"], _shape(tensor), tensor["dtype"]
    encoding = tensor.get("encoding", "none").lower()
    unknown = shape.count(None)
    if encoding == "none" and (unknown > 1 or (unknown and (common["per_step"] or common["ragged"]))):
        raise SourceError(
            f"{path}: a tensor of shape {list(shape)} has unknown lengths that are not stored", reason="bad_features"
        )
    optional = tensor.get("optional", False) and not common["per_step"]
    if dtype in {"string", "object"}:
        return ExampleFeature(Field(**common, kind="bytes", shape=shape), key, optional=optional)
    bfloat16 = dtype == "bfloat16"
    number = np.dtype("float32" if bfloat16 else dtype)
    needs_encoding = bfloat16 or number.kind == "c"
    if number.kind not in "biufc" or encoding not in (
        {"bytes", "zlib"} if needs_encoding else {"none", "bytes", "zlib"}
    ):
        raise SourceError(
            f"{path}: a tensor of {dtype} with encoding '{encoding}' is not supported", reason="bad_features"
        )
    field = Field(
        **common, kind="number", dtype=number.name, shape=shape, encoding=None if encoding == "none" else encoding
    )
    return ExampleFeature(field, key, dynamic=unknown > 1, bfloat16=bfloat16, optional=optional)


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    dimensions = [int(d) for d in node.get("shape", {}).get("dimensions", [])]
    if math.prod(max(1, d) for d in dimensions) > MAX_VALUES:
        raise SourceError(f"the shape {dimensions} is too large", reason="bad_features")
    return tuple(None if d < 0 else d for d in dimensions)


def _doc(node: Mapping[str, Any]) -> str:
    doc = node.get("description", "")
    return doc if isinstance(doc, str) else str(doc.get("description", ""))
