"""Write one shard of a LeRobotDataset: first its Parquet files, then the videos, camera by camera."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.export.cameras import ExportCamera
from pipelines.export.lerobot.features import INDEX, ExportFeature, NumberedEpisode
from pipelines.export.lerobot.meta import EpisodeRow
from pipelines.export.lerobot.paths import ShardPaths
from pipelines.export.lerobot.stats import (
    FeatureStats,
    image_stats,
    merge_channels,
    pixel_stride,
    sampled_frames,
    vector_stats,
)
from pipelines.export.lerobot.video import MAX_PSNR, Codec, ImageDecoder, VideoFile
from pipelines.export.plan import ExportOptions, ExportRef, read_verified
from schemas.codec import decode
from schemas.errors import DatasetError
from schemas.files.folder import LocalFolder
from schemas.source import Array, Bytes
from schemas.store.arrow import hugging_feature
from schemas.store.dataset import Dataset
from stats.formats import LEROBOT
from stats.levels import Levels

ROW_GROUP, ROW_GROUP_WITHOUT_IMAGES = 128, 4096  # rows


class Export(Protocol):
    """The part of `LeRobotExport` that writing a shard needs."""

    dataset: Dataset
    out: LocalFolder
    options: ExportOptions
    fps: float
    rate: Fraction
    codec: Codec
    cameras: tuple[ExportCamera, ...]
    features: tuple[ExportFeature, ...]

    @property
    def tasks(self) -> Mapping[str, int]:
        """Instruction -> task_index."""

    @property
    def videos(self) -> Sequence[str]:
        """Keys of the cameras that become videos."""

    def refs(self) -> Sequence[ExportRef]:
        """Plan the shards."""

    def rows(self, ref: ExportRef, stats: Sequence[Mapping[str, Any]]) -> Sequence[EpisodeRow]:
        """Return the rows of a shard's episodes in the table of episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGroup:
    """Episodes that share files: all episodes of a shard in v3.0, one in v2.1."""

    paths: ShardPaths
    numbers: range  # episodes of the shard, counted from 0


@dataclass(slots=True)
class ShardState:
    """A shard that is being written."""

    export: Export
    ref: ExportRef
    rows: list[Array]  # the exported steps of each episode
    stats: list[dict[str, FeatureStats]]  # statistics of each episode, by feature
    levels: dict[str, list[Levels]]  # camera -> histogram of each channel
    frames: dict[str, int]  # camera -> sampled frames
    tasks: dict[int, int]  # task_index -> steps
    psnr: dict[str, float]  # camera -> PSNR of its worst frame


def write_shard(export: Export, ref: ExportRef) -> tuple[list[str], dict[str, Any]]:
    """Write the files of a shard; returns their paths, and the record that is passed to `ShardTotals.add`."""
    shard = ShardState(export, ref, [], [], {}, {}, {}, {})
    names = [_write_data(shard, group) for group in file_groups(export, ref)]
    for camera in export.cameras:
        if camera.is_video:
            names += [_write_video(shard, group, camera) for group in file_groups(export, ref)]
    return names, {
        "stats": shard.stats,
        "levels": {key: [levels.to_json() for levels in channels] for key, channels in shard.levels.items()},
        "frames": shard.frames,
        "tasks": [list(item) for item in shard.tasks.items()],
        "psnr": shard.psnr,
    }


def file_groups(export: Export, ref: ExportRef) -> Iterator[FileGroup]:
    """Group the episodes of a shard by the files that they share."""
    version = export.options.version
    if version == "3.0":
        yield FileGroup(paths=ShardPaths(version=version, shard=ref.number, episode=0), numbers=range(ref.episodes))
        return
    for k in range(ref.episodes):
        paths = ShardPaths(version=version, shard=ref.number, episode=ref.first_episode + k)
        yield FileGroup(paths=paths, numbers=range(k, k + 1))


def _write_data(shard: ShardState, group: FileGroup) -> str:
    """Write one Parquet file, episode by episode; returns its path."""
    out, features = shard.export.out, shard.export.features
    about = {"info": {"features": {feature.name: hugging_feature(feature.arrow_type) for feature in features}}}
    schema = pa.schema([(f.name, f.arrow_type) for f in features], metadata={"huggingface": json.dumps(about)})
    name = group.paths.data()
    tmp = out.staged(name.rpartition("/")[0])
    rows = ROW_GROUP if any(feature.dtype == "image" for feature in features) else ROW_GROUP_WITHOUT_IMAGES
    try:
        with pq.ParquetWriter(tmp, schema, compression="zstd") as writer:
            waiting = list[pa.Table]()
            for k in group.numbers:
                numbered = _read_numbered(shard, k)
                waiting.append(pa.table([feature.array(numbered) for feature in features], schema=schema))
                _count(shard, numbered)
                if sum(map(len, waiting)) >= rows or k == group.numbers[-1]:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=rows)
                    waiting = []
        out.adopt(tmp, name, sync=False)
    finally:
        out.drop(tmp)
    return name


def _read_numbered(shard: ShardState, k: int) -> NumberedEpisode:
    """Read the k-th episode of a shard, and append its exported steps to `shard.rows` for the videos."""
    export, ref = shard.export, shard.ref
    view = export.dataset.view(export.options.view) if export.options.view else None
    stored = read_verified(export.dataset, ref.positions[k], None)
    shard.rows.append(np.flatnonzero(view.of(stored).mask) if view else np.arange(len(stored)))
    return NumberedEpisode(
        episode=view.apply(stored) if view else stored,
        number=ref.first_episode + k,
        first=ref.first_step + sum(ref.lengths[:k]),
        fps=export.fps,
        tasks=export.tasks,
    )


def _count(shard: ShardState, numbered: NumberedEpisode) -> None:
    """Add the statistics of an episode's numbers and encoded images to those of the shard."""
    stats: dict[str, FeatureStats] = {}
    for feature in shard.export.features:
        if feature.name in {*LEROBOT.values(), *INDEX}:
            values = np.asarray(feature.get(numbered))
            stats[feature.name] = vector_stats(values)
            if feature.name == "task_index":
                for task, count in zip(*np.unique(values, return_counts=True), strict=True):
                    shard.tasks[int(task)] = shard.tasks.get(int(task), 0) + int(count)
    shard.stats.append(stats)
    for camera in shard.export.cameras:
        if not camera.is_video:
            leaf, episode = camera.source.leaf, numbered.episode
            frames = episode.depth[leaf] if camera.source.is_depth else episode.images[leaf]
            images = [image for t in sorted(sampled_frames(len(frames))) if (image := frames[t]) is not None]
            pixels = [decode(image) if camera.is_recoded else _pixels(image) for image in images]
            _sample(shard, len(shard.stats) - 1, camera, images=pixels)


def _pixels(image: Bytes) -> Array:
    """Decode an image to [H, W, C] as the `datasets` library does."""
    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.asarray(opened)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _sample(shard: ShardState, k: int, camera: ExportCamera, *, images: Sequence[Array]) -> None:
    """Add an episode's sampled frames to the statistics of the episode and of the camera."""
    if not images:
        return
    stride = pixel_stride(*images[0].shape[:2])
    channels = merge_channels(
        [[Levels.of(np.ascontiguousarray(c)) for c in np.moveaxis(x[::stride, ::stride], -1, 0)] for x in images]
    )
    shard.stats[k][camera.key] = image_stats(channels, frames=len(images), unit=unit_of(camera))
    before = shard.levels.get(camera.key)
    shard.levels[camera.key] = merge_channels([before, channels]) if before else channels
    shard.frames[camera.key] = shard.frames.get(camera.key, 0) + len(images)


def unit_of(camera: ExportCamera) -> float:
    """Return the pixel value that counts as 1 in the statistics: 255 for colours, 1 for depth."""
    return 1.0 if camera.source.is_depth else 255.0


def _write_video(shard: ShardState, group: FileGroup, camera: ExportCamera) -> str:
    """Write one camera's video, decoding one frame at a time; returns its path."""
    export, name = shard.export, group.paths.video(camera.key)
    decoder = ImageDecoder(is_bgr=camera.source.channels == "bgr")
    tmp = export.out.staged(name.rpartition("/")[0])
    size = camera.header.height, camera.header.width
    stride = pixel_stride(*size)
    try:
        with closing(VideoFile(tmp, export.codec, fps=export.rate, size=size)) as video:
            for k in group.numbers:
                rows = shard.rows[k]
                sampled, images = sampled_frames(len(rows)), list[Array]()
                for t, image in enumerate(stored_images(export, camera, shard.ref.positions[k], rows=rows)):
                    where = f"{camera.key}: episode {shard.ref.first_episode + k}: step {t}"
                    frame = decoder.decoded(image, where=where)
                    if (frame.height, frame.width) != size:
                        raise _size_error(where, frame, size)
                    video.add(decoder.planes(frame), is_first=t == 0)
                    if t in sampled:
                        images.append(decoder.pixels(frame, stride))
                _sample(shard, k, camera, images=images)
            video.finish()
        shard.psnr[camera.key] = min(shard.psnr.get(camera.key, MAX_PSNR), video.psnr)
        export.out.adopt(tmp, name, sync=False)
    finally:
        export.out.drop(tmp)
    return name


def exported_steps(export: Export, i: int) -> Array:
    """Return the indices of the exported steps in the stored episode."""
    stored = export.dataset.episode(i)
    view = export.dataset.view(export.options.view) if export.options.view else None
    return np.flatnonzero(view.of(stored).mask) if view else np.arange(len(stored))


def stored_images(export: Export, camera: ExportCamera, i: int, *, rows: Array) -> Iterator[bytes]:
    """Read the encoded images of one camera at the steps `rows` of an episode; a missing image is empty."""
    path, start, _ = export.dataset.where(i)
    file, number = export.dataset.file(path), export.dataset.columns.cameras.index(camera.source)
    return (file.image(start + row, number) or b"" for row in rows.tolist())


def _size_error(where: str, frame: Any, size: tuple[int, int]) -> DatasetError:
    expected, actual = f"{size[0]} x {size[1]}", f"{frame.height} x {frame.width}"
    return DatasetError(f"{where}: expected {expected} as in the first frame, got {actual}; pass --video none")


class ShardTotals:
    """The sums of the records of all shards."""

    def __init__(self, cameras: Sequence[ExportCamera]) -> None:
        """Start with no records."""
        self.cameras = {camera.key: camera for camera in cameras}
        self.tasks: dict[int, int] = {}
        self._levels: dict[str, list[Levels]] = {}
        self._frames: dict[str, int] = {}
        self._psnr: dict[str, float] = {}

    def add(self, record: Mapping[str, Any]) -> list[dict[str, FeatureStats]]:
        """Add one record; returns the statistics of its episodes."""
        for task, count in record["tasks"]:
            self.tasks[task] = self.tasks.get(task, 0) + count
        for key, channels in record["levels"].items():
            added = [Levels.from_json(levels) for levels in channels]
            self._levels[key] = merge_channels([self._levels[key], added]) if key in self._levels else added
            self._frames[key] = self._frames.get(key, 0) + record["frames"][key]
        for key, psnr in record["psnr"].items():
            self._psnr[key] = min(psnr, self._psnr.get(key, MAX_PSNR))
        stats: list[dict[str, FeatureStats]] = record["stats"]
        return stats

    def camera_stats(self) -> dict[str, FeatureStats]:
        """Return the statistics of each camera."""
        return {
            key: image_stats(channels, frames=self._frames[key], unit=unit_of(self.cameras[key]))
            for key, channels in self._levels.items()
        }

    @property
    def bounds(self) -> dict[str, float]:
        """Camera -> PSNR in dB of its worst video frame, rounded down to one decimal."""
        return {key: floor(psnr * 10) / 10 for key, psnr in self._psnr.items()}
