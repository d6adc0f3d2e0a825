"""Read video files as encoded images; frames that are read in order are decoded only once."""

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
from av.video.reformatter import ColorRange, Colorspace

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.orientation import Orientation
from pipelines.readers.pixels import encode
from schemas.errors import SourceError
from schemas.limits import MAX_PIXELS
from schemas.source import Array

MAX_SIDE = 1 << 14  # pixels
MAX_SKIPPED = 256  # frames; decoding and dropping up to this many is faster than seeking
EXACT_SEEK = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # containers whose packets keep exact times after a seek
BUFFER = 1 << 20  # bytes fetched at a time from a remote file
STRICT = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}  # by default, FFmpeg conceals damage

# The planes of these pixel formats can be encoded as JPEG without conversion to RGB if the colour space is in BT601:
# like JPEG, they have 8 bits and the BT.601 matrix, which FFmpeg assumes by default as well. Pixel formats are FFmpeg's
# names; colour spaces are the numbers in AVColorSpace.
PLANAR = {f"yuv{j}{layout}p": bool(j) for j in ("", "j") for layout in ("420", "422", "444")}  # name -> full range
BT601 = {2, 5, 6}
FULL_RANGE = 2  # in AVColorRange
LEVELS = np.arange(256)
LUMA = np.clip(np.rint((LEVELS - 16) * 255 / 219), 0, 255).astype(np.uint8).tobytes()
CHROMA = np.clip(np.rint((LEVELS - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8).tobytes()


class Video:
    """An open video file.

    A read that starts where the last one ended, or a little later, continues decoding. Any other read first seeks to a
    key frame.
    """

    def __init__(self, file: str | IO[bytes], *, where: str) -> None:
        """Read the header; raise SourceError, which names `where`, if the file is not a video."""
        self.where = where
        self._file = file
        self._times: list[int] | None = None  # sorted presentation times of all frames; None if not read yet
        self._open()
        self.width, self.height = self.stream.width, self.stream.height
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE and self.width * self.height <= MAX_PIXELS):
            raise self._error(f"unsupported frame size {self.width} x {self.height}")
        self.rate = float(self.stream.average_rate or 0)  # frames per second; 0 if unknown
        self._start, self._time_base = self.stream.start_time or 0, float(self.stream.time_base)
        self.start = self._start * self._time_base  # seconds; the presentation time of the first frame
        self.frames = self._declared_frames()

    def _declared_frames(self) -> int | None:
        """Return the number of frames from the header; None if it does not say, or if an edit list leaves some out."""
        count = int(self.stream.frames)
        is_whole = round((self.stream.duration or 0) * self._time_base * self.rate) == count
        return count if count and is_whole else None

    def _open(self) -> None:
        """Open the container and place the decoder before the first frame."""
        with self._decode_errors():
            self.container = av.open(self._file, "r", buffer_size=BUFFER)
        if not self.container.streams.video:
            raise self._error("the file contains no video stream")
        self.stream: Any = self.container.streams.video[0]
        if self.stream.codec_context is None:
            raise self._error("FFmpeg cannot decode this kind of video")
        self.stream.codec_context.options = STRICT
        self.stream.codec_context.thread_count = 1  # work is parallelized over processes, not threads
        self._decoded: Iterator[Any] = self._frames(self.container.demux(self.stream))
        self._next_number: int | None = 0  # the number of the next frame to decode; None if unknown
        self._last_time = -inf  # time of the last decoded frame in seconds after the first; inf if unknown

    @classmethod
    def at(cls, folder: SourceFolder, name: str) -> "Video":
        """Open a file of a source; raise SourceError if it does not exist."""
        path = folder.path(name)
        if folder.size(name) is None:
            raise SourceError("no such video", reason="missing_video", file=path)
        return cls(folder.local_path(name) or folder.open_parts(name), where=path)

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        if not isinstance(self._file, str):
            self._file.close()

    def oddities(self) -> list[str]:
        """Describe how the frames are shown, if that is unusual; decodes the first frame.

        Raises SourceError if it cannot be decoded.
        """
        self._rewind()
        frame = self._next_frame()
        self._rewind()
        turned, aspect = str(Orientation.of(frame)) if frame else "", self.stream.sample_aspect_ratio
        described = [f"is {turned}, as FFmpeg shows it"] if turned else []
        if aspect and aspect != 1:
            described.append(f"has pixels with an aspect ratio of {aspect.numerator}:{aspect.denominator}: not scaled")
        return described

    def count(self) -> int:
        """Count the frames without decoding them."""
        return len(self._frame_times())

    def read(self, start: int, count: int, *, images: str, whole: bool = False) -> Iterator[bytes]:
        """Yield `count` frames, starting with number `start`, encoded as `images` says.

        Frames are numbered from 0 in presentation order. Raises SourceError if the video has too few frames, or, if
        `whole` is true, if more frames follow the last one.
        """
        if self._next_number is None or not self._next_number <= start <= self._next_number + MAX_SKIPPED:
            self._seek_frame(start)
        while self._next_number is not None and self._next_number < start and self._next_frame():
            pass
        for number in range(start, start + count):
            frame = self._next_frame()
            if frame is None:
                raise self._error(f"the video ends before frame {number}", reason="frame_count")
            yield self._encoded(frame, images)
        if whole and self._next_frame():
            raise self._error(f"the video continues after frame {start + count - 1}", reason="frame_count")

    def read_at(self, seconds: float, count: int, *, hz: float, images: str) -> Iterator[bytes]:
        """Yield `count` encoded frames at `hz` frames per second, starting with the one nearest to `seconds`.

        `seconds` counts from the first frame of the video. Raises SourceError if an expected frame is missing: no frame
        is within half a frame period of its time, or there is another frame between two expected ones.
        """
        half = 0.5 / hz
        if not (self._last_time <= seconds - half and seconds <= max(self._last_time, 0) + MAX_SKIPPED / hz):
            self._seek_time(seconds)
        for number in range(count):
            expected, frame = seconds + number / hz, self._next_frame()
            while frame is not None and self._last_time <= expected - half:
                if number:
                    actual, self._last_time = self._last_time, inf
                    message = f"a frame at {actual:.3f} s is between two steps, which are {1 / hz:.3f} s apart"
                    raise self._error(message, reason="frame_count")
                frame = self._next_frame()
            if frame is None:
                raise self._error(f"the video ends before the frame at {expected:.3f} s", reason="frame_count")
            if self._last_time > expected + half:
                actual, self._last_time = self._last_time, inf
                raise self._error(f"the frame at {expected:.3f} s is missing: the next is at {actual:.3f} s")
            yield self._encoded(frame, images)

    def _encoded(self, frame: Any, images: str) -> bytes:
        try:
            return pixels(frame, images)
        except SourceError as error:
            raise error.at(self.where) from error

    def _next_frame(self) -> Any:
        """Decode the next frame; return None at the end of the video."""
        number, self._next_number, self._last_time = (
            self._next_number,
            None,
            inf,
        )  # the position stays unknown if decoding fails
        frame = next(self._decoded, None)
        if frame is not None:
            self._next_number = None if number is None else number + 1
            self._last_time = inf if frame.pts is None else (frame.pts - self._start) * self._time_base
        return frame

    def _frame_times(self) -> list[int]:
        """Return the presentation times of all frames, in order."""
        if self._times is None:
            self._rewind()
            with self._decode_errors():
                packets = [p.pts for p in self.container.demux(self.stream) if p.size and not p.is_discard]
            self._times = [-1] * len(packets) if None in packets else sorted(packets)
            self._rewind()
        return self._times

    def _seek_frame(self, start: int) -> None:
        """Seek to a key frame at or before frame `start`, by presentation time."""
        times = self._frame_times()
        if start >= len(times):
            raise self._error(f"the video ends before frame {start}", reason="frame_count")
        is_unique = len({*times}) == len(times)  # otherwise a time does not identify a frame
        key = self._seek_before(times[start] if is_unique else self._start)
        if key is not None:
            self._next_number = bisect_left(times, key)

    def _seek_time(self, seconds: float) -> None:
        """Seek to a key frame at or before a time."""
        self._seek_before(self._start + round(seconds / self._time_base))

    def _seek_before(self, target: int) -> int | None:
        """Seek to a key frame at or before `target`, and return its time.

        If there is no usable one, start again from the beginning and return None. A key frame is not usable if it, or
        the frames after it, depend on earlier frames (an open GOP).
        """
        at, back = target, max(1, round(1 / self._time_base))
        while at > self._start and self.container.format.name in EXACT_SEEK:
            with self._decode_errors():
                self.container.seek(at, stream=self.stream)
                packets = self.container.demux(self.stream)
                key = next((packet for packet in packets if packet.is_keyframe), None)
            if key and key.pts is not None and key.pts <= target:
                decoded = self._frames(chain([key], packets))
                with suppress(SourceError):
                    first = next(decoded, None)
                    if first and first.pts == key.pts:
                        self._decoded = chain([first], decoded)
                        self._next_number, self._last_time = None, (first.pts - 1 - self._start) * self._time_base
                        return int(first.pts)
            at, back = at - back, back * 2
        self._rewind()
        return None

    def _rewind(self) -> None:
        """Open the file again, because not every container can seek to its first frame."""
        self.container.close()
        if not isinstance(self._file, str):
            self._file.seek(0)
        self._open()

    def _frames(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Decode packets; raise SourceError for damage, which FFmpeg would hide by default."""
        with self._decode_errors():
            for packet in packets:
                if packet.is_corrupt:
                    raise self._error("the video is damaged or truncated")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise self._error("the video is damaged: a frame cannot be decoded")
                    yield frame

    def _error(self, message: str, *, reason: str = "bad_video") -> SourceError:
        return SourceError(message, reason=reason, file=self.where)

    @contextmanager
    def _decode_errors(self) -> Iterator[None]:
        """Turn FFmpeg's errors for a damaged file into a SourceError."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if _is_lfs_pointer(self._file):
                raise lfs_pointer_error(self.where) from error
            why = getattr(error, "strerror", None) or type(error).__name__
            missing = isinstance(error, FileNotFoundError)
            raise self._error(
                "no such video" if missing else f"the video cannot be read ({why})",
                reason="missing_video" if missing else "bad_video",
            ) from error


def _is_lfs_pointer(file: str | IO[bytes]) -> bool:
    if isinstance(file, str):
        if not Path(file).is_file():
            return False
        with Path(file).open("rb") as opened:
            return opened.read(len(LFS_MARK)) == LFS_MARK
    file.seek(0)
    return file.read(len(LFS_MARK)) == LFS_MARK


def pixels(frame: Any, images: str) -> bytes:
    """Encode a decoded frame, turned as the video says.

    A JPEG is made from the planes directly, without RGB, if the pixel format allows it.
    """
    orientation = Orientation.of(frame)
    form, _, quality = images.partition(" ")
    name = frame.format.name
    is_even = not orientation.is_transposed or "422" not in name  # libjpeg cannot encode a transposed 4:2:2
    if form == "jpeg" and name in PLANAR and frame.colorspace in BT601 and is_even:
        tables = (None, None, None) if _is_full_range(frame) else (LUMA, CHROMA, CHROMA)
        planes = (_plane(plane, table) for plane, table in zip(frame.planes, tables, strict=True))
        y, u, v = map(orientation.turned, planes)
        encoded: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=int(quality))
        return encoded
    return encode(orientation.turned(_rgb(frame)), images, subsampling="420" if "420" in name else "444")


def _is_full_range(frame: Any) -> bool:
    return PLANAR.get(frame.format.name, False) or frame.color_range == FULL_RANGE


def _rgb(frame: Any) -> Array:
    """Convert a frame to RGB, [H, W, 3] uint8, by its own colour space and range.

    PyAV 15 takes both into account only if they differ from what is asked for, and the range only if it is passed. The
    colour space that is asked for has no other effect, because RGB has none.
    """
    levels = ColorRange.JPEG if _is_full_range(frame) else None
    converted = frame.reformat(format="rgb24", src_color_range=levels, dst_colorspace=Colorspace.ITU601)
    array: Array = converted.to_ndarray()
    return array


def _plane(plane: Any, table: bytes | None) -> Array:
    """Return a plane [H, W] without padding; its levels are mapped through `table` unless that is None."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    if table is None:
        return rows
    return np.frombuffer(rows.tobytes().translate(table), np.uint8).reshape(rows.shape)
