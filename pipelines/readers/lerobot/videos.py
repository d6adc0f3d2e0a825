"""Describe the videos of a LeRobotDataset that are unusual: their times, windows and orientation.

Windows are compared for all files. Only the headers of the first and the last file of each camera are read.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.paths import EpisodePaths
from pipelines.readers.lerobot.windows import SharedVideo, Window
from pipelines.readers.reader import LeftOut
from pipelines.readers.video import Video
from schemas.errors import SourceError

MIN_OFFSET = 0.01  # frames; smaller differences in time are rounding errors


def video_notes(folder: SourceFolder, paths: EpisodePaths, keys: Sequence[str]) -> Iterator[str]:
    """Yield a note for each camera whose windows overlap, whose times differ, or whose frames are turned or not square.

    Files that cannot be read have no notes; their episodes are quarantined.
    """
    for key in keys:
        yield from _moved(paths, key)
        yield from _overlaps(paths, key)
        files = list(dict.fromkeys(paths.clip(key, row).file for row in range(len(paths.episodes))))
        for name in dict.fromkeys([*files[:1], *files[-1:]]):
            with suppress(SourceError), closing(Video.at(folder, name)) as video:
                of = f" (read from {min(2, len(files))} of {len(files)} videos)" if len(files) > 1 else ""
                offset = _offset(video, paths.windows(key).get(name, ()), fps=paths.info.fps)
                notes = [offset, *video.oddities()]
                yield from (f"{key}: {name} {note}{of}" for note in notes if note)


def _moved(paths: EpisodePaths, key: str) -> Iterator[str]:
    if moved := paths.moved(key):
        episode, name = next(iter(moved.items()))
        yield (
            f"{key}: meta/ lists {len(moved)} episodes in the wrong video, such as episode {episode} in "
            f"{paths.declared_clip(key, paths.indices.index(episode)).file}: its frames are read from {name}, "
            "where exactly these are free"
        )


def _overlaps(paths: EpisodePaths, key: str) -> Iterator[str]:
    shared = (SharedVideo(windows, hz=paths.info.fps or 0) for windows in paths.windows(key).values())
    problems = [message for video in shared if video.hz for message in video.problems.values()]
    if problems:
        more = f" ({len(problems)} such episodes)" if len(problems) > 1 else ""
        yield f"{key}: {problems[0]}; the episode is quarantined{more}"


def _offset(video: Video, windows: Sequence[Window], *, fps: float | None) -> str:
    """Describe the difference between the times that the table of episodes declares and those of the frames."""
    hz = fps or video.rate
    if not windows:
        return f"starts at {video.start:.3f} s: its frames are matched by position" if video.start else ""
    offset = SharedVideo(windows, hz=hz, start=video.start).offset if hz else 0
    if offset < MIN_OFFSET:
        return ""
    return f"has frames up to {offset / hz:.3f} s ({offset:.2f} frames) from the declared times: the nearest are used"


def unused_frames(paths: EpisodePaths, keys: Sequence[str]) -> list[LeftOut]:
    """Count the frames before and between the windows of the episodes, which belong to no episode."""
    hz = paths.info.fps
    gaps = [
        (f"{name} at {gap.start / hz:.3f} s", len(gap))
        for key in keys
        for name, windows in paths.windows(key).items()
        if hz
        for gap in SharedVideo(windows, hz=hz).gaps()
    ]
    return [LeftOut("frames of videos", sum(count for _, count in gaps), gaps[0][0])] if gaps else []
