"""The evaluations' crop gives TensorFlow's numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the images of models need the extra finetune")

from finetune.data.augment import center_crop
from finetune.data.resize import resize
from finetune.policy.crop import as_evaluated, through_jpeg


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
