"""One shard of a LeRobotDataset: its numbers and images first, then one camera's video after the other."""

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

from pipelines.convert.parquet import ROW_GROUP
from pipelines.export.cameras import Kept
from pipelines.export.lerobot.features import INDEX, Feature, Placed
from pipelines.export.lerobot.meta import Row
from pipelines.export.lerobot.places import Places
from pipelines.export.lerobot.stats import Figures, every, merged, of_pixels, of_values, sampled
from pipelines.export.lerobot.video import BEST, Codec, Pictures, VideoFile
from pipelines.export.plan import ExportOptions, ExportRef, checked
from schemas.errors import DatasetError
from schemas.files.folder import LocalFolder
from schemas.source import Array, Bytes
from schemas.store.arrow import hugging_feature
from schemas.store.dataset import Dataset
from stats.formats import LEROBOT
from stats.levels import Levels

ROWS = 4096  # of a row group without images


class Export(Protocol):
    """What a shard needs to know of the export that it is a part of."""

    dataset: Dataset
    out: LocalFolder
    asked: ExportOptions
    fps: float
    rate: Fraction
    codec: Codec
    cameras: tuple[Kept, ...]
    features: tuple[Feature, ...]

    @property
    def tasks(self) -> Mapping[str, int]:
        """Number the instructions."""

    @property
    def videos(self) -> Sequence[str]:
        """Name the cameras that become videos."""

    def refs(self) -> Sequence[ExportRef]:
        """Plan the shards."""

    def rows(self, ref: ExportRef, stats: Sequence[Mapping[str, Any]]) -> Sequence[Row]:
        """Say of a shard's episodes what the table of episodes does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The episodes that share files: in v3.0 a whole shard, in v2.1 one."""

    places: Places
    numbers: range  # of the shard's episodes


@dataclass(slots=True)
class Shard:
    """What is known of a shard while it is written."""

    export: Export
    ref: ExportRef
    rows: list[Array]  # of each episode, the steps that are exported
    stats: list[dict[str, Figures]]  # of each episode
    levels: dict[str, list[Levels]]  # of each camera, by channel
    frames: dict[str, int]  # of each camera: how many were sampled
    tasks: dict[int, int]  # steps of each task
    psnr: dict[str, float]  # of each video, the worst frame's


def write_shard(export: Export, ref: ExportRef) -> tuple[list[str], dict[str, Any]]:
    """Write the files of some episodes; gives their names, and what `Written` adds up."""
    shard = Shard(export, ref, [], [], {}, {}, {}, {})
    names = [_write_data(shard, part) for part in parts_of(export, ref)]
    for kept in export.cameras:
        if kept.is_video:
            names += [_write_video(shard, part, kept) for part in parts_of(export, ref)]
    return names, {
        "stats": shard.stats,
        "levels": {key: [levels.to_json() for levels in channels] for key, channels in shard.levels.items()},
        "frames": shard.frames,
        "tasks": [list(item) for item in shard.tasks.items()],
        "psnr": shard.psnr,
    }


def parts_of(export: Export, ref: ExportRef) -> Iterator[Part]:
    """Say which episodes of a shard share files."""
    version = export.asked.version
    if version == "3.0":
        yield Part(places=Places(version=version, shard=ref.number, episode=0), numbers=range(ref.episodes))
        return
    for k in range(ref.episodes):
        places = Places(version=version, shard=ref.number, episode=ref.first_episode + k)
        yield Part(places=places, numbers=range(k, k + 1))


def _write_data(shard: Shard, part: Part) -> str:
    """Write one Parquet file, episode by episode."""
    out, features = shard.export.out, shard.export.features
    about = {"info": {"features": {feature.name: hugging_feature(feature.kind) for feature in features}}}
    schema = pa.schema([(f.name, f.kind) for f in features], metadata={"huggingface": json.dumps(about)})
    name = part.places.data()
    tmp = out.staged(name.rpartition("/")[0])
    rows = ROW_GROUP if any(feature.dtype == "image" for feature in features) else ROWS
    try:
        with pq.ParquetWriter(tmp, schema, compression="zstd") as writer:
            waiting = list[pa.Table]()
            for k in part.numbers:
                placed = _placed(shard, k)
                waiting.append(pa.table([feature.array(placed) for feature in features], schema=schema))
                _count(shard, placed)
                if sum(map(len, waiting)) >= rows or k == part.numbers[-1]:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=rows)
                    waiting = []
        out.adopt(tmp, name)
    finally:
        out.drop(tmp)
    return name


def _placed(shard: Shard, k: int) -> Placed:
    """Read the k-th episode of a shard; which steps a view keeps is noted for the videos."""
    export, ref = shard.export, shard.ref
    view = export.dataset.view(export.asked.view) if export.asked.view else None
    stored = checked(export.dataset, ref.positions[k], None)
    shard.rows.append(np.flatnonzero(view.of(stored).mask) if view else np.arange(len(stored)))
    return Placed(
        episode=view.apply(stored) if view else stored,
        number=ref.first_episode + k,
        first=ref.first_step + sum(ref.lengths[:k]),
        fps=export.fps,
        tasks=export.tasks,
    )


def _count(shard: Shard, placed: Placed) -> None:
    """Take the statistics of an episode's numbers and encoded images."""
    stats: dict[str, Figures] = {}
    for feature in shard.export.features:
        if feature.name in {*LEROBOT.values(), *INDEX}:
            values = np.asarray(feature.fill(placed))
            stats[feature.name] = of_values(values)
            if feature.name == "task_index":
                for task, count in zip(*np.unique(values, return_counts=True), strict=True):
                    shard.tasks[int(task)] = shard.tasks.get(int(task), 0) + int(count)
    shard.stats.append(stats)
    for kept in shard.export.cameras:
        if not kept.is_video:
            leaf, episode = kept.camera.leaf, placed.episode
            frames = episode.depth[leaf] if kept.camera.is_depth else episode.images[leaf]
            images = [image for t in sorted(sampled(len(frames))) if (image := frames[t]) is not None]
            _sample(shard, len(shard.stats) - 1, kept, images=[_pixels(image) for image in images])


def _pixels(image: Bytes) -> Array:
    """Decode an encoded image as the `datasets` library does."""
    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.asarray(opened.convert("RGB") if opened.mode == "P" else opened)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _sample(shard: Shard, k: int, kept: Kept, *, images: Sequence[Array]) -> None:
    """Count the pixels of an episode's sampled frames, for its own statistics and those of the whole."""
    if not images:
        return
    step = every(*images[0].shape[:2])
    found = merged(
        [[Levels.of(np.ascontiguousarray(c)) for c in np.moveaxis(x[::step, ::step], -1, 0)] for x in images]
    )
    shard.stats[k][kept.key] = of_pixels(found, frames=len(images), unit=unit_of(kept))
    before = shard.levels.get(kept.key)
    shard.levels[kept.key] = merged([before, found]) if before else found
    shard.frames[kept.key] = shard.frames.get(kept.key, 0) + len(images)


def unit_of(kept: Kept) -> float:
    """Say which level counts as 1: 255, but a depth's levels count as they are."""
    return 1.0 if kept.camera.is_depth else 255.0


def _write_video(shard: Shard, part: Part, kept: Kept) -> str:
    """Write one camera's video; no more than one frame is decoded at a time, but for what the encoder holds."""
    export, name = shard.export, part.places.video(kept.key)
    pictures = Pictures(is_bgr=kept.camera.channels == "bgr")
    tmp = export.out.staged(name.rpartition("/")[0])
    size = kept.header.height, kept.header.width
    step = every(*size)
    try:
        with closing(VideoFile(tmp, export.codec, fps=export.rate, size=size)) as video:
            for k in part.numbers:
                rows = shard.rows[k]
                wanted, seen = sampled(len(rows)), list[Array]()
                for t, image in enumerate(stored_images(export, kept, shard.ref.positions[k], rows=rows)):
                    where = f"{kept.key}: episode {shard.ref.first_episode + k}: step {t}"
                    frame = pictures.decoded(image, where=where)
                    if (frame.height, frame.width) != size:
                        raise _another_size(where, frame, size)
                    video.add(pictures.planes(frame), is_first=t == 0)
                    if t in wanted:
                        seen.append(pictures.pixels(frame, step))
                _sample(shard, k, kept, images=seen)
            video.finish()
        shard.psnr[kept.key] = min(shard.psnr.get(kept.key, BEST), video.psnr)
        export.out.adopt(tmp, name)
    finally:
        export.out.drop(tmp)
    return name


def kept_rows(export: Export, i: int) -> Array:
    """Say which steps of an episode are exported."""
    stored = export.dataset.episode(i)
    view = export.dataset.view(export.asked.view) if export.asked.view else None
    return np.flatnonzero(view.of(stored).mask) if view else np.arange(len(stored))


def stored_images(export: Export, kept: Kept, i: int, *, rows: Array) -> Iterator[bytes]:
    """Read the encoded images of one camera at some steps of an episode."""
    path, start, _ = export.dataset.where(i)
    file, number = export.dataset.file(path), export.dataset.columns.cameras.index(kept.camera)
    return (file.image(start + row, number) or b"" for row in rows.tolist())


def _another_size(where: str, frame: Any, size: tuple[int, int]) -> DatasetError:
    found, first = f"{frame.height} x {frame.width}", f"{size[0]} x {size[1]}"
    return DatasetError(f"{where}: {found}, the first frame is {first}; a video has one size: give --video none")


class Written:
    """Adds up what the shards' records say."""

    def __init__(self, cameras: Sequence[Kept]) -> None:
        """Begin with nothing."""
        self.cameras = {kept.key: kept for kept in cameras}
        self.tasks: dict[int, int] = {}
        self._levels: dict[str, list[Levels]] = {}
        self._frames: dict[str, int] = {}
        self._psnr: dict[str, float] = {}

    def add(self, record: Mapping[str, Any]) -> list[dict[str, Figures]]:
        """Take one record; gives the statistics of its episodes."""
        for task, count in record["tasks"]:
            self.tasks[task] = self.tasks.get(task, 0) + count
        for key, channels in record["levels"].items():
            found = [Levels.from_json(levels) for levels in channels]
            self._levels[key] = merged([self._levels[key], found]) if key in self._levels else found
            self._frames[key] = self._frames.get(key, 0) + record["frames"][key]
        for key, psnr in record["psnr"].items():
            self._psnr[key] = min(psnr, self._psnr.get(key, BEST))
        stats: list[dict[str, Figures]] = record["stats"]
        return stats

    def figures(self) -> dict[str, Figures]:
        """Give the statistics of each camera."""
        return {
            key: of_pixels(channels, frames=self._frames[key], unit=unit_of(self.cameras[key]))
            for key, channels in self._levels.items()
        }

    @property
    def bounds(self) -> dict[str, float]:
        """Say for each video how near every frame is to its source: PSNR in dB, rounded down to one decimal."""
        return {key: floor(psnr * 10) / 10 for key, psnr in self._psnr.items()}
