"""Resizing, against TensorFlow and against what OpenVLA's own code made of images."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.resize import resize
from schemas.errors import UsageError
from schemas.source import Array
from tests.finetune.data.openvla_images import decoded, original, reference

FILTERS: dict[str, dict[str, Any]] = {
    "lanczos3": {"method": "lanczos3"},
    "lanczos3, not antialiased": {"method": "lanczos3", "antialias": False},
    "bilinear": {"method": "bilinear"},
    "bilinear, not antialiased": {"method": "bilinear", "antialias": False},
    "area": {"method": "area"},
}
SIZES = [(256, 256), (180, 240), (480, 640), (100, 120), (7, 3), (1, 1), (224, 300)]
each_filter = pytest.mark.parametrize("name", FILTERS)


def noise(height: int, width: int, *, channels: int = 3, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def share_that_differs(found: Array, expected: Array) -> float:
    """Return the share of numbers that differ, each by at most one level."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    return float((difference > 0).mean())


@pytest.mark.parametrize("i", [0, 2])
def test_lanczos3_is_what_openvla_saw(i: int) -> None:
    expected = reference()[f"lanczos3_only_{i}"]
    assert share_that_differs(resize(original(i), (224, 224)), expected) <= 4e-5


@pytest.mark.parametrize("i", [0, 3])
def test_a_decoded_and_resized_jpeg_is_what_openvla_saw(i: int) -> None:
    pixels = reference()[f"jpeg_decoded_{i}"]
    height, width = pixels.shape[:2]
    np.testing.assert_array_equal(decoded(i)[:height, :width], pixels)
    np.testing.assert_array_equal(resize(decoded(i), (224, 224)), reference()[f"resize_image_for_policy_{i}"])


@each_filter
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(224, 224), (100, 301), (5, 1)])
def test_every_filter_is_tensorflows(size: Any, wanted: Any, name: str) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra 'rlds'")
    image = noise(*size)
    expected = tf.image.resize(image, wanted, **{"antialias": True, **FILTERS[name]}).numpy()
    found = resize(image.astype(np.float32), wanted, **FILTERS[name])
    np.testing.assert_allclose(found, expected, atol=8e-3 if name == "area" else 2e-4)
    rounded = np.clip(np.round(expected), 0, 255)
    ours = resize(image, wanted, **FILTERS[name])
    assert share_that_differs(ours, rounded) <= 5e-3
    tie = np.abs(expected - np.floor(expected) - 0.5)
    assert (tie[ours != rounded] < (8e-3 if name == "area" else 2e-4)).all()  # only what lies on the edge differs


def test_lanczos3_differs_from_tensorflow_in_few_of_a_million_pixels() -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra 'rlds'")
    shares = []
    for seed in range(8):
        image = noise(256, 256, seed=seed)
        expected = np.clip(np.round(tf.image.resize(image, (224, 224), method="lanczos3", antialias=True)), 0, 255)
        shares.append(share_that_differs(resize(image, (224, 224)), expected))
    assert np.mean(shares) <= 4e-5


@each_filter
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    value=st.integers(0, 255),
)
def test_a_flat_image_stays_flat(name: str, size: Any, wanted: Any, value: int) -> None:
    found = resize(np.full((*size, 3), value, np.uint8), wanted, **FILTERS[name])
    assert found.shape == (*wanted, 3)
    assert (found == value).all()


@each_filter
def test_rows_and_columns_are_treated_alike(name: str) -> None:
    image = noise(61, 47).astype(np.float32)
    one = resize(image, (30, 20), **FILTERS[name])
    other = resize(image.transpose(1, 0, 2), (20, 30), **FILTERS[name]).transpose(1, 0, 2)
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_the_same_size_gives_a_copy() -> None:
    image = noise(8, 9)
    same = resize(image, (8, 9))
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels_is_resized_each_by_itself(channels: int) -> None:
    image = noise(20, 30, channels=channels)
    alone = [resize(image[..., i : i + 1], (13, 11)) for i in range(channels)]
    np.testing.assert_array_equal(resize(image, (13, 11)), np.concatenate(alone, axis=2))


def test_what_was_given_back_is_not_overwritten_by_the_next_call() -> None:
    first = resize(noise(64, 64, seed=1), (32, 32))
    floats = resize(noise(64, 64, seed=1).astype(np.float32), (32, 32))
    kept, kept_floats = first.copy(), floats.copy()
    resize(noise(64, 64, seed=2), (32, 32))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(floats, kept_floats)


def test_threads_do_not_share_their_memory() -> None:
    images = [noise(90, 70, seed=seed) for seed in range(40)]
    expected = [resize(image, (50, 60)) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(lambda image: resize(image, (50, 60)), images), expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize(noise(4, 4), (2, 2), method="lanzcos3"), "unknown filter 'lanzcos3'; did you mean 'lanczos3'?"),  # type: ignore[arg-type]
        (lambda: resize(noise(4, 4), (0, 2)), "cannot resize 4 pixels to 0"),
        (lambda: resize(np.zeros((0, 4, 3), np.uint8), (2, 2)), "cannot resize 0 pixels to 2"),
        (lambda: resize(noise(4, 4)[..., 0], (2, 2)), "an image must be [H, W, C] uint8 or float32, got [4, 4] uint8"),
        (
            lambda: resize(np.zeros((4, 4, 3)), (2, 2)),
            "an image must be [H, W, C] uint8 or float32, got [4, 4, 3] float64",
        ),
    ],
)
def test_what_cannot_be_resized_is_said(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call()
    assert message in str(error.value)
