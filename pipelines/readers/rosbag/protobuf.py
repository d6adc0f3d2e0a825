"""Decode protobuf messages by the schemas of MCAP channels, and describe their types like those of ROS."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from rosbags.interfaces import Nodetype

from schemas.errors import SourceError

# How a field is stored, by the number of its type: the numpy type, and the wire type.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SCALARS = {
    1: ("float64", FIXED64),
    2: ("float32", FIXED32),
    3: ("int64", VARINT),
    4: ("uint64", VARINT),
    5: ("int32", VARINT),
    6: ("uint64", FIXED64),
    7: ("uint32", FIXED32),
    8: ("bool", VARINT),
    13: ("uint32", VARINT),
    14: ("int32", VARINT),  # an enumeration
    15: ("int32", FIXED32),
    16: ("int64", FIXED64),
    17: ("int32", VARINT),
    18: ("int64", VARINT),
}
ZIGZAG = {17, 18}
STRING, MESSAGE, RAW = 9, 11, 12  # numbers of the other types
REPEATED = 3  # number of the label
MAX_DEPTH, MAX_MESSAGES = 32, 4096  # levels of nesting, and messages inside a type
MAX_VARINT = 10  # bytes


@dataclass(frozen=True, slots=True)
class ProtoField:
    """A field of a message type."""

    name: str
    kind: int  # the number of its type
    is_repeated: bool
    type: str  # the full name of a message's type


Types: TypeAlias = Mapping[str, Mapping[int, ProtoField]]  # by full name and number of the field


def types_of_schema(name: str, schema: bytes) -> Types:
    """Read a schema, which is a FileDescriptorSet; raise SourceError if it is damaged or does not define `name`."""
    try:
        types: dict[str, Mapping[int, ProtoField]] = {}
        for file in _all(schema, 1):
            package = b"".join(_all(file, 2)).decode()
            for message in _all(file, 4):
                _add(types, f"{package}." if package else "", message)
        if name not in types:
            raise ValueError("it does not define the type")
        _check_size(types, name)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SourceError(
            f"the protobuf schema of {name} cannot be used ({error}); leave its topics out with source.ignore",
            reason="no_definition",
        ) from error
    return types


def _add(types: dict[str, Mapping[int, ProtoField]], prefix: str, message: bytes) -> None:
    name = prefix + b"".join(_all(message, 1)).decode()
    fields = {}
    for field in _all(message, 2):
        words = dict(_values(field))
        kind = int(words.get(5, 0))
        if kind not in {*SCALARS, STRING, MESSAGE, RAW}:
            raise ValueError(f"a field of {name} has the type {kind}")
        type_name = bytes(words.get(6, b"")).decode().lstrip(".")
        fields[int(words[3])] = ProtoField(bytes(words[1]).decode(), kind, words.get(4) == REPEATED, type_name)
    types[name] = fields
    for inner in _all(message, 3):
        _add(types, f"{name}.", inner)


def _check_size(types: Types, name: str) -> None:
    """Raise ValueError if a type contains itself or too many messages."""
    waiting, count = [(name, 0)], 0
    while waiting:
        word, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_MESSAGES:
            raise ValueError(f"{word} contains itself, or too many messages")
        waiting += [(field.type, depth + 1) for field in types[word].values() if field.kind == MESSAGE]


def fields_of(types: Types) -> dict[str, list[tuple[str, Any]]]:
    """Return the fields of each type in the form of rosbags."""
    return {name: [(field.name, _node(field)) for field in fields.values()] for name, fields in types.items()}


def _node(field: ProtoField) -> Any:
    if field.kind == MESSAGE:
        node: Any = (Nodetype.NAME, field.type)
    elif field.kind == RAW:
        node = (Nodetype.SEQUENCE, ((Nodetype.BASE, ("uint8", 0)), 0))
    else:
        node = (Nodetype.BASE, ("string" if field.kind == STRING else SCALARS[field.kind][0], 0))
    return (Nodetype.SEQUENCE, (node, 0)) if field.is_repeated else node


def decode(types: Types, name: str, data: bytes) -> SimpleNamespace:
    """Decode a message; a field that is not stored has the value 0, "" or empty, as protobuf prescribes.

    Raises ValueError or another error if the bytes do not fit the type.
    """
    fields = types[name]
    message: dict[str, Any] = {field.name: [] for field in fields.values() if field.is_repeated}
    for number, stored in _values(data):
        field = fields.get(number)
        if field is None:
            continue
        if not field.is_repeated:
            message[field.name] = _value(types, field, stored)
        elif field.kind in SCALARS and isinstance(stored, bytes):  # packed
            message[field.name] += _packed(field.kind, stored)
        else:
            message[field.name].append(_value(types, field, stored))
    for field in fields.values():
        if field.name not in message:
            message[field.name] = _default(types, field)
    return SimpleNamespace(**message)


def _packed(kind: int, stored: bytes) -> list[Any]:
    if SCALARS[kind][1] == VARINT:
        return [_scalar(kind, item) for item in _varints(stored)]
    values: list[Any] = np.frombuffer(stored, _little(kind)).tolist()
    return values


def _value(types: Types, field: ProtoField, stored: int | bytes) -> Any:
    if field.kind in SCALARS:
        return _scalar(field.kind, stored)
    if not isinstance(stored, bytes):
        raise ValueError(f"{field.name} is not stored as bytes")  # noqa: TRY004 - it is about the data
    if field.kind == MESSAGE:
        return decode(types, field.type, stored)
    return np.frombuffer(stored, np.uint8) if field.kind == RAW else stored.decode()


def _default(types: Types, field: ProtoField) -> Any:
    if field.kind == MESSAGE:
        return decode(types, field.type, b"")
    return {STRING: "", RAW: np.zeros(0, np.uint8)}.get(field.kind, 0)


def _scalar(kind: int, stored: int | bytes) -> Any:
    dtype = np.dtype(SCALARS[kind][0])
    if isinstance(stored, bytes) == (SCALARS[kind][1] == VARINT):
        raise ValueError("a number is stored in the form of another type")
    if isinstance(stored, bytes):
        return np.frombuffer(stored, _little(kind), 1).item()
    if kind in ZIGZAG:
        return stored >> 1 ^ -(stored & 1)
    if dtype.kind == "b":
        return bool(stored)
    return int(np.uint64(stored).astype(np.int64).astype(dtype)) if dtype.kind == "i" else int(stored)


def _little(kind: int) -> np.dtype[Any]:
    return np.dtype(SCALARS[kind][0]).newbyteorder("<")


def _all(data: bytes, number: int) -> Iterator[bytes]:
    """Yield the messages or texts with a number."""
    for actual, stored in _values(data):
        if actual == number and isinstance(stored, bytes):
            yield stored


def _values(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the stored value of each field; values of fixed length are bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            stored, at = _varint(data, at)
            yield number, stored
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("a field has an unknown wire type, or ends after its message")
        yield number, data[at : at + size]
        at += size


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value & (1 << 64) - 1, at
        if shift >= 7 * MAX_VARINT:
            raise ValueError("a varint of more than 10 bytes")
