"""The metadata files of a LeRobotDataset: tasks, the table of episodes, `info.json`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.export.cameras import ExportCamera
from pipelines.export.lerobot.features import ExportFeature
from pipelines.export.lerobot.paths import (
    CHUNK,
    DATA_PATH,
    EPISODES,
    EPISODES_STATS,
    INFO,
    TASKS,
    VIDEO_PATH,
    ShardPaths,
)
from pipelines.export.lerobot.video import PLANES, Codec
from pipelines.export.plan import ExportRef
from schemas.files.folder import Folder
from stats.levels import FIGURES

# LeRobot's default limits, which LeRobot uses when it appends episodes.
FILE_MB = {"data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
QUANTILES = tuple(FIGURES)
VECTOR_STATS = pa.list_(pa.float64())
IMAGE_STATS = pa.list_(pa.list_(VECTOR_STATS))  # [C, 1, 1]


def write_tasks(out: Folder, version: str, tasks: Mapping[str, int]) -> None:
    """Write the table of instructions and their numbers. In v3.0 the instructions are the index of a pandas table."""
    if version == "2.1":
        lines = [json.dumps({"task_index": number, "task": text}, ensure_ascii=False) for text, number in tasks.items()]
        return out.write(TASKS[version], "".join(f"{line}\n" for line in lines).encode())
    columns = [_pandas_column("task_index", "int64", "int64"), _pandas_column("task", "unicode", "object")]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())})
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), sink)
    return out.write(TASKS[version], bytes(sink.getvalue()))


def _pandas_column(name: str, kind: str, numpy: str) -> dict[str, Any]:
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """One row of the table of episodes."""

    number: int
    length: int
    first: int  # index of its first step
    tasks: list[str]
    about: Mapping[str, Any]  # id, outcome and metadata of the episode in the dataset
    stats: Mapping[str, Mapping[str, Any]]  # feature -> statistics

    def json(self) -> dict[str, Any]:
        """Return the columns that both versions have."""
        return {"episode_index": self.number, "tasks": self.tasks, "length": self.length, **self.about}


def write_lines(out: Folder, episodes: Iterable[EpisodeRow]) -> None:
    """Write the two tables of v2.1: the episodes, and the statistics of each episode."""
    rows, stats_rows = list[str](), list[str]()
    for episode in episodes:
        rows.append(json.dumps(episode.json(), ensure_ascii=False))
        stats = {
            name: {key: value for key, value in figures.items() if key not in QUANTILES}
            for name, figures in episode.stats.items()
        }
        stats_rows.append(json.dumps({"episode_index": episode.number, "stats": stats}))
    for name, lines in ((EPISODES["2.1"], rows), (EPISODES_STATS, stats_rows)):
        out.write(name, "".join(f"{line}\n" for line in lines).encode())


def write_table(
    out: Folder,
    shards: Iterable[tuple[ExportRef, Sequence[EpisodeRow]]],
    *,
    schema: pa.Schema,
    videos: Sequence[str],
    fps: float,
) -> None:
    """Write v3.0's table of episodes, shard by shard. A row has the files of an episode and its position in them."""
    tmp = out.staged(EPISODES["3.0"].rpartition("/")[0])
    try:
        with pq.ParquetWriter(tmp, schema, compression="zstd") as writer:
            for ref, episodes in shards:
                rows = [_row(ref, episode, videos=videos, fps=fps) for episode in episodes]
                writer.write_table(pa.Table.from_pylist(rows, schema))
        out.adopt(tmp, EPISODES["3.0"], sync=False)
    finally:
        out.drop(tmp)


def _row(ref: ExportRef, episode: EpisodeRow, *, videos: Sequence[str], fps: float) -> dict[str, Any]:
    return {
        **episode.json(),
        **file_location(ref, episode, videos=videos, fps=fps),
        **{f"stats/{name}/{key}": value for name, figures in episode.stats.items() for key, value in figures.items()},
    }


def file_location(ref: ExportRef, episode: EpisodeRow, *, videos: Sequence[str], fps: float) -> dict[str, Any]:
    """Return the files that contain an episode, and its position in them."""
    paths = ShardPaths(version="3.0", shard=ref.number, episode=episode.number)
    file = {"chunk_index": paths.chunk, "file_index": paths.file}
    start = episode.first - ref.first_step
    times = {"from_timestamp": start / fps, "to_timestamp": (start + episode.length) / fps}
    return {
        "dataset_from_index": episode.first,
        "dataset_to_index": episode.first + episode.length,
        **{f"data/{name}": value for name, value in file.items()},
        **{f"videos/{key}/{name}": value for key in videos for name, value in (file | times).items()},
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def table_schema(
    about: Sequence[pa.Field], *, videos: Sequence[str], vectors: Sequence[str], images: Sequence[str]
) -> pa.Schema:
    """Return the schema of v3.0's table of episodes; `about` are the columns from the dataset."""
    int64 = pa.int64()
    fields = [
        pa.field("episode_index", int64),
        pa.field("tasks", pa.list_(pa.string())),
        pa.field("length", int64),
        *about,
    ]
    names = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    fields += [pa.field(name, int64) for name in names]
    for key in videos:
        fields += [pa.field(f"videos/{key}/{name}", int64) for name in ("chunk_index", "file_index")]
        fields += [pa.field(f"videos/{key}/{name}", pa.float64()) for name in ("from_timestamp", "to_timestamp")]
    for name in (*vectors, *images):
        kind = IMAGE_STATS if name in images else VECTOR_STATS
        fields += [pa.field(f"stats/{name}/{key}", kind) for key in ("min", "max", "mean", "std")]
        fields += [pa.field(f"stats/{name}/count", pa.list_(int64))]
        fields += [pa.field(f"stats/{name}/{key}", kind) for key in QUANTILES]
    fields += [pa.field(f"meta/episodes/{name}", int64) for name in ("chunk_index", "file_index")]
    return pa.schema(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts for `info.json`."""

    episodes: int
    steps: int
    tasks: int
    splits: Mapping[str, str]  # split -> range of episodes, such as "0:50"


def write_info(
    out: Folder,
    version: str,
    totals: Totals,
    *,
    robot: str,
    fps: float,
    features: Sequence[ExportFeature],
    cameras: Sequence[ExportCamera],
    codec: Codec,
) -> None:
    """Write `info.json`."""
    rate = int(fps) if fps == int(fps) else fps
    videos = [camera for camera in cameras if camera.is_video]
    chunks = -(-totals.episodes // CHUNK)
    only_in_2_1 = {"total_videos": len(videos) * totals.episodes, "total_chunks": chunks} if version == "2.1" else {}
    info = {
        "codebase_version": f"v{version}",
        "robot_type": robot,
        "total_episodes": totals.episodes,
        "total_frames": totals.steps,
        "total_tasks": totals.tasks,
        **only_in_2_1,
        "chunks_size": CHUNK,
        **(FILE_MB if version == "3.0" else {}),
        "fps": rate,
        "splits": totals.splits,
        "data_path": DATA_PATH[version],
        "video_path": VIDEO_PATH[version] if videos else None,
        "features": {
            **{feature.name: feature.info() for feature in features},
            **{camera.key: _video(camera, codec, rate) for camera in videos},
        },
    }
    out.write(INFO, json.dumps(info, indent=4, ensure_ascii=False).encode())


def _video(camera: ExportCamera, codec: Codec, fps: float) -> dict[str, Any]:
    height, width, channels = camera.shape
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": codec.name,
        "video.pix_fmt": PLANES,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": channels,
        "has_audio": False,
    }
    return {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": info,
    }
