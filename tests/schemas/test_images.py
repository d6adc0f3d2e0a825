import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.errors import SourceError
from schemas.images import ImageHeader, Sniffer, complete, sniff
from tests.schemas.makers import encoded, make_jpeg

CHANNELS = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4, "CMYK": 4}
SIZES = [(1, 1), (7, 13), (16, 16), (33, 1), (1, 257)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(colour: int, bits: int, *, height: int = 3, width: int = 5) -> bytes:
    """Write a PNG of any colour type and depth; Pillow cannot write all of them."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes((width * channels * bits + 7) // 8) for _ in range(height))
    palette = chunk(b"PLTE", bytes(range(6))) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def segments(jpeg: bytes) -> tuple[list[bytes], bytes]:
    """Split a JPEG into the segments of its header and the scan."""
    out, pos = list[bytes](), 2
    while jpeg[pos + 1] != 0xDA:
        size = 2 + int.from_bytes(jpeg[pos + 2 : pos + 4], "big")
        out.append(jpeg[pos : pos + size])
        pos += size
    return out, jpeg[pos:]


def with_padding(jpeg: bytes, fill: int) -> bytes:
    """Insert fill bytes 0xFF before every marker of the header, as the JPEG standard allows."""
    header, scan = segments(jpeg)
    return jpeg[:2] + b"".join(b"\xff" * fill + segment for segment in [*header, scan])


def tables_first(jpeg: bytes) -> bytes:
    """Move the Huffman tables, whose marker is in the range of frame markers, before the frame."""
    header, scan = segments(jpeg)
    return jpeg[:2] + b"".join(sorted(header, key=lambda segment: segment[1] != 0xC4)) + scan


def exif() -> bytes:
    """Make metadata that contains a whole JPEG with an end marker."""
    return b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + make_jpeg(4, 4) + b"\xff\xff\xff\xd9"


def jpegs() -> Iterator[tuple[str, bytes]]:
    for height, width in SIZES:
        yield f"{height}x{width}", make_jpeg(height, width)
    for mode in ("L", "CMYK"):
        yield mode, make_jpeg(9, 11, mode=mode)
        yield f"progressive {mode}", make_jpeg(9, 11, mode=mode, progressive=True)
    yield "progressive", make_jpeg(30, 50, progressive=True)
    yield "optimized", make_jpeg(30, 50, optimize=True, quality=3)
    yield "no subsampling", make_jpeg(31, 51, subsampling=0)
    yield "restart markers", make_jpeg(64, 64, restart_marker_rows=1)
    yield "thumbnail in its EXIF", make_jpeg(30, 50, exif=exif())
    yield "comment of 0xFF", make_jpeg(30, 50, comment=b"\xff" * 300)
    yield "colour profile", make_jpeg(30, 50, icc_profile=b"\xff\xc0" * 40_000)
    yield "Huffman tables first", tables_first(make_jpeg(30, 50))
    for fill in (1, 2, 7):
        yield f"{fill} fill bytes", with_padding(make_jpeg(30, 50), fill)


def pngs() -> Iterator[tuple[str, bytes]]:
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for bits in depths:
            yield f"colour {colour} of {bits} bits", make_png(colour, bits)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"Pillow's {mode}", encoded(Image.new(mode, (13, 7)), "PNG")


JPEGS, PNGS = dict(jpegs()), dict(pngs())
ALL = [*JPEGS.values(), *PNGS.values()]


@pytest.mark.parametrize("what", JPEGS)
def test_a_jpeg_has_the_size_and_channels_that_pillow_finds(what: str) -> None:
    data = JPEGS[what]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert sniff(data) == ImageHeader("jpeg", image.height, image.width, CHANNELS[image.mode], 8)


@pytest.mark.parametrize("what", PNGS)
def test_a_png_has_the_size_that_pillow_finds_and_the_channels_it_was_made_with(what: str) -> None:
    data = PNGS[what]
    header = sniff(data)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (header.format, header.height, header.width) == ("png", image.height, image.width)
        if what.startswith("Pillow"):
            assert header.channels == CHANNELS[image.mode]
    if what.startswith("colour"):
        colour, bits = int(what.split()[1]), int(what.split()[3])
        assert (header.channels, header.bits) == ({0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour], bits)


@pytest.mark.parametrize("data", [make_jpeg(), make_png(2, 8)], ids=["jpeg", "png"])
def test_an_image_may_lie_in_any_buffer(data: bytes) -> None:
    assert sniff(memoryview(data)) == sniff(data)
    assert Sniffer()(memoryview(data)) == sniff(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is neither a JPEG nor a PNG (its first bytes are missing)"),
        (b"GIF89a..", "the image is neither a JPEG nor a PNG (its first bytes are 47 49 46 38 39 61 2e 2e)"),
        (b"\xff\xd8", "the image header is broken (index out of range)"),
        (b"\xff\xd8ab", "the JPEG header is broken"),
        (b"\xff\xd8\xff\xd9", "the image header is broken (unpack requires a buffer of 2 bytes)"),
        (b"\xff\xd8" + b"\xff" * 100, "the image header is broken (index out of range)"),
        (b"\x89PNG\r\n\x1a\n", "the image header is broken (unpack requires a buffer of 10 bytes)"),
        (make_png(2, 8, height=0), "the image has no pixels (0 x 5 x 3)"),
        (make_png(2, 8).replace(b"\x08\x02", b"\x08\x05", 1), "the image header is broken (5)"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, message: str) -> None:
    for read in (sniff, Sniffer()):
        with pytest.raises(SourceError) as error:
            read(data)
        assert str(error.value) == message
        assert error.value.reason == "bad_image"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("what", [*JPEGS, "Pillow's RGB"])
def test_a_part_of_an_image_is_refused(what: str, part: float) -> None:
    data = {**JPEGS, "Pillow's RGB": encoded(Image.effect_noise((30, 50), 90).convert("RGB"), "PNG")}[what]
    for read in (sniff, Sniffer()):
        with pytest.raises(SourceError):
            read(data[: int(len(data) * part)])


def test_an_image_that_lacks_only_its_end_marker_is_one() -> None:
    data = make_png(2, 8)
    assert sniff(data[:-12]) == sniff(data)


@pytest.mark.parametrize("data", [make_jpeg(), make_png(2, 8)], ids=["jpeg", "png"])
@pytest.mark.parametrize("padding", [b"\0", b"\0" * 500, b"\xff" * 3, b"junk"])
def test_padding_after_the_end_is_harmless(data: bytes, padding: bytes) -> None:
    assert sniff(data + padding) == sniff(data)
    assert Sniffer()(data + padding) == sniff(data)


def test_a_png_with_destroyed_pixels_is_refused() -> None:
    data = bytearray(make_png(2, 8))
    at = data.index(b"IDAT") + 6
    data[at : at + 4] = bytes(4)
    assert not complete(bytes(data), "png")
    with pytest.raises(SourceError, match="cannot be decoded") as caught:
        sniff(bytes(data))
    assert "0x" not in str(caught.value)


def test_the_reason_of_a_bad_image_is_the_same_in_every_run() -> None:
    with pytest.raises(SourceError) as caught:
        sniff(make_png(2, 8)[:40])
    assert "0x" not in str(caught.value)


def test_an_image_beyond_all_bounds_is_not_decoded() -> None:
    bomb = make_png(2, 8).replace(struct.pack(">II", 5, 3), struct.pack(">II", 60_000, 60_000))
    with pytest.raises(SourceError, match="the image: 3600000000 pixels; the limit is 134217728"):
        sniff(bomb[:-12])


def answer(read: Callable[[bytes], ImageHeader], data: bytes) -> ImageHeader | str:
    """Return the header, or the text of the error."""
    try:
        return read(data)
    except SourceError as error:
        return str(error)


@given(st.lists(st.sampled_from([*ALL, make_jpeg()[:100], b"", b"junk", make_jpeg() + b"\0"]), max_size=12))
def test_a_sniffer_finds_what_sniff_finds_in_any_stream(stream: list[bytes]) -> None:
    sniffer = Sniffer()
    for data in stream:
        assert answer(sniffer, data) == answer(sniff, data)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an image with some bytes changed, most of them in the header, and cut or extended."""
    data = bytearray(draw(st.sampled_from(ALL)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, min(60, len(data) - 1)) | st.integers(0, len(data) - 1))
        data[place] = draw(st.integers(0, 255))
    end = draw(st.just(len(data)) | st.integers(0, len(data)))
    return bytes(data[:end]) + draw(st.binary(max_size=4))


@given(damaged() | st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\xff\xd8\xff" + tail))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_whatever_the_bytes_only_a_source_error_escapes(data: bytes) -> None:
    with suppress(SourceError):
        header = sniff(data)
        assert min(header.height, header.width, header.channels) > 0
    with suppress(SourceError):
        assert Sniffer()(data) == sniff(data)
