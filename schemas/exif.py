"""Read from the header of a JPEG or PNG whether its EXIF data turn the image; no pixels are decoded.

Datasets and policies use the pixels as they are stored. A viewer shows a turned image in another way.
"""

import re
import struct
from collections.abc import Iterator

from schemas.images import BARE_MARKERS, FRAME_MARKERS, JPEG, PNG
from schemas.source import Bytes

UPRIGHT = 1
TURNED = range(2, 9)  # valid orientations that turn or mirror an image
TAG, SHORT = 0x0112, 3  # the tag of the orientation, and its type
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
APP1, START_OF_SCAN = 0xE1, 0xDA


def orientation(data: Bytes) -> int:
    """Return the orientation of an encoded image, 1 to 8; 1 is upright, and so is an image that does not say.

    >>> orientation(b"not an image")
    1
    """
    view = memoryview(data)
    try:
        if view[:8] == PNG:
            orientations = [_in_tiff(chunk) for chunk in _png_exif(view)]
        elif view[:2] == JPEG:
            orientations = [_in_segment(segment) for segment in _jpeg_segments(view)]
        else:
            orientations = []
    except (struct.error, IndexError):  # the header is damaged, which is reported where the image is read
        return UPRIGHT
    return next((value for value in orientations if value in TURNED), UPRIGHT)


def _png_exif(view: memoryview) -> Iterator[bytes]:
    pos = len(PNG)
    while pos + 12 <= len(view):
        size, kind = struct.unpack_from(">I4s", view, pos)
        if kind == b"eXIf":
            yield bytes(view[pos + 8 : pos + 8 + size])
        pos += 12 + size


def _jpeg_segments(view: memoryview) -> Iterator[bytes]:
    """Yield the APP1 segments before the image's data."""
    pos = len(JPEG)
    while view[pos] == 0xFF:
        marker = view[pos + 1]
        pos += 1 if marker == 0xFF else 2
        if marker in BARE_MARKERS or marker == 0xFF:
            continue
        if marker == START_OF_SCAN or marker in FRAME_MARKERS:
            return
        (size,) = struct.unpack_from(">H", view, pos)
        if marker == APP1:
            yield bytes(view[pos + 2 : pos + size])
        pos += size


def _in_segment(segment: bytes) -> int:
    if segment.startswith(EXIF):
        return _in_tiff(segment[len(EXIF) :])
    match = IN_XMP.search(segment) if segment.startswith(XMP) else None
    return int(match[1]) if match else UPRIGHT


def _in_tiff(data: bytes) -> int:
    """Return the orientation in the first directory of TIFF data."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for i in range(count):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * i)
        if (tag, kind) == (TAG, SHORT):
            return int(value)
    return UPRIGHT
