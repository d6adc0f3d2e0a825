"""Videos as encoded images, compared with PyAV's sequential decoding."""

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.readers import video
from pipelines.readers.folder import LFS_MARK, SourceFolder
from pipelines.readers.pixels import encode
from schemas.errors import SourceError
from schemas.source import Array
from tests.lerobot import drawn, write_video

av = pytest.importorskip("av", reason="the extra 'lerobot'")
OPEN_GOP = "open-gop=1:keyint=20:min-keyint=20:bframes=3:scenecut=0"
KINDS: dict[str, dict[str, Any]] = {
    "h264 with B-frames": {"options": {"g": "12"}},
    "h264 as LeRobot writes it": {"options": {"g": "2", "crf": "30"}},
    "h264 with an open GOP": {"options": {"x264-params": OPEN_GOP}},
    "h264 with one key frame": {"options": {"g": "999"}},
    "hevc with an open GOP": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=20:log-level=none"}},
    "AV1 as LeRobot writes it": {"codec": "libsvtav1", "options": {"g": "2", "crf": "30", "svtav1-params": "lp=1"}},
    "AV1 with long groups": {"codec": "libsvtav1", "options": {"g": "30", "crf": "30", "svtav1-params": "lp=1"}},
    "VP9": {"codec": "libvpx-vp9", "options": {"g": "15"}},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "10 bits": {"pix_fmt": "yuv420p10le"},
    "times that start late": {"pts": 300 + 100 * np.arange(60)},
    "uneven times": {"pts": np.cumsum(np.random.default_rng(0).integers(60, 140, 60))},
}


def write(folder: Path, *, name: str = "x.mp4", count: int = 60, size: int = 64, **how: Any) -> Path:
    return write_video(folder / name, drawn(count, height=size, width=size), **how)


def sequential(file: Path) -> list[Array]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def decoded(image: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(image)))


def same(images: Any, wanted: list[Array]) -> bool:
    return [image.tobytes() for image in map(decoded, images)] == [frame.tobytes() for frame in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_the_one_that_sequential_decoding_gives(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, **KINDS[kind])
    wanted = sequential(file)
    opened = video.Video(str(file), where="x.mp4")
    assert opened.count() == len(wanted) == 60
    assert same(opened.read(0, 60, images="png", whole=True), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_in_any_order_are_the_same_frames(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, **KINDS[kind])
    wanted, chosen = sequential(file), np.random.default_rng(0)
    opened = video.Video(str(file), where="x.mp4")
    for _ in range(25):
        monkeypatch.setattr(video, "MAX_SKIPPED", int(chosen.choice([0, 5, 256])))
        start = int(chosen.integers(60))
        count = min(3, 60 - start)
        assert same(opened.read(start, count, images="png"), wanted[start : start + count])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "uneven times"])
def test_frames_are_found_by_their_times(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, **KINDS[kind])
    wanted, chosen = sequential(file), np.random.default_rng(1)
    opened = video.Video(str(file), where="x.mp4")
    for _ in range(25):
        monkeypatch.setattr(video, "MAX_SKIPPED", int(chosen.choice([0, 5, 256])))
        start = int(chosen.integers(57))
        found = opened.read_at(start / 10 + chosen.uniform(-0.04, 0.04), 3, hz=10, images="png")
        assert same(found, wanted[start : start + 3])


@pytest.mark.parametrize("container", ["mkv", "ts", "avi"])
def test_other_containers_are_read_alike(tmp_path: Path, container: str) -> None:
    file = write(tmp_path, name=f"x.{container}", options={"g": "12", "bf": "0"})
    wanted = sequential(file)
    opened = video.Video(str(file), where="x")
    for start in (40, 3, 3, 55, 0):
        assert same(opened.read(start, 2, images="png"), wanted[start : start + 2])


def test_consecutive_ranges_need_no_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    opened = video.Video(str(file), where="x.mp4")
    monkeypatch.setattr(video.Video, "_seek_frame", None)
    monkeypatch.setattr(video.Video, "_seek_time", None)
    found = [*opened.read(0, 20, images="png"), *opened.read(20, 15, images="png")]
    found += [*opened.read_at(3.5, 10, hz=10, images="png"), *opened.read_at(4.5, 15, hz=10, images="png")]
    assert same(found, sequential(file))


# --- colours ---

# The expected full-range BT.601 planes, before JPEG compression.
PLANAR: dict[str, dict[str, Any]] = {
    "limited, no matrix named": {},
    "limited BT.601": {"colorspace": 5, "color_range": 1},
    "full BT.601": {"colorspace": 5, "color_range": 2},
    "yuvj": {"pix_fmt": "yuvj420p"},
    "4:2:2": {"pix_fmt": "yuv422p"},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "limited BT.709": {"colorspace": 1, "color_range": 1},
    "full BT.709": {"colorspace": 1, "color_range": 2},
    "10 bits": {"pix_fmt": "yuv420p10le"},
    "4:4:4, full BT.709": {"pix_fmt": "yuv444p", "colorspace": 1, "color_range": 2},
    "10 bits, full BT.709": {"pix_fmt": "yuv420p10le", "colorspace": 1, "color_range": 2},
    "odd sizes": {"codec": "libvpx-vp9", "size": 63},
}


def converted(frame: Any) -> Array:
    """Convert a frame to RGB by the formulas of BT.601 and BT.709, repeating the colour samples."""
    depth = 10 if "10" in frame.format.name else 8
    planes = [np.frombuffer(p, f"u{(depth + 7) // 8}").reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    y, u, v = (plane.astype(float) / 2 ** (depth - 8) for plane in planes)
    down, across = round(y.shape[0] / u.shape[0]), round(y.shape[1] / u.shape[1])
    u, v = (c.repeat(down, 0).repeat(across, 1)[: y.shape[0], : y.shape[1]] - 128 for c in (u, v))
    if frame.color_range != 2 and "j" not in frame.format.name:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = (0.2126, 0.0722) if frame.colorspace == 1 else (0.299, 0.114)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    rgb = np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)
    return np.asarray(rgb.clip(0, 255))


@pytest.mark.parametrize("kind", PLANAR)
def test_a_jpeg_has_the_colours_of_the_frame(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, name="x.webm" if kind == "odd sizes" else "x.mp4", count=4, **PLANAR[kind])
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    for frame in frames:
        exact = converted(frame)
        direct = simplejpeg.decode_jpeg(video.pixels(frame, "jpeg 100")).astype(float)
        over_rgb = simplejpeg.decode_jpeg(encode(frame.to_ndarray(format="rgb24"), "jpeg 100")).astype(float)
        assert direct.shape == exact.shape
        assert np.abs((direct - exact).mean((0, 1))).max() < 2  # FFmpeg's own RGB is 1.5 too dark
        assert np.abs(direct - exact).mean() < np.abs(over_rgb - exact).mean() + 2.5  # the decoder smooths colours
        luma, told = (image @ [0.299, 0.587, 0.114] for image in (direct, exact))
        assert np.abs(luma - told).mean() < 2


@pytest.mark.parametrize("kind", PLANAR)
def test_a_png_has_the_colours_of_the_frame(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, name="x.webm" if kind == "odd sizes" else "x.mp4", count=4, **PLANAR[kind])
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    for frame, image in zip(frames, video.Video(str(file), where="x").read(0, 4, images="png"), strict=True):
        assert (
            np.abs((decoded(image) - converted(frame)).mean((0, 1))).max() < 2.5
        )  # FFmpeg's RGB is up to 2.1 too dark


@pytest.mark.parametrize("kind", ["limited, no matrix named", "full BT.601", "4:4:4", "odd sizes"])
def test_planes_that_are_used_directly_have_no_bias(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, name="x.webm" if kind == "odd sizes" else "x.mp4", count=4, **PLANAR[kind])
    with av.open(str(file)) as container:
        frame = list(container.decode(video=0))[-1]
    image = Image.open(io.BytesIO(video.pixels(frame, "jpeg 100")))
    image.draft("YCbCr", image.size)  # as it is stored
    found = np.asarray(image, float)
    rows = np.frombuffer(frame.planes[0], np.uint8).reshape(frame.height, -1)[:, : frame.width].astype(float)
    wanted = rows if frame.color_range == 2 else ((rows - 16) * 255 / 219).clip(0, 255)
    assert abs((found[..., 0] - wanted).mean()) < 0.3
    assert np.abs(found[..., 0] - wanted).max() < 6


# --- damage ---


def reason_of(file: Path, *, count: int = 60, whole: bool = True) -> str:
    with pytest.raises(SourceError) as caught:
        list(video.Video(str(file), where="clip").read(0, count, images="jpeg 90", whole=whole))
    assert caught.value.file == "clip"
    assert str(file) not in caught.value.message
    return caught.value.reason


def test_a_video_of_another_length_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path, count=59)
    assert reason_of(file) == "frame_count"
    assert reason_of(file, count=58) == "frame_count"
    assert reason_of(file, count=100, whole=False) == "frame_count"
    with pytest.raises(SourceError, match="ends before frame 700"):
        list(video.Video(str(file), where="x").read(700, 1, images="png"))


@pytest.mark.parametrize("container", [{}, {"movflags": "faststart"}])
def test_a_truncated_video_is_an_error_wherever_it_ends(tmp_path: Path, container: dict[str, str]) -> None:
    file = write(tmp_path, container=container)
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10):
        file.write_bytes(whole[:size])
        assert reason_of(file) in {"bad_video", "frame_count"}


def test_a_frame_that_was_left_out_is_noticed_by_its_time(tmp_path: Path) -> None:
    file = write(tmp_path, count=30, pts=[100 * step for step in range(31) if step != 17])
    opened = video.Video(str(file), where="x")
    assert len(list(opened.read_at(0, 17, hz=10, images="png"))) == 17
    with pytest.raises(SourceError, match=r"the frame at 1.700 s is missing: the next is at 1.800 s"):
        list(opened.read_at(0, 20, hz=10, images="png"))
    assert same(opened.read_at(1.8, 2, hz=10, images="png"), sequential(file)[17:19])


def test_a_file_that_is_not_a_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video" * 100)
    assert reason_of(tmp_path / "x.mp4") == "bad_video"
    (tmp_path / "x.mp4").write_bytes(LFS_MARK + b".github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert reason_of(tmp_path / "x.mp4") == "lfs_pointer"
    assert reason_of(tmp_path / "y.mp4") == "missing_video"
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert reason_of(tmp_path / "sound.mp4") == "bad_video"


def test_a_remote_video_is_read_in_parts(tmp_path: Path) -> None:
    file = write(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.pipe("/videos/x.mp4", file.read_bytes())
    folder = SourceFolder.at("memory://videos")
    opened = video.Video.at(folder, "x.mp4")
    wanted = sequential(file)
    assert same(opened.read(50, 10, images="png"), wanted[50:])
    assert same(opened.read(0, 60, images="png", whole=True), wanted)
    opened.close()
    with pytest.raises(SourceError, match="no such video"):
        video.Video.at(folder, "y.mp4")
