"""Tests of values inside JSON texts."""

import json
from typing import Any

import pytest

from pipelines.readers.documents import json_leaf, json_value, value_at
from schemas.errors import SourceError

TEXT = json.dumps({"a": {"b": "pick ☂"}, "n": 4, "list": [1, 2.5]})


@pytest.mark.parametrize(
    ("keys", "found"), [(["a", "b"], "pick ☂"), (["n"], 4), (["a", "c"], None), (["n", "b"], None), (["x", "y"], None)]
)
def test_keys_are_followed_and_what_is_not_there_is_nothing(keys: list[str], found: Any) -> None:
    assert value_at(TEXT, keys, path="p") == found


@pytest.mark.parametrize("text", ["pick it up", "", "{", "[" * 100_000, "1" * 5000, "NaN}"])
def test_a_text_that_is_not_json_is_refused_by_its_path(text: str) -> None:
    with pytest.raises(SourceError, match=r"^parent\.info is not JSON .*source\.in_json says it is") as caught:
        value_at(text, ["a"], path="parent.info")
    assert caught.value.reason == "bad_json"


@pytest.mark.parametrize(
    ("found", "kind", "dtype", "shape", "value"),
    [
        ("x", "text", "object", (), "x"),
        (["x", "y"], "text", "object", (), ["x", "y"]),
        (True, "number", "bool", (), True),
        (4, "number", "float64", (), 4.0),
        (0.5, "number", "float64", (), 0.5),
        ([1, 2.5], "number", "float64", (2,), [1.0, 2.5]),
    ],
)
def test_texts_numbers_and_lists_become_values(
    found: Any, kind: str, dtype: str, shape: tuple[int, ...], value: Any
) -> None:
    field = json_leaf("p", found).field
    assert (field.kind, field.dtype, field.shape, field.per_step) == (kind, dtype, shape, False)
    assert (json_value(found), type(json_value(found))) == (value, type(value))


@pytest.mark.parametrize("found", [{"k": 1}, [], [1, "x"], [[1], [2]], [True, 2], 1 << 60, [{}]])
def test_a_value_that_no_column_can_hold_is_refused(found: Any) -> None:
    with pytest.raises(SourceError, match=r"^p is ") as caught:
        json_leaf("p", found)
    assert caught.value.reason == "unsupported_field"


def test_of_an_object_its_keys_are_named() -> None:
    with pytest.raises(SourceError, match=r"p is an object; name one of its keys.*known: env_name, kwargs"):
        json_leaf("p", {"env_name": "Lift", "kwargs": {}})
