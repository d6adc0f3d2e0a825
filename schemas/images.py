"""Read the format and size of an encoded image from its header."""

import io
import struct
import zlib
from dataclasses import dataclass

from schemas.errors import SourceError
from schemas.limits import DECODED_PIXELS, check_limit
from schemas.source import Bytes

PNG = b"\x89PNG\r\n\x1a\n"
JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"
FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0-SOF15
BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
PALETTE = 3  # in the header of a PNG
CHANNELS_OF_PNG = {0: 1, 2: 3, PALETTE: 3, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The format (`jpeg` or `png`), height, width, channels, and bits per channel of an image.

    An image with a palette has the three channels of its colours.
    """

    format: str
    height: int
    width: int
    channels: int
    bits: int
    is_palette: bool = False

    @property
    def dtype(self) -> str:
        """The numpy type of the decoded pixels."""
        return "uint16" if self.bits > 8 else "uint8"


def sniff(data: Bytes, max_pixels: int = DECODED_PIXELS) -> ImageHeader:
    """Read an image's header.

    Raises SourceError unless it is a JPEG or PNG with all its pixels, and these are at most `max_pixels`.
    """
    header, _ = _header(data, max_pixels)
    if not complete(data, header.format):
        _decode(data)
    return header


def complete(data: Bytes, form: str) -> bool:
    """Whether a PNG has valid checksums, or a JPEG has its end marker; the image is not decoded."""
    return _png_chunks_valid(data) if form == "png" else bytes(data[-len(JPEG_END) :]) == JPEG_END


def _png_chunks_valid(data: Bytes) -> bool:
    """Whether every chunk of a PNG has the right CRC, up to the end chunk."""
    view, pos = memoryview(data), len(PNG)
    while pos + 12 <= len(view):
        size, kind = struct.unpack(">I4s", view[pos : pos + 8])
        after = pos + 12 + size
        if after > len(view) or zlib.crc32(view[pos + 4 : after - 4]) != int.from_bytes(view[after - 4 : after]):
            return False
        if kind == b"IEND":
            return True
        pos = after
    return False


class Sniffer:
    """`sniff` for many images of one camera; a header is parsed only if it differs from that of the last image."""

    def __init__(self, max_pixels: int = DECODED_PIXELS) -> None:
        """Start without a known header; an image may have up to `max_pixels`."""
        self._prefix, self._header = b"", ImageHeader("", 0, 0, 0, 0)
        self._max_pixels = max_pixels

    def __call__(self, data: Bytes) -> ImageHeader:
        """Read one image's header, as `sniff` does."""
        if not self._prefix or bytes(data[: len(self._prefix)]) != self._prefix:
            self._header, size = _header(data, self._max_pixels)
            self._prefix = bytes(data[:size])
        if not complete(data, self._header.format):
            _decode(data)
        return self._header


def check_pixels(data: Bytes) -> None:
    """Raise SourceError if an image that says what it contains would take too much memory once it is decoded."""
    if data[:2] == JPEG or data[:8] == PNG:
        _header(data, DECODED_PIXELS)


def _header(data: Bytes, max_pixels: int) -> tuple[ImageHeader, int]:
    """Return the header and its size in bytes."""
    try:
        if data[:8] == PNG:
            width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
            header = ImageHeader("png", height, width, CHANNELS_OF_PNG[colour], bits, is_palette=colour == PALETTE)
            return _check_size(header, max_pixels), 26
        if data[:2] == JPEG:
            header, size = _jpeg_header(data)
            return _check_size(header, max_pixels), size
    except (struct.error, IndexError, KeyError) as error:
        raise SourceError(f"the image header is broken ({error})", reason="bad_image") from error
    start = bytes(data[:8]).hex(" ")
    raise SourceError(
        f"the image is neither a JPEG nor a PNG (its first bytes are {start or 'missing'})", reason="bad_image"
    )


def _check_size(header: ImageHeader, max_pixels: int) -> ImageHeader:
    if not header.height * header.width * header.channels:
        size = f"{header.height} x {header.width} x {header.channels}"
        raise SourceError(f"the image has no pixels ({size})", reason="bad_image")
    raised_by = "max_pixels in the declaration" if max_pixels < DECODED_PIXELS else ""
    check_limit(header.height * header.width, max_pixels, "pixels", what="the image", raised_by=raised_by)
    return header


def _jpeg_header(data: Bytes) -> tuple[ImageHeader, int]:
    pos = 2
    while True:
        if data[pos] != 0xFF:
            raise SourceError("the JPEG header is broken", reason="bad_image")
        marker = data[pos + 1]
        pos += 1 if marker == 0xFF else 2
        if marker in BARE_MARKERS or marker == 0xFF:
            continue
        (size,) = struct.unpack(">H", data[pos : pos + 2])
        if marker in FRAME_MARKERS:
            bits, height, width, channels = struct.unpack(">BHHB", data[pos + 2 : pos + 8])
            return ImageHeader("jpeg", height, width, channels, bits), pos + 8
        pos += size


def _decode(data: Bytes) -> None:
    """Decode an image without a proper end, to find out whether pixels are missing. Raises SourceError if they are.

    Padding after the end marker, or a missing end marker, does no harm.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - imported only for images without a proper end

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UnidentifiedImageError as error:  # its message contains a memory address, different in every run
        raise SourceError(
            "the image cannot be decoded (it has less data than its header says)", reason="bad_image"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"the image cannot be decoded ({error})", reason="bad_image") from error
