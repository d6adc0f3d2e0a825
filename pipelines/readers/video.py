"""Video files as encoded images: every frame is decoded once, in order, whoever asks for which part."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from math import inf
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import simplejpeg

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer
from pipelines.readers.pixels import encode
from schemas.errors import SourceError
from schemas.source import Array

MAX_SIDE = 1 << 14  # pixels
MAX_PIXELS = 1 << 26
AHEAD = 256  # frames that are rather decoded in vain than jumped over
EXACT = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # containers whose packets have the same times after a jump
BUFFER = 1 << 20  # bytes that are fetched at a time where the file is not on this machine
STRICT = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}  # FFmpeg would paint over what is damaged

# Planes that can become a JPEG as they are but for their range: 8 bits, and the matrix of BT.601, which FFmpeg takes
# where none is named, too. Names as FFmpeg has them; numbers of AVColorSpace.
PLANAR = {f"yuv{j}{layout}p": bool(j) for j in ("", "j") for layout in ("420", "422", "444")}  # name -> full range
BT601 = {2, 5, 6}
FULL_RANGE = 2  # of AVColorRange
LEVELS = np.arange(256)
LUMA = np.clip(np.rint((LEVELS - 16) * 255 / 219), 0, 255).astype(np.uint8).tobytes()
CHROMA = np.clip(np.rint((LEVELS - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8).tobytes()


class Video:
    """One opened file. Going on where the last call ended is free; going elsewhere costs a jump to a key frame."""

    def __init__(self, file: str | IO[bytes], *, where: str) -> None:
        """Read the header; what is no video is a SourceError that names `where`."""
        self.where = where
        self._file = file
        self._times: list[int] | None = None  # when each frame is shown, in order; None: not looked for yet
        self._begin()
        self.width, self.height = self.stream.width, self.stream.height
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE and self.width * self.height <= MAX_PIXELS):
            raise self._wrong(f"frames of {self.width} x {self.height}")
        self.rate = float(self.stream.average_rate or 0)  # frames per second; 0: unknown
        self._base, self._tick = self.stream.start_time or 0, float(self.stream.time_base)

    def _begin(self) -> None:
        """Open the container, with the decoder before the first frame."""
        with self._damage():
            self.container = av.open(self._file, "r", buffer_size=BUFFER)
        if not self.container.streams.video:
            raise self._wrong("holds no video stream")
        self.stream: Any = self.container.streams.video[0]
        if self.stream.codec_context is None:
            raise self._wrong("a video of a kind that nothing here can decode")
        self.stream.codec_context.options = STRICT
        self.stream.codec_context.thread_count = 1  # what runs at the same time are processes
        self._decoded: Iterator[Any] = self._frames(self.container.demux(self.stream))
        self._next: int | None = 0  # the number of the frame that the decoder gives next; None: unknown
        self._last = -inf  # the time of the frame that it gave last, in seconds after the first; inf: it is nowhere

    @classmethod
    def at(cls, folder: SourceFolder, name: str) -> "Video":
        """Open a file of a source; one that is not there is a SourceError."""
        path, here = folder.path(name), folder.files.local
        if folder.size(name) is None:
            raise SourceError("no such video", reason="missing_video", file=path)
        return cls(str(here / name) if here else folder.open_parts(name), where=path)

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        if not isinstance(self._file, str):
            self._file.close()

    def count(self) -> int:
        """Count the frames without decoding them."""
        return len(self._shown())

    def read(self, start: int, count: int, *, images: str, whole: bool = False) -> Iterator[bytes]:
        """Give `count` frames from number `start` on, encoded as `images` says; fewer are a SourceError.

        Frames are numbered from 0 in the order in which they are shown. With `whole`, frames after these are a
        SourceError, too.
        """
        if self._next is None or not self._next <= start <= self._next + AHEAD:
            self._jump_to(start)
        while self._next is not None and self._next < start and self._step():
            pass
        for number in range(start, start + count):
            frame = self._step()
            if frame is None:
                raise self._wrong(f"ends before frame {number}", reason="frame_count")
            yield pixels(frame, images)
        if whole and self._step():
            raise self._wrong(f"goes on after frame {start + count - 1}", reason="frame_count")

    def read_at(self, seconds: float, count: int, *, hz: float, images: str) -> Iterator[bytes]:
        """Give `count` frames that are shown `hz` a second, from the one nearest to a time on, encoded.

        Times are counted from the first frame. A frame that is not there within half of its time is a SourceError.
        """
        half = 0.5 / hz
        if not (self._last <= seconds - half and seconds <= max(self._last, 0) + AHEAD / hz):
            self._jump_at(seconds)
        for wanted in (seconds + number / hz for number in range(count)):
            frame = self._step()
            while frame is not None and self._last <= wanted - half:
                frame = self._step()
            if frame is None:
                raise self._wrong(f"ends before the frame at {wanted:.3f} s", reason="frame_count")
            if self._last > wanted + half:
                found, self._last = self._last, inf
                raise self._wrong(f"the frame at {wanted:.3f} s is missing: the next is at {found:.3f} s")
            yield pixels(frame, images)

    def _step(self) -> Any:
        """Decode one frame; None at the end."""
        number, self._next, self._last = self._next, None, inf  # should this fail, the decoder is nowhere
        frame = next(self._decoded, None)
        if frame is not None:
            self._next = None if number is None else number + 1
            self._last = inf if frame.pts is None else (frame.pts - self._base) * self._tick
        return frame

    def _shown(self) -> list[int]:
        """List the times of all frames, in order."""
        if self._times is None:
            self._rewind()
            with self._damage():
                packets = [p.pts for p in self.container.demux(self.stream) if p.size and not p.is_discard]
            self._times = [-1] * len(packets) if None in packets else sorted(packets)
            self._rewind()
        return self._times

    def _jump_to(self, start: int) -> None:
        """Send the decoder before frame `start`, by the time at which that is shown."""
        times = self._shown()
        if start >= len(times):
            raise self._wrong(f"ends before frame {start}", reason="frame_count")
        is_told = len({*times}) == len(times)  # else a time does not say which frame it is
        key = self._key_before(times[start] if is_told else self._base)
        if key is not None:
            self._next = bisect_left(times, key)

    def _jump_at(self, seconds: float) -> None:
        """Send the decoder before a time."""
        self._key_before(self._base + round(seconds / self._tick))

    def _key_before(self, target: int) -> int | None:
        """Go to a key frame that is not shown after `target` and give its time; None: the decoder is at the beginning.

        A key frame is passed over where it, or what follows it, refers to what lies before it (an open GOP).
        """
        at, back = target, max(1, round(1 / self._tick))
        while at > self._base and self.container.format.name in EXACT:
            with self._damage():
                self.container.seek(at, stream=self.stream)
                packets = self.container.demux(self.stream)
                key = next((packet for packet in packets if packet.is_keyframe), None)
            if key and key.pts is not None and key.pts <= target:
                decoded = self._frames(chain([key], packets))
                with suppress(SourceError):
                    first = next(decoded, None)
                    if first and first.pts == key.pts:
                        self._decoded = chain([first], decoded)
                        self._next, self._last = None, (first.pts - 1 - self._base) * self._tick
                        return int(first.pts)
            at, back = at - back, back * 2
        self._rewind()
        return None

    def _rewind(self) -> None:
        """Begin again: jumping to the first frame does not find it in every container."""
        self.container.close()
        if not isinstance(self._file, str):
            self._file.seek(0)
        self._begin()

    def _frames(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Decode packets; what is damaged is an error, never a guess."""
        with self._damage():
            for packet in packets:
                if packet.is_corrupt:
                    raise self._wrong("a video that is damaged or was cut off")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise self._wrong("a video that is damaged: a frame cannot be decoded")
                    yield frame

    def _wrong(self, message: str, *, reason: str = "bad_video") -> SourceError:
        return SourceError(message, reason=reason, file=self.where)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Make a SourceError of whatever FFmpeg says of a damaged file."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if _is_pointer(self._file):
                raise lfs_pointer(self.where) from error
            why = getattr(error, "strerror", None) or type(error).__name__
            missing = isinstance(error, FileNotFoundError)
            raise self._wrong(
                "no such video" if missing else f"a video that cannot be read ({why})",
                reason="missing_video" if missing else "bad_video",
            ) from error


def _is_pointer(file: str | IO[bytes]) -> bool:
    if isinstance(file, str):
        if not Path(file).is_file():
            return False
        with Path(file).open("rb") as opened:
            return opened.read(len(LFS_MARK)) == LFS_MARK
    file.seek(0)
    return file.read(len(LFS_MARK)) == LFS_MARK


def pixels(frame: Any, images: str) -> bytes:
    """Encode a decoded frame; for JPEG its planes are taken as they are where that is exact, without a way over RGB."""
    form, _, quality = images.partition(" ")
    name = frame.format.name
    if form == "jpeg" and name in PLANAR and frame.colorspace in BT601:
        is_full = PLANAR[name] or frame.color_range == FULL_RANGE
        tables = (None, None, None) if is_full else (LUMA, CHROMA, CHROMA)
        y, u, v = (_plane(plane, table) for plane, table in zip(frame.planes, tables, strict=True))
        encoded: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=int(quality))
        return encoded
    return encode(frame.to_ndarray(format="rgb24"), images, subsampling="420" if "420" in name else "444")


def _plane(plane: Any, table: bytes | None) -> Array:
    """Take a plane without its padding, and its levels through a table."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    if table is None:
        return np.ascontiguousarray(rows)
    return np.frombuffer(rows.tobytes().translate(table), np.uint8).reshape(rows.shape)
