"""LeRobotDatasets in LeRobot's own layout, written with pyarrow and PyAV."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.readers.lerobot.info import V2, V3
from schemas.source import Array

FPS = 10


def drawn(count: int, *, seed: int = 0, height: int = 16, width: int = 24) -> Array:
    """Draw smooth frames [T, H, W, 3] that all differ."""
    y, x = np.mgrid[:height, :width]
    waves = [(x / 9 + t / 3 + seed, y / 7 + t / 5, (x + y) / 11 + t / 2 + seed) for t in range(count)]
    return np.stack([np.stack([127 + 100 * np.sin(wave) for wave in each], -1) for each in waves]).astype(np.uint8)


def write_video(file: Path, frames: Array, *, fps: int = FPS, codec: str = "libx264", **more: Any) -> Path:
    """Write frames with PyAV; `more` may contain `pix_fmt`, `options`, `pts`, `colorspace` and `color_range`."""
    import av

    from pipelines.export.lerobot.video import usual_priority

    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", options=more.get("container", {})) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=more.get("options", {}))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = more.get("pix_fmt", "yuv420p")
        named = {name: more[name] for name in ("colorspace", "color_range") if name in more}
        for name, value in named.items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.time_base = Fraction(1, fps * 100)
        with usual_priority():
            stream.codec_context.open()
        for number, pixels in enumerate(frames):
            frame: Any = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            words = {f"dst_{name}": value for name, value in named.items()}
            frame = frame.reformat(format=stream.pix_fmt, **words)
            frame.pts, frame.time_base = more.get("pts", np.arange(len(frames)) * 100)[number], Fraction(1, fps * 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def write_lerobot(
    folder: Path,
    episodes: Sequence[Mapping[str, Any]],
    *,
    version: str = "v2.1",
    per_file: int = 1,
    metadata: Sequence[Mapping[str, Any]] = (),
    info: Mapping[str, Any] | None = None,
    **video: Any,
) -> Path:
    """Write episodes, which map column names to arrays, lists of texts or images, or videos [T, H, W, 3].

    `task` names the task of each step. `timestamp`, `frame_index`, `episode_index`, `index` and `task_index` are added;
    a column that is None is left out. In v3 a file contains `per_file` episodes. `info` changes keys of info.json.
    """
    tasks = list(dict.fromkeys(text for episode in episodes for text in episode["task"]))
    tables, rows, first = [], [], 0
    for index, episode in enumerate(episodes):
        count = len(episode["task"])
        numbers = {"episode_index": np.full(count, index), "index": np.arange(first, first + count)}
        clock = {"timestamp": (np.arange(count) / FPS).astype(np.float32), "frame_index": np.arange(count)}
        named = {"task_index": np.array([tasks.index(text) for text in episode["task"]], np.int64)}
        columns = {**clock, **numbers, **named, **{key: c for key, c in episode.items() if key != "task"}}
        tables.append({key: column for key, column in columns.items() if column is not None})
        own = list(dict.fromkeys(episode["task"]))
        rows.append(
            {"episode_index": index, "tasks": own, "length": count, **dict(metadata[index] if metadata else {})}
        )
        first += count
    films = [key for key, column in tables[0].items() if is_film(column)]
    (_write_v3 if version == "v3.0" else _write_v2)(folder, tables, rows, films=films, per_file=per_file, video=video)
    _write_tasks(folder, tasks, is_v3=version == "v3.0")
    usual = V3 if version == "v3.0" else V2
    described = {
        "codebase_version": version,
        "robot_type": "toy",
        "total_episodes": len(episodes),
        "total_frames": first,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": usual["data_path"],
        "video_path": usual["video_path"] if films else None,
        "features": {key: _feature(column) for key, column in tables[0].items()},
        **(info or {}),
    }
    (folder / "meta/info.json").write_text(json.dumps(described))
    return folder


def edit_info(folder: Path, **changes: Any) -> None:
    """Change keys of info.json; `features` are added, or removed if None."""
    file = folder / "meta/info.json"
    told = json.loads(file.read_text())
    features = {**told["features"], **changes.pop("features", {})}
    told = {**told, **changes, "features": {key: feature for key, feature in features.items() if feature}}
    file.write_text(json.dumps(told))


def is_film(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype == np.uint8 and column.ndim == 4


def _feature(column: Any) -> dict[str, Any]:
    if is_film(column):
        return {"dtype": "video", "shape": list(column.shape[1:]), "names": ["height", "width", "channels"]}
    if isinstance(column, np.ndarray):
        return {"dtype": column.dtype.name, "shape": list(column.shape[1:]) or [1], "names": None}
    is_text = isinstance(column[0], str)
    return {"dtype": "string" if is_text else "image", "shape": [1] if is_text else [8, 8, 3], "names": None}


def arrow(columns: Mapping[str, Any]) -> pa.Table:
    """Create a table like `datasets` does: vectors as fixed-size lists, images as structs of bytes and path."""
    return pa.table({key: _arrow(column) for key, column in columns.items() if not is_film(column)})


def _arrow(column: Any) -> pa.Array:
    if not isinstance(column, np.ndarray):
        if isinstance(column[0], str | None):
            return pa.array(column, pa.string())
        held = [item if isinstance(item, dict) else {"bytes": bytes(item), "path": "frame.png"} for item in column]
        return pa.array(held, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    array = pa.array(column.reshape(-1))
    for size in reversed(column.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _write_v2(folder: Path, tables: Any, rows: Any, *, films: Any, per_file: int, video: Any) -> None:
    for index, columns in enumerate(tables):
        (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(arrow(columns), folder / f"data/chunk-000/episode_{index:06d}.parquet")
        for key in films:
            write_video(folder / f"videos/chunk-000/{key}/episode_{index:06d}.mp4", columns[key], **video)
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_v3(folder: Path, tables: Any, rows: Any, *, films: Any, per_file: int, video: Any) -> None:
    first = 0
    for file, start in enumerate(range(0, len(tables), per_file)):
        group = tables[start : start + per_file]
        (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(folder / f"data/chunk-000/file-{file:03d}.parquet", arrow(group[0]).schema) as writer:
            seconds = 0.0
            for row, columns in zip(rows[start:], group, strict=False):
                writer.write_table(arrow(columns))
                row |= {"data/chunk_index": 0, "data/file_index": file}
                row |= {"dataset_from_index": first, "dataset_to_index": first + row["length"]}
                for key in films:
                    times = {"from_timestamp": seconds, "to_timestamp": seconds + row["length"] / FPS}
                    row |= {f"videos/{key}/{k}": v for k, v in {"chunk_index": 0, "file_index": file, **times}.items()}
                row |= {"stats/action/min": [0.0], "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
                first, seconds = first + row["length"], seconds + row["length"] / FPS
        for key in films:
            frames = np.concatenate([columns[key] for columns in group])
            write_video(folder / f"videos/{key}/chunk-000/file-{file:03d}.mp4", frames, **video)
    (folder / "meta/episodes/chunk-000").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")


def _write_tasks(folder: Path, tasks: Sequence[str], *, is_v3: bool) -> None:
    if is_v3:
        table = {"task_index": list(range(len(tasks))), "__index_level_0__": list(tasks)}
        pq.write_table(pa.table(table), folder / "meta/tasks.parquet")
    else:
        lines = [json.dumps({"task_index": i, "task": text}) + "\n" for i, text in enumerate(tasks)]
        (folder / "meta/tasks.jsonl").write_text("".join(lines))
