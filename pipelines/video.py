"""Video files as encoded images: every frame is decoded once, in order, whoever asks for which part."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import simplejpeg

from pipelines.frames import encode
from pipelines.readers.folder import LFS_MARK, lfs_pointer
from schemas.errors import SourceError
from schemas.source import Array

MAX_SIDE = 1 << 14  # pixels


class Video:
    """One opened file. `read` may go on where it ended for free; going elsewhere costs a seek to a key frame."""

    def __init__(self, file: str | IO[bytes], *, where: str) -> None:
        """Read the header; what is no video is a SourceError that names `where`."""
        self.where = where
        with _damage(where):
            self.container = av.open(file, "r")
        if not self.container.streams.video:
            raise SourceError("holds no video stream", reason="bad_video", file=where)
        self.stream: Any = self.container.streams.video[0]
        self.width, self.height = self.stream.width, self.stream.height
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE):
            raise SourceError(f"frames of {self.width} x {self.height}", reason="bad_video", file=where)
        self.rate = float(self.stream.average_rate or 0)  # frames per second; 0: unknown
        self.next = 0  # the frame that the decoder gives next
        self._decoded = self._decode()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def read(self, start: int, count: int, *, images: str) -> Iterator[bytes]:
        """Give `count` frames from number `start` on, encoded as `images` says; fewer are a SourceError.

        Frames are numbered by their time stamps at the stream's rate, so a frame that was left out is noticed.
        """
        if start < self.next or start > self.next + self.rate * 10:
            self._seek(start)
        for wanted in range(start, start + count):
            frame = self._frame(wanted)
            yield pixels(frame, images)

    def _frame(self, wanted: int) -> Any:
        for number, frame in self._decoded:
            self.next = number + 1
            if number == wanted:
                return frame
            if number > wanted:
                raise SourceError(f"frame {wanted} is missing", reason="bad_video", file=self.where)
        raise SourceError(f"ends before frame {wanted}", reason="frame_count", file=self.where)

    def count(self) -> int:
        """Count the frames without decoding them."""
        with _damage(self.where):
            self.container.seek(0, stream=self.stream)
            found = sum(1 for packet in self.container.demux(self.stream) if packet.pts is not None)
            self._seek(0)
        return found

    def _seek(self, start: int) -> None:
        with _damage(self.where):
            base = self.stream.start_time or 0
            self.container.seek(base + int(start / (self.rate or 1) / self.stream.time_base), stream=self.stream)
        self._decoded = self._decode()

    def _decode(self) -> Iterator[tuple[int, Any]]:
        base = self.stream.start_time or 0
        with _damage(self.where):
            for frame in self.container.decode(self.stream):
                yield round((frame.pts - base) * float(self.stream.time_base) * (self.rate or 1)), frame


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Make a SourceError of whatever FFmpeg says of a damaged file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_video", file=where) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if Path(where).is_file() and Path(where).read_bytes()[: len(LFS_MARK)] == LFS_MARK:
            raise lfs_pointer(where) from error
        why = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"a video that cannot be read ({why})", reason="bad_video", file=where) from error


def pixels(frame: Any, images: str) -> bytes:
    """Encode a decoded frame; for JPEG its planes are taken as they are, without a way over RGB."""
    if images == "png":
        return encode(frame.to_ndarray(format="rgb24"), images)
    full = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="JPEG")
    y, u, v = (_plane(plane) for plane in full.planes)
    encoded: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=int(images.partition(" ")[2]))
    return encoded


def _plane(plane: Any) -> Array:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : plane.width])
