"""`export lerobot`: write a dataset as a LeRobotDataset, v3.0 or v2.1, with videos or encoded images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from math import inf, isfinite
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.beam.engine import Engine
from pipelines.convert.binding import Binding
from pipelines.convert.rate import rate_note
from pipelines.export.cameras import ExportCamera, export_cameras
from pipelines.export.declaration import FieldPaths, declaration, free_name
from pipelines.export.lerobot.features import INDEX, TIMES, features, has_times
from pipelines.export.lerobot.meta import (
    EpisodeRow,
    Totals,
    table_schema,
    write_info,
    write_lines,
    write_table,
    write_tasks,
)
from pipelines.export.lerobot.paths import PATTERN, STATS
from pipelines.export.lerobot.shard import ShardTotals, write_shard
from pipelines.export.lerobot.stats import index_stats
from pipelines.export.lerobot.verify import check_descriptions, check_video
from pipelines.export.lerobot.video import Codec
from pipelines.export.plan import (
    ExportOptions,
    ExportRef,
    ExportReport,
    exported_lengths,
    in_order_of_steps,
    shards_of_size,
)
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import Verification
from schemas.episode import Episode, Frames
from schemas.errors import DatasetError, UsageError
from schemas.files.folder import LocalFolder
from schemas.source import Column
from schemas.store.arrow import RAW, metadata_schema
from schemas.store.dataset import Dataset
from stats.formats import LEROBOT
from stats.formats import lerobot as figures_of

MAX_CRF = 51  # H.264's limit
MAX_SECONDS = 1000  # longest video: LeRobot seeks by time in float32, which is too coarse from 1024 s on
RESERVED = {"episode_index", "tasks", "length", "task", "oxe_id", "oxe_outcome", *INDEX}  # names of other columns
RESERVED_PREFIXES = ("data/", "videos/", "meta/", "stats", "dataset_from_index", "dataset_to_index")


class LeRobotExport:
    """An export that LeRobot opens.

    In v3.0, each shard has one Parquet file and one video per camera. In v2.1, each episode has its own.
    """

    pattern = PATTERN

    def __init__(self, dataset: Dataset, out: LocalFolder, options: ExportOptions) -> None:
        """Choose the features and how each camera is stored.

        Raises UsageError if an option does not fit the dataset.
        """
        self.dataset, self.out, self.options = dataset, out, options
        if options.video == "h264" and options.crf > MAX_CRF:
            raise UsageError(f"--crf: expected 0 to {MAX_CRF} for H.264, got {options.crf}")
        self.fps = _fps(dataset, options)
        self.rate = Fraction(self.fps).limit_denominator(10_000)
        self.space = dataset.action_space(options.view)
        self.codec = Codec.of(options.video, crf=options.crf, gop=options.gop)
        self.cameras, cameras_left_out = export_cameras(dataset, options.video, images=options.images)
        self.features, self.raw, raw_left_out = features(dataset, self.space, self.cameras, view=options.view)
        self.metadata, metadata_left_out = _metadata(dataset, [feature.name for feature in self.features])
        self.left_out = {**cameras_left_out, **raw_left_out, **metadata_left_out}

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Instruction -> task_index, in the order of the episodes."""
        listed = self.dataset.episodes.select("instructions").collect()["instructions"].to_list()
        texts = dict.fromkeys(text for texts in listed for text in texts or [""])
        return {text: number for number, text in enumerate(texts)}

    @property
    def videos(self) -> list[str]:
        """Keys of the cameras that become videos."""
        return [camera.key for camera in self.cameras if camera.is_video]

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan shards by their size in bytes and the length of their videos.

        Raises DatasetError if no step is exported.
        """
        longest = MAX_SECONDS * self.fps if self.videos else inf
        lengths = exported_lengths(self.dataset, self.options.view)
        if not any(lengths):
            masked = f": view '{self.options.view}' masks every step" if self.options.view else ""
            raise DatasetError(f"{self.dataset.uri}: no steps to export{masked}")
        return shards_of_size(self.dataset, lengths, longest=longest)

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one shard."""
        return write_shard(self, ref)

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:
        """Write everything below `meta/`."""
        version = self.options.version
        sums = ShardTotals(self.cameras)
        shards = ((ref, self.rows(ref, sums.add(record))) for ref, record in zip(refs, records, strict=True))
        if version == "3.0":
            vectors = [name for name in (*LEROBOT.values(), *INDEX) if any(f.name == name for f in self.features)]
            images = [camera.key for camera in self.cameras]
            schema = table_schema(self._about_fields(), videos=self.videos, vectors=vectors, images=images)
            write_table(self.out, shards, schema=schema, videos=self.videos, fps=self.fps)
        else:
            write_lines(self.out, (episode for _, episodes in shards for episode in episodes))
        write_tasks(self.out, version, self.tasks)
        stats = figures_of(statistics(self.dataset, selection=Selection(view=self.options.view), engine=engine))
        lengths = [length for ref in refs for length in ref.lengths]
        stats |= sums.camera_stats() | index_stats(lengths, sums.tasks, fps=self.fps)
        self.out.write(STATS, json.dumps(stats, indent=4).encode())
        totals = Totals(episodes=len(lengths), steps=sum(lengths), tasks=len(self.tasks), splits=_splits(refs))
        robot = self.dataset.spec.embodiment.robot
        write_info(
            self.out,
            version,
            totals,
            robot=robot,
            fps=self.fps,
            features=self.features,
            cameras=self.cameras,
            codec=self.codec,
        )
        return self._report(totals, refs, sums)

    def _report(self, totals: Totals, refs: Sequence[ExportRef], sums: ShardTotals) -> ExportReport:
        cameras = {
            camera.key: {
                "as": f"{self.codec.name} video" if camera.is_video else _form(camera),
                "psnr": sums.bounds[camera.key] if camera.is_video else None,
                "why": camera.why,
            }
            for camera in self.cameras
        }
        groups = len(refs) if self.options.version == "3.0" else totals.episodes
        return ExportReport(
            out=self.out.uri,
            episodes=totals.episodes,
            steps=totals.steps,
            files=groups * (1 + len(self.videos)),
            without_steps=len(self.dataset) - totals.episodes,
            view=self.options.view,
            cameras=cameras,
            left_out=self.left_out,
            notes=tuple(filter(None, [rate_note(self.dataset)])),
        )

    def rows(self, ref: ExportRef, stats: Sequence[Mapping[str, Any]]) -> list[EpisodeRow]:
        """Return the rows of a shard's episodes in the table of episodes."""
        starts = ref.first_step + np.cumsum([0, *ref.lengths])
        about = self._about[list(ref.positions)].to_dicts()
        return [
            EpisodeRow(
                number=ref.first_episode + k,
                length=length,
                first=int(starts[k]),
                tasks=about[k]["instructions"] or [""],
                about={name: about[k][column] for name, column in self._about_columns.items()},
                stats=stats[k],
            )
            for k, length in enumerate(ref.lengths)
        ]

    @cached_property
    def _about_columns(self) -> dict[str, str]:
        """Column of LeRobot's table of episodes -> column of the dataset's table, for ids, outcomes and metadata."""
        outcome = {"oxe_outcome": "outcome"} if self.dataset.columns.origins["outcome"] else {}
        return {"oxe_id": "id"} | outcome | {name: f"metadata.{path}" for name, path in self.metadata.items()}

    @cached_property
    def _about(self) -> Any:
        return self.dataset.episodes.select("instructions", *self._about_columns.values()).collect()

    def _about_fields(self) -> list[pa.Field]:
        types = {"id": pa.string(), "outcome": pa.string()} | {
            field.name: field.type for field in metadata_schema(self.dataset.columns)
        }
        return [pa.field(name, types[column]) for name, column in self._about_columns.items()]

    def declaration(self) -> Mapping[str, Any]:
        """Return the declaration that reads the export back."""
        paths = FieldPaths(
            source={"format": "lerobot"},
            language=("task", "tasks"),
            id="oxe_id",
            outcome="oxe_outcome",
            timestamp=TIMES if has_times(self.dataset, self.options.view) else None,
            cameras={camera.source.column: camera.key for camera in self.cameras},
            rgb=frozenset(camera.source.column for camera in self.cameras if camera.is_video),
        )
        return declaration(self.dataset, paths, view=self.options.view, space=self.space)

    def settings(self) -> Mapping[str, Any]:
        """Return the codec and the names of the dataset's columns in the export; kept in the record."""
        return {
            "codec": self.codec.to_json() if self.videos else None,
            "cameras": {camera.source.column: camera.key for camera in self.cameras},
            "raw": self.raw,
            "metadata": self.metadata,
        }

    def as_exported(self, episode: Episode, binding: Binding) -> Episode:
        """Return the episode with LeRobot's names and shapes, without the videos and the columns that are left out."""
        leaves = {camera.path: camera.leaf for camera in binding.layout.cameras}
        images, depth = dict[str, Frames](), dict[str, Frames]()
        for camera in self.cameras:
            if not camera.is_video:
                renamed = depth if camera.source.is_depth else images
                renamed[leaves[camera.key]] = camera.frames(episode, where=f"episode {episode.id}")
        raw = {name.removeprefix(RAW): _scalars(episode.raw[path]) for name, path in self.raw.items()}
        metadata = {name: _as_read(episode.metadata[path]) for name, path in self.metadata.items()}
        return in_order_of_steps(replace(episode, images=images, depth=depth, raw=raw, metadata=metadata))

    def comparable(self, episode: Episode) -> Episode:
        """Return the episode without the metadata that LeRobot's table of episodes adds."""
        return replace(episode, metadata={name: episode.metadata.get(name) for name in self.metadata})

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Compare the metadata files and the videos."""
        check_descriptions(self, out)
        bounds = record["report"]["cameras"]
        for camera in self.cameras:
            if camera.is_video:
                check_video(self, camera, out, bound=bounds[camera.key]["psnr"])


def _form(camera: ExportCamera) -> str:
    return "png images, re-encoded" if camera.is_recoded else f"{camera.header.format} images"


def _scalars(column: Column) -> Column:
    """Drop the last axis of a [T, 1] column, as LeRobot does."""
    is_one = isinstance(column, np.ndarray) and column.shape[1:] == (1,)
    return column.reshape(-1) if is_one else column  # type: ignore[union-attr]


def _as_read(value: Any) -> Any:
    """Return a metadata value as it is read from the export.

    Numbers, texts and lists of texts are unchanged; other values become JSON.
    """
    if not isinstance(value, list) or all(isinstance(item, str) for item in value):
        return value
    return json.dumps(value)


def _fps(dataset: Dataset, options: ExportOptions) -> float:
    known = (dataset.view(options.view).control_hz if options.view else None) or dataset.spec.control_hz
    if known is None and options.fps is None:
        raise UsageError(
            f"{dataset.uri}: the dataset does not declare its control rate; pass --fps to set the frame rate"
        )
    if known is not None and options.fps not in {None, known}:
        raise UsageError(
            f"{dataset.uri}: the control rate is {known:g} Hz; --fps is only for datasets without a control rate"
        )
    fps = float(known or options.fps or 0)
    if not (isfinite(fps) and 0.01 <= fps <= 10_000):
        raise UsageError(f"--fps: expected 0.01 to 10000, got {fps:g}")
    return fps


def _metadata(dataset: Dataset, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Choose a column of the table of episodes for each per-episode field of the source.

    Returns a mapping from columns to fields, and a mapping from the fields that are left out to the reasons.
    """
    columns, left_out = dict[str, str](), dict[str, str]()
    taken = RESERVED.union(names)
    for field in dataset.columns.metadata:
        if field.kind in {"number", "text"}:
            name = f"source.{field.path}" if field.path.startswith(RESERVED_PREFIXES) else field.path
            columns[free_name(name, taken | columns.keys())] = field.path
        else:
            left_out[f"metadata.{field.path}"] = f"LeRobot's table of episodes has no type for {field.kind} values"
    return columns, left_out


def _splits(refs: Sequence[ExportRef]) -> dict[str, str]:
    """Return each split's range of episodes; the shards of a split are consecutive."""
    ranges: dict[str, tuple[int, int]] = {}
    for ref in refs:
        start, _ = ranges.get(ref.split, (ref.first_episode, 0))
        ranges[ref.split] = start, ref.first_episode + ref.episodes
    return {split: f"{start}:{end}" for split, (start, end) in ranges.items()}
