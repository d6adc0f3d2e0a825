"""Video in messages: decoded from the first key frame on, in presentation order, and matched to the message times."""

import base64
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from schemas.errors import SourceError
from schemas.source import RawEpisode
from tests import bags
from tests.bags import Said
from tests.pipelines.readers.rosbag.test_reader import converted, decoded, episode, failure, numbers, opened

av = pytest.importorskip("av", reason="the extra 'lerobot'")
STAMP = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
PACKET = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data"""
MORE = {"foxglove_msgs/msg/CompressedVideo": STAMP, "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": PACKET}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
VIDEO = {
    "timestamp": {"type": "object", "properties": {"sec": NUMBER, "nsec": NUMBER}},
    "frame_id": TEXT,
    "data": {**TEXT, "contentEncoding": "base64"},
    "format": TEXT,
}
ARM = {"q": {"type": "array", "items": {"type": "number"}}}
CLOCK = "/q"


class Packet(NamedTuple):
    """One packet, and the number of its frame in presentation order."""

    data: bytes
    number: int


def packets(codec: str = "h264", *, count: int = 12, b_frames: int = 0, open_gop: int = 0) -> list[Packet]:
    """Encode grey frames that get 20 levels brighter, with a key frame at every sixth, in the order of decoding."""
    encoder = {"h264": "libx264", "h265": "libx265", "vp9": "libvpx-vp9"}[codec]
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuv420p", Fraction(1, 10)
    context.gop_size = 6
    common = f"keyint=6:min-keyint=6:scenecut=0:bframes={b_frames}:b-adapt=0"
    options = {
        "libx264": {"x264-params": common},
        "libx265": {"x265-params": f"{common}:open-gop={open_gop}:repeat-headers=1"},
    }
    context.options = options.get(encoder, {})
    found = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), "rgb24")
        frame.pts = i
        found += context.encode(frame)
    return [Packet(bytes(packet), packet.pts) for packet in [*found, *context.encode(None)]]


def foxglove(packet: Packet, form: str, ms: float) -> Any:
    kind = bags.types(MORE).types["builtin_interfaces/msg/Time"](sec=int(ms), nanosec=0)
    data = np.frombuffer(packet.data, np.uint8)
    return bags.msg("foxglove_msgs/CompressedVideo", more=MORE, timestamp=kind, frame_id="c", data=data, format=form)


def ffmpeg(packet: Packet, form: str, ms: float) -> Any:
    data, sizes = np.frombuffer(packet.data, np.uint8), {"width": 64, "height": 48, "flags": 0, "is_bigendian": False}
    words = {"encoding": form, "pts": packet.number, "data": data, **sizes}
    return bags.msg("ffmpeg_image_transport_msgs/FFMPEGPacket", ms=ms, more=MORE, **words)


def camera(packet: Packet, form: str, ms: float) -> Any:
    return bags.compressed(ms, packet.data, form)


MESSAGES: dict[str, Callable[[Packet, str, float], Any]] = {"foxglove": foxglove, "ffmpeg": ffmpeg, "image": camera}


def recorded(sent: Sequence[Packet], message: Callable[[Packet, str, float], Any], form: str) -> list[Said]:
    """Log a packet every 10 ms, and numbers 2 ms later."""
    said = [Said("/cam", message(packet, form, 10 * i), 10 * i) for i, packet in enumerate(sent)]
    said += [Said(CLOCK, bags.msg("toy_msgs/Doubles", data=np.array([float(i)])), 10 * i + 2) for i in range(len(sent))]
    return sorted(said, key=lambda one: one.ms)


def shades(value: RawEpisode, path: str = "cam") -> list[int]:
    return [round(float(decoded(image).mean()) / 20) for image in value.steps[path]]


def write_json(file: Path, sent: Sequence[Packet], form: str, name: str = "foxglove.CompressedVideo") -> Path:
    said = []
    for i, packet in enumerate(sent):
        time = {"sec": 1, "nsec": i}
        data = base64.b64encode(packet.data).decode()
        said.append(Said("/cam", {"timestamp": time, "frame_id": "c", "data": data, "format": form}, 10 * i))
        said.append(Said(CLOCK, {"q": [i]}, 10 * i + 2))
    schemas = {
        "/cam": (name, {"type": "object", "properties": VIDEO}),
        CLOCK: ("Q", {"type": "object", "properties": ARM}),
    }
    return bags.write_json(file, schemas, said)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("kind", [*MESSAGES, "json"])
def test_frames_are_those_that_were_recorded(tmp_path: Path, kind: str, codec: str, b_frames: int) -> None:
    sent = packets(codec, b_frames=b_frames)
    if kind == "json":
        bag = write_json(tmp_path / "x.mcap", sent, codec)
    else:
        bag = bags.write_bag(tmp_path / "x", recorded(sent, MESSAGES[kind], codec), more=MORE)
    value = episode(bag, clock=CLOCK)
    assert shades(value) == list(range(12))[: len(value.steps["timestamp"])]
    assert len(value.steps["timestamp"]) == 11
    assert value.metadata["video.cam.before_key"] == 0
    assert shades(episode(bag, clock="/cam")) == list(range(1, 12))
    assert not {"cam.data", "cam.width"} & value.steps.keys()


@pytest.mark.parametrize("kind", ["plain", "sqlite3"])
def test_frames_are_chosen_after_decoding(tmp_path: Path, kind: str) -> None:
    said = recorded(packets(), ffmpeg, "libx264;yuv420p;bgr8;rgb24")
    slow = [one for one in said if one.topic == "/cam" or one.ms % 40 == 2]
    write = {"plain": lambda: bags.write_mcap(tmp_path / "x.mcap", slow, more=MORE)}
    bag = write[kind]() if kind in write else bags.write_bag(tmp_path / "x", slow, storage=kind, more=MORE)
    assert shades(episode(bag, clock=CLOCK)) == [0, 4, 8]
    assert shades(episode(bag, clock=CLOCK, topics={"/cam": "hold"})) == [0, 4, 8]
    assert shades(episode(bag, clock=200.0, topics={CLOCK: "hold"}))[:6] == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("first", [1, 4])
def test_messages_before_the_first_key_frame_are_counted(tmp_path: Path, codec: str, first: int) -> None:
    bag = bags.write_bag(tmp_path / "x", recorded(packets(codec)[first:], foxglove, codec), more=MORE)
    value = episode(bag, clock=CLOCK)
    assert value.metadata["video.cam.before_key"] == 6 - first
    assert value.metadata["clock.cut_start"] == 6 - first
    assert shades(value) == [6, 7, 8, 9, 10]


def test_frames_that_refer_to_frames_before_the_first_key_frame_are_counted(tmp_path: Path) -> None:
    """In an open group of pictures, B-frames after the key frame refer to the group before it."""
    sent = packets("h265", b_frames=2, open_gop=1)
    assert [packet.number for packet in sent[4:7]] == [6, 5, 4]
    bag = bags.write_bag(tmp_path / "x", recorded(sent[2:], foxglove, "h265"), more=MORE)
    value = episode(bag, clock="/cam")
    assert value.metadata["video.cam.before_key"] == 4
    assert shades(value) == [6, 7, 8, 9, 10, 11]


def test_header_stamps_of_b_frames_are_those_of_the_frames(tmp_path: Path) -> None:
    sent = packets(b_frames=2)
    said = [Said("/cam", ffmpeg(packet, "h264", 10 * packet.number), 10 * i) for i, packet in enumerate(sent)]
    said += [Said(CLOCK, bags.joints(10 * i + 2, [i], "a"), 10 * i + 2) for i in range(12)]
    bag = bags.write_bag(tmp_path / "x", sorted(said, key=lambda one: one.ms), more=MORE)
    value = episode(bag, clock=CLOCK, stamp="header")
    assert shades(value) == list(range(11))
    assert numbers(value, "cam.pts") == list(range(11))


def test_parameters_may_come_in_a_message_of_their_own(tmp_path: Path) -> None:
    sent = packets()
    at = sent[0].data.index(b"\0\0\1\x65")
    apart = [sent[3], Packet(sent[0].data[:at], 0), Packet(sent[0].data[at:], 0), *sent[1:]]
    value = episode(bags.write_bag(tmp_path / "x", recorded(apart, foxglove, "h264"), more=MORE), clock="/cam")
    assert value.metadata["video.cam.before_key"] == 1
    assert shades(value)[:5] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sent: sent[1:6], "no message of the video has a key frame"),
        (lambda sent: [*sent[:2], *sent[3:]], "missing|cannot be decoded"),
        (lambda sent: [*sent[:2], Packet(sent[2].data + sent[3].data, 2), *sent[4:]], "beginnings of 2 frames"),
        (lambda sent: [Packet(b"abc", 0), *sent], "no start code"),
        (lambda sent: [*sent[:5], Packet(sent[5].data[:9], 5), *sent[6:]], "damaged|decoded"),
        (lambda sent: [Packet(b"", 0) for _ in sent], "no message of the video has a key frame"),
    ],
)
def test_a_damaged_video_is_quarantined(tmp_path: Path, codec: str, change: Callable[[Any], Any], words: str) -> None:
    bag = bags.write_bag(tmp_path / "x", recorded(change(packets(codec)), foxglove, codec), more=MORE)
    told = failure(bag, clock=CLOCK)
    assert told.reason == "bad_video"
    assert any(word in told.detail for word in words.split("|")), told.detail


def test_times_that_contradict_the_order_of_frames_are_refused(tmp_path: Path) -> None:
    times = [0, 10, 30, 20, 40, 50]
    said = [Said("/cam", foxglove(packet, "h264", 0), ms) for packet, ms in zip(packets(), times, strict=False)]
    bag = bags.write_bag(tmp_path / "x", said, more=MORE)
    for disorder in ("refuse", "sort"):
        assert failure(bag, clock="/cam", disorder=disorder).reason == "bad_timestamps"


@pytest.mark.parametrize("form", ["vp9", "av1", "VP8", ""])
@pytest.mark.parametrize("kind", ["foxglove", "ffmpeg", "json"])
def test_other_codecs_are_refused_by_name(tmp_path: Path, kind: str, form: str) -> None:
    sent = packets("vp9", count=2)
    if kind == "json":
        bag = write_json(tmp_path / "x.mcap", sent, form)
    else:
        bag = bags.write_bag(tmp_path / "x", recorded(sent, MESSAGES[kind], form), more=MORE)
    with pytest.raises(SourceError, match=f"cam: {form or 'unnamed'} video in messages is not read") as caught:
        opened(bag, clock=CLOCK)
    assert caught.value.reason == "unsupported_image"
    assert f"{form or 'unnamed'} video in messages is not read" in opened(bag).guesses()["ignore"]


def test_base64_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"cam.data contains .*base64.*leave it out with source.ignore = \['cam.data'\]"
    ):
        opened(write_json(tmp_path / "x.mcap", packets(), "h264", name="lab.Webcam"), clock=CLOCK)
    plain = {"type": "object", "properties": {"blob": TEXT}}
    said = [Said("/x", {"blob": base64.b64encode(bytes(range(200))).decode()}, i) for i in range(2)]
    with pytest.raises(SourceError, match=r"x\.blob contains bytes as base64"):
        opened(bags.write_json(tmp_path / "y.mcap", {"/x": ("X", plain)}, said), clock="/x")


def test_jpegs_in_messages_of_videos_are_kept(tmp_path: Path) -> None:
    from tests.pipelines.toy import jpeg

    sent = [Packet(jpeg(i), i) for i in range(4)]
    value = episode(bags.write_bag(tmp_path / "x", recorded(sent, ffmpeg, "mjpeg"), more=MORE), clock="/cam")
    assert list(value.steps["cam"]) == [jpeg(i) for i in range(1, 4)]


def test_a_video_is_guessed_as_camera_converted_and_verified(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", recorded(packets(b_frames=2), foxglove, "h264"), more=MORE)
    (field,) = (field for field in opened(bag).fields if field.path == "cam")
    assert (field.kind, field.encoding, opened(bag).layout()["clock"]) == ("image", "h264", "/cam")
    said = [one for one in recorded(packets(), foxglove, "h264") if one.topic == "/cam"]
    said += [Said("/q", bags.joints(10 * i, [i, i]), 10 * i + 2) for i in range(12)]
    bag = bags.write_bag(tmp_path / "y", sorted(said, key=lambda one: one.ms), more=MORE)
    dataset = converted(tmp_path, bag, '{ format = "rosbag", clock = "/q", images = "jpeg 95" }', action="q.position")
    found = dataset.episode(0)
    assert [round(float(decoded(image).mean()) / 20) for image in found.images["cam"]] == list(range(11))
