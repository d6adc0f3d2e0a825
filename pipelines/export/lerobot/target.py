"""`export lerobot`: a published dataset as a LeRobotDataset, v3.0 or v2.1, with videos or encoded images."""

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
from pipelines.export.cameras import kept_cameras
from pipelines.export.declaration import Paths, declaration, free_name
from pipelines.export.lerobot import stats as lerobot_stats
from pipelines.export.lerobot.features import INDEX, TIMES, features, has_times
from pipelines.export.lerobot.meta import Row, Totals, table_schema, write_info, write_lines, write_table, write_tasks
from pipelines.export.lerobot.places import HOLDS, STATS
from pipelines.export.lerobot.shard import Written, write_shard
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

MAX_CRF = 51  # of H.264
MAX_SECONDS = 1000  # of one video: LeRobot asks for frames by float32 seconds, which are too coarse from 1024 on
OWN = {
    "episode_index",
    "tasks",
    "length",
    "task",
    "oxe_id",
    "oxe_outcome",
    *INDEX,
}  # names that mean something in LeRobot's tables
RESERVED = ("data/", "videos/", "meta/", "stats", "dataset_from_index", "dataset_to_index")


class LeRobotExport:
    """An export that LeRobot opens; the files of a shard are one of each kind, in v2.1 one for each episode."""

    holds = HOLDS

    def __init__(self, dataset: Dataset, out: LocalFolder, asked: ExportOptions) -> None:
        """Say which features there are and how each camera is kept."""
        self.dataset, self.out, self.asked = dataset, out, asked
        if asked.video == "h264" and asked.crf > MAX_CRF:
            raise UsageError(f"--crf {asked.crf}: H.264 has 0 to {MAX_CRF}")
        self.fps = _fps(dataset, asked)
        self.rate = Fraction(self.fps).limit_denominator(10_000)
        self.space = dataset.action_space(asked.view)
        self.codec = Codec.of(asked.video, crf=asked.crf, gop=asked.gop)
        self.cameras, without = kept_cameras(dataset, asked.video)
        self.features, self.raw, left_out = features(dataset, self.space, self.cameras, view=asked.view)
        self.metadata, lacking = _metadata(dataset, [feature.name for feature in self.features])
        self.left_out = {**without, **left_out, **lacking}

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Number the instructions, in the order in which episodes have them."""
        listed = self.dataset.episodes.select("instructions").collect()["instructions"].to_list()
        texts = dict.fromkeys(text for texts in listed for text in texts or [""])
        return {text: number for number, text in enumerate(texts)}

    @property
    def videos(self) -> list[str]:
        """Name the cameras that become videos."""
        return [kept.key for kept in self.cameras if kept.is_video]

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan shards by size and by the length of their videos."""
        longest = MAX_SECONDS * self.fps if self.videos else inf
        lengths = exported_lengths(self.dataset, self.asked.view)
        if not any(lengths):
            masked = f": view '{self.asked.view}' masks every step" if self.asked.view else ""
            raise DatasetError(f"{self.dataset.uri}: no steps to export{masked}")
        return shards_of_size(self.dataset, lengths, longest=longest)

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one shard."""
        return write_shard(self, ref)

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:
        """Write everything below `meta/`."""
        version = self.asked.version
        written = Written(self.cameras)
        shards = ((ref, self.rows(ref, written.add(record))) for ref, record in zip(refs, records, strict=True))
        if version == "3.0":
            vectors = [name for name in (*LEROBOT.values(), *INDEX) if any(f.name == name for f in self.features)]
            images = [kept.key for kept in self.cameras]
            schema = table_schema(self._about_fields(), videos=self.videos, vectors=vectors, images=images)
            write_table(self.out, shards, schema=schema, videos=self.videos, fps=self.fps)
        else:
            write_lines(self.out, (episode for _, episodes in shards for episode in episodes))
        write_tasks(self.out, version, self.tasks)
        counted = figures_of(statistics(self.dataset, selection=Selection(view=self.asked.view), engine=engine))
        lengths = [length for ref in refs for length in ref.lengths]
        figures = counted | written.figures() | lerobot_stats.of_index(lengths, written.tasks, fps=self.fps)
        self.out.write(STATS, json.dumps(figures, indent=4).encode())
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
        return self._report(totals, refs, written)

    def _report(self, totals: Totals, refs: Sequence[ExportRef], written: "Written") -> ExportReport:
        cameras = {
            kept.key: {
                "as": f"{self.codec.name} video" if kept.is_video else f"{kept.header.format} images",
                "psnr": written.bounds[kept.key] if kept.is_video else None,
                "why": kept.why,
            }
            for kept in self.cameras
        }
        parts = len(refs) if self.asked.version == "3.0" else totals.episodes
        return ExportReport(
            out=self.out.uri,
            episodes=totals.episodes,
            steps=totals.steps,
            files=parts * (1 + len(self.videos)),
            without_steps=len(self.dataset) - totals.episodes,
            view=self.asked.view,
            cameras=cameras,
            left_out=self.left_out,
            notes=tuple(filter(None, [rate_note(self.dataset)])),
        )

    def rows(self, ref: ExportRef, stats: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Say of a shard's episodes what the table of episodes does."""
        starts = ref.first_step + np.cumsum([0, *ref.lengths])
        about = self._about[list(ref.positions)].to_dicts()
        return [
            Row(
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
        """Name the columns of LeRobot's table that say what an episode is, and where the dataset has them."""
        outcome = {"oxe_outcome": "outcome"} if self.dataset.columns.origins["outcome"] else {}
        return {"oxe_id": "id"} | outcome | {name: f"metadata.{path}" for name, path in self.metadata.items()}

    @cached_property
    def _about(self) -> Any:
        return self.dataset.episodes.select("instructions", *self._about_columns.values()).collect()

    def _about_fields(self) -> list[pa.Field]:
        kinds = {"id": pa.string(), "outcome": pa.string()} | {
            field.name: field.type for field in metadata_schema(self.dataset.columns)
        }
        return [pa.field(name, kinds[column]) for name, column in self._about_columns.items()]

    def declaration(self) -> Mapping[str, Any]:
        """Give the declaration that reads the export back."""
        paths = Paths(
            source={"format": "lerobot"},
            language=("task", "tasks"),
            id="oxe_id",
            outcome="oxe_outcome",
            timestamp=TIMES if has_times(self.dataset, self.asked.view) else None,
            cameras={kept.camera.column: kept.key for kept in self.cameras},
            rgb=frozenset(kept.camera.column for kept in self.cameras if kept.is_video),
        )
        return declaration(self.dataset, paths, view=self.asked.view, space=self.space)

    def settings(self) -> Mapping[str, Any]:
        """Say for the record how the dataset's columns are named and its images compressed."""
        return {
            "codec": self.codec.to_json() if self.videos else None,
            "cameras": {kept.camera.column: kept.key for kept in self.cameras},
            "raw": self.raw,
            "metadata": self.metadata,
        }

    def read_back(self, episode: Episode, binding: Binding) -> Episode:
        """Give the episode with LeRobot's names and shapes, without what is left out and without the videos."""
        leaves = {camera.path: camera.leaf for camera in binding.layout.cameras}
        images, depth = dict[str, Frames](), dict[str, Frames]()
        for kept in self.cameras:
            if not kept.is_video:
                held, read = (episode.depth, depth) if kept.camera.is_depth else (episode.images, images)
                read[leaves[kept.key]] = held[kept.camera.leaf]
        raw = {name.removeprefix(RAW): _scalars(episode.raw[path]) for name, path in self.raw.items()}
        about = {name: _simple(episode.metadata[path]) for name, path in self.metadata.items()}
        return in_order_of_steps(replace(episode, images=images, depth=depth, raw=raw, metadata=about))

    def comparable(self, episode: Episode) -> Episode:
        """Leave out what LeRobot's table of episodes has besides ours."""
        return replace(episode, metadata={name: episode.metadata.get(name) for name in self.metadata})

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Compare the descriptions and the videos."""
        check_descriptions(self, out)
        bounds = record["report"]["cameras"]
        for kept in self.cameras:
            if kept.is_video:
                check_video(self, kept, out, bound=bounds[kept.key]["psnr"])


def _scalars(column: Column) -> Column:
    """Give one number a step as LeRobot has it, without an axis of its own."""
    is_one = isinstance(column, np.ndarray) and column.shape[1:] == (1,)
    return column.reshape(-1) if is_one else column  # type: ignore[union-attr]


def _simple(value: Any) -> Any:
    """Give what a table of episodes is read as: numbers, texts, lists of texts, and others as JSON."""
    if not isinstance(value, list) or all(isinstance(item, str) for item in value):
        return value
    return json.dumps(value)


def _fps(dataset: Dataset, asked: ExportOptions) -> float:
    known = (dataset.view(asked.view).control_hz if asked.view else None) or dataset.spec.control_hz
    if known is None and asked.fps is None:
        raise UsageError(
            f"{dataset.uri}: its control rate is not known; say with --fps how fast frames are to be shown"
        )
    if known is not None and asked.fps not in {None, known}:
        raise UsageError(
            f"{dataset.uri}: its control rate is {known:g} Hz; --fps is for datasets that do not know theirs"
        )
    fps = float(known or asked.fps or 0)
    if not (isfinite(fps) and 0.01 <= fps <= 10_000):
        raise UsageError(f"--fps: {fps:g} is no rate for a video")
    return fps


def _metadata(dataset: Dataset, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Name the columns for what the source says of whole episodes; second come those that are left out."""
    found, left_out = dict[str, str](), dict[str, str]()
    taken = OWN.union(names)
    for field in dataset.columns.metadata:
        if field.kind in {"number", "text"}:
            name = f"source.{field.path}" if field.path.startswith(RESERVED) else field.path
            found[free_name(name, taken | found.keys())] = field.path
        else:
            left_out[f"metadata.{field.path}"] = f"LeRobot's table of episodes has no {field.kind}"
    return found, left_out


def _splits(refs: Sequence[ExportRef]) -> dict[str, str]:
    """Give each split's range of episodes; a split's shards follow one another."""
    ranges: dict[str, tuple[int, int]] = {}
    for ref in refs:
        start, _ = ranges.get(ref.split, (ref.first_episode, 0))
        ranges[ref.split] = start, ref.first_episode + ref.episodes
    return {split: f"{start}:{end}" for split, (start, end) in ranges.items()}
