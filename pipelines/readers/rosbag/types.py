"""Decode messages by the type definitions in a bag, or by those of a ROS distribution.

The library compiles type definitions to Python code. Therefore, all names in a file's definitions must be identifiers,
and all numbers must be within limits, before they are passed to the library.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeAlias

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from pipelines.readers.rosbag import protobuf
from pipelines.readers.rosbag.jsonschema import fields_of
from pipelines.readers.rosbag.storage import Channel, Definition
from schemas.errors import SourceError, UsageError, did_you_mean
from schemas.parsing import parse_json

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)+")
SHIFT = re.compile(r"<<\s*[^\s\d]|<<\s*\d{3}")  # a shift in IDL that may give a number too large for memory
MAX_TEXT = 1 << 20  # characters of a definition
MAX_TYPES = 2000
MAX_ARRAY = 1 << 24  # items of an array
MAX_ITEMS = 4096  # total messages and texts in fixed-length arrays, for each of which code is compiled
IDL_PARTS = "=" * 80 + "\n"
DISTROS = {store.value.partition("_")[2]: store for store in Stores if "_" in store.value}

FieldType: TypeAlias = tuple[Any, Any]  # (Nodetype, its arguments), as in rosbags
Fields: TypeAlias = Mapping[str, list[tuple[str, FieldType]]]  # the fields by type


@dataclass(frozen=True, slots=True)
class MessageTypes:
    """The message types of one bag."""

    store: Typestore
    other: Fields = field(default_factory=dict)  # the types of JSON and protobuf messages
    proto: Mapping[str, Any] = field(default_factory=dict)  # the classes of protobuf messages, by topic

    def fields(self, name: str) -> list[tuple[str, FieldType]]:
        """Return the fields of a type; raise SourceError if it is not defined."""
        if name in self.other:
            return self.other[name]
        if name not in self.store.fielddefs:
            raise undefined_error({name})
        return list(self.store.fielddefs[name][1])

    def decode(self, channel: Channel, data: bytes) -> Any:
        """Decode a message to an object; raise SourceError if its bytes do not fit the type."""
        name = type_name(channel)
        try:
            if channel.encoding == "json":
                return parse_json(data, pairs=lambda items: SimpleNamespace(**dict(items)))
            if channel.encoding == "protobuf":
                return protobuf.decode(self.proto[channel.topic], data)
            if channel.encoding == "ros1":
                return self.store.deserialize_ros1(data, name)
            return self.store.deserialize_cdr(data, name)
        except (
            SerdeError,
            KeyError,
            NameError,
            IndexError,
            ValueError,
            TypeError,
            RecursionError,
            SyntaxError,
        ) as error:
            why = f"'{error.args[0]}' has no definition" if isinstance(error, KeyError) else str(error).rstrip(".")
            message = f"{channel.topic}: a message does not fit the definition of {name} ({why})"
            raise SourceError(message, reason="malformed_message") from error


def type_name(channel: Channel) -> str:
    """Return the ROS 2 name of a channel's type, such as `sensor_msgs/msg/Imu`."""
    return channel.type if channel.encoding in {"json", "protobuf"} else normalize_msgtype(channel.type)


def undefined_error(names: set[str]) -> SourceError:
    """Return the error for types without a definition; it says how to fix this."""
    listed = ", ".join(sorted(names))
    return SourceError(
        f"the bag has no definition of {listed}: name the ROS distribution that it was recorded with, such as "
        f"source.ros = 'humble' (known: {', '.join(DISTROS)}), or leave the topics out with source.ignore",
        reason="no_definition",
    )


def check_distro(name: str | None) -> None:
    """Raise UsageError if a ROS distribution is unknown."""
    if name is not None and name not in DISTROS:
        raise UsageError(f"source.ros: '{name}' is not known{did_you_mean(name, DISTROS)}")


def types_of(channels: tuple[Channel, ...], ros: str | None) -> MessageTypes:
    """Collect the types of channels; raise SourceError if one is not defined or cannot be decoded."""
    for channel in channels:
        if channel.encoding not in {"cdr", "ros1", "json", "protobuf"}:
            raise SourceError(
                f"{channel.topic} contains messages of {channel.type} encoded as '{channel.encoding}', expected cdr, "
                "ros1, json or protobuf: "
                f"convert the file to ROS 2 messages, or leave the topic out with source.ignore = ['{channel.topic}']",
                reason="unsupported_field",
            )
    ros_channels = [channel for channel in channels if channel.encoding not in {"json", "protobuf"}]
    for name in sorted({type_name(channel) for channel in ros_channels}):
        if not TYPE_NAME.fullmatch(name):
            raise SourceError(f"messages have the type {name!r}, which is not a valid name", reason="no_definition")
    definitions = tuple(sorted({(type_name(c), c.definition.form, c.definition.text) for c in ros_channels}))
    store = _compile(definitions, ros)
    if missing := {type_name(channel) for channel in ros_channels} - store.fielddefs.keys():
        raise undefined_error(missing)
    return MessageTypes(store, *_described(channels))


def _described(channels: tuple[Channel, ...]) -> tuple[Fields, Mapping[str, Any]]:
    """Return the fields of all types of JSON and protobuf messages, and the classes of protobuf messages by topic."""
    types: dict[str, list[tuple[str, FieldType]]] = {}
    by_topic = {}
    for channel in channels:
        fields: Fields = {}
        if channel.encoding == "json":
            if channel.definition.form != "json":
                raise SourceError(f"{channel.topic} contains JSON, but has no JSON schema", reason="no_definition")
            types |= fields_of(channel.type, channel.definition.text)
        elif channel.encoding == "protobuf":
            schema = channel.definition.text.encode("latin-1") if channel.definition.form == "protobuf" else b""
            by_topic[channel.topic], fields = protobuf.message_type(channel.type, schema)
        for name, known in fields.items():
            if types.setdefault(name, known) != known:
                raise SourceError(f"{name} is defined in two ways", reason="no_definition")
    return types, by_topic


@lru_cache(maxsize=32)
def _compile(definitions: tuple[tuple[str, str, str], ...], ros: str | None) -> Typestore:
    """Compile the types that a bag defines; if `ros` is a distribution, its types are available too."""
    base = get_typestore(DISTROS[ros]) if ros else get_typestore(Stores.EMPTY)
    types: dict[str, Any] = {}
    for name, form, text in definitions:
        for inner, parsed in (_parsed(name, Definition(form, text)) if form else {}).items():
            if types.setdefault(inner, parsed) != parsed:
                raise SourceError(f"{inner} is defined in two ways", reason="no_definition")
    if not types:
        return base
    _check_types(types)
    store = get_typestore(Stores.EMPTY)
    try:
        store.register({**base.fielddefs, **types})
    except (TypesysError, SyntaxError, ValueError, KeyError, RecursionError) as error:
        raise SourceError(f"the definitions in the bag cannot be used ({error})", reason="no_definition") from error
    return store


def _parsed(name: str, definition: Definition) -> dict[str, Any]:
    text = definition.text
    try:
        if len(text) > MAX_TEXT or SHIFT.search(text):
            raise ValueError("too long, or a number in it is too large")
        if definition.form == "msg":
            return dict(get_types_from_msg(text.replace("\r\n", "\n"), name))
        if definition.form == "idl":
            parts = [part.partition("\n")[2] for part in text.split(IDL_PARTS)[1:]] if IDL_PARTS in text else [text]
            return {inner: parsed for part in parts for inner, parsed in get_types_from_idl(part).items()}
        raise ValueError(f"unknown format '{definition.form}'")
    except (TypesysError, ValueError, TypeError, AssertionError, LookupError, RecursionError, OverflowError) as error:
        why = str(error).partition("\n")[0][:100]
        message = f"the bag's definition of {name} cannot be read ({why}); leave its topics out with source.ignore"
        raise SourceError(message, reason="no_definition") from error


def _check_types(types: Mapping[str, Any]) -> None:
    """Raise SourceError if a name is not an identifier, or if an array is too long."""
    unrolled_items = 0
    for name, (constants, fields) in types.items():
        names = [*(constant[0] for constant in constants), *(field[0] for field in fields)]
        if not TYPE_NAME.fullmatch(name) or not all(IDENTIFIER.fullmatch(word) for word in names):
            raise SourceError(f"the bag defines {name!r} with names that are not identifiers", reason="no_definition")
        for _, (kind, arguments) in fields:
            inner, size = arguments if kind in {Nodetype.ARRAY, Nodetype.SEQUENCE} else ((kind, arguments), 0)
            if inner[0] == Nodetype.NAME and not TYPE_NAME.fullmatch(inner[1]):
                raise SourceError(
                    f"the bag defines {name} with a field of the invalid type {inner[1]!r}", reason="no_definition"
                )
            is_unrolled = kind == Nodetype.ARRAY and (inner[0] == Nodetype.NAME or inner[1][0] == "string")
            unrolled_items += size if is_unrolled else 0
            if not 0 <= size <= MAX_ARRAY or unrolled_items > MAX_ITEMS or len(types) > MAX_TYPES:
                raise SourceError(f"the bag defines {name} with arrays that are too long", reason="too_large")
