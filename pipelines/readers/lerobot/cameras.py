"""Read the cameras that a LeRobotDataset stores as videos or image files."""

from collections.abc import Iterator
from contextlib import suppress

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.paths import EpisodePaths
from pipelines.readers.lerobot.windows import SharedVideo
from pipelines.readers.video import Video
from schemas.errors import SourceError

MAX_DRIFT = 0.25  # frames that the video and the declared rate may differ at the end of a file


class Cameras:
    """Reads camera frames; one video per camera stays open, because the next episode is often in the same file."""

    def __init__(self, folder: SourceFolder, paths: EpisodePaths, *, images: str) -> None:
        """Keep the paths; nothing is opened yet."""
        self.folder, self.paths, self.images = folder, paths, images
        self._videos: dict[str, tuple[str, Video]] = {}  # by camera: the file and the open video
        self._windows: dict[str, tuple[str, SharedVideo]] = {}

    def close(self) -> None:
        """Close all videos."""
        for key in list(self._videos):
            self._close(key)

    def frames(self, key: str, row: int, *, steps: int) -> list[bytes]:
        """Return one encoded image per step of an episode."""
        try:
            if self.paths.info.features[key].dtype == "video":
                return list(self._video_frames(key, row, steps=steps))
            return [self.folder.read(self.paths.image(key, row, step)) for step in range(steps)]
        except SourceError as error:
            self._close(key)  # the decoder is in an unknown state
            raise error.at(prefix=key) from error

    def _video_frames(self, key: str, row: int, *, steps: int) -> Iterator[bytes]:
        clip = self.paths.clip(key, row)
        video = self._video(key, clip.file)
        if clip.start is None or clip.stop is None:
            return video.read(0, steps, images=self.images, whole=True)
        hz = self.paths.info.fps or video.rate
        count = round((clip.stop - clip.start) * hz)
        if count != steps:
            message = f"{count} frames are between its timestamps, but the episode has {steps} steps"
            raise SourceError(message, reason="frame_count", file=video.where)
        first = self._shared(key, clip.file, video, hz=hz).first_frame(self.paths.indices[row])
        return video.read_at(first / hz, steps, hz=hz, images=self.images)

    def _shared(self, key: str, name: str, video: Video, *, hz: float) -> SharedVideo:
        entry = self._windows.get(key)
        if entry is None or entry[0] != name:
            windows, frames = self.paths.windows(key)[name], video.frames
            if frames and abs(video.rate / hz - 1) * frames > MAX_DRIFT:
                frames = None  # times do not tell the numbers of frames
            self._windows[key] = (name, SharedVideo(windows, hz=hz, start=video.start, frames=frames))
        return self._windows[key][1]

    def _video(self, key: str, name: str) -> Video:
        entry = self._videos.get(key)
        if entry is None or entry[0] != name:
            self._close(key)
            self._videos[key] = (name, Video.at(self.folder, name))
        return self._videos[key][1]

    def _close(self, key: str) -> None:
        entry = self._videos.pop(key, None)
        if entry:
            with suppress(OSError):
                entry[1].close()
