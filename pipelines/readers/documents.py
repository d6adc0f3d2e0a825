"""Values inside JSON texts, such as the instruction in an attribute that robosuite and LIBERO write."""

import json
from collections.abc import Sequence
from typing import Any

from pipelines.readers.fields import Leaf
from schemas.errors import SourceError, did_you_mean
from schemas.source import Field

EXACT = 1 << 53  # beyond, a JSON number may not be the one that was meant


def inside(text: str, keys: Sequence[str], *, path: str) -> Any:
    """Follow keys into a JSON text; None where one is not there. `path` names the text in errors."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, json.JSONDecodeError) else "nested too deep, or a number too long"
        raise SourceError(f"{path} is no JSON, as source.in_json says it is ({why})", reason="bad_json") from error
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def json_leaf(path: str, found: Any) -> Leaf:
    """Describe a value of a JSON text: a text, a number, true or false, or a list of one kind of them."""
    items = found if isinstance(found, list) else [found]
    if items and all(isinstance(item, str) for item in items):
        return Leaf(Field(path=path, kind="text", ragged=int(isinstance(found, list)), per_step=False), "value")
    is_bool = all(isinstance(item, bool) for item in items)
    is_number = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    if not items or not (is_bool or is_number) or any(abs(item) > EXACT for item in items if isinstance(item, int)):
        held = f"an object: name one of its keys{did_you_mean('', found)}" if isinstance(found, dict) else repr(found)
        message = f"{path} is {held[:400]}; source.in_json takes texts, numbers, booleans and lists of one kind"
        raise SourceError(message, reason="unsupported_field")
    shape = (len(items),) if isinstance(found, list) else ()
    kind = "bool" if is_bool else "float64"
    return Leaf(Field(path=path, kind="number", dtype=kind, shape=shape, per_step=False), "value")


def json_value(found: Any) -> Any:
    """Give a value as its leaf describes it: a number is a float, written with a point or not."""
    if isinstance(found, list):
        return [json_value(item) for item in found]
    return float(found) if isinstance(found, int) and not isinstance(found, bool) else found
