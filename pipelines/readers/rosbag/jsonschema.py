"""Convert the JSON schemas of MCAP channels to rosbags' descriptions of message types."""

from typing import Any

from rosbags.interfaces import Nodetype

from schemas.errors import SourceError
from schemas.parsing import parse_json

BASES = {"number": "float64", "integer": "int64", "boolean": "bool", "string": "string"}
MAX_DEPTH = 32

FieldsByType = dict[str, list[tuple[str, Any]]]


def fields_of(name: str, text: str) -> FieldsByType:
    """Return the fields of each type in a schema; the name of a nested type is its path.

    Raises SourceError if the schema contains anything other than objects, arrays and plain values.
    """
    try:
        schema = parse_json(text)
        types: FieldsByType = {}
        _add(types, name, schema)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        message = f"the JSON schema of {name} cannot be used ({error}); leave its topics out with source.ignore"
        raise SourceError(message, reason="no_definition") from error
    return types


def _add(types: FieldsByType, name: str, schema: dict[str, Any]) -> None:
    if name.count("/") > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if schema.get("type") != "object":
        raise ValueError(f"'{name}' is not an object")
    types[name] = [(word, _desc(types, f"{name}/{word}", inner)) for word, inner in schema["properties"].items()]


def _desc(types: FieldsByType, name: str, schema: dict[str, Any]) -> Any:
    form = schema.get("type")
    if form == "array":
        return Nodetype.SEQUENCE, (_desc(types, name, schema["items"]), 0)
    if form == "object":
        _add(types, name, schema)
        return Nodetype.NAME, name
    if form not in BASES:
        raise ValueError(f"'{name}' is of type {form!r}")
    is_bytes = form == "string" and schema.get("contentEncoding") == "base64"
    return Nodetype.BASE, ("base64" if is_bytes else BASES[form], 0)
