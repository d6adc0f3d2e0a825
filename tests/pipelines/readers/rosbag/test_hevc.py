"""Lost frames of H.265, compared with what FFmpeg shows when it conceals them."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pipelines.readers.rosbag.nal import PacketScan
from schemas.errors import SourceError
from schemas.source import Array
from tests.lerobot import drawn

av = pytest.importorskip("av", reason="the extra 'lerobot'")
COUNT = 14
KINDS = {
    "without B-frames": "bframes=0:ref=2",
    "B-frames": "bframes=3:b-adapt=0:ref=1:b-pyramid=0",
    "a pyramid of B-frames": "bframes=4:b-adapt=0:ref=3:b-pyramid=1",
    "an open group": "bframes=2:b-adapt=0:open-gop=1",
    "layers": "bframes=4:b-adapt=0:temporal-layers=3",
    "leading frames": "bframes=2:b-adapt=0:open-gop=0:radl=2",
    "few bits of a place": "bframes=2:b-adapt=0:log2-max-poc-lsb=4:keyint=99",
    "scaling lists": "bframes=2:scaling-list=default",
    "4:4:4": "bframes=2",
}


def encoded(kind: str) -> list[bytes]:
    context: Any = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.time_base = 64, 64, Fraction(1, 10)
    context.pix_fmt = "yuv444p" if kind == "4:4:4" else "yuv420p"
    common = "keyint=6:min-keyint=6:scenecut=0:ctu=16:repeat-headers=1:log-level=none"
    context.options = {"x265-params": f"{common}:{KINDS[kind]}"}
    frames = [av.VideoFrame.from_ndarray(image, "rgb24") for image in drawn(COUNT, height=64, width=64)]
    for i, frame in enumerate(frames):
        frame.pts = i
    return [bytes(packet) for frame in [*frames, None] for packet in context.encode(frame)]


def shown(packets: dict[int, bytes]) -> dict[int, Array]:
    """Decode packets as FFmpeg does by default, which is to conceal what is lost."""
    context: Any = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    frames = []
    for number, data in packets.items():
        packet = av.Packet(data)
        packet.pts = packet.dts = number
        frames += context.decode(packet)
    return {frame.pts: frame.to_ndarray() for frame in [*frames, *context.decode(None)]}


def refusal(packets: dict[int, bytes]) -> str:
    scan = PacketScan("hevc", "cam")
    try:
        for data in packets.values():
            assert scan.add(data) == "frame"
    except SourceError as error:
        return error.message
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_frame_is_noticed_if_another_one_looks_different_without_it(kind: str) -> None:
    packets = dict(enumerate(encoded(kind)))
    assert len(packets) == COUNT
    assert refusal(packets) == ""
    whole, noticed = shown(packets), 0
    for lost in range(1, COUNT):
        rest = {number: data for number, data in packets.items() if number != lost}
        frames = shown(rest)
        is_changed = any(not np.array_equal(frames.get(number), whole[number]) for number in rest)
        assert (refusal(rest) == "cam: frames that later ones depend on are missing: their messages were lost") == (
            is_changed
        ), lost
        noticed += is_changed
    assert noticed >= 3


@pytest.mark.parametrize("kind", ["a pyramid of B-frames", "scaling lists", "few bits of a place"])
def test_damaged_headers_are_refused_or_read(kind: str) -> None:
    packets, random = encoded(kind), np.random.default_rng(0)
    reasons = []
    for _ in range(300):
        damaged = list(packets)
        which = int(random.choice([0, 0, 1, 2, 3]))
        data = bytearray(damaged[which])
        for at in random.integers(4, 120, 3):
            data[at % len(data)] = int(random.integers(256))
        damaged[which] = bytes(data)
        scan = PacketScan("hevc", "cam")
        try:
            for packet in damaged:
                scan.add(packet)
        except SourceError as error:
            reasons.append(error.reason)
    assert 0 < len(reasons) < 300
    assert {*reasons} == {"bad_video"}


def test_a_frame_without_parameters_is_refused() -> None:
    packets = encoded("without B-frames")
    bare = b"\0\0\0\1" + packets[0].split(b"\0\0\1")[-1]
    assert refusal({0: bare}) == "cam: the header of a frame is damaged, or its parameters are missing"
