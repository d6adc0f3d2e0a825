"""Write RLDS as `tensorflow-datasets` stores it, without TensorFlow.

`tf.train.Example` cannot store float64 exactly. Therefore float64 numbers are stored as tensors with encoding "bytes",
which `tensorflow-datasets` reads back exactly.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from pipelines.readers.rlds import example, tfrecord
from pipelines.readers.rlds.features import TEMPLATE
from schemas.errors import DatasetError
from schemas.source import Array, Bytes, Column, Field, Ragged

FEATURE = "tensorflow_datasets.core.features."
Stored = dict[str, Array | Sequence[Bytes]]


@dataclass(frozen=True, slots=True)
class RldsFeature:
    """One feature to write; `field.path` is its path below `steps` or below the episode."""

    field: Field
    optional: bool = False  # a per-episode feature that some episodes lack

    @property
    def keys(self) -> tuple[str, ...]:
        """Path in the feature tree."""
        path = tuple(self.field.path.split("."))
        return ("steps", *path) if self.field.per_step else path

    @property
    def encoding(self) -> str:
        """Encoding of the tensor: `bytes` or `none`."""
        return "bytes" if self.field.kind == "number" and self.field.dtype == "float64" else "none"

    def encode(self, column: Column) -> Stored:
        """Return one episode's values in the layout of `tensorflow-datasets`."""
        key = "/".join(self.keys)
        levels = self.field.ragged if self.field.per_step else self.field.ragged - 1
        if isinstance(column, Ragged) and levels > 0:
            lengths: Stored = {f"{key}/ragged_row_lengths_{i}": n for i, n in enumerate(column.lengths[:levels])}
            return lengths | {f"{key}/ragged_flat_values": self._values(column.values)}
        return {key: self._values(column.values if isinstance(column, Ragged) else column)}

    def _values(self, values: Array | Sequence[Bytes]) -> Array | Sequence[Bytes]:
        if isinstance(values, np.ndarray) and self.encoding == "bytes":
            return [item.tobytes() for item in values]
        return values

    def to_json(self) -> dict[str, Any]:
        """Return the feature's entry in `features.json`."""
        node = self._node() | ({"description": self.field.doc} if self.field.doc else {})
        for _ in range(self.field.ragged):
            sequence = {"feature": node, "length": "-1"}
            node = {"pythonClassName": f"{FEATURE}sequence_feature.Sequence", "sequence": sequence}
        return node

    def _node(self) -> dict[str, Any]:
        shape = {"dimensions": [str(-1 if d is None else d) for d in self.field.shape]} if self.field.shape else {}
        if self.field.kind == "image":
            image = {"shape": shape, "dtype": self.field.dtype, "encodingFormat": self.field.encoding}
            return {"pythonClassName": f"{FEATURE}image_feature.Image", "image": image}
        if self.field.kind == "text":
            return {"pythonClassName": f"{FEATURE}text_feature.Text", "text": {}}
        dtype = "string" if self.field.kind == "bytes" else self.field.dtype
        tensor: dict[str, Any] = {"shape": shape, "dtype": dtype, "encoding": self.encoding}
        tensor |= {"optional": True} if self.optional else {}
        name = "tensor_feature.Tensor" if self.field.shape or self.encoding != "none" else "scalar.Scalar"
        return {"pythonClassName": FEATURE + name, "tensor": tensor}


def features_json(features: Sequence[RldsFeature]) -> str:
    """Return the text of `features.json`.

    Raises DatasetError if one path is both a feature and a group of features.
    """
    tree: dict[str, Any] = {}
    for feature in features:
        *parents, name = feature.keys
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if isinstance(node, RldsFeature):
                raise DatasetError(f"RLDS cannot store both '{node.field.path}' and '{feature.field.path}'")
        if name in node:
            raise DatasetError(f"RLDS cannot store both '{feature.field.path}' and '{feature.field.path}.*'")
        node[name] = feature
    steps = {"feature": _tree(tree.pop("steps")), "length": "-1"}
    root = _tree(tree)
    dataset = {"pythonClassName": f"{FEATURE}dataset_feature.Dataset", "sequence": steps}
    root["featuresDict"]["features"]["steps"] = dataset
    return json.dumps(root, indent=4)


def _tree(node: Mapping[str, Any]) -> dict[str, Any]:
    children = {name: n.to_json() if isinstance(n, RldsFeature) else _tree(n) for name, n in node.items()}
    return {"pythonClassName": f"{FEATURE}features_dict.FeaturesDict", "featuresDict": {"features": children}}


def metadata_column(value: Any, field: Field) -> Column:
    """Convert one per-episode value (a number, str, bytes, or lists of them) to the stored column."""
    levels = max(0, field.ragged - 1)
    values, lengths = value if field.ragged else [value], list[Array]()
    for _ in range(levels):
        lengths.append(np.array([len(item) for item in values], np.int64))
        values = [item for items in values for item in items]
    stored: Column
    if field.kind == "number":
        shape = [-1 if d is None else d for d in field.shape]
        stored = np.array(values, field.dtype).reshape(len(values), *shape)
    else:
        flat = np.array(values, object).ravel().tolist() if field.shape else values
        stored = [item.encode() if isinstance(item, str) else item for item in flat]
    return Ragged(stored, tuple(lengths)) if lengths else stored


class TfRecordWriter:
    """Writes episodes to one TFRecord file."""

    def __init__(self, path: Path) -> None:
        """Create the file."""
        self.file: IO[bytes] = path.open("wb")
        self.episodes = self.bytes = 0

    def add(self, columns: Mapping[RldsFeature, Column | None]) -> None:
        """Write one episode; the column of an optional feature is None if the episode does not have it."""
        stored: Stored = {}
        for feature, column in columns.items():
            stored |= {} if column is None else feature.encode(column)
        record = example.encode(stored)
        self.file.write(tfrecord.frame(record))
        self.episodes += 1
        self.bytes += len(record)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ShardSize(Protocol):
    """The size of one file, for `dataset_info.json`."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""

    @property
    def bytes(self) -> int:
        """Size of all records in bytes, without the TFRecord framing."""


def info_json(name: str, splits: Mapping[str, Sequence[ShardSize]], *, version: str, description: str) -> str:
    """Return the text of `dataset_info.json`."""
    info = {
        "name": name,
        "version": version,
        "description": description,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "filepathTemplate": TEMPLATE,
                "numBytes": str(sum(shard.bytes for shard in shards)),
                "shardLengths": [str(shard.episodes) for shard in shards],
            }
            for split, shards in splits.items()
        ],
    }
    return json.dumps(info, indent=2)
