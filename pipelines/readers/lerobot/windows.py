"""Find the frames of each episode in a video file that several episodes share, and check that no frame is used twice.

The table of episodes declares a window of time for each episode. The windows of one file are compared with each other
and with the header of the video; no frame is decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import ceil, floor

from schemas.errors import SourceError

TIE = 0.01  # frames; a window that starts this close to the middle between two frames is a tie


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The declared part of a video that belongs to one episode."""

    episode: int  # its episode_index
    start: float  # seconds
    stop: float
    steps: int  # the rows of the episode

    def __str__(self) -> str:
        """Return the episode and its times, as errors show them."""
        return f"episode {self.episode} ({self.start:.3f} to {self.stop:.3f} s)"


@dataclass(frozen=True)
class SharedVideo:
    """The windows of one video file, in order of their starts."""

    windows: Sequence[Window]
    hz: float  # frames per second
    start: float = 0.0  # seconds; the time of the first frame
    frames: int | None = None  # the number of frames; None if it is unknown

    @cached_property
    def firsts(self) -> list[int]:
        """The number of the frame nearest to the start of each window; the first frame of the video is 0.

        A start in the middle between two frames counts as the earlier one. If the first window starts before the first
        frame, it counts as the later one. So a constant offset of half a frame moves no window.
        """
        positions = [self._position(window) for window in self.windows]
        if positions and positions[0] < 0:
            return [floor(position + 0.5 + TIE) for position in positions]
        return [ceil(position - 0.5 - TIE) for position in positions]

    def _position(self, window: Window) -> float:
        return (window.start - self.start) * self.hz

    def first_frame(self, episode: int) -> int:
        """Return the number of an episode's first frame; raise SourceError if its frames are not its own."""
        if episode in self.problems:
            raise SourceError(self.problems[episode], reason="frame_count")
        return next(f for w, f in zip(self.windows, self.firsts, strict=True) if w.episode == episode)

    @cached_property
    def problems(self) -> dict[int, str]:
        """What is wrong with the frames of each episode whose window overlaps another one or is shifted.

        Frames in two windows belong to the later one, so the earlier one has too few. If both start at the same frame,
        both are wrong.
        """
        problems = self._shifts()
        filled = [pair for pair in zip(self.windows, self.firsts, strict=True) if pair[0].steps]
        for (window, first), (other, start) in pairwise(filled):
            count = min(first + window.steps, start + other.steps) - start
            if count > 0:
                frames = "1 frame" if count == 1 else f"{count} frames"
                message = f"the windows of {window} and {other} overlap: {frames} would belong to both"
                problems.setdefault(window.episode, message)
                if start == first:
                    problems.setdefault(other.episode, message)
        return problems

    def _shifts(self) -> dict[int, str]:
        """Describe each window that is shifted against the frames by whole frames.

        All are if the first one starts before the video. If the video has exactly one frame for each row of its
        episodes, those are that do not start where the frames of the windows before them end.
        """
        words = "its window is shifted against the frames of the video"
        if self.firsts and self.firsts[0] < 0:
            shift = f"{words}: they start at {self.start:.3f} s, but the window of {self.windows[0]} starts earlier"
            return {window.episode: shift for window in self.windows}
        steps = [window.steps for window in self.windows]
        if sum(steps) != self.frames:
            return {}
        starts = zip(self.windows, self.firsts, accumulate(steps, initial=0), strict=False)
        return {
            window.episode: f"{words}: {window} starts at frame {first}, but the windows before it have {count} frames"
            for window, first, count in starts
            if first != count
        }

    @property
    def offset(self) -> float:
        """The largest difference in frames between the start of a window and the time of its first frame."""
        pairs = zip(self.windows, self.firsts, strict=True)
        return max((abs(self._position(window) - first) for window, first in pairs), default=0.0)

    def gaps(self) -> list[range]:
        """Return the numbers of the frames before and between the windows, which belong to no episode."""
        ends = list(accumulate((f + w.steps for w, f in zip(self.windows, self.firsts, strict=True)), max))
        return [range(end, first) for end, first in zip([0, *ends], self.firsts, strict=False) if first > end]


def misplaced(videos: Mapping[str, SharedVideo]) -> dict[int, str]:
    """Return the right file of each episode that is listed in a wrong video file of one camera.

    The window of such an episode overlaps another one, and fits exactly into a gap of exactly one other file.
    """
    gaps = {name: video.gaps() for name, video in videos.items()}
    places: dict[int, str] = {}
    for name, video in videos.items():
        if not video.problems:
            continue
        filled = [(w, range(f, f + w.steps)) for w, f in zip(video.windows, video.firsts, strict=True) if w.steps]
        for (window, frames), (other, later) in pairwise(filled):
            if later.start < frames.stop:
                fits = {
                    one.episode: file
                    for one, span in ((window, frames), (other, later))
                    for file, free in gaps.items()
                    if file != name and free.count(span) == 1
                }
                places |= fits if len(fits) == 1 else {}
    return places
