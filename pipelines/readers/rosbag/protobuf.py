"""Decode protobuf messages by the schemas of MCAP channels, and describe their types like those of ROS."""

from graphlib import TopologicalSorter
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from rosbags.interfaces import Nodetype

from schemas.errors import SourceError

NUMBERS = {  # the dtypes of the library's types
    FieldDescriptor.CPPTYPE_DOUBLE: "float64",
    FieldDescriptor.CPPTYPE_FLOAT: "float32",
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_ENUM: "int32",
}
MAX_DEPTH, MAX_MESSAGES = 32, 4096  # levels of nesting, and messages inside a type

Fields: TypeAlias = dict[str, list[tuple[str, Any]]]  # by type


def message_type(name: str, schema: bytes) -> tuple[Any, Fields]:
    """Return the class of a message type, and the fields of it and of the types inside it in the form of rosbags.

    Raises SourceError if the schema, which is a FileDescriptorSet, is damaged or does not define the type, or if the
    type contains itself.
    """
    try:
        files = FileDescriptorSet.FromString(schema).file
        by_name = {file.name: file for file in files}
        if any(file != by_name[file.name] for file in files):
            raise ValueError("two files have the same name")
        pool = DescriptorPool()
        for path in TopologicalSorter({file.name: file.dependency for file in files}).static_order():
            if path in by_name:
                _maps_to_lists(by_name[path].message_type)
                pool.Add(by_name[path])
        descriptor = pool.FindMessageTypeByName(name)
        return GetMessageClass(descriptor), _fields(descriptor)
    except (DecodeError, ValueError, LookupError, TypeError) as error:
        raise SourceError(
            f"the protobuf schema of {name} cannot be used ({error}); leave its topics out with source.ignore",
            reason="no_definition",
        ) from error


def _maps_to_lists(messages: Any) -> None:
    """Turn maps into lists of entries, as they are stored: the library does not keep the order of a map."""
    for message in messages:
        message.options.ClearField("map_entry")
        _maps_to_lists(message.nested_type)


def _fields(descriptor: Any) -> Fields:
    """Return the fields of types; raise ValueError if one contains itself or too many messages."""
    types: dict[str, Any] = {}
    waiting, count = [(descriptor, 0)], 0
    while waiting:
        inner, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_MESSAGES:
            raise ValueError(f"{inner.full_name} contains itself, or too many messages")
        types[inner.full_name] = inner
        waiting += [(field.message_type, depth + 1) for field in inner.fields if field.message_type]
    return {name: [(field.name, _node(field)) for field in inner.fields] for name, inner in types.items()}


def _node(field: Any) -> Any:
    if field.message_type:
        node: Any = (Nodetype.NAME, field.message_type.full_name)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        node = (Nodetype.SEQUENCE, ((Nodetype.BASE, ("uint8", 0)), 0))
    else:
        node = (Nodetype.BASE, (NUMBERS.get(field.cpp_type, "string"), 0))
    is_repeated = field.default_value == []  # works in all versions, unlike `label` and `is_repeated`
    return (Nodetype.SEQUENCE, (node, 0)) if is_repeated else node


def decode(message_class: Any, data: bytes) -> SimpleNamespace:
    """Decode a message; a field that is not stored has its default, such as 0, "" or empty.

    Raises ValueError if the bytes do not fit the type.
    """
    try:
        return _namespace(message_class.FromString(data))
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _namespace(message: Any) -> SimpleNamespace:
    descriptor = type(message).DESCRIPTOR
    for unknown in UnknownFieldSet(message):
        if unknown.field_number in descriptor.fields_by_number:
            raise ValueError(f"the field {unknown.field_number} is not stored in the form of its type")
    return SimpleNamespace(**{field.name: _value(field, getattr(message, field.name)) for field in descriptor.fields})


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return _namespace(value)
    if isinstance(value, bytes):  # also a text that is not UTF-8
        return np.frombuffer(value, np.uint8) if field.type == FieldDescriptor.TYPE_BYTES else value.decode()
    if isinstance(value, str | float | int):
        return value
    return list(value) if field.cpp_type in NUMBERS else [_value(field, item) for item in value]
