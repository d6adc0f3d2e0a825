"""JSON schemas of MCAP channels, described as rosbags describes message types: plain objects, arrays and values."""

import json
from typing import Any

from rosbags.interfaces import Nodetype

from schemas.errors import SourceError

BASES = {"number": "float64", "integer": "int64", "boolean": "bool", "string": "string"}
MAX_DEPTH = 32

Found = dict[str, list[tuple[str, Any]]]


def fields_of(name: str, text: str) -> Found:
    """Describe the types of a schema, inner ones named by their place; what is no plain schema is a SourceError."""
    try:
        schema = json.loads(text)
        found: Found = {}
        _add(found, name, schema)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        message = f"the JSON schema of {name} cannot be used ({error}); leave its topics out with source.ignore"
        raise SourceError(message, reason="no_definition") from error
    return found


def _add(found: Found, name: str, schema: dict[str, Any]) -> None:
    if name.count("/") > MAX_DEPTH:
        raise ValueError("too deep")
    if schema.get("type") != "object":
        raise ValueError(f"'{name}' is no object")
    found[name] = [(word, _desc(found, f"{name}/{word}", inner)) for word, inner in schema["properties"].items()]


def _desc(found: Found, name: str, schema: dict[str, Any]) -> Any:
    form = schema.get("type")
    if form == "array":
        return Nodetype.SEQUENCE, (_desc(found, name, schema["items"]), 0)
    if form == "object":
        _add(found, name, schema)
        return Nodetype.NAME, name
    if form not in BASES:
        raise ValueError(f"'{name}' is of type {form!r}")
    return Nodetype.BASE, (BASES[form], 0)
