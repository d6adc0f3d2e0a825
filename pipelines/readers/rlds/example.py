"""Read and write the wire format of `tf.train.Example`.

    Example  { features = 1: Features }
    Features { feature = 1: map<string key = 1, Feature value = 2> }
    Feature  { bytes_list = 1 | float_list = 2 | int64_list = 3 }      each { repeated value = 1 }, numbers packed

Source: `tensorflow/core/example/{example,feature}.proto` and the protocol buffers encoding guide.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.errors import SourceError
from schemas.source import Array, Bytes

Value = tuple[int, memoryview]  # the type of a list (1 bytes, 2 floats, 3 ints), and its encoded content
BYTES, FLOATS, INTS = 1, 2, 3
NOTHING: Value = (0, memoryview(b""))
LEN = 2  # the wire type of everything with a length
BYTES_ITEM = 1 << 3 | LEN
KEY, VALUE = 1 << 3 | LEN, 2 << 3 | LEN  # the tags of a map entry
LISTS = {kind << 3 | LEN for kind in (BYTES, FLOATS, INTS)}


def varint(buf: memoryview, pos: int) -> tuple[int, int]:
    """Read a varint; return its value and the position after it."""
    value = shift = 0
    while True:
        try:
            byte = buf[pos]
        except IndexError as error:
            raise SourceError("the message ends inside a number", reason="malformed_record") from error
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
        if shift > 63:
            raise SourceError("a varint of more than 10 bytes", reason="malformed_record")


def fields(buf: memoryview) -> list[tuple[int, memoryview]]:
    """Split a message into pairs of field number and content."""
    out = []
    pos, end = 0, len(buf)
    while pos < end:
        tag, pos = (buf[pos], pos + 1) if buf[pos] < 0x80 else varint(buf, pos)
        wire = tag & 7
        if wire == LEN:
            size, pos = (buf[pos], pos + 1) if pos < end and buf[pos] < 0x80 else varint(buf, pos)
        elif wire == 0:
            size = varint(buf, pos)[1] - pos
        elif wire in {1, 5}:
            size = 8 if wire == 1 else 4
        else:
            raise SourceError(f"wire type {wire} in a tf.train.Example", reason="malformed_record")
        if pos + size > end:
            raise SourceError("a field extends beyond its message", reason="malformed_record")
        out.append((tag >> 3, buf[pos : pos + size]))
        pos += size
    return out


def parse(record: memoryview) -> dict[str, Value]:
    """Return the features of an Example without decoding their values.

    Raises SourceError if the record is not an Example.
    """
    try:
        maps = [content for number, content in fields(record) if number == 1]
        return dict(_entry(pair) for content in maps for number, pair in fields(content) if number == 1)
    except UnicodeDecodeError as error:
        raise SourceError(f"not a tf.train.Example ({error})", reason="malformed_record") from error


def _entry(pair: memoryview) -> tuple[str, Value]:
    """Read one entry of the map, with a fast path for the common layout: a short key, then one list."""
    size = len(pair)
    key_end = 2 + pair[1] if size > 1 else size
    if key_end + 4 < size and pair[0] == KEY and pair[1] < 0x80 and pair[key_end] == VALUE:
        outer, at = varint(pair, key_end + 1)
        tag = pair[at] if at < size else 0
        inner, start = varint(pair, at + 1)
        if at + outer == size == start + inner and tag in LISTS:
            return str(pair[2:key_end], "utf-8"), (tag >> 3, pair[start:])
    key, value = "", NOTHING
    for number, content in fields(pair):
        if number == 1:
            key = str(content, "utf-8")
        elif number == 2:
            lists = fields(content)
            value = lists[-1] if lists else value
    return key, value


def floats(value: Value) -> Array:
    """Decode a float list: [n] float32."""
    content = _content(value, FLOATS, "floats")
    if not content:
        return np.zeros(0, np.float32)
    try:
        packed = [np.frombuffer(part, "<f4") for number, part in fields(content) if number == 1]
    except ValueError as error:
        raise SourceError(f"the float list has a wrong length ({error})", reason="malformed_record") from error
    return packed[0] if len(packed) == 1 else np.concatenate([np.zeros(0, np.float32), *packed])


def ints(value: Value) -> Array:
    """Decode an int64 list: [n] int64."""
    content = _content(value, INTS, "integers")
    if not content:
        return np.zeros(0, np.int64)
    parts = [np.frombuffer(part, np.uint8) for number, part in fields(content) if number == 1]
    return varints(parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint8), *parts]))


def varints(encoded: Array) -> Array:
    """Decode packed varints: [bytes] uint8 -> [n] int64."""
    if encoded.tobytes().isascii():  # every number is encoded in one byte
        return encoded.astype(np.int64)
    ends = np.flatnonzero(encoded < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if len(encoded) and (not len(ends) or ends[-1] != len(encoded) - 1 or (ends - starts).max() > 9):
        raise SourceError("the integer list ends inside a varint", reason="malformed_record")
    place = np.arange(len(encoded)) - np.repeat(starts, ends - starts + 1)
    parts = (encoded & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


def blobs(value: Value) -> list[Bytes]:
    """Decode a bytes list; the items are views of the record."""
    content = _content(value, BYTES, "bytes")
    out: list[Bytes] = []
    pos, end = 0, len(content)
    try:
        while pos < end:
            tag, size, start = content[pos], content[pos + 1], pos + 2
            if size >= 0x80:
                size, start = size & 0x7F | content[start] << 7, start + 1
                if size >= 0x4000:  # a third byte
                    size, start = varint(content, pos + 1)
            pos = start + size
            if tag != BYTES_ITEM or pos > end:
                raise SourceError("a byte string extends beyond its list", reason="malformed_record")
            out.append(content[start:pos])
    except IndexError as error:
        raise SourceError("the bytes list ends inside a length", reason="malformed_record") from error
    return out


def _content(value: Value, kind: int, name: str) -> memoryview:
    if value[0] != kind and value is not NOTHING:
        actual = {BYTES: "bytes", FLOATS: "floats", INTS: "integers"}.get(value[0], "an unknown type")
        raise SourceError(
            f"features.json declares {name}, but the record contains {actual}", reason="contradicts_features"
        )
    return value[1]


def encode(features: Mapping[str, Array | Sequence[Bytes]]) -> bytes:
    """Encode an Example; floats are stored as float32, and integers and booleans as int64."""
    entries = []
    for key, values in features.items():
        name = key.encode()
        entries.append(_message(1, _message(1, name) + _message(2, _encode_values(values))))
    return _message(1, b"".join(entries))


def _encode_values(values: Array | Sequence[Bytes]) -> bytes:
    if not isinstance(values, np.ndarray):
        return _message(BYTES, b"".join([_message(1, item) for item in values]))
    if values.dtype.kind == "f":
        return _message(FLOATS, _message(1, values.astype("<f4").tobytes()))
    if values.dtype == np.uint64:
        values = values.view(np.int64)
    return _message(INTS, _message(1, encode_varints(values.astype(np.int64).ravel())))


def _message(number: int, content: Bytes) -> bytes:
    length = encode_varints(np.array([len(content)], np.int64)) if len(content) >= 0x80 else bytes([len(content)])
    return b"".join((bytes([number << 3 | LEN]), length, content))


def encode_varints(numbers: Array) -> bytes:
    """Encode [n] int64 as packed varints.

    >>> encode_varints(np.array([1, 300])).hex()
    '01ac02'
    """
    unsigned = numbers.view(np.uint64)
    if not len(unsigned) or int(unsigned.max()) < 0x80:
        return unsigned.astype(np.uint8).tobytes()
    groups = unsigned[:, None] >> np.arange(0, 70, 7, dtype=np.uint64)
    groups[:, -1] &= np.uint64(1)
    used = np.maximum(1, 10 - (groups[:, ::-1] != 0).argmax(axis=1))
    used[unsigned == 0] = 1
    column = np.arange(10)
    more = np.where(column < used[:, None] - 1, 0x80, 0).astype(np.uint8)
    encoded = (groups & np.uint64(0x7F)).astype(np.uint8) | more
    return bytes(encoded[column < used[:, None]])
