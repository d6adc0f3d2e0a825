"""Follow which frames the frames of H.265 refer to. FFmpeg reports a lost one only from version 8 on (PyAV 16)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from pipelines.readers.rosbag.bits import Bits

HEADER = 4096  # bytes of a unit that are parsed
SPS, PPS = 33, 34  # types of units
KEYS, BROKEN_LINKS, IDR = range(16, 24), range(16, 19), (19, 20)
LEADING, NEVER_REFERRED_TO = range(6, 10), range(0, 16, 2)
MAX_SETS = 64

Reference: TypeAlias = tuple[int, bool]  # distance in presentation order, and whether the frame itself refers to it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """What a sequence parameter set says about references."""

    has_planes: bool  # a slice has the number of a colour plane
    order_bits: int  # the low bits of a frame's place in presentation order, which its header contains
    sets: list[list[Reference]]  # sets that the headers of frames may name
    has_long: bool  # frames may refer to frames by their low bits
    long: list[tuple[int, bool]]  # low bits that the headers of frames may name


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a picture parameter set says about the headers of frames."""

    sequence: int
    has_output_flag: bool
    extra_bits: int


@dataclass(slots=True)
class HevcReferences:
    """Follows the frames that later ones may refer to, each by its place in presentation order."""

    sequences: dict[int, _Sequence] = field(default_factory=dict)
    pictures: dict[int, _Picture] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    last: int = 0  # place of the last frame from which the next one's is counted
    trailing: int = 0  # frames since the last key frame that are shown after it

    def read_parameters(self, unit: bytes) -> None:
        """Read a unit if it is a parameter set; raise IndexError if it is damaged."""
        kind, bits = unit[0] >> 1 & 63, Bits(unit[2:HEADER])
        if kind == SPS:
            number, sequence = _read_sequence(bits)
            self.sequences[number] = sequence
        elif kind == PPS:
            number, sequence_number = bits.golomb(), bits.golomb()
            bits.read(1)
            self.pictures[number] = _Picture(sequence_number, bool(bits.read(1)), bits.read(3))

    def follow(self, unit: bytes, *, is_first: bool) -> bool:
        """Return whether all frames to which the frame that begins with `unit` refers have arrived.

        `is_first` means that decoding begins with this frame. Raises LookupError if its header or parameters are
        damaged or missing.
        """
        kind, bits = unit[0] >> 1 & 63, Bits(unit[2:HEADER])
        bits.read(1)
        if kind in KEYS:
            bits.read(1)
        picture = self.pictures[bits.golomb()]
        sequence = self.sequences[picture.sequence]
        bits.read(picture.extra_bits)
        bits.golomb()
        bits.read((1 if picture.has_output_flag else 0) + (2 if sequence.has_planes else 0))
        if kind in IDR:
            place, references = 0, list[tuple[int | None, bool]]()
        else:
            place = self._place(bits.read(sequence.order_bits), sequence, restarts=is_first or kind in BROKEN_LINKS)
            references = list(self._references(bits, sequence, place))
        is_whole = kind in KEYS or self._is_whole(kind, place, [other for other, is_used in references if is_used])
        self.kept = {other for other, _ in references if other is not None} & self.kept | {place}
        self.trailing = 0 if kind in KEYS else self.trailing + (kind not in LEADING)
        if unit[1] & 7 == 1 and kind not in LEADING and kind not in NEVER_REFERRED_TO:
            self.last = place
        return is_whole

    def _is_whole(self, kind: int, place: int, used: list[int | None]) -> bool:
        """Return whether the frames that a frame refers to have arrived, and the key frame that it belongs to.

        Places are counted anew from a key frame. If that is lost, a place occurs twice, or frames that are shown before
        a key frame come after those that are shown after one; a pair of fields may have one in between.
        """
        lost_key = place in self.kept or (kind in LEADING and self.trailing > 1)
        return not lost_key and self.kept.issuperset(used)

    def _place(self, low: int, sequence: _Sequence, *, restarts: bool) -> int:
        """Return a frame's place in presentation order: the one nearest to the last one that has these low bits."""
        if restarts:
            return low
        size = 1 << sequence.order_bits
        return self.last + (low - self.last + size // 2 - 1) % size - size // 2 + 1

    def _references(self, bits: Bits, sequence: _Sequence, place: int) -> Iterator[tuple[int | None, bool]]:
        """Read the places of the frames to which this one or later ones refer; None for one that did not arrive."""
        if bits.read(1):
            chosen = sequence.sets[bits.read((len(sequence.sets) - 1).bit_length())]
        else:
            chosen = _read_set(bits, sequence.sets, is_last=True)
        yield from ((place + distance, is_used) for distance, is_used in chosen)
        if not sequence.has_long:
            return
        size, cycles = 1 << sequence.order_bits, 0
        named = bits.golomb() if sequence.long else 0
        for number in range(named + bits.golomb()):
            if number < named:
                low, is_used = sequence.long[bits.read((len(sequence.long) - 1).bit_length())]
            else:
                low, is_used = bits.read(sequence.order_bits), bool(bits.read(1))
            cycles = 0 if number in {0, named} else cycles
            if bits.read(1):
                cycles += bits.golomb()
                yield place - cycles * size - place % size + low, is_used
            else:
                yield next((other for other in self.kept if other % size == low), None), is_used


def _read_sequence(bits: Bits) -> tuple[int, _Sequence]:
    """Read a sequence parameter set, and its number."""
    bits.read(4)
    layers = bits.read(3)  # above the first
    bits.read(1)
    _skip_profile(bits, layers)
    number = bits.golomb()
    has_planes = bits.golomb() == 3 and bool(bits.read(1))
    bits.golombs(2)  # size
    bits.golombs(4 if bits.read(1) else 0)  # margins
    bits.golombs(2)  # bits of a pixel
    order_bits = bits.golomb() + 4
    bits.golombs(3 * (layers + 1 if bits.read(1) else 1))  # sizes of buffers
    bits.golombs(6)  # sizes of blocks
    if bits.read(1) and bits.read(1):
        _skip_scaling_lists(bits)
    bits.read(2)
    if bits.read(1):  # blocks without compression
        bits.read(8)
        bits.golombs(2)
        bits.read(1)
    count, sets = bits.golomb(), list[list[Reference]]()
    if count > MAX_SETS or order_bits > 16:
        raise IndexError
    for _ in range(count):
        sets.append(_read_set(bits, sets))
    has_long = bool(bits.read(1))
    long = [(bits.read(order_bits), bool(bits.read(1))) for _ in range(bits.golomb() if has_long else 0)]
    sequence = _Sequence(has_planes=has_planes, order_bits=order_bits, sets=sets, has_long=has_long, long=long)
    return number, sequence


def _skip_profile(bits: Bits, layers: int) -> None:
    bits.read(88 + 8)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    bits.read(2 * (8 - layers) if layers else 0)
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if bits.read(1):
                bits.golombs((1 if size > 1 else 0) + min(64, 16 << 2 * size))
            else:
                bits.golomb()


def _read_set(bits: Bits, sets: list[list[Reference]], *, is_last: bool = False) -> list[Reference]:
    """Read the references of a frame: negative distances first, near ones first.

    A set may be derived from one of those before it; `is_last` means that it stands in the header of a frame, where it
    may be any of them.
    """
    references: list[Reference] = []
    if sets and bits.read(1):
        back = bits.golomb() + 1 if is_last else 1
        if back > len(sets):
            raise IndexError
        is_negative, size = bits.read(1), bits.golomb() + 1
        shift = -size if is_negative else size
        for distance, _ in [*sets[-back], (0, False)]:
            is_used = bool(bits.read(1))
            if (is_used or bits.read(1)) and distance + shift:
                references.append((distance + shift, is_used))
        return sorted(references, key=lambda reference: (reference[0] > 0, abs(reference[0])))
    before, after = bits.golomb(), bits.golomb()
    distance = 0
    for number in range(before + after):
        distance = 0 if number == before else distance
        distance += (bits.golomb() + 1) * (-1 if number < before else 1)
        references.append((distance, bool(bits.read(1))))
    return references
