"""Small functions that write test inputs."""

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from schemas.source import Column, Ragged

# For programs that measure their peak memory, in KiB. `ru_maxrss` includes the peak of the parent process.
PEAK = """int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))"""


def write_rlds(
    folder: Path,
    episodes: Sequence[Mapping[str, Any]],
    features: Any,
    *,
    splits: Mapping[str, int] | None = None,
    shards: int = 1,
    name: str = "toy",
) -> Path:
    """Write episodes with the serializer, TFRecord writer and descriptions of `tensorflow-datasets`.

    `features` is a `tfds.features.FeaturesDict` (or a dict of features) with `steps`; `splits` has the number of
    episodes of each split, in order; every split has `shards` shards. Returns `folder`, which is the version folder.
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
    """Write an HDF5 file with h5py; `groups` maps paths to datasets, `attrs` maps paths to attributes."""
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


def write_zarr(
    folder: Path,
    arrays: Mapping[str, Any],
    *,
    zarr_format: Literal[2, 3] = 2,
    chunks: Mapping[str, tuple[int, ...]] | None = None,
    compressors: Any = "auto",
) -> Path:
    """Write a Zarr store with the library zarr: arrays by path, each in one chunk unless `chunks` changes it."""
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    for path, values in arrays.items():
        held = np.asarray(values)
        size = (chunks or {}).get(path) or tuple(max(1, side) for side in held.shape)
        told = {"compressors": compressors, "config": {"write_empty_chunks": True}}
        made = group.create_array(path, shape=held.shape, chunks=size, dtype=held.dtype, **told)
        made[...] = held
    return folder


def write_csv(file: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write a text table with one line per row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([columns, *zip(*columns.values(), strict=True)])
    return file


def write_jsonl(file: Path, columns: Mapping[str, Any]) -> Path:
    """Write one JSON object per row; columns may be nested."""

    def row(held: Mapping[str, Any], i: int) -> dict[str, Any]:
        return {name: row(column, i) if isinstance(column, Mapping) else column[i] for name, column in held.items()}

    file.parent.mkdir(parents=True, exist_ok=True)
    first = next(iter(columns.values()))
    file.write_text("".join(json.dumps(row(columns, i)) + "\n" for i in range(len(first))))
    return file


def write_video(file: Path, *, frames: int, rate: int = 10, first: int = 0) -> Path:
    """Write a small H.264 video of plain frames that get lighter; frame number 0 is black."""
    import av

    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(file, "w") as made:
        stream: Any = made.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * number, np.uint8), format="rgb24")
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return file


def nested(column: Column) -> list[Any]:
    """List the value of each step; ragged columns become nested lists."""
    if not isinstance(column, Ragged):
        return list(column)
    values = nested(column.values)
    for lengths in reversed(column.lengths):
        ends = np.cumsum(lengths)
        values = [values[end - n : end] for n, end in zip(lengths, ends, strict=True)]
    return values
