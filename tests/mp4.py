"""Change the boxes of an MP4 by hand: its display matrix, its edit list and the shape of its pixels."""

import struct
from collections.abc import Iterator
from pathlib import Path

MATRICES = {  # a, b, c, d: x' = a x + c y, y' = b x + d y
    "rotated by 90 degrees": (0, 1, -1, 0),
    "rotated by 180 degrees": (-1, 0, 0, -1),
    "rotated by 270 degrees": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored and rotated": (0, 1, 1, 0),
}
TRACK = (b"moov", b"trak")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + size
        start += size


def _path(data: bytes, *kinds: bytes) -> list[tuple[int, int]]:
    """Return where each box on a path starts and ends."""
    places, start, end = [], 0, len(data)
    for kind in kinds:
        begin, end = next((start, end) for found, start, end in _boxes(data, start, end) if found == kind)
        places.append((begin, end))
        start = begin + 8
    return places


def turn(file: Path, matrix: tuple[float, float, float, float]) -> None:
    """Set the display matrix of the only track."""
    data = bytearray(file.read_bytes())
    start = _path(data, *TRACK, b"tkhd")[-1][0] + 8
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    struct.pack_into(">9i", data, start + (52 if data[start] else 40), a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(data)


def cut(file: Path, frames: int, *, per_frame: int) -> None:
    """Leave out the first frames with the edit list; `per_frame` is the duration of a frame in the track's units."""
    data = bytearray(file.read_bytes())
    at = _path(data, *TRACK, b"edts", b"elst")[-1][0] + 16
    duration, first = struct.unpack_from(">Ii", data, at)
    struct.pack_into(">Ii", data, at, duration - frames * 100, first + frames * per_frame)
    file.write_bytes(data)


def delay(file: Path, milliseconds: int) -> None:
    """Let the video start later, with an empty edit before the others; the boxes of samples must come before."""
    data = bytearray(file.read_bytes())
    places = _path(data, *TRACK, b"edts", b"elst")
    at = places[-1][0] + 12
    struct.pack_into(">I", data, at, 1 + struct.unpack_from(">I", data, at)[0])
    data[at + 4 : at + 4] = struct.pack(">IiI", milliseconds, -1, 1 << 16)
    for start, end in places:
        struct.pack_into(">I", data, start, end - start + 12)
    file.write_bytes(data)
