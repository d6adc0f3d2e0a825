"""Encoded images become the frames of a video file; besides `pipelines/readers/video.py` the only place with FFmpeg.

A JPEG's planes go to the encoder as they are, but for their range: there is no way over RGB. Everything runs in one
thread, so that the same frames give the same bytes.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from schemas.errors import DatasetError
from schemas.source import Array, Bytes

DECODERS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}  # by the first bytes
PLANES = "yuv420p"  # what every trainer's decoder reads
TASKS = Path("/proc/self/task")
BEST = 100.0  # dB: what a frame that lost nothing counts as
# PyAV scales in one thread up to version 16; from 17 on in several, unless it is told otherwise.
ONE_THREAD: Mapping[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) > 16 else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How frames are compressed."""

    name: str  # as LeRobot's info.json has it
    encoder: str  # as FFmpeg has it
    options: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, word: str, *, crf: int, gop: int) -> "Codec":
        """Choose the settings that LeRobot has for `h264` and `av1`; these go with its defaults, crf 30 and gop 2."""
        told = (("g", str(gop)), ("crf", str(crf)))
        if word == "h264":
            return cls(name="h264", encoder="libx264", options=(*told, ("preset", "medium")))
        return cls(name="av1", encoder="libsvtav1", options=(*told, ("preset", "12"), ("svtav1-params", "lp=1")))

    @property
    def decoder(self) -> str:
        """Name what reads it back, as FFmpeg has it."""
        return "h264" if self.name == "h264" else "libdav1d"

    def to_json(self) -> dict[str, Any]:
        """Give what an export's record says of it."""
        return {"codec": self.name, "encoder": self.encoder, "pix_fmt": PLANES, **dict(self.options)}


class Pictures:
    """Decodes the encoded images of one camera."""

    def __init__(self, *, is_bgr: bool = False) -> None:
        """Open no decoder yet. With `is_bgr`, what the images call red is blue."""
        self.is_bgr = is_bgr
        self._decoders: dict[str, Any] = {}
        self._planes, self._pixels = VideoReformatter(), VideoReformatter()

    def decoded(self, data: Bytes, *, where: str) -> Any:
        """Decode an image into a frame of the form that it has; one that cannot be decoded is a DatasetError."""
        form = DECODERS.get(bytes(data[:2]), "png")
        if form not in self._decoders:
            self._decoders[form] = av.CodecContext.create(form, "r")
            self._decoders[form].thread_count = 1
        try:
            frames = self._decoders[form].decode(av.Packet(bytes(data)))
        except (av.error.FFmpegError, ValueError) as error:
            raise DatasetError(f"{where}: an image that cannot be decoded ({type(error).__name__})") from error
        if len(frames) != 1:
            raise DatasetError(f"{where}: an image that cannot be decoded ({len(frames)} frames)")
        if self.is_bgr:
            swapped = np.ascontiguousarray(frames[0].to_ndarray(format="rgb24")[..., ::-1])
            return av.VideoFrame.from_ndarray(swapped, format="rgb24")
        return frames[0]

    def planes(self, frame: Any) -> Any:
        """Give a frame as an encoder takes it."""
        return self._planes.reformat(
            frame,
            format=PLANES,
            src_color_range=ColorRange.JPEG,  # PyAV 15 does not ask the frame, and images have no other
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            **ONE_THREAD,
        )

    def pixels(self, frame: Any, every: int = 1) -> Array:
        """Give every n-th pixel of a frame in both directions, as [H, W, 3] uint8."""
        full = ColorRange.JPEG
        rgb = self._pixels.reformat(frame, format="rgb24", src_color_range=full, dst_color_range=full, **ONE_THREAD)
        return np.ascontiguousarray(rgb.to_ndarray()[::every, ::every])


class VideoFile:
    """One video that is being written, and how far its frames are from those that went in."""

    def __init__(self, path: Path, codec: Codec, *, fps: Fraction, size: tuple[int, int]) -> None:
        """Create the file for frames of `size`, height and width."""
        os.environ.setdefault("SVT_LOG", "1")  # the encoder of AV1 writes to stderr otherwise
        options = dict(codec.options) | {"flags": "+psnr"}
        self.fps = fps
        self.frames = 0
        self.psnr = BEST  # dB, the worst frame's
        self._container = cast("Any", av.open(str(path), "w", format="mp4"))
        self._stream: Any = self._container.add_stream(codec.encoder, fps, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PLANES
        self._stream.codec_context.thread_count = 1
        with usual_priority():
            self._stream.codec_context.open()
        measures = codec.encoder == "libx264" and hasattr(av.Packet, "get_sidedata")  # not before PyAV 16
        self._check = None if measures else Check(codec.decoder)

    def add(self, frame: Any, *, is_first: bool) -> None:
        """Encode a frame, in planes; the first one of an episode can be decoded without those before it."""
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        frame.pict_type = PictureType.I if is_first else PictureType.NONE
        if self._check:
            self._check.expect(frame)
        self._take(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._take(self._stream.encode())
        if self._check:
            self.psnr = min([self.psnr, *self._check.rest()])

    def close(self) -> None:
        """Write the file's index, and close it."""
        self._container.close()

    def _take(self, packets: Any) -> None:
        for packet in packets:
            found = self._check.take(packet, self._stream) if self._check else [self._told(packet)]
            self.psnr = min([self.psnr, *found])
            self._container.mux(packet)

    def _told(self, packet: Any) -> float:
        """Read the errors of the three planes that x264 gives with each packet (AV_PKT_DATA_QUALITY_STATS)."""
        told = bytes(packet.get_sidedata("quality_stats"))
        return psnr(int(np.frombuffer(told, "<u8", 3, 8).sum()), self._stream.height * self._stream.width)


class Check:
    """Decodes what an encoder gives, while it gives it, and compares it with what went in."""

    def __init__(self, decoder: str) -> None:
        """Begin before the first frame; `decoder` is FFmpeg's name."""
        self._name = decoder
        self._waiting: deque[Array] = deque()
        self._decoder: Any = None

    def expect(self, frame: Any) -> None:
        """Keep a frame until it comes out."""
        self._waiting.append(flat(frame))

    def take(self, packet: Any, stream: Any) -> list[float]:
        """Decode a packet; gives the PSNR of each frame that is complete by now."""
        if self._decoder is None:
            self._decoder = av.CodecContext.create(self._name, "r")
            self._decoder.extradata = stream.codec_context.extradata
            self._decoder.thread_count = 1
        return [self._compared(frame) for frame in self._decoder.decode(av.Packet(bytes(packet)))]

    def rest(self) -> list[float]:
        """Give the rest; a frame that never comes out is the worst there can be."""
        rest = [self._compared(frame) for frame in self._decoder.decode(None)] if self._decoder else []
        return [*rest, 0.0] if self._waiting else rest

    def _compared(self, frame: Any) -> float:
        found, wanted = flat(frame), self._waiting.popleft()
        return psnr(squared_error(found, wanted), frame.height * frame.width)


@contextmanager
def usual_priority() -> Iterator[None]:
    """Keep the scheduling of this process while an encoder is opened.

    SVT-AV1, run by root (so in most containers), gives the thread that opens it and its own ones the highest real-time
    priority. Nothing else on the machine would then run, and processes that are started inherit it.
    """
    if not hasattr(os, "sched_getscheduler"):  # only Linux has it, and only there the encoder does this
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    yield
    for thread in _threads() - before | {threading.get_native_id()}:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    """List the threads of this process; none where /proc is not mounted."""
    return {int(task.name) for task in TASKS.iterdir()} if TASKS.is_dir() else set()


def frames_of(path: Path) -> Iterator[Any]:
    """Decode a video from its start to its end, frame by frame."""
    with av.open(str(path), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def flat(frame: Any) -> Array:
    """Join a frame's planes, without padding, into one [N] uint8."""
    return np.concatenate(
        [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].reshape(-1)
            for plane in frame.planes
        ]
    )


def squared_error(one: Array, other: Array) -> int:
    """Add up the squared differences of two flat frames."""
    apart = np.subtract(one, other, dtype=np.int16).astype(np.float64)
    return int(np.dot(apart, apart))


def psnr(error: int, pixels: int) -> float:
    """Give the peak signal-to-noise ratio, in dB, of three planes with half as many colours as pixels in all.

    >>> psnr(0, 64)
    100.0
    """
    return min(BEST, float(10 * np.log10(255**2 * 1.5 * pixels / error))) if error else BEST
