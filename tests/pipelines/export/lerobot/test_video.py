"""Encoded images in a video, decoded with PyAV and Pillow."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.export.lerobot import video
from pipelines.export.lerobot.video import (
    MAX_PSNR,
    Codec,
    ImageDecoder,
    VideoFile,
    flat,
    frames_of,
    psnr,
    squared_error,
)
from schemas.errors import DatasetError

av = pytest.importorskip("av", reason="videos are the extra 'lerobot'")
SIZE = 64
ROOT = Path(__file__).parents[4]
H264, AV1 = Codec.of("h264", crf=30, gop=2), Codec.of("av1", crf=30, gop=2)
both = pytest.mark.parametrize("codec", [H264, AV1], ids=["h264", "av1"])


def scene(seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Draw a smooth picture that differs for each seed."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return np.stack([127 + 100 * np.sin(4 * x + 3 * y + p) for p in phase], axis=-1).astype(np.uint8)


def as_jpeg(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95))


def as_png(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", *, palette: bool = False) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.quantize(256) if palette else image).save(out, "PNG")
    return out.getvalue()


def write(path: Path, images: Sequence[bytes], codec: Codec, *, episode: int = 5) -> float:
    decoder, file = ImageDecoder(), VideoFile(path, codec, fps=Fraction(10), size=(SIZE, SIZE))
    for number, image in enumerate(images):
        file.add(decoder.planes(decoder.decoded(image, where="here")), is_first=number % episode == 0)
    file.finish()
    file.close()
    return file.psnr


@both
def test_the_frames_come_back_in_order_and_no_worse_than_was_measured(tmp_path: Path, codec: Codec) -> None:
    images = [as_jpeg(scene(seed)) for seed in range(23)]
    told = write(tmp_path / "v.mp4", images, codec)
    frames, decoder = list(frames_of(tmp_path / "v.mp4")), ImageDecoder()
    sources = [flat(decoder.planes(decoder.decoded(image, where="here"))) for image in images]
    errors = [[squared_error(flat(frame), source) for source in sources] for frame in frames]
    assert np.argmin(errors, axis=1).tolist() == list(range(23))
    assert min(psnr(errors[i][i], SIZE * SIZE) for i in range(23)) == pytest.approx(told, abs=1e-6)
    assert 25 < told < MAX_PSNR


@both
def test_colours_are_those_that_pillow_sees(tmp_path: Path, codec: Codec) -> None:
    images = [as_jpeg(scene(0)), as_png(scene(1)), as_png(scene(2), palette=True), as_png(scene(3)[..., 0])]
    write(tmp_path / "v.mp4", images, Codec.of(codec.name, crf=5, gop=2))
    with av.open(str(tmp_path / "v.mp4")) as container:
        for image, frame in zip(images, container.decode(video=0), strict=True):
            shown = np.asarray(frame.to_image()).astype(int)
            wanted = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)
            assert np.abs(shown - wanted).mean() < 3


@both
def test_the_file_has_the_rate_and_a_key_frame_where_an_episode_begins(tmp_path: Path, codec: Codec) -> None:
    write(tmp_path / "v.mp4", [as_jpeg(scene(seed)) for seed in range(15)], codec, episode=5)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.pix_fmt) == (10, "yuv420p")
        frames = list(container.decode(stream))
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(15)])
    assert all(frames[i].key_frame for i in (0, 5, 10))


@both
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: Codec) -> None:
    images = [as_jpeg(scene(seed)) for seed in range(12)]
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mp4", images, codec)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("name", ["h264", "av1"])
def test_nothing_is_printed(tmp_path: Path, name: str) -> None:
    """Runs in its own process, since an encoder reads its log level only once."""
    here = "from tests.pipelines.export.lerobot.test_video import Codec, Path, as_jpeg, scene, write"
    code = f"{here}\nwrite(Path({str(tmp_path / 'v.mp4')!r}), [as_jpeg(scene(0))], Codec.of({name!r}, crf=30, gop=2))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


@both
def test_no_thread_gets_another_priority(tmp_path: Path, codec: Codec) -> None:
    """SVT-AV1 would otherwise take the highest priority, if it is allowed to."""
    usual = os.sched_getscheduler(0)
    file = VideoFile(tmp_path / "v.mp4", codec, fps=Fraction(10), size=(SIZE, SIZE))
    decoder = ImageDecoder()
    file.add(decoder.planes(decoder.decoded(as_jpeg(scene(0)), where="here")), is_first=True)
    assert {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()} == {usual}
    file.finish()
    file.close()


@pytest.mark.parametrize("missing", ["the scheduler", "/proc"])
def test_a_video_is_written_where_linux_calls_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    images, codec = [as_jpeg(scene(seed)) for seed in range(5)], Codec.of("av1", crf=30, gop=2)
    write(tmp_path / "usual.mp4", images, codec)
    if missing == "/proc":
        monkeypatch.setattr(video, "TASKS", tmp_path / "proc/self/task")
    else:
        monkeypatch.delattr(os, "sched_getscheduler")
    write(tmp_path / "v.mp4", images, codec)
    assert (tmp_path / "v.mp4").read_bytes() == (tmp_path / "usual.mp4").read_bytes()


def test_blue_and_red_change_places_where_they_should() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    for encode in (as_png, as_jpeg):
        frame = ImageDecoder(is_bgr=True).decoded(encode(red), where="here")
        assert np.abs(ImageDecoder().pixels(frame).astype(int) - red[..., ::-1]).max() < 4


@pytest.mark.parametrize("spoil", [lambda image: image[:0], lambda image: image[5:], lambda image: image[:20]])
@pytest.mark.parametrize("encode", [as_png, as_jpeg])
def test_what_cannot_be_decoded_is_an_error_that_says_where(
    encode: Callable[..., bytes], spoil: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(DatasetError, match="camera: step 3: the image cannot be decoded"):
        ImageDecoder().decoded(spoil(encode(scene(0))), where="camera: step 3")
