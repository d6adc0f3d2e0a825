import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.parsing import parse_json, parse_toml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_json_is_parsed_as_the_standard_library_does(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "ud" in text and not text.isascii():
        return
    try:
        expected = json.loads(text.encode())
    except UnicodeEncodeError:
        return
    assert parse_json(text.encode()) == expected
    assert parse_json(text) == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 101 + b"]" * 101, "nested more than 100 levels"),
        (b'{"a":' * 5000, "nested more than 100 levels"),
        (b"[" * 5000, "nested more than 100 levels"),
        (b"9" * 1001, "1001 digits"),
        (b"-" + b"9" * 5000, "5001 digits"),
        (b"1e999", "too large"),
        (b'{"a": [-1E+400]}', "too large"),
        (b"1" * 400 + b".5", "too large"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\uDFFF": 1}', "surrogates not allowed"),
        (b"\xff\xfe\xff", "codec can't decode"),
        (b"", "Expecting value"),
    ],
)
def test_what_cannot_be_used_is_a_value_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(data)


def test_what_is_nested_as_deeply_as_allowed_is_parsed() -> None:
    assert parse_json(b"[" * 100 + b"]" * 100)
    assert parse_json(b"9" * 1000) == int("9" * 1000)
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert math.isnan(parse_json("NaN"))


def test_a_document_is_not_larger_than_its_limit() -> None:
    with pytest.raises(ValueError, match="11 bytes; the limit is 10"):
        parse_json(b"1234567 890", limit=10)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = " + "[" * 2000, "nested more than 100 levels"),
        ("a." * 2000 + "a = 1", "nested more than 100 levels"),
        ("a = " + "9" * 5000, "5000 digits"),
        ("a = 1e999", "too large"),
        ("day = 1979-05-27", "day is the date"),
        ("a = { at = [1979-05-27T07:32:00Z] }", "a.at.0 is the date"),
        ("t = 07:32:00", "t is the date"),
        ("a = ", "Invalid value"),
    ],
)
def test_toml_is_bounded_too(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_toml(text)


def test_infinity_may_be_written_out() -> None:
    assert parse_toml("a = inf\nb = -inf\nc = 1_000.5") == {"a": math.inf, "b": -math.inf, "c": 1000.5}
