"""Message types: from the definitions in a bag, or those of a ROS distribution, to decoded messages.

The library makes Python code of a definition, so nothing but identifiers and bounded numbers reaches it from a file.
"""

import json
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

from pipelines.readers.rosbag.jsonschema import fields_of
from pipelines.readers.rosbag.storage import Channel, Definition
from schemas.errors import SourceError, UsageError, did_you_mean

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)+")
SHIFT = re.compile(r"<<\s*[^\s\d]|<<\s*\d{3}")  # in IDL: a number that could have more digits than memory
MAX_TEXT, MAX_TYPES, MAX_ARRAY, MAX_ITEMS = (
    1 << 20,
    2000,
    1 << 24,
    4096,
)  # characters, types, numbers, messages or texts
IDL_PARTS = "=" * 80 + "\n"
DISTROS = {store.value.partition("_")[2]: store for store in Stores if "_" in store.value}

Desc: TypeAlias = tuple[Any, Any]  # (Nodetype, what it is of), as rosbags describes a field
Fields: TypeAlias = Mapping[str, list[tuple[str, Desc]]]  # by type


@dataclass(frozen=True, slots=True)
class Types:
    """The types of one bag."""

    store: Typestore
    json: Fields = field(default_factory=dict)

    def fields(self, name: str) -> list[tuple[str, Desc]]:
        """Name the fields of a type; one that is nowhere defined is a SourceError."""
        if name in self.json:
            return self.json[name]
        if name not in self.store.fielddefs:
            raise undefined({name})
        return list(self.store.fielddefs[name][1])

    def decode(self, channel: Channel, data: bytes) -> Any:
        """Make an object of a message; bytes that are not what the type says are a SourceError."""
        name = type_name(channel)
        try:
            if channel.encoding == "json":
                return json.loads(data, object_hook=lambda held: SimpleNamespace(**held))
            if channel.encoding == "ros1":
                return self.store.deserialize_ros1(data, name)
            return self.store.deserialize_cdr(data, name)
        except (SerdeError, KeyError, IndexError, ValueError, TypeError, RecursionError, SyntaxError) as error:
            why = f"'{error.args[0]}' has no definition" if isinstance(error, KeyError) else str(error).rstrip(".")
            message = f"{channel.topic}: a message that is no {name} as it is defined ({why})"
            raise SourceError(message, reason="malformed_message") from error


def type_name(channel: Channel) -> str:
    """Name a channel's type as ROS 2 does, `sensor_msgs/msg/Imu`."""
    return channel.type if channel.encoding == "json" else normalize_msgtype(channel.type)


def undefined(names: set[str]) -> SourceError:
    """Say which types have no definition, and what helps."""
    listed = ", ".join(sorted(names))
    return SourceError(
        f"the bag has no definition of {listed}: name the ROS distribution that it was recorded with, such as "
        f"source.ros = 'humble' (known: {', '.join(DISTROS)}), or leave the topics out with source.ignore",
        reason="no_definition",
    )


def check_distro(word: str | None) -> None:
    """Refuse a distribution that is not known."""
    if word is not None and word not in DISTROS:
        raise UsageError(f"source.ros: '{word}' is not known{did_you_mean(word, DISTROS)}")


def types_of(channels: tuple[Channel, ...], ros: str | None) -> Types:
    """Collect the types of the channels that are read; one without a definition is a SourceError."""
    for channel in channels:
        if channel.encoding not in {"cdr", "ros1", "json"}:
            raise SourceError(
                f"{channel.topic} holds messages encoded as '{channel.encoding}', not as cdr, ros1 or json: "
                f"convert the file to ROS 2 messages, or leave the topic out with source.ignore = ['{channel.topic}']",
                reason="unsupported_field",
            )
    schemas = [channel for channel in channels if channel.encoding == "json"]
    ours = [channel for channel in channels if channel.encoding != "json"]
    for name in sorted({type_name(channel) for channel in ours}):
        if not TYPE_NAME.fullmatch(name):
            raise SourceError(f"messages of the type {name!r}, which is no name", reason="no_definition")
    told = tuple(sorted({(type_name(c), c.definition.form, c.definition.text) for c in ours}))
    store = _store(told, ros)
    if missing := {type_name(channel) for channel in ours} - store.fielddefs.keys():
        raise undefined(missing)
    found: dict[str, list[tuple[str, Desc]]] = {}
    for channel in schemas:
        if channel.definition.form != "json":
            raise SourceError(f"{channel.topic} holds JSON without a JSON schema", reason="no_definition")
        found |= fields_of(channel.type, channel.definition.text)
    return Types(store, found)


@lru_cache(maxsize=32)
def _store(told: tuple[tuple[str, str, str], ...], ros: str | None) -> Typestore:
    """Compile the types that a bag defines, over those of a distribution."""
    base = get_typestore(DISTROS[ros]) if ros else get_typestore(Stores.EMPTY)
    found: dict[str, Any] = {}
    for name, form, text in told:
        for inner, parsed in (_parsed(name, Definition(form, text)) if form else {}).items():
            if found.setdefault(inner, parsed) != parsed:
                raise SourceError(f"{inner} is defined in two ways", reason="no_definition")
    if not found:
        return base
    _check(found)
    store = get_typestore(Stores.EMPTY)
    try:
        store.register({**base.fielddefs, **found})
    except (TypesysError, SyntaxError, ValueError, KeyError, RecursionError) as error:
        raise SourceError(f"the definitions in the bag cannot be used ({error})", reason="no_definition") from error
    return store


def _parsed(name: str, definition: Definition) -> dict[str, Any]:
    text = definition.text
    try:
        if len(text) > MAX_TEXT or SHIFT.search(text):
            raise ValueError("too long, or with numbers that are too large")
        if definition.form == "msg":
            return dict(get_types_from_msg(text.replace("\r\n", "\n"), name))
        if definition.form == "idl":
            parts = [part.partition("\n")[2] for part in text.split(IDL_PARTS)[1:]] if IDL_PARTS in text else [text]
            return {inner: parsed for part in parts for inner, parsed in get_types_from_idl(part).items()}
        raise ValueError(f"written as '{definition.form}', which is not known")
    except (TypesysError, ValueError, TypeError, AssertionError, LookupError, RecursionError, OverflowError) as error:
        why = str(error).partition("\n")[0][:100]
        message = f"the bag's definition of {name} cannot be read ({why}); leave its topics out with source.ignore"
        raise SourceError(message, reason="no_definition") from error


def _check(found: Mapping[str, Any]) -> None:
    """Refuse names that are no identifiers, and arrays beyond reason."""
    items = 0
    for name, (constants, fields) in found.items():
        named = [*(constant[0] for constant in constants), *(told[0] for told in fields)]
        if not TYPE_NAME.fullmatch(name) or not all(IDENTIFIER.fullmatch(word) for word in named):
            raise SourceError(f"the bag defines {name!r} with names that are none", reason="no_definition")
        for _, (kind, what) in fields:
            inner, size = what if kind in {Nodetype.ARRAY, Nodetype.SEQUENCE} else ((kind, what), 0)
            if inner[0] == Nodetype.NAME and not TYPE_NAME.fullmatch(inner[1]):
                raise SourceError(f"the bag defines {name} with a field of type {inner[1]!r}", reason="no_definition")
            unrolled = kind == Nodetype.ARRAY and (inner[0] == Nodetype.NAME or inner[1][0] == "string")
            items += size if unrolled else 0
            if not 0 <= size <= MAX_ARRAY or items > MAX_ITEMS or len(found) > MAX_TYPES:
                raise SourceError(f"the bag defines {name} with arrays that are too long", reason="too_large")
