"""The orientation in the header of an image is the one that Pillow finds, without decoding a pixel."""

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from schemas.exif import orientation

XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def picture(form: str, value: int | None, *, order: str = "<", **more: object) -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a camera"
    if value is not None:
        exif[0x0112] = value
    data = io.BytesIO()
    Image.new("RGB", (9, 5)).save(data, form, exif=exif, **more)
    return data.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [None, *range(10)])
def test_it_is_what_pillow_finds(form: str, order: str, value: int | None) -> None:
    data = picture(form, value, order=order)
    with Image.open(io.BytesIO(data)) as image:
        found = image.getexif().get(0x0112, 1)
    assert orientation(data) == (found if found in range(2, 9) else 1)
    assert orientation(memoryview(data)) == orientation(data)


def test_it_is_found_in_xmp_and_behind_other_segments() -> None:
    data = io.BytesIO()
    Image.new("RGB", (9, 5)).save(data, "JPEG", xmp=XMP.encode(), comment=b"x" * 1000, icc_profile=b"y" * 2000)
    assert orientation(data.getvalue()) == 6
    assert orientation(picture("JPEG", 8, icc_profile=b"y" * 70000, progressive=True)) == 8


def test_an_image_that_does_not_say_or_is_damaged_is_upright() -> None:
    info = PngInfo()
    info.add_text("comment", "eXIf")
    data = io.BytesIO()
    Image.new("RGB", (9, 5)).save(data, "PNG", pnginfo=info)
    assert orientation(data.getvalue()) == 1
    turned = picture("JPEG", 6)
    for end in range(150):
        assert orientation(turned[:end]) in {1, 6}
    assert orientation(b"") == orientation(b"GIF89a") == 1
