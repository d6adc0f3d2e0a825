"""Images become what the original makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.data.augment import center_crop
from finetune.data.resize import resize
from schemas.errors import CheckpointError, UsageError
from tests.finetune.vla import BASE, image, reference

pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models.images import ImageTransform, as_evaluated, rgb, through_jpeg

TOLD = json.loads((BASE / "preprocessor_config.json").read_text())
ONE = {"means": [[0.5] * 3], "stds": [[0.5] * 3]}


@pytest.mark.parametrize("i", range(4))
def test_pixels_are_those_of_the_original(i: int) -> None:
    transform = ImageTransform.of(TOLD)
    np.testing.assert_array_equal(transform(image(i))[:, ::8, ::8], reference()[f"pixel_values_slice_{i}"][0])
    if i:
        resized = np.asarray(transform.views[1].picture(image(i)))
        np.testing.assert_array_equal(resized.transpose(2, 0, 1), reference()[f"resized_uint8_{i}"])


@pytest.mark.parametrize("strategy", ["letterbox", "resize-crop"])
def test_the_other_strategies_are_those_of_the_original(strategy: str) -> None:
    found = ImageTransform.of({"image_resize_strategy": strategy, **ONE})(image(1))
    np.testing.assert_array_equal(np.rint((found * 0.5 + 0.5) * 255), reference()[f"strategy_{strategy}"][0])


@pytest.mark.parametrize("size", [(320, 240), (101, 224), (224, 101), (300, 301), (1, 500), (224, 224)])
@pytest.mark.parametrize("strategy", ["resize-naive", "letterbox", "resize-crop"])
def test_every_shape_of_image_becomes_224_square(strategy: str, size: tuple[int, int]) -> None:
    found = ImageTransform.of({"image_resize_strategy": strategy})(Image.new("RGB", size, (10, 20, 30)))
    assert (found.shape, found.dtype) == ((6, 224, 224), np.float32)


def test_the_letterboxs_bars_are_grey_and_the_picture_is_whole() -> None:
    found = ImageTransform.of({"image_resize_strategy": "letterbox", **ONE})(
        Image.new("RGB", (200, 100), (255, 255, 255))
    )
    assert found[:, 0].round(2).tolist() == [[0.0] * 224] * 3
    assert found[:, 112].tolist() == [[1.0] * 224] * 3


def test_an_array_is_as_good_as_an_image() -> None:
    transform = ImageTransform.of(TOLD)
    np.testing.assert_array_equal(transform(np.asarray(image(1))), transform(image(1)))


def test_what_is_written_is_read_as_the_same() -> None:
    for told in (TOLD, {"image_resize_strategy": "letterbox"}, {}):
        transform = ImageTransform.of(told)
        assert ImageTransform.of(json.loads(json.dumps(transform.to_json()))) == transform
    assert ImageTransform.of(TOLD).to_json().keys() == TOLD.keys()


def test_without_the_tvf_keys_the_exact_constants_are_used() -> None:
    assert [view.mean for view in ImageTransform.of({}).views] == [(0.485, 0.456, 0.406), (0.5, 0.5, 0.5)]
    assert ImageTransform.of(TOLD).views[0].mean == (0.484375, 0.455078125, 0.40625)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (8, 8)), "mode L"),
        (Image.new("RGBA", (8, 8)), "mode RGBA"),
        (Image.new("I;16", (8, 8)), "mode I;16"),
        (np.zeros((8, 8, 3), np.float32), r"\[8, 8, 3\] float32"),
        (np.zeros((8, 8), np.uint8), r"\[8, 8\] uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\] uint8"),
        ("front.png", "got str"),
    ],
)
def test_an_image_of_another_kind_is_refused(picture: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageTransform.of(TOLD)(picture)


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"image_resize_strategy": "stretch"},
        {"tvf_resize_params": [{"size": "large"}] * 2},
        {"tvf_crop_params": [{}] * 2},
        {"tvf_normalize_params": [{"mean": [0.5], "std": [0.5]}] * 2},
        {"tvf_normalize_params": [{"mean": [0.5] * 3, "std": [0.0] * 3}] * 2},
        {"tvf_resize_params": [{"size": [224, 224], "interpolation": 9}] * 2},
    ],
)
def test_a_preprocessor_that_cannot_be_understood_is_refused(told: Any) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: not valid"):
        ImageTransform.of(told)


@pytest.mark.parametrize(("data", "message"), [(b"", "not an image of a known format"), (b"P6 9 9 255 ", "be decoded")])
def test_encoded_images_are_decoded_or_refused(data: bytes, message: str) -> None:
    encoded = (BASE.parent / "io_base/image1.png").read_bytes()
    np.testing.assert_array_equal(np.asarray(rgb(encoded)), np.asarray(image(1)))
    with pytest.raises(UsageError, match=message):
        rgb(data)


# The evaluations' crop gives TensorFlow's numbers


@pytest.mark.realdata
@pytest.mark.parametrize("i", range(4))
def test_scaling_and_cropping_give_what_tensorflow_gives(i: int, realdata: Path) -> None:
    folder = realdata.parent / "vla/fixtures/io_image"
    with Image.open(folder / f"in{i}.png") as file, np.load(folder / "reference.npz") as reference:
        pixels, picture = np.asarray(file), as_evaluated(file)
        jpeg = through_jpeg(pixels)
        expected = reference[f"jpeg_decoded_{i}"]
        np.testing.assert_array_equal(jpeg[: len(expected), : expected.shape[1]], expected)
        found = {
            f"lanczos3_only_{i}": resize(pixels, (224, 224)),
            f"resize_image_for_policy_{i}": resize(jpeg, (224, 224)),
            f"prepare_crop_{i}": np.asarray(picture),
        }
        for name in found.keys() & set(reference.files):
            off = np.abs(found[name].astype(int) - reference[name])
            assert off.max() <= 1
            assert (off > 0).sum() <= 5, "of 150,528 numbers, those that lie between two"


def test_the_crop_of_one_colour_is_that_colour_and_its_edges_are_inside() -> None:
    assert (center_crop(np.full((224, 224, 3), 77, np.uint8)) == 77).all()
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3))
    found = center_crop(np.ascontiguousarray(ramp))
    assert found[[0, -1], 0, 0].tolist() == [5, 217]  # (1 - sqrt(0.9)) / 2 of 223 from either end, rounded down


def test_an_image_of_the_right_size_is_not_scaled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    np.testing.assert_array_equal(as_evaluated(Image.fromarray(pixels)), center_crop(pixels))
    assert as_evaluated(Image.new("RGB", (640, 480))).size == (224, 224)
