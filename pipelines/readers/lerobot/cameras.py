"""The cameras of a LeRobotDataset that no column holds: videos, each opened once, and image files."""

from collections.abc import Iterator
from contextlib import suppress

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.places import Places
from pipelines.readers.video import Video
from schemas.errors import SourceError


class Cameras:
    """The open videos, one for each camera: the next episode often goes on in the same file."""

    def __init__(self, folder: SourceFolder, places: Places, *, images: str) -> None:
        """Open nothing yet."""
        self.folder, self.places, self.images = folder, places, images
        self._open: dict[str, tuple[str, Video]] = {}

    def close(self) -> None:
        """Close all."""
        for key in list(self._open):
            self._close(key)

    def frames(self, key: str, row: int, *, steps: int) -> list[bytes]:
        """Give one encoded image for each step of an episode."""
        try:
            if self.places.info.features[key].dtype == "video":
                return list(self._filmed(key, row, steps=steps))
            return [self.folder.read(self.places.image(key, row, step)) for step in range(steps)]
        except SourceError as error:
            self._close(key)  # the decoder may be anywhere
            raise error.at(prefix=key) from error

    def _filmed(self, key: str, row: int, *, steps: int) -> Iterator[bytes]:
        clip = self.places.clip(key, row)
        video = self._video(key, clip.file)
        if clip.start is None or clip.stop is None:
            return video.read(0, steps, images=self.images, whole=True)
        hz = self.places.info.fps or video.rate
        filmed = round((clip.stop - clip.start) * hz)
        if filmed != steps:
            message = f"{filmed} frames lie between its timestamps, the episode has {steps} steps"
            raise SourceError(message, reason="frame_count", file=video.where)
        return video.read_at(clip.start, steps, hz=hz, images=self.images)

    def _video(self, key: str, name: str) -> Video:
        opened = self._open.get(key)
        if opened is None or opened[0] != name:
            self._close(key)
            self._open[key] = (name, Video.at(self.folder, name))
        return self._open[key][1]

    def _close(self, key: str) -> None:
        opened = self._open.pop(key, None)
        if opened:
            with suppress(OSError):
                opened[1].close()
