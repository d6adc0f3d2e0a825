"""Decode the frames of a video whose packets are messages, in presentation order."""

from collections.abc import Iterator
from typing import Any

import av

from pipelines.readers.rosbag.nal import PacketScan
from pipelines.readers.video import STRICT
from schemas.errors import SourceError


class FrameDecoder:
    """Decodes the packets of one topic, in the order in which they were logged, from the first key frame on."""

    def __init__(self, codec: str, path: str) -> None:
        """Start a decoder; `path` is the field's path, for errors."""
        self.path, self.scan = path, PacketScan(codec, path)
        self.context: Any = av.CodecContext.create(codec, "r")
        self.context.options = STRICT
        self.context.thread_count = 1
        self.parameters = b""  # data without a frame, which belong to the next one
        self.packets = self.frames = 0

    def decode(self, data: bytes) -> Iterator[tuple[int, Any]]:
        """Decode one more packet; yield the frames that follow in presentation order.

        Each has the number of its packet, counted over those with a frame that can be decoded.
        """
        content = self.scan.add(data)
        if content == "parameters":
            self.parameters += data
        if content != "frame":
            return
        packet = av.Packet(self.parameters + data)
        packet.pts = packet.dts = self.packets
        self.packets, self.parameters = self.packets + 1, b""
        yield from self._frames(packet)

    def finish(self) -> Iterator[tuple[int, Any]]:
        """Yield the remaining frames; raise SourceError unless every packet gave one frame."""
        yield from self._frames(None)
        if self.frames != self.packets:
            message = f"{self.path}: {self.packets} messages with a frame, but {self.frames} frames can be decoded"
            raise SourceError(message, reason="bad_video")

    def _frames(self, packet: Any) -> Iterator[tuple[int, Any]]:
        try:
            for frame in self.context.decode(packet):
                if frame.is_corrupt or frame.pts is None:
                    raise SourceError(f"{self.path}: a frame of the video is damaged", reason="bad_video")
                self.frames += 1
                yield frame.pts, frame
        except (av.error.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise SourceError(f"{self.path}: the video cannot be decoded ({why})", reason="bad_video") from error
