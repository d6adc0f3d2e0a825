"""Read the headers of H.264 and H.265 packets: which frames they contain, and whether a frame was lost before them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pipelines.readers.rosbag.bits import Bits
from pipelines.readers.rosbag.hevc import HevcReferences
from schemas.errors import SourceError

START = b"\0\0\1"  # before each unit of a packet (Annex B)
HEADER = 512  # bytes of a unit that are parsed
HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
IDR, SPS, SLICES = 5, 7, (1, 5)  # types of H.264 units
HEVC_CRA, HEVC_SKIPPED, HEVC_KEYS, HEVC_SLICES = 21, (8, 9), range(16, 22), range(32)  # types of H.265 units

Content: TypeAlias = Literal["frame", "parameters", "undecodable"]  # parameters belong to the next frame


def units(data: bytes) -> Iterator[bytes]:
    """Yield the units of a packet, without start codes."""
    start = data.find(START)
    while start >= 0:
        end = data.find(START, start + 3)
        unit = data[start + 3 : end if end >= 0 else None]
        if unit:
            yield unit
        start = end


def unit_type(unit: bytes, codec: str) -> int:
    """Return the type of a unit."""
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


@dataclass(slots=True)
class PacketScan:
    """Follows the packets of a video in the order in which they were encoded."""

    codec: str  # h264 or hevc
    path: str  # the path of the video's field, for errors
    before_key: int = 0  # packets that cannot be decoded, because there was no key frame yet
    has_key: bool = False
    skips_leading: bool = False  # the first key frame is one after which some frames refer to frames before it
    frame_bits: int = 0  # H.264: bits of a frame number; 0 if unknown or if numbers may have gaps
    has_planes: bool = False  # H.264: a slice has the number of a colour plane
    last_reference: int = 0  # H.264: number of the last frame that others may refer to
    references: HevcReferences = field(default_factory=HevcReferences)

    def add(self, data: bytes) -> Content:
        """Return what a packet contains.

        Raises SourceError if it contains several frames, or part of one, or if frames are missing before it.
        """
        if data and START not in data:
            raise self._error("the data of a message have no start code (Annex B)")
        all_units = list(units(data))
        slices = [unit for unit in all_units if self._is_slice(unit)]
        for unit in all_units:
            self._read_parameters(unit)
        if not slices:
            return "parameters"
        starts = [unit for unit in slices if self._begins_frame(unit)]
        if len(starts) != 1 or starts[0] is not slices[0]:
            raise self._error(f"a message contains the beginnings of {len(starts)} frames, expected one whole frame")
        try:
            is_decodable = self._follow(slices[0])
        except LookupError as error:
            raise self._error("the header of a frame is damaged, or its parameters are missing") from error
        if not is_decodable:
            self.before_key += 1
        return "frame" if is_decodable else "undecodable"

    def _is_slice(self, unit: bytes) -> bool:
        return unit_type(unit, self.codec) in (SLICES if self.codec == "h264" else HEVC_SLICES)

    def _begins_frame(self, unit: bytes) -> bool:
        if self.codec == "h264":
            return len(unit) > 1 and bool(unit[1] & 0x80)  # first_mb_in_slice is 0
        return len(unit) > 2 and bool(unit[2] & 0x80)  # first_slice_segment_in_pic_flag

    def _follow(self, unit: bytes) -> bool:
        """Return whether the frame that begins with `unit` can be decoded."""
        kind = unit_type(unit, self.codec)
        is_key = kind == IDR if self.codec == "h264" else kind in HEVC_KEYS
        if not self.has_key and not is_key:
            return False
        if self.codec == "hevc":
            is_first, self.has_key = not self.has_key, True
            self.skips_leading = kind == HEVC_CRA if is_first else self.skips_leading and kind in HEVC_SKIPPED
            if self.skips_leading and kind in HEVC_SKIPPED:
                return False
            if not self.references.follow(unit, is_first=is_first):
                raise self._lost_error()
            return True
        self.has_key = True
        number = 0 if is_key else self._frame_number(unit)
        size = 1 << self.frame_bits
        if self.frame_bits and not is_key and number not in {self.last_reference, (self.last_reference + 1) % size}:
            raise self._lost_error()
        if unit[0] & 0x60:
            self.last_reference = number
        return True

    def _frame_number(self, unit: bytes) -> int:
        bits = Bits(unit[1:HEADER])
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.golomb()
        bits.read(2 if self.has_planes else 0)
        return bits.read(self.frame_bits)

    def _read_parameters(self, unit: bytes) -> None:
        """Read a unit if it has parameters of the frames that follow."""
        try:
            if self.codec == "hevc":
                self.references.read_parameters(unit)
            elif unit_type(unit, self.codec) == SPS:
                self._read_sps(unit)
        except IndexError as error:
            raise self._error("the parameters of the video are damaged") from error

    def _lost_error(self) -> SourceError:
        return self._error("frames that later ones depend on are missing: their messages were lost")

    def _read_sps(self, unit: bytes) -> None:
        try:
            bits = Bits(unit[1:HEADER])
            profile = bits.read(8)
            bits.read(16)
            bits.golomb()
            self.has_planes = False
            if profile in HIGH_PROFILES:
                chroma = bits.golomb()
                self.has_planes = chroma == 3 and bool(bits.read(1))
                bits.golomb(), bits.golomb(), bits.read(1)
                if bits.read(1):
                    for number in range(12 if chroma == 3 else 8):
                        if bits.read(1):
                            _skip_scaling_list(bits, 16 if number < 6 else 64)
            frame_bits = bits.golomb() + 4
            order = bits.golomb()
            if order == 0:
                bits.golomb()
            elif order == 1:
                bits.read(1), bits.golomb(), bits.golomb()
                for _ in range(bits.golomb()):
                    bits.golomb()
            bits.golomb()
            self.frame_bits = 0 if bits.read(1) else frame_bits
        except IndexError as error:
            raise self._error("the parameters of the video are damaged") from error

    def _error(self, message: str) -> SourceError:
        return SourceError(f"{self.path}: {message}", reason="bad_video")


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last
