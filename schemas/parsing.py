"""Parse JSON and TOML that somebody else wrote, within limits; every document goes through one of these functions.

Both raise only ValueError, with a message that says what is wrong. Callers add the name of the file.
"""

import datetime as dt
import json
import re
import tomllib
from collections.abc import Callable
from itertools import chain
from math import isinf
from typing import Any

from schemas.limits import DOCUMENT_BYTES, MAX_DEPTH, MAX_DIGITS, TOML_BYTES

SHAPE = bytes(48 if 48 <= c < 58 else 101 if c in b"eE" else c if c == 43 else 32 for c in range(256))
NESTED = {dict, list}
LARGE = (b"0" * 300, b"0e000", b"0e+000")  # numbers that may be too large, with each digit as 0


def parse_json(
    data: bytes | str, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None, limit: int = DOCUMENT_BYTES
) -> Any:
    """Parse JSON; `pairs` builds an object from its keys and values, by default a dict.

    Raises ValueError if it is not JSON or not UTF-8, has more than `limit` bytes, is nested too deeply, or has a number
    that is too large.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse_json("1e999")
    Traceback (most recent call last):
    ValueError: the number 1e999 is too large
    """
    _check_bytes(data, limit)
    encoded = data.encode(errors="surrogatepass") if isinstance(data, str) else bytes(data)
    shape = encoded.translate(SHAPE)  # so that only a document that may need it pays for checking every number
    numbers: dict[str, Any] = {"parse_int": _int, "parse_float": _float} if any(map(shape.count, LARGE)) else {}
    try:
        value = json.loads(data, object_pairs_hook=pairs, **numbers)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        if _deepest(encoded) > MAX_DEPTH:  # Python 3.13 reads on, to the end of a document that is not complete
            raise _too_deep() from None
        raise
    if b"\\ud" in encoded or b"\\uD" in encoded:  # half of a surrogate pair is not a character
        json.dumps(value if pairs is None else json.loads(data), ensure_ascii=False).encode()
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def parse_toml(text: str, *, limit: int = TOML_BYTES) -> dict[str, Any]:
    """Parse TOML. Raises ValueError as `parse_json` does, and for a date, because no key of ours takes one.

    >>> parse_toml('rate = 10')
    {'rate': 10}
    >>> parse_toml("day = 1979-05-27")
    Traceback (most recent call last):
    ValueError: day is the date 1979-05-27; write it in quotes
    """
    _check_bytes(text, limit)
    if long := re.search(rf"[0-9_]{{{MAX_DIGITS},}}", text):
        raise ValueError(f"a number of {len(long[0])} digits; the limit is {MAX_DIGITS}")
    try:
        value = tomllib.loads(text, parse_float=_float)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    _check_no_dates(value, "")
    return value


def _check_bytes(data: bytes | str, limit: int) -> None:
    if len(data) > limit:
        raise ValueError(f"{len(data)} bytes; the limit is {limit}")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; the limit is {MAX_DIGITS}")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits.replace("_", ""))
    if isinf(number) and "inf" not in digits:
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _deepest(encoded: bytes) -> int:
    """Return how deep the brackets of a document are nested that may not be JSON; those in texts do not count."""
    depth = deepest = 0
    for bracket in re.sub(rb'"(?:[^"\\]|\\.)*"|[^][{}"]+', b"", encoded):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _check_depth(value: Any) -> None:
    """Raise ValueError if a value is nested too deeply, because what uses it may be recursive."""
    level, depth = [value] if type(value) in NESTED else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        items = chain.from_iterable(inner.values() if type(inner) is dict else inner for inner in level)
        level = [item for item in items if type(item) in NESTED]


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _check_no_dates(value: Any, place: str) -> None:
    if isinstance(value, dt.date | dt.time):
        raise ValueError(f"{place} is the date {value}; write it in quotes")  # noqa: TRY004 - like all errors here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _check_no_dates(item, f"{place}.{key}" if place else str(key))
