"""Augmentation and center crop, against TensorFlow given the same drawn numbers."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.augment import Augmentation, Change, augment, brighten, center_crop, crop, recolour, spread
from finetune.data.resize import resize
from schemas.errors import UsageError
from schemas.source import Array
from tests.finetune.data.openvla_images import IMAGES, decoded, original, reference

RNG = np.random.default_rng(0)
PICTURES = {
    "noise": RNG.integers(0, 256, (224, 224, 3), np.uint8),
    "gray": np.repeat(RNG.integers(0, 256, (60, 80, 1), np.uint8), 3, axis=2),
    "extremes": RNG.choice(np.array([0, 1, 128, 254, 255], np.uint8), (90, 70, 3)),
    "black": np.zeros((5, 6, 3), np.uint8),
    "real": original(1),
}
each_picture = pytest.mark.parametrize("name", PICTURES)


def planes(image: Array) -> Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def unit(image: Array) -> Array:
    """Turn bytes into 0..1, as `tf.image.convert_image_dtype` does."""
    return image.astype(np.float32) * np.float32(1 / 255)


def tensorflow() -> Any:
    return pytest.importorskip("tensorflow", reason="needs the extra 'rlds'")


@pytest.mark.parametrize("i", IMAGES)
def test_the_center_crop_is_openvlas(i: int) -> None:
    image = original(i)
    image = image if image.shape == (224, 224, 3) else resize(decoded(i), (224, 224))
    np.testing.assert_array_equal(center_crop(image), reference()[f"prepare_crop_{i}"])


@each_picture
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.02, 0.3, 0.97, 0.9), (0.5, 0.5, 0.5, 0.5), (0.05, 0.0, 1.0, 0.95)])
@pytest.mark.parametrize("size", [None, (224, 224), (1, 3)])
def test_a_crop_is_tensorflows_bit_for_bit(name: str, box: Any, size: Any) -> None:
    tf = tensorflow()
    image = unit(PICTURES[name])
    size = size or image.shape[:2]
    expected = tf.image.crop_and_resize(image[None], [box], [0], size)[0].numpy()
    np.testing.assert_array_equal(
        crop(np.ascontiguousarray(image.transpose(1, 2, 0)), box, np.empty((3, *size), np.float32)), planes(expected)
    )


def changed(change: Callable[[Array], None], image: Array) -> Array:
    found = planes(unit(image))
    change(found)
    return found


@each_picture
@pytest.mark.parametrize("delta", [-0.2, -1.0, 0.0, 0.13, 1.0])
def test_brightness_is_tensorflows(name: str, delta: float) -> None:
    tf = tensorflow()
    expected = tf.clip_by_value(tf.image.adjust_brightness(unit(PICTURES[name]), delta), 0, 1).numpy()
    np.testing.assert_array_equal(changed(lambda x: brighten(x, delta), PICTURES[name]), planes(expected))


@each_picture
@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.2, 5.0])
def test_contrast_is_tensorflows(name: str, factor: float) -> None:
    tf = tensorflow()
    expected = tf.clip_by_value(tf.image.adjust_contrast(unit(PICTURES[name]), factor), 0, 1).numpy()
    np.testing.assert_allclose(changed(lambda x: spread(x, factor), PICTURES[name]), planes(expected), atol=1e-6)


@each_picture
@pytest.mark.parametrize("saturation", [0.0, 0.8, 1.0, 1.2, 20.0])
@pytest.mark.parametrize("turns", [-0.5, -0.05, 0.0, 0.03, 0.5])
def test_saturation_and_hue_are_tensorflows(name: str, saturation: float, turns: float) -> None:
    tf = tensorflow()
    expected = tf.clip_by_value(tf.image.adjust_saturation(unit(PICTURES[name]), saturation), 0, 1)
    expected = tf.clip_by_value(tf.image.adjust_hue(expected, turns), 0, 1).numpy()
    found = changed(lambda x: recolour(x, saturation, turns), PICTURES[name])
    np.testing.assert_allclose(found, planes(expected), atol=2e-6)


def as_dlimp(image: Array, change: Change) -> Array:
    """Do with TensorFlow what dlimp's `augment_image` does, given what was drawn."""
    tf = tensorflow()
    x = tf.image.convert_image_dtype(image, tf.float32)
    x = tf.clip_by_value(tf.image.crop_and_resize(x[None], [change.box], [0], image.shape[:2])[0], 0, 1)
    x = tf.clip_by_value(tf.image.adjust_brightness(x, change.brightness), 0, 1)
    x = tf.clip_by_value(tf.image.adjust_contrast(x, change.contrast), 0, 1)
    x = tf.clip_by_value(tf.image.adjust_saturation(x, change.saturation), 0, 1)
    x = tf.clip_by_value(tf.image.adjust_hue(x, change.hue), 0, 1)
    found: Array = tf.image.convert_image_dtype(x, tf.uint8, saturate=True).numpy()
    return found


@each_picture
def test_all_of_it_is_tensorflows_but_for_one_level_of_very_few_numbers(name: str) -> None:
    image, wrong, count = PICTURES[name], 0, 0
    for sample in range(12):
        change = Augmentation(diagonal=sample % 2 == 0).draw(7, sample)
        difference = np.abs(augment(image, change).astype(int) - as_dlimp(image, change))
        assert difference.max() <= 1
        wrong, count = wrong + int((difference > 0).sum()), count + difference.size
    assert wrong <= max(3, 4e-5 * count)


def test_without_any_change_the_image_stays_as_it_is() -> None:
    nothing = Change(box=(0, 0, 1, 1), brightness=0, contrast=1, saturation=1, hue=0)
    np.testing.assert_array_equal(augment(PICTURES["noise"], nothing), PICTURES["noise"])
    np.testing.assert_array_equal(center_crop(PICTURES["noise"], area=1), PICTURES["noise"])


def test_what_was_given_back_is_not_overwritten_by_the_next_call() -> None:
    first = augment(PICTURES["noise"], Augmentation().draw(0, 0))
    kept = first.copy()
    augment(PICTURES["noise"], Augmentation().draw(0, 1))
    np.testing.assert_array_equal(first, kept)


# What is drawn


def test_what_is_drawn_never_changes() -> None:
    change = Augmentation().draw(5, 1234567890123, camera=2)
    assert change == Augmentation().draw(5, 1234567890123, camera=2)
    assert [round(value, 6) for value in (*change.box, change.brightness, change.contrast)] == [
        0.032243,
        0.032243,
        0.980926,
        0.980926,
        0.024506,
        0.863833,
    ]
    assert [round(value, 6) for value in (change.saturation, change.hue)] == [1.065499, 0.028394]


def test_seed_sample_and_camera_each_change_all_that_is_drawn() -> None:
    drawn = [
        Augmentation().draw(*key, camera=camera) for key, camera in [((1, 2), 0), ((2, 1), 0), ((1, 3), 0), ((1, 2), 1)]
    ]
    for field in fields(Change):
        assert len({getattr(change, field.name) for change in drawn}) == 4, field.name


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_what_is_drawn_keeps_to_the_recipe(seed: int, sample: int, camera: int) -> None:
    recipe = Augmentation(area=(0.5, 0.9), ratio=(0.75, 1.25), diagonal=False)
    change = recipe.draw(seed, sample, camera=camera)
    top, left, bottom, right = change.box
    assert 0 <= top < bottom <= 1 + 1e-6
    assert 0 <= left < right <= 1 + 1e-6
    assert 0.3 < (bottom - top) * (right - left) < 0.9 + 1e-6
    assert abs(change.brightness) <= 0.2 + 1e-6
    assert abs(change.hue) <= 0.05 + 1e-6
    assert min(change.contrast, change.saturation) >= 0.8 - 1e-6
    assert max(change.contrast, change.saturation) <= 1.2 + 1e-6
    top, left, bottom, right = Augmentation().draw(seed, sample, camera=camera).box
    assert (top, bottom) == (left, right)  # along the diagonal, as OpenVLA
    assert (bottom - top) ** 2 == pytest.approx(0.9, abs=1e-6)


def test_what_is_drawn_fills_its_range_evenly() -> None:
    drawn = [Augmentation(diagonal=False).draw(3, sample) for sample in range(4000)]
    room = 1 - 0.9**0.5
    parts = {
        "top": [change.box[0] / room for change in drawn],
        "left": [change.box[1] / room for change in drawn],
        "brightness": [(change.brightness + 0.2) / 0.4 for change in drawn],
        "contrast": [(change.contrast - 0.8) / 0.4 for change in drawn],
        "saturation": [(change.saturation - 0.8) / 0.4 for change in drawn],
        "hue": [(change.hue + 0.05) / 0.1 for change in drawn],
    }
    counts = [np.histogram(part, 10, (0, 1))[0] for part in parts.values()]
    assert all(((count - 400) ** 2 / 400).sum() < 33.7 for count in counts)  # chi-squared, 9 degrees, p = 1e-4
    assert np.abs(np.corrcoef(list(parts.values())) - np.eye(6)).max() < 0.06


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Augmentation(area=(0.9, 0.8)), "area: expected a range within 0 to 1, got 0.9 to 0.8"),
        (lambda: Augmentation(area=(0.5, 1.5)), "area: expected a range within 0 to 1, got 0.5 to 1.5"),
        (lambda: Augmentation(ratio=(0.0, 1.0)), "ratio: expected a range within 0 to inf, got 0.0 to 1.0"),
        (
            lambda: Augmentation(contrast=(float("nan"), 1.0)),
            "contrast: expected a range within 0 to inf, got nan to 1.0",
        ),
        (lambda: Augmentation(hue=0.6), "brightness 0.2, hue 0.6: both must be at least 0, hue at most 0.5"),
        (lambda: Augmentation().draw(-1, 0), "seed, sample and camera must be in 0 .. 2**64 - 1, got -1, 0, 0"),
        (lambda: center_crop(np.zeros((4, 4), np.uint8)), "an image must be [H, W, 3] uint8, got [4, 4] uint8"),
    ],
)
def test_what_cannot_be_done_is_said(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value) == message
