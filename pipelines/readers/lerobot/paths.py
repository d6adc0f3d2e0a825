"""Find the files of each episode of a LeRobotDataset, and check that the declared paths exist."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.episodes import EpisodeTable
from pipelines.readers.lerobot.info import DatasetInfo, fill_template
from pipelines.readers.lerobot.windows import SharedVideo, Window, misplaced
from schemas.declarations.formats import LerobotSource
from schemas.errors import SourceError


@dataclass(frozen=True, slots=True)
class Clip:
    """The part of a video file that belongs to one episode; the whole file if `start` and `stop` are None."""

    file: str
    start: float | None = None  # seconds
    stop: float | None = None


@dataclass(frozen=True)
class EpisodePaths:
    """The files of each episode; an episode is given by its row in the table of episodes."""

    info: DatasetInfo
    episodes: EpisodeTable
    data_path: str
    video_path: str

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        return {name: self.episodes.column(name) for name in self.episodes.table.column_names if "/" in name}

    @cached_property
    def indices(self) -> list[int]:
        """The `episode_index` of each row."""
        return self.episodes.column("episode_index")

    def data(self, row: int) -> str:
        """Return the Parquet file of an episode."""
        return fill_template(self.data_path, self._values("data", row), where=self.info.where)

    def clip(self, key: str, row: int) -> Clip:
        """Return the video file of an episode, and where in the video the episode starts and stops.

        The file is the one that `moved` names, or else the declared one.
        """
        return self.clips(key)[row]

    def clips(self, key: str) -> Sequence[Clip]:
        """Return the clip of each row for a camera."""
        if key not in self._clips:
            declared = [self.declared_clip(key, row) for row in range(len(self.episodes))]
            self._moved[key] = self._misplaced(declared) if self.info.is_v3 else {}
            moved = self._moved[key]
            self._clips[key] = [
                replace(clip, file=moved[index]) if index in moved else clip
                for index, clip in zip(self.indices, declared, strict=True)
            ]
        return self._clips[key]

    def declared_clip(self, key: str, row: int) -> Clip:
        """Return the video file and the times of an episode that the table of episodes lists."""
        values: dict[str, int | str] = {"video_key": key, **self._values(f"videos/{key}", row)}
        name = fill_template(self.video_path, values, where=self.info.where)
        if not self.info.is_v3:
            return Clip(name)
        start, stop = (self._number(f"videos/{key}/{word}_timestamp", row) for word in ("from", "to"))
        return Clip(name, float(start), float(stop))

    def moved(self, key: str) -> Mapping[int, str]:
        """Return the right video of each episode that is listed in a wrong one, by `episode_index`."""
        self.clips(key)
        return self._moved[key]

    def windows(self, key: str) -> Mapping[str, Sequence[Window]]:
        """Return the windows of a camera's videos, by file and in order of their starts; none before version 3."""
        if key not in self._windows:
            self._windows[key] = self._by_file(self.clips(key))
        return self._windows[key]

    def _misplaced(self, clips: Sequence[Clip]) -> Mapping[int, str]:
        hz = self.info.fps
        return misplaced({name: SharedVideo(w, hz=hz) for name, w in self._by_file(clips).items()}) if hz else {}

    def _by_file(self, clips: Sequence[Clip]) -> Mapping[str, Sequence[Window]]:
        by_file: dict[str, list[Window]] = {}
        lengths = self.episodes.column("length")
        for episode, steps, clip in zip(self.indices, lengths, clips, strict=True):
            if clip.start is not None and clip.stop is not None:
                window = Window(episode=episode, start=clip.start, stop=clip.stop, steps=steps)
                by_file.setdefault(clip.file, []).append(window)
        return {name: sorted(windows, key=lambda w: (w.start, w.episode)) for name, windows in by_file.items()}

    @cached_property
    def _clips(self) -> dict[str, Sequence[Clip]]:
        return {}

    @cached_property
    def _moved(self) -> dict[str, Mapping[int, str]]:
        return {}

    @cached_property
    def _windows(self) -> dict[str, Mapping[str, Sequence[Window]]]:
        return {}

    def image(self, key: str, row: int, frame: int) -> str:
        """Return the file of one image."""
        index = self.indices[row]
        chunk = index // self.info.chunks_size
        words = {"episode_index": index, "episode_chunk": chunk, "frame_index": frame}
        template = self.info.templates["image_path"] or self.info.default_templates["image_path"]
        return fill_template(template, {"image_key": key, **words}, where=self.info.where)

    def _values(self, prefix: str, row: int) -> dict[str, int | str]:
        index = self.indices[row]
        values: dict[str, int | str] = {"episode_chunk": index // self.info.chunks_size, "episode_index": index}
        for word in ("chunk_index", "file_index"):
            if f"{prefix}/{word}" in self._columns:
                values[word] = int(self._number(f"{prefix}/{word}", row))
        return values

    def _number(self, name: str, row: int) -> Any:
        value = self._columns[name][row] if name in self._columns else None
        if not isinstance(value, int | float) or not 0 <= value < 1e9:
            message = f"episode {self.indices[row]}: '{name}' is {value}, expected a number from 0 on"
            raise SourceError(message, reason="bad_info", file=self.episodes.where)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPaths:
    """The paths of a dataset, corrected where the files show that info.json is wrong."""

    paths: EpisodePaths
    ignore: tuple[str, ...]
    mistakes: tuple[SourceError, ...]  # mistakes in info.json that are corrected here

    @property
    def templates(self) -> dict[str, str | None]:
        """The path templates to write into a declaration; None for a template that info.json has right."""
        info = self.paths.info
        templates = {"data_path": self.paths.data_path, "video_path": self.paths.video_path}
        known = {kind: info.templates[kind] or info.default_templates[kind] for kind in templates}
        return {kind: None if path == known[kind] else path for kind, path in templates.items()}


def check_paths(
    folder: SourceFolder, info: DatasetInfo, episodes: EpisodeTable, *, source: LerobotSource
) -> CheckedPaths:
    """Check that the files are where info.json says.

    A wrong path template is replaced by LeRobot's default, and a camera without readable videos is ignored.
    """
    mistakes: list[SourceError] = []
    declared = {"data_path": source.data_path, "video_path": source.video_path}
    templates = {kind: path or info.templates[kind] or info.default_templates[kind] for kind, path in declared.items()}
    ignored = source.ignore
    videos = [key for key, feature in info.features.items() if feature.dtype == "video" and key not in ignored]
    for kind, keys in (("data_path", [None]), ("video_path", videos)):
        if declared[kind] is None and templates[kind] != info.default_templates[kind]:
            error = _wrong_template_error(folder, info, episodes, kind=kind, keys=keys)
            if error:
                mistakes.append(error)
                templates[kind] = info.default_templates[kind]
    paths = EpisodePaths(info, episodes, **templates)
    _check_templates(paths, source, videos=videos)
    for key in videos:
        error = _unreadable_video_error(folder, paths, key)
        if error:
            mistakes.append(error)
            ignored += (key,)
    return CheckedPaths(paths=paths, ignore=ignored, mistakes=tuple(mistakes))


def _check_templates(paths: EpisodePaths, source: LerobotSource, *, videos: Sequence[str]) -> None:
    """Raise SourceError, which names the key to declare, if a template cannot be filled in."""
    for kind, keys in (("data_path", (None,)), ("video_path", videos[:1])):
        for key in keys if len(paths.episodes) else ():
            try:
                _file(paths, 0, key=key)
            except SourceError as error:
                if error.reason != "bad_info" or "cannot fill in" not in error.message:
                    raise
                verb = "correct" if getattr(source, kind) else "declare"
                message = f"{error.message}; {verb} source.{kind}, such as '{paths.info.default_templates[kind]}'"
                raise SourceError(message, reason="bad_info", file=error.file) from error


def _file(paths: EpisodePaths, row: int, *, key: str | None) -> str:
    """Return the data file of an episode, or its video of the camera `key`."""
    return paths.data(row) if key is None else paths.declared_clip(key, row).file


def _wrong_template_error(
    folder: SourceFolder, info: DatasetInfo, episodes: EpisodeTable, *, kind: str, keys: Iterable[str | None]
) -> SourceError | None:
    """Return an error if a declared template is wrong and LeRobot's default is right; else None.

    This is so if, for the first or the last episode, only the default leads to a file that exists.
    """
    templates = {name: info.default_templates[name] for name in ("data_path", "video_path")}
    declared = EpisodePaths(info, episodes, **{**templates, kind: info.templates[kind] or ""})
    default = EpisodePaths(info, episodes, **templates)
    for row in _first_and_last(episodes):
        for key in keys:
            name, why = _existing(folder, declared, row, key=key)
            usual, _ = _existing(folder, default, row, key=key)
            if name is None and usual is not None:
                return SourceError(
                    f"{kind} is '{info.templates[kind]}', {why}, but {usual} does: declare "
                    f"source.{kind} = '{info.default_templates[kind]}'",
                    reason="bad_info",
                    file=info.where,
                )
    return None


def _existing(folder: SourceFolder, paths: EpisodePaths, row: int, *, key: str | None) -> tuple[str | None, str]:
    """Return the data file of an episode, or its video of the camera `key`; None and the reason if there is none."""
    try:
        name = _file(paths, row, key=key)
    except SourceError as error:
        template = paths.data_path if key is None else paths.video_path
        why = error.message.removeprefix(f"the path '{template}': ")
        return None, f"which leads to no file ({why})"
    return (name, "") if folder.size(name) is not None else (None, f"which leads to {name}; that does not exist")


def _unreadable_video_error(folder: SourceFolder, paths: EpisodePaths, key: str) -> SourceError | None:
    """Return an error if a camera has no video at all, or if its videos store unsupported depth; else None."""
    if paths.info.features[key].is_depth:
        message = f"{key} is depth in a video, which is not supported; leave it out with source.ignore = ['{key}']"
        return SourceError(message, reason="unsupported_field", file=paths.info.where)
    rows = range(len(paths.episodes))
    ends = (paths.declared_clip(key, row).file for row in _first_and_last(paths.episodes))
    if not rows or any(folder.size(name) is not None for name in ends):
        return None
    names = [paths.clip(key, row).file for row in rows]
    if any(size is not None for size in folder.sizes(names).values()):
        return None
    return SourceError(
        f"{key} is declared, but no episode has a video of it ({names[0]} does not exist); "
        f"leave it out with source.ignore = ['{key}']",
        reason="bad_info",
        file=paths.info.where,
    )


def _first_and_last(episodes: EpisodeTable) -> Iterator[int]:
    yield from sorted({0, len(episodes) - 1} if len(episodes) else ())
