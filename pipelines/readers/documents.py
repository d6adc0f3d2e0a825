"""Read values inside JSON texts, such as the instruction that LIBERO stores in an HDF5 attribute."""

from collections.abc import Sequence
from typing import Any

from pipelines.readers.fields import Leaf
from schemas.errors import SourceError, did_you_mean
from schemas.parsing import parse_json
from schemas.source import Field

EXACT = 1 << 53  # float64 represents every integer up to this one exactly


def value_at(text: str, keys: Sequence[str], *, path: str) -> Any:
    """Return the value that `keys` lead to in a JSON text; None if a key is missing.

    Raises SourceError, which names the text by `path`, if the text is not JSON.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error}); source.in_json says it is", reason="bad_json") from error
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def json_leaf(path: str, value: Any) -> Leaf:
    """Describe a value from a JSON text: a text, number or boolean, or a list of one of these types.

    Raises SourceError for any other value.
    """
    items = value if isinstance(value, list) else [value]
    if items and all(isinstance(item, str) for item in items):
        return Leaf(Field(path=path, kind="text", ragged=int(isinstance(value, list)), per_step=False), "value")
    is_bool = all(isinstance(item, bool) for item in items)
    is_number = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    if not items or not (is_bool or is_number) or any(abs(item) > EXACT for item in items if isinstance(item, int)):
        content = (
            f"an object; name one of its keys{did_you_mean('', value)}" if isinstance(value, dict) else repr(value)
        )
        message = f"{path} is {content[:400]}; source.in_json reads a text, number or boolean, or a list of one type"
        raise SourceError(message, reason="unsupported_field")
    shape = (len(items),) if isinstance(value, list) else ()
    kind = "bool" if is_bool else "float64"
    return Leaf(Field(path=path, kind="number", dtype=kind, shape=shape, per_step=False), "value")


def json_value(value: Any) -> Any:
    """Return a JSON value with integers converted to floats, because `json_leaf` declares every number as float64."""
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
