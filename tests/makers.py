"""Small makers of test inputs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from schemas.source import Column, Ragged


def write_rlds(
    folder: Path,
    episodes: Sequence[Mapping[str, Any]],
    features: Any,
    *,
    splits: Mapping[str, int] | None = None,
    shards: int = 1,
    name: str = "toy",
) -> Path:
    """Write episodes as `tensorflow-datasets` does, with its own serializer, TFRecord writer and descriptions.

    `features` is a `tfds.features.FeaturesDict` (or a dict of features) with `steps`; `splits` says how many episodes
    go to each split, in order; every split gets `shards` shards. Returns `folder`, which is then the version folder.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    folder.mkdir(parents=True, exist_ok=True)
    features = tfds.features.FeaturesDict(features) if isinstance(features, dict) else features
    rest = [features.serialize_example(dict(episode)) for episode in episodes]
    infos = []
    for split, count in (splits or {"train": len(episodes)}).items():
        bounds = [count * i // shards for i in range(shards + 1)]
        for i, (start, end) in enumerate(pairwise(bounds)):
            with tf.io.TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-{i:05d}-of-{shards:05d}")) as file:
                for record in rest[start:end]:
                    file.write(record)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[end - start for start, end in pairwise(bounds)],
                num_bytes=sum(map(len, rest[:count])),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord"
                ),
            )
        )
        rest = rest[count:]
    identity = DatasetIdentity(name=name, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="")
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    return folder


def write_hdf5(
    file: Path, groups: Mapping[str, Mapping[str, Any]], attrs: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write an HDF5 file with h5py: groups by path, each with its datasets, and attributes of any path."""
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as made:
        for path, held in groups.items():
            group = made.require_group(path)
            for name, values in held.items():
                group[name] = values
        for path, named in (attrs or {}).items():
            made[path].attrs.update(named)
    return file


def nested(column: Column) -> list[Any]:
    """List one value a step; of ragged columns, nested lists."""
    if not isinstance(column, Ragged):
        return list(column)
    values = nested(column.values)
    for lengths in reversed(column.lengths):
        ends = np.cumsum(lengths)
        values = [values[end - n : end] for n, end in zip(lengths, ends, strict=True)]
    return values
