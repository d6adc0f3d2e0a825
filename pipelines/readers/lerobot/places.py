"""Where a LeRobotDataset keeps each episode: templates filled in, and told when they lead nowhere."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.episodes import Episodes
from pipelines.readers.lerobot.info import Info, filled
from schemas.declarations.formats import LerobotSource
from schemas.errors import SourceError


@dataclass(frozen=True, slots=True)
class Clip:
    """The part of a video file that is one episode; without times it is the whole file."""

    file: str
    start: float | None = None  # seconds
    stop: float | None = None


@dataclass(frozen=True)
class Places:
    """The files of each row of the table of episodes."""

    info: Info
    episodes: Episodes
    data_path: str
    video_path: str

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        return {name: self.episodes.column(name) for name in self.episodes.table.column_names if "/" in name}

    @cached_property
    def indices(self) -> list[int]:
        """Give the `episode_index` of each row."""
        return self.episodes.column("episode_index")

    def data(self, row: int) -> str:
        """Name the Parquet file of an episode."""
        return filled(self.data_path, self._values("data", row), where=self.info.where)

    def clip(self, key: str, row: int) -> Clip:
        """Name the video of an episode, and where in it the episode lies."""
        values: dict[str, int | str] = {"video_key": key, **self._values(f"videos/{key}", row)}
        name = filled(self.video_path, values, where=self.info.where)
        if not self.info.is_v3:
            return Clip(name)
        start, stop = (self._told(f"videos/{key}/{word}_timestamp", row) for word in ("from", "to"))
        return Clip(name, float(start), float(stop))

    def image(self, key: str, row: int, frame: int) -> str:
        """Name the file of one image."""
        index = self.indices[row]
        chunk = index // self.info.chunks_size
        words = {"episode_index": index, "episode_chunk": chunk, "frame_index": frame}
        template = self.info.templates["image_path"] or self.info.usual["image_path"]
        return filled(template, {"image_key": key, **words}, where=self.info.where)

    def _values(self, what: str, row: int) -> dict[str, int | str]:
        index = self.indices[row]
        values: dict[str, int | str] = {"episode_chunk": index // self.info.chunks_size, "episode_index": index}
        for word in ("chunk_index", "file_index"):
            if f"{what}/{word}" in self._columns:
                values[word] = int(self._told(f"{what}/{word}", row))
        return values

    def _told(self, name: str, row: int) -> Any:
        value = self._columns[name][row] if name in self._columns else None
        if not isinstance(value, int | float) or not 0 <= value < 1e9:
            message = f"episode {self.indices[row]}: '{name}' is {value}, no number from 0 on"
            raise SourceError(message, reason="bad_info", file=self.episodes.where)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A dataset whose description was compared with its files."""

    places: Places
    ignore: tuple[str, ...]
    wrong: tuple[SourceError, ...]  # what was found wrong and read otherwise

    @property
    def paths(self) -> dict[str, str | None]:
        """Return the paths that must be declared to read it so; None where info.json has it right."""
        info = self.places.info
        paths = {"data_path": self.places.data_path, "video_path": self.places.video_path}
        known = {kind: info.templates[kind] or info.usual[kind] for kind in paths}
        return {kind: None if path == known[kind] else path for kind, path in paths.items()}


def compare(folder: SourceFolder, info: Info, episodes: Episodes, *, source: LerobotSource) -> Opened:
    """Look whether the files are where info.json has them, and find what must be declared where they are not."""
    wrong: list[SourceError] = []
    declared = {"data_path": source.data_path, "video_path": source.video_path}
    paths = {kind: path or info.templates[kind] or info.usual[kind] for kind, path in declared.items()}
    ignored = source.ignore
    videos = [key for key, feature in info.features.items() if feature.dtype == "video" and key not in ignored]
    for kind, keys in (("data_path", [None]), ("video_path", videos)):
        if declared[kind] is None and paths[kind] != info.usual[kind]:
            error = _misplaced(folder, info, episodes, kind=kind, keys=keys)
            if error:
                wrong.append(error)
                paths[kind] = info.usual[kind]
    places = Places(info, episodes, **paths)
    for key in videos:
        error = _unreadable(folder, places, key)
        if error:
            wrong.append(error)
            ignored += (key,)
    return Opened(places=places, ignore=ignored, wrong=tuple(wrong))


def _misplaced(
    folder: SourceFolder, info: Info, episodes: Episodes, *, kind: str, keys: Iterable[str | None]
) -> SourceError | None:
    """Say that a template leads nowhere where LeRobot's own does not: looked at are the first and the last episode."""
    paths = {name: info.usual[name] for name in ("data_path", "video_path")}
    told = Places(info, episodes, **{**paths, kind: info.templates[kind] or ""})
    usual = Places(info, episodes, **paths)
    for row in _ends(episodes):
        for key in keys:
            names = [places.data(row) if key is None else places.clip(key, row).file for places in (told, usual)]
            if folder.size(names[0]) is None and folder.size(names[1]) is not None:
                return SourceError(
                    f"{kind} is '{info.templates[kind]}', which leads to {names[0]}; that is not there, but {names[1]} "
                    f"is: declare source.{kind} = '{info.usual[kind]}'",
                    reason="bad_info",
                    file=info.where,
                )
    return None


def _unreadable(folder: SourceFolder, places: Places, key: str) -> SourceError | None:
    """Say why no video of a camera can be read: there is none, or it holds depth."""
    if places.info.features[key].is_depth:
        message = f"{key} is depth in a video, which is not read; leave it out with source.ignore = ['{key}']"
        return SourceError(message, reason="unsupported_field", file=places.info.where)
    rows = range(len(places.episodes))
    if not rows or any(folder.size(places.clip(key, row).file) is not None for row in _ends(places.episodes)):
        return None
    names = [places.clip(key, row).file for row in rows]
    if any(size is not None for size in folder.sizes(names).values()):
        return None
    return SourceError(
        f"{key} is declared, but no episode has a video of it ({names[0]} is not there); "
        f"leave it out with source.ignore = ['{key}']",
        reason="bad_info",
        file=places.info.where,
    )


def _ends(episodes: Episodes) -> Iterator[int]:
    yield from sorted({0, len(episodes) - 1} if len(episodes) else ())
