"""Layouts of pixels in an array, and lossless encoding."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.readers.pixels import PixelLayout, collect_bytes, encode
from schemas.errors import SourceError
from schemas.source import Array

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
ALPHA = np.concatenate([FRAMES, np.full((2, 5, 4, 1), 7, np.uint8)], axis=-1)


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("hwc", FRAMES),
        ("chw", np.moveaxis(FRAMES, -1, 1)),
        ("hwc rgba", ALPHA),
        ("chw rgba", np.moveaxis(ALPHA, -1, 1)),
        ("hwc 0..1", (FRAMES / 255).astype(np.float32)),
        ("chw 0..1", np.moveaxis(FRAMES / 255, -1, 1)),
        ("hwc 0..1", (FRAMES / 255).astype(np.float16)),
        ("hwc rgba 0..255", ALPHA.astype(np.float32)),
    ],
)
def test_every_layout_gives_the_same_frames(words: str, held: Array) -> None:
    pixels = PixelLayout.of(words)
    assert pixels.channels(held.dtype, held.shape) == 3
    assert np.array_equal(pixels(held, "rgb"), FRAMES)


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("hwc", ALPHA),
        ("hwc rgba", FRAMES),
        ("chw", FRAMES),
        ("hwc", FRAMES.astype(np.float32)),
        ("hwc 0..1", FRAMES),
        ("hwc", FRAMES[0]),
        ("hwc", np.zeros((2, 0, 4, 3), np.uint8)),
    ],
)
def test_an_array_that_is_not_declared_images_has_no_channels(words: str, held: Array) -> None:
    assert PixelLayout.of(words).channels(held.dtype, held.shape) is None


@pytest.mark.parametrize("wrong", [0.5 / 255, 1.01, -0.1, np.nan, np.inf])
def test_float_pixels_that_are_not_whole_numbers_are_refused(wrong: float) -> None:
    held = (FRAMES / 255).astype(np.float32)
    held[0, 0, 0, 0] = wrong
    with pytest.raises(SourceError, match=r"rgb: pixels are not whole numbers") as caught:
        PixelLayout.of("hwc 0..1")(held, "rgb")
    assert caught.value.reason == "bad_image"


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 1 << 32))
def test_png_loses_nothing(height: int, width: int, channels: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    read = np.asarray(Image.open(io.BytesIO(encode(frame, "png"))))
    assert np.array_equal(read, frame if channels == 3 else frame[..., 0])


def test_frames_are_gathered_up_to_a_limit() -> None:
    assert collect_bytes(iter([b"ab", b"c"]), "rgb", limit=3) == [b"ab", b"c"]
    with pytest.raises(SourceError, match="rgb: more than 2 bytes in one episode"):
        collect_bytes(iter([b"ab", b"c", b"d"]), "rgb", limit=2)
