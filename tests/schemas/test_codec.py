import io

import numpy as np
import pytest
from PIL import Image

from schemas.codec import decode
from schemas.errors import SourceError
from tests.schemas.makers import encoded, make_jpeg

NOISE = Image.effect_noise((30, 20), 90)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_any_kind_becomes_rgb(mode: str) -> None:
    image = NOISE.convert("RGB").convert(mode)
    found = decode(encoded(image, "PNG"))
    assert (found.shape, found.dtype) == ((20, 30, 3), np.uint8)
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"mode": "L"}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_decoded_as_pillow_does(options: dict[str, object]) -> None:
    data = make_jpeg(30, 50, **options)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode(data) - expected).max() <= 2
    np.testing.assert_array_equal(decode(memoryview(data)), decode(data))


@pytest.mark.parametrize("options", [{}, {"quality": 95}, {"subsampling": 0}, {"subsampling": 2}, {"mode": "L"}])
def test_tensorflow_decodes_to_the_same_pixels(options: dict[str, object]) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra 'rlds'")
    data = make_jpeg(61, 47, **options)  # type: ignore[arg-type]
    expected = tf.io.decode_image(data, channels=3).numpy()
    np.testing.assert_array_equal(decode(data, like_tensorflow=True), expected)


def test_a_jpeg_that_lacks_only_its_end_marker_is_one() -> None:
    data = make_jpeg(30, 50)
    assert np.abs(decode(data[:-2]).astype(int) - decode(data)).max() <= 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is neither a JPEG nor a PNG"),
        (b"junk", "the image is neither a JPEG nor a PNG"),
        (make_jpeg(30, 50)[:400], "the image cannot be decoded"),
        (make_jpeg(30, 50)[:-100] + b"\xff\xd9", "premature end of data segment"),
        (encoded(NOISE, "PNG")[:200], "the image cannot be decoded"),
        (
            encoded(Image.fromarray(np.zeros((3, 4), np.uint16)), "PNG"),
            "the image has mode I;16: expected 8 bits per channel",
        ),
    ],
)
def test_what_cannot_be_decoded_is_a_source_error(data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as error:
        decode(data)
    assert error.value.reason == "bad_image"
    assert "0x" not in str(error.value)
