"""Write encoded images as the frames of a video file. Only this file and `pipelines/readers/video.py` use FFmpeg.

The planes of a JPEG are passed to the encoder without a conversion to RGB; only their range of values is converted.
Everything runs in one thread, so that the same frames give the same bytes.
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

DECODERS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}  # first bytes of the image -> FFmpeg's decoder
PLANES = "yuv420p"  # the pixel format that every trainer's decoder reads
MAX_PSNR = 100.0  # dB; PSNR of a frame without loss
TASKS = Path("/proc/self/task")
# Up to version 16, PyAV converts frames in one thread. From version 17 on, it uses several unless `threads` is set.
ONE_THREAD: Mapping[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) > 16 else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How frames are compressed."""

    name: str  # name in LeRobot's info.json
    encoder: str  # name in FFmpeg
    options: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, word: str, *, crf: int, gop: int) -> "Codec":
        """Return LeRobot's settings for the codec `word`. LeRobot's defaults are a `crf` of 30 and a `gop` of 2."""
        quality = (("g", str(gop)), ("crf", str(crf)))
        if word == "h264":
            return cls(name="h264", encoder="libx264", options=(*quality, ("preset", "medium")))
        return cls(name="av1", encoder="libsvtav1", options=(*quality, ("preset", "12"), ("svtav1-params", "lp=1")))

    @property
    def decoder(self) -> str:
        """Name in FFmpeg of the decoder that reads the video back."""
        return "h264" if self.name == "h264" else "libdav1d"

    def to_json(self) -> dict[str, Any]:
        """Return the codec's entry in the record of an export."""
        return {"codec": self.name, "encoder": self.encoder, "pix_fmt": PLANES, **dict(self.options)}


class ImageDecoder:
    """Decodes the encoded images of one camera."""

    def __init__(self, *, is_bgr: bool = False) -> None:
        """Create a decoder; `is_bgr` means that the stored images have red and blue swapped."""
        self.is_bgr = is_bgr
        self._decoders: dict[str, Any] = {}
        self._planes, self._pixels = VideoReformatter(), VideoReformatter()

    def decoded(self, data: Bytes, *, where: str) -> Any:
        """Decode an image to a frame in the image's own pixel format; raises DatasetError if it cannot be decoded."""
        form = DECODERS.get(bytes(data[:2]), "png")
        if form not in self._decoders:
            self._decoders[form] = av.CodecContext.create(form, "r")
            self._decoders[form].thread_count = 1
        try:
            frames = self._decoders[form].decode(av.Packet(bytes(data)))
        except (av.error.FFmpegError, ValueError) as error:
            raise DatasetError(f"{where}: the image cannot be decoded ({type(error).__name__})") from error
        if len(frames) != 1:
            raise DatasetError(f"{where}: the image cannot be decoded ({len(frames)} frames)")
        if self.is_bgr:
            swapped = np.ascontiguousarray(frames[0].to_ndarray(format="rgb24")[..., ::-1])
            return av.VideoFrame.from_ndarray(swapped, format="rgb24")
        return frames[0]

    def planes(self, frame: Any) -> Any:
        """Convert a frame to the encoder's pixel format."""
        return self._planes.reformat(
            frame,
            format=PLANES,
            src_color_range=ColorRange.JPEG,  # PyAV 15 ignores the frame's own range; images always have this one
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            **ONE_THREAD,
        )

    def pixels(self, frame: Any, every: int = 1) -> Array:
        """Return every n-th pixel of a frame in both directions, as [H, W, 3] uint8 in RGB."""
        full = ColorRange.JPEG
        rgb = self._pixels.reformat(frame, format="rgb24", src_color_range=full, dst_color_range=full, **ONE_THREAD)
        return np.ascontiguousarray(rgb.to_ndarray()[::every, ::every])


class VideoFile:
    """A video that is being written, and the PSNR of its worst frame."""

    def __init__(self, path: Path, codec: Codec, *, fps: Fraction, size: tuple[int, int]) -> None:
        """Create the file for frames of `size`, height and width."""
        os.environ.setdefault("SVT_LOG", "1")  # otherwise the AV1 encoder logs to stderr
        options = dict(codec.options) | {"flags": "+psnr"}
        self.fps = fps
        self.frames = 0
        self.psnr = MAX_PSNR  # dB, the worst frame so far
        self._container = cast("Any", av.open(str(path), "w", format="mp4"))
        self._stream: Any = self._container.add_stream(codec.encoder, fps, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PLANES
        self._stream.codec_context.thread_count = 1
        with usual_priority():
            self._stream.codec_context.open()
        # x264 reports the error of each frame, which PyAV can read from version 16 on
        is_reported = codec.encoder == "libx264" and hasattr(av.Packet, "get_sidedata")
        self._meter = None if is_reported else PsnrMeter(codec.decoder)

    def add(self, frame: Any, *, is_first: bool) -> None:
        """Encode a frame in the encoder's pixel format; the first frame of an episode becomes a key frame."""
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        frame.pict_type = PictureType.I if is_first else PictureType.NONE
        if self._meter:
            self._meter.expect(frame)
        self._take(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        """Write the frames that are still in the encoder."""
        self._take(self._stream.encode())
        if self._meter:
            self.psnr = min([self.psnr, *self._meter.rest()])

    def close(self) -> None:
        """Write the file's index, and close it."""
        self._container.close()

    def _take(self, packets: Any) -> None:
        for packet in packets:
            measured = self._meter.take(packet, self._stream) if self._meter else [self._reported_psnr(packet)]
            self.psnr = min([self.psnr, *measured])
            self._container.mux(packet)

    def _reported_psnr(self, packet: Any) -> float:
        """Compute PSNR from the errors of the three planes that x264 reports (AV_PKT_DATA_QUALITY_STATS)."""
        errors = bytes(packet.get_sidedata("quality_stats"))
        return psnr(int(np.frombuffer(errors, "<u8", 3, 8).sum()), self._stream.height * self._stream.width)


class PsnrMeter:
    """Decodes the packets of an encoder and compares each frame with the one that was encoded."""

    def __init__(self, decoder: str) -> None:
        """Create a meter without frames; `decoder` is the name of the decoder in FFmpeg."""
        self._name = decoder
        self._waiting: deque[Array] = deque()
        self._decoder: Any = None

    def expect(self, frame: Any) -> None:
        """Keep a frame until its packet is decoded."""
        self._waiting.append(flat(frame))

    def take(self, packet: Any, stream: Any) -> list[float]:
        """Decode a packet; returns the PSNR of each frame that it completes."""
        if self._decoder is None:
            self._decoder = av.CodecContext.create(self._name, "r")
            self._decoder.extradata = stream.codec_context.extradata
            self._decoder.thread_count = 1
        return [self._compared(frame) for frame in self._decoder.decode(av.Packet(bytes(packet)))]

    def rest(self) -> list[float]:
        """Return the PSNR of the remaining frames; the last number is 0 if the encoder lost a frame."""
        rest = [self._compared(frame) for frame in self._decoder.decode(None)] if self._decoder else []
        return [*rest, 0.0] if self._waiting else rest

    def _compared(self, frame: Any) -> float:
        return psnr(squared_error(flat(frame), self._waiting.popleft()), frame.height * frame.width)


@contextmanager
def usual_priority() -> Iterator[None]:
    """Restore the scheduling policy of this thread, and apply it to the threads of an encoder that was opened inside.

    If the user is root, as usual in containers, SVT-AV1 gives the highest real-time priority to its own threads and to
    the thread that opens it. Other processes would starve, and child processes would inherit the priority.
    """
    if not hasattr(os, "sched_getscheduler"):  # SVT-AV1 does this only on Linux
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    yield
    for thread in _threads() - before | {threading.get_native_id()}:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    """List the threads of this process; empty if /proc is not mounted."""
    return {int(task.name) for task in TASKS.iterdir()} if TASKS.is_dir() else set()


def frames_of(path: Path) -> Iterator[Any]:
    """Decode a video frame by frame."""
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
    """Return the sum of the squared differences between two flat frames."""
    apart = np.subtract(one, other, dtype=np.int16).astype(np.float64)
    return int(np.dot(apart, apart))


def psnr(error: int, pixels: int) -> float:
    """Return the peak signal-to-noise ratio in dB of a yuv420p frame from its squared error and number of pixels.

    >>> psnr(0, 64)
    100.0
    """
    return min(MAX_PSNR, float(10 * np.log10(255**2 * 1.5 * pixels / error))) if error else MAX_PSNR
