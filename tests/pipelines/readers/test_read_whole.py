"""Whatever the layout of a source: its episodes are read whole or refused, and what is not read is counted.

Independent writers make random layouts: numbers, lengths and names of episodes, and other things beside them. Each
value in a source is unique, so that a test knows which episodes were read.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.errors import OxeError, SourceError
from schemas.images import PNG
from schemas.source import Array, Ragged, RawEpisode, Unreadable
from tests import bags
from tests.bags import Said
from tests.lerobot import FPS, write_lerobot
from tests.lerobot import write_video as write_film
from tests.makers import write_csv, write_hdf5, write_jsonl, write_zarr

JPEG = b"\xff\xd8\xff"
FIRST = 1000  # values below it are numbers of steps, episodes or frames
GRAY = 6  # the difference between the gray levels of two videos
VIDEO = -1000  # the value of a video of gray level 0
NUMBERED = ("episode_{}", "demo_{}", "{:06d}", "{}", "run {}", "take.{}", "épisode {}", "traj_{}_ok", "エピソード{}")
PLAIN = NUMBERED[:3]
SESSIONS = ("2024-05-01", "2024-05-02", "alice", "bob", "day 1", "raw")
WORDS = ("alice_cup", "bob_cup", "red block", "größe", "left", "right", "第一", "Final", "v1.2", "metadata")


@dataclass(frozen=True, slots=True)
class Piece:
    """Something in a source that is read as a whole or not at all: an episode, or a thing beside the episodes."""

    path: str
    values: frozenset[float]
    is_episode: bool = True


@dataclass(slots=True)
class Layout:
    """A random layout: draws what varies, assigns values, and keeps a list of what was written."""

    folder: Path
    data: st.DataObject
    pieces: list[Piece] = field(default_factory=list)
    is_plain: bool = True  # numbered names, and nothing beside the episodes: it must be read
    _next: Iterator[int] = field(default_factory=lambda: count(FIRST))
    _videos: Iterator[int] = field(default_factory=count)

    def draw(self, strategy: Any) -> Any:
        return self.data.draw(strategy)

    def chosen(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def some(self, *choices: str) -> list[str]:
        """Choose at most two things to put beside the episodes."""
        some: list[str] = self.draw(st.lists(st.sampled_from(choices), max_size=2, unique=True))
        self.is_plain &= not some
        return some

    def lengths(self, at_least: int = 1) -> list[int]:
        numbers: list[int] = self.draw(st.lists(st.integers(at_least, at_least + 3), min_size=1, max_size=4))
        return numbers

    def names(self, size: int) -> list[str]:
        """Draw the names of episodes: numbers, dates, words or any text, and perhaps one of another kind."""
        kinds = [self.chosen("numbered", "numbered", "dates", "words", "texts")] * size
        if size > 1 and self.chosen(False, False, True):  # noqa: FBT003 - two of three have only one kind
            kinds[-1] = self.chosen("numbered", "dates", "words", "texts")
        template, first, gap = self.chosen(*NUMBERED), self.chosen(0, 1, 9), self.chosen(1, 1, 2)
        strategies = {
            "numbered": st.just([template.format(first + gap * i) for i in range(size)]),
            "dates": st.lists(DATES, min_size=size, max_size=size, unique=True),
            "words": st.permutations(WORDS),
            "texts": st.lists(TEXTS, min_size=size, max_size=size, unique=True),
        }
        by_kind = {kind: self.draw(strategies[kind]) for kind in sorted({*kinds})}
        names = [by_kind[kind][i] for i, kind in enumerate(kinds)]
        self.is_plain &= {*kinds} == {"numbered"} and template in PLAIN
        return list(dict.fromkeys(names))

    def numbers(self, size: int) -> list[float]:
        return [float(next(self._next)) for _ in range(size)]

    def rows(self, path: str, size: int, *, is_episode: bool = True) -> Array:
        """Return the rows [size, 2] of an episode."""
        numbers = self.numbers(2 * size)
        self.pieces.append(Piece(path, frozenset(numbers), is_episode))
        return np.array(numbers).reshape(size, 2)

    def beside(self, path: str) -> float:
        """Return the value of a thing beside the episodes."""
        (number,) = self.numbers(1)
        self.pieces.append(Piece(path, frozenset([number]), is_episode=False))
        return number

    def video(self, path: str, frames: int) -> None:
        """Write a video of one gray level, which stands for its value."""
        level = next(self._videos)
        self.pieces.append(Piece(path, frozenset([VIDEO - level]), is_episode=False))
        write_film(self.folder / path, plain_frames([level] * frames))

    def files_beside(self, below: str = "", *, more: tuple[str, ...] = ("README.md",)) -> None:
        """Write files and folders beside the episodes."""
        for kind in self.some(*more, "info.json", "notes.csv", "calibration/camera.json", "empty", "overview.mp4"):
            path, file = f"{below}{kind}", self.folder / below / kind
            if kind == "overview.mp4":
                self.video(path, 3)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if kind == "empty":
                file.mkdir(exist_ok=True)
                continue
            number = self.beside(path)
            texts = {".md": f"{number:.0f}", ".json": json.dumps({"note": number}), ".csv": f"value\n{number}\n"}
            file.write_text(texts[file.suffix])


DATES = st.builds(
    "2024-{:02d}-{:02d}_{:02d}-{:02d}-00".format, st.integers(1, 12), st.integers(1, 28), *[st.integers(0, 23)] * 2
)
TEXTS = st.text("ab01 _-é日", min_size=1, max_size=6).filter(str.strip)


def check(layout: Layout) -> None:
    """Read a source; each piece of it is read whole, or what was not read is counted, or the source is refused."""
    try:
        reader = open_source(str(layout.folder))
        values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    except OxeError:
        if layout.is_plain:
            raise
        return
    read = [numbers for value in values if (numbers := numbers_of(value))]
    for numbers in read:
        parts = [piece for piece in layout.pieces if piece.is_episode and piece.values & numbers]
        assert len(parts) < 2, f"one episode has the rows of {[piece.path for piece in parts]}\n{shown(layout)}"
        assert all(piece.values <= numbers for piece in parts), f"{parts[0].path} is read in part\n{shown(layout)}"
    everything = frozenset[float]().union(*read)
    missing = [
        piece.path
        for piece in layout.pieces
        if not piece.values <= everything and (piece.is_episode or is_below(reader, layout.folder / piece.path))
    ]
    present = [piece.path for piece in layout.pieces if piece.path not in missing]
    counted = sum(not numbers_of(value) for value in values) + counts(reader, missing)
    assert not (layout.is_plain and missing), f"{missing} not read"
    assert things(missing, present) <= counted, f"{missing} not read, but only {counted} counted\n{shown(layout)}"


def is_below(reader: Reader, path: Path) -> bool:
    """Whether a thing lies inside the source that was opened, and not beside it."""
    return str(path).startswith(reader.uri.rstrip("/"))


def things(missing: Sequence[str], present: Sequence[str], depth: int = 1) -> int:
    """Return the smallest number of files, folders, groups and the like that contain all missing pieces, and no others.

    >>> things(["a/b", "a/c", "d"], ["e/f"]), things(["a/b", "a/c", "d"], ["a/f"])
    (2, 3)
    """
    number = 0
    for start in {above(path, depth) for path in missing}:
        inside = [path for path in missing if above(path, depth) == start]
        is_whole = all(above(path, depth) != start for path in present)
        is_one = is_whole or start in missing
        number += 1 if is_one else things(inside, present, depth + 1)
    return number


def above(path: str, depth: int) -> str:
    """Return the first `depth` parts of a path."""
    return "/".join(path.split("/")[:depth])


def counts(reader: Reader, missing: Iterable[str]) -> int:
    """Count what the reader says that it does not read."""
    notes = " ".join(reader.notes())
    return sum(each.count for each in reader.left_out()) + sum(path.rpartition("/")[2] in notes for path in missing)


def shown(layout: Layout) -> str:
    """List the pieces with their numbers of values, and the files."""
    pieces = [f"{piece.path} ({len(piece.values)} values)" for piece in layout.pieces]
    return "\n".join([*pieces, *sorted(str(path.relative_to(layout.folder)) for path in layout.folder.rglob("*"))])


def numbers_of(value: RawEpisode | Unreadable) -> frozenset[float]:
    """Return the numbers in an episode; empty if it cannot be read."""
    if isinstance(value, Unreadable):
        return frozenset()
    try:
        value.n_steps()
    except SourceError:
        return frozenset()
    return frozenset(number for column in (*value.steps.values(), *value.metadata.values()) for number in flat(column))


def flat(value: Any) -> Iterator[float]:
    if isinstance(value, Ragged):
        yield from flat(value.values)
    elif isinstance(value, np.ndarray):
        yield from value.ravel().astype(float).tolist() if value.dtype.kind in "fiub" else flat(value.tolist())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from flat(item)
    elif isinstance(value, bytes | memoryview) and bytes(value).startswith((JPEG, PNG)):
        yield VIDEO - round(np.asarray(Image.open(io.BytesIO(value))).mean() / GRAY)
    elif isinstance(value, str | bytes | memoryview):
        text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
        yield from [float(text)] if text.isascii() and text.isdigit() else []
    elif isinstance(value, int | float):
        yield float(value)


# --- HDF5, with h5py ---


def hdf5_groups(layout: Layout) -> None:
    """Write one or two files with a group for each episode, and other groups and datasets in the same places."""
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    prefix = layout.chosen("", "data/", "data/", "a/b/")
    layout.is_plain &= prefix != "a/b/"
    for file in ["all.hdf5", "more.hdf5"][: layout.chosen(1, 1, 2)]:
        lengths = layout.lengths()
        lengths[-1] += 1  # if all had one row, nothing would tell rows from values of an episode
        groups: dict[str, dict[str, Any]] = {}
        for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
            rows = layout.rows(f"{file}/{prefix}{name}", size)
            groups[prefix + name] = {"actions": rows, "obs/pos": rows + 0.25}
        for kind in layout.some("version", "config/version", "mask/train", "stats/mean", "inside/version"):
            path = prefix + kind if kind.startswith("inside") else kind
            number = layout.beside(f"{file}/{path}")
            group, _, name = path.rpartition("/")
            groups.setdefault(group or "/", {})[name] = [number] * 2 if name == "mean" else number
        write_hdf5(layout.folder / file, groups)
    layout.files_beside()


def hdf5_files(layout: Layout) -> None:
    """Write a file for each episode, perhaps one folder further down, and files with other datasets."""
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    lengths, ending = layout.lengths(), layout.chosen(".hdf5", ".h5")
    for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
        rows = layout.rows(name + ending, size)
        write_hdf5(layout.folder / (name + ending), {"/": {"action": rows, "observations/qpos": rows + 0.25}})
    for kind in layout.some("calibration", "old/episode_0", "videos"):
        if kind == "videos":
            pytest.importorskip("av", reason="the extra 'lerobot'")
            layout.video("videos/0.mp4", lengths[0])
        else:
            datasets = {"action": layout.rows(kind + ending, 2)} if "/" in kind else {"k": [layout.beside(kind)] * 9}
            write_hdf5(layout.folder / (kind + ending), {"/": datasets})
    layout.files_beside()


# --- tables with the rows of several episodes ---


def table(layout: Layout, file: str) -> dict[str, Any]:
    """Return the columns of a table with the rows of all episodes, and a column that separates them."""
    lengths = layout.lengths(at_least=2)
    rows = np.concatenate([layout.rows(f"{file}/episode {i}", size) for i, size in enumerate(lengths)])
    last = np.zeros(len(rows), bool)
    last[np.cumsum(lengths) - 1] = True
    numbers = np.repeat(np.arange(len(lengths)) + layout.chosen(0, 7), lengths)
    names = layout.chosen("episode_index", "episode", "episode_id"), layout.chosen("terminals", "dones", "is_last")
    separators = {names[0]: numbers, names[1]: last}
    layout.is_plain = False
    return {"x": rows[:, 0], "y": rows[:, 1], **{name: separators[name] for name in [layout.chosen(*names)]}}


def hdf5_table(layout: Layout) -> None:
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    columns = table(layout, "buffer.hdf5")
    group = layout.chosen("/", "data", "transitions")
    if layout.chosen(False, True):  # noqa: FBT003 - ends in place of a column
        (separator,) = {*columns} - {"x", "y"}
        flags = columns.pop(separator)
        ends = np.flatnonzero(flags if flags.dtype == bool else np.append(np.diff(flags) != 0, [True])) + 1
        columns[layout.chosen("episode_ends", "meta/episode_ends")] = ends
    write_hdf5(layout.folder / "buffer.hdf5", {group: columns})
    layout.files_beside()


def text_table(layout: Layout) -> None:
    file = layout.chosen("buffer.csv", "buffer.jsonl")
    columns = {name: column.tolist() for name, column in table(layout, file).items()}
    (write_csv if file.endswith("csv") else write_jsonl)(layout.folder / file, columns)
    layout.files_beside()


def npz_table(layout: Layout) -> None:
    np.savez(layout.folder / "buffer.npz", **table(layout, "buffer.npz"))
    layout.files_beside()


# --- Zarr ---


def zarr_buffer(layout: Layout) -> None:
    """Write replay buffers, perhaps with rows after the last end, and videos and other stores beside them."""
    pytest.importorskip("zarr", reason="the extra 'zarr'")
    stores = ["replay_buffer.zarr", "more.zarr"][: layout.chosen(1, 1, 2)]
    for store in stores:
        lengths = layout.lengths()
        rows = [layout.rows(f"{store}/{i}", size) for i, size in enumerate(lengths)]
        if layout.some("rows after the last end"):
            rows.append(layout.rows(f"{store}/rows after the last end", 2))
        arrays: dict[str, Any] = {"data/action": np.concatenate(rows), "meta/episode_ends": np.cumsum(lengths)}
        for kind in layout.some("config/version", "data/extra"):
            held = [layout.beside(f"{store}/{kind}")] * (1 if kind[0] == "c" else len(arrays["data/action"]))
            arrays[kind] = np.array(held)
        write_zarr(layout.folder / store, arrays, zarr_format=layout.chosen(2, 3))
    if layout.some("videos"):
        pytest.importorskip("av", reason="the extra 'lerobot'")
        layout.video("videos/0/0.mp4", 2)
    layout.files_beside()


def zarr_groups(layout: Layout) -> None:
    """Write a store with a group for each episode."""
    pytest.importorskip("zarr", reason="the extra 'zarr'")
    lengths, prefix = layout.lengths(), layout.chosen("", "data/")
    arrays = {
        f"{prefix}{name}/action": layout.rows(f"{prefix}{name}", size)
        for name, size in zip(layout.names(len(lengths)), lengths, strict=False)
    }
    layout.is_plain = False
    write_zarr(layout.folder / "episodes.zarr", arrays, zarr_format=layout.chosen(2, 3))
    layout.files_beside()


# --- bags, with the libraries mcap and rosbags ---


def messages(layout: Layout, path: str, size: int) -> list[Said]:
    """Return the messages of an episode on two topics."""
    rows = layout.rows(path, size)
    return [
        Said(topic, bags.joints(10 * step, row + add), 10 * step)
        for step, row in enumerate(rows)
        for topic, add in (("/a", 0.0), ("/b", 0.25))
    ]


def mcap_files(layout: Layout) -> None:
    """Write a file for each episode, perhaps with a topic that cannot be read, or with ROS's own messages."""
    writer = pytest.importorskip("mcap.writer", reason="the extra 'mcap'")
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    lengths = layout.lengths(at_least=2)
    others = layout.some("/rosout", "/sonar")
    for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
        path = f"{name}.mcap"
        said = messages(layout, path, size)
        if "/rosout" in others:
            said.append(Said("/rosout", bags.text("a line"), 5))
        with (layout.folder / path).open("wb") as out:
            file = writer.Writer(out)
            file.start(profile="ros2")
            channels: dict[str, int] = {}
            for topic, message, ms in said:
                if topic not in channels:
                    kind = message.__msgtype__
                    definition, _ = bags.types().generate_msgdef(kind, ros_version=2)
                    schema = file.register_schema(kind, "ros2msg", definition.encode())
                    channels[topic] = file.register_channel(topic, "cdr", schema)
                time = bags.START + ms * bags.MS
                data = bytes(bags.types().serialize_cdr(message, message.__msgtype__))
                file.add_message(channels[topic], time, data, time)
            if "/sonar" in others:
                schema = file.register_schema("Sonar", "protobuf", b"")
                file.add_message(file.register_channel("/sonar", "protobuf", schema), bags.START, b"1", bags.START)
            file.finish()
    layout.pieces += [Piece(f"topic {topic[1:]}", frozenset([-1.0]), is_episode=False) for topic in others]
    layout.files_beside()


def ros_bags(layout: Layout) -> None:
    """Write a rosbag2 folder, or a ROS 1 bag, for each episode, perhaps one folder further down."""
    pytest.importorskip("rosbags", reason="the extra 'mcap'")
    lengths, kind = layout.lengths(at_least=2), layout.chosen("mcap", "sqlite3", "bag1")
    below = layout.chosen("", "", "day 1/")
    layout.is_plain &= not below
    for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
        said = messages(layout, below + name, size)
        if kind == "bag1":
            bags.write_bag1(layout.folder / f"{below}{name}.bag", said)
        else:
            bags.write_bag(layout.folder / below / name, said, storage=kind)
    layout.files_beside()


# --- folders and files, with NumPy, the libraries csv and json, and PyAV ---


def episode_folders(layout: Layout) -> None:
    """Write a folder with a table for each episode, perhaps with a video in each."""
    lengths, kind, has_video = layout.lengths(), layout.chosen("npy", "npz", "csv", "jsonl"), layout.chosen(0, 0, 1)
    below = layout.chosen("", "", "raw/")
    layout.is_plain &= not below
    for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
        folder = layout.folder / below / name
        folder.mkdir(parents=True)
        write_table(folder / f"steps.{kind}", layout.rows(below + name, size))
        if has_video:
            pytest.importorskip("av", reason="the extra 'lerobot'")
            layout.video(f"{below}{name}/cam.mp4", size)
    layout.files_beside()
    layout.files_beside(below) if below else None


def sessions(layout: Layout) -> None:
    """Write a folder for each day or person, with folders or files of episodes in it.

    These have numbers or dates as names, because `left` and `right` may be two fields of one episode.
    """
    kind, is_folder = layout.chosen("npz", "csv"), layout.chosen(False, True)  # noqa: FBT003 - two layouts
    for session in layout.draw(st.permutations(SESSIONS))[: layout.chosen(1, 2, 3)]:
        lengths = layout.lengths()
        template = layout.chosen(*PLAIN, "{}", "run {}", "2024-05-01_12-{:02d}-00")
        names = [template.format(number) for number in range(len(lengths))]
        for name, size in zip(names, lengths, strict=False):
            path = f"{session}/{name}/steps.{kind}" if is_folder else f"{session}/{name}.{kind}"
            (layout.folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_table(layout.folder / path, layout.rows(path, size))
    layout.is_plain = False
    layout.files_beside()


def episode_files(layout: Layout) -> None:
    """Write a table for each episode, perhaps with a video of the same name beside it.

    Arrays in `npy` files have numbers as names, because `left.npy` and `right.npy` may be two fields of one episode.
    """
    lengths, kind, has_videos = layout.lengths(), layout.chosen("npz", "npy", "csv", "jsonl"), layout.chosen(0, 0, 1)
    layout.is_plain &= not has_videos
    names = [f"episode_{i}" for i in range(len(lengths))] if kind == "npy" else layout.names(len(lengths))
    for name, size in zip(names, lengths, strict=False):
        write_table(layout.folder / f"{name}.{kind}", layout.rows(f"{name}.{kind}", size))
        if has_videos:
            pytest.importorskip("av", reason="the extra 'lerobot'")
            layout.video(f"{name}.mp4", size)
    layout.files_beside()


def write_table(file: Path, rows: Array) -> None:
    columns = {"x": rows[:, 0].tolist(), "y": rows[:, 1].tolist()}
    if file.suffix == ".npy":
        np.save(file, rows)
    elif file.suffix == ".npz":
        np.savez(file, action=rows, state=rows + 0.25)
    elif file.suffix == ".csv":
        write_csv(file, columns)
    else:
        write_jsonl(file, columns)


def videos_alone(layout: Layout) -> None:
    """Write videos and nothing else: in a folder for each episode, or side by side."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    lengths, is_flat = layout.lengths(), layout.chosen(False, True)  # noqa: FBT003 - two layouts
    cameras = ["front", "wrist"][: layout.chosen(1, 2)]
    for name, size in zip(layout.names(len(lengths)), lengths, strict=False):
        for camera in cameras:
            layout.video(f"{name}_{camera}.mp4" if is_flat else f"{name}/{camera}.mp4", size)
    layout.is_plain &= not is_flat


# --- LeRobot's layout, with pyarrow ---


def lerobot(layout: Layout) -> None:
    """Write a LeRobotDataset, perhaps with data files, rows or videos that `meta/` does not list."""
    lengths, version = layout.lengths(), layout.chosen("v2.1", "v3.0")
    rows = [layout.rows(f"data/episode {i}", size) for i, size in enumerate(lengths)]
    task = layout.chosen("pick", "größe 日", "2024-05-01")
    episodes = [{"action": values, "task": [task] * len(values)} for values in rows]
    write_lerobot(layout.folder, episodes, version=version, per_file=layout.chosen(1, 2, 4))
    others = layout.some("unlisted episode", "unlisted file", "unlisted video")
    if "unlisted episode" in others and len(lengths) > 1:
        unlist(layout.folder, layout.draw(st.integers(0, len(lengths) - 1)))
    files = sorted((layout.folder / "data/chunk-000").iterdir())
    if "unlisted file" in others:
        table = pq.read_table(files[-1]).slice(0, 1)
        values = layout.rows("data/unlisted file", 1).tolist()
        changed = {"action": [values[0]], "episode_index": [len(lengths)]}
        columns = {name: changed.get(name, table[name].to_pylist()) for name in table.column_names}
        other = files[-1].with_name(files[-1].name.replace(files[-1].stem[-3:], f"{len(files) + 3:03d}"))
        pq.write_table(type(table).from_pydict(columns, schema=table.schema), other)
    if "unlisted video" in others:
        pytest.importorskip("av", reason="the extra 'lerobot'")
        layout.video("videos/observation.images.top/chunk-000/file-000.mp4", sum(lengths))
    layout.files_beside(more=())  # README.md is part of the layout


def lerobot_videos(layout: Layout) -> None:
    """Write LeRobot v3.0 with several files for each camera; an episode may lack a frame in one of them."""
    pytest.importorskip("av", reason="the extra 'lerobot'")
    lengths, cameras = layout.lengths(at_least=2), [f"observation.images.{name}" for name in ("front", "wrist")]
    levels = iter(range(2 * sum(lengths)))
    films = {camera: [[next(levels) for _ in range(size)] for size in lengths] for camera in cameras}
    episodes: list[dict[str, Any]] = []
    for number, size in enumerate(lengths):
        marks = [VIDEO - level for camera in cameras for level in films[camera][number]]
        rows = layout.rows(f"data/episode {number}", size)
        layout.pieces[-1] = replace(layout.pieces[-1], values=layout.pieces[-1].values | {*marks})
        gray = {camera: plain_frames(films[camera][number]) for camera in cameras}
        episodes.append({"action": rows, "task": ["pick"] * size, **gray})
    write_lerobot(layout.folder, episodes, version="v3.0", per_file=layout.chosen(1, 2, 4))
    if layout.chosen(False, True):  # noqa: FBT003 - with or without a lost frame
        films[layout.chosen(*cameras)][layout.draw(st.integers(0, len(lengths) - 1))].pop()
        layout.is_plain = False
    columns = {}
    for camera in cameras:
        per_file = layout.chosen(1, 2, 4)
        first = [number // per_file * per_file for number in range(len(lengths))]
        frames = [*map(len, films[camera])]
        until = layout.chosen(lengths, frames)
        starts = [sum(frames[first[number] : number]) / FPS for number in range(len(lengths))]
        shutil.rmtree(layout.folder / "videos" / camera)
        for file, number in enumerate(dict.fromkeys(first)):
            shown_levels = [level for film in films[camera][number : number + per_file] for level in film]
            path = layout.folder / f"videos/{camera}/chunk-000/file-{file:03d}.mp4"
            write_film(path, plain_frames(shown_levels))
        columns |= {
            f"videos/{camera}/file_index": [number // per_file for number in first],
            f"videos/{camera}/from_timestamp": starts,
            f"videos/{camera}/to_timestamp": [start + size / FPS for start, size in zip(starts, until, strict=True)],
        }
    table = layout.folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pa.table(pq.read_table(table).to_pydict() | columns), table)


def plain_frames(levels: Sequence[int]) -> Array:
    """Return frames [T, 32, 32, 3] of one gray level each."""
    return np.repeat(np.array(levels, np.uint8) * GRAY, 32 * 32 * 3).reshape(-1, 32, 32, 3)


def unlist(folder: Path, number: int) -> None:
    """Remove an episode from the table of episodes."""
    lines = folder / "meta/episodes.jsonl"
    if lines.exists():
        kept = [
            line for line in lines.read_text().splitlines(keepends=True) if json.loads(line)["episode_index"] != number
        ]
        lines.write_text("".join(kept))
    else:
        file = folder / "meta/episodes/chunk-000/file-000.parquet"
        table = pq.read_table(file)
        pq.write_table(table.filter([index != number for index in table["episode_index"].to_pylist()]), file)


WRITERS: dict[Callable[[Layout], None], int] = {  # the number of examples that take about two seconds
    hdf5_groups: 60,
    hdf5_files: 60,
    hdf5_table: 60,
    text_table: 60,
    npz_table: 60,
    zarr_buffer: 12,
    zarr_groups: 12,
    mcap_files: 40,
    ros_bags: 12,
    episode_folders: 60,
    sessions: 60,
    episode_files: 60,
    videos_alone: 25,
    lerobot: 25,
    lerobot_videos: 15,
}


def run(write: Callable[[Layout], None], examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=[*HealthCheck])
    @given(data=st.data())
    def check_one(data: st.DataObject) -> None:
        with TemporaryDirectory() as folder:
            layout = Layout(Path(folder) / "source", data)
            layout.folder.mkdir()
            write(layout)
            check(layout)

    check_one()


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_source_is_read_whole_or_refused_and_what_is_left_out_is_counted(write: Callable[[Layout], None]) -> None:
    run(write, WRITERS[write])


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_many_sources_are_read_whole_or_refused(write: Callable[[Layout], None]) -> None:
    run(write, 20 * WRITERS[write])
