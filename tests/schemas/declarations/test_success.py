from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from schemas.declarations.success import SuccessSpec
from schemas.errors import SourceError


def told(**declared: Any) -> SuccessSpec:
    return SuccessSpec.model_validate({"key": "k", **declared})


@pytest.mark.parametrize("value", [True, 1, 1.0, np.True_, np.float32([1]), [1], "success", b"success"])
def test_what_is_true_is_a_success(value: Any) -> None:
    assert told().of_value(value) == "success"


@pytest.mark.parametrize("value", [False, 0, 0.0, np.int64(0), np.zeros((1, 1)), "failure", memoryview(b"failure")])
def test_what_is_false_is_a_failure(value: Any) -> None:
    assert told().of_value(value) == "failure"


@pytest.mark.parametrize("declared", [{}, {"at_least": 0.5}, {"equals": "done"}])
@pytest.mark.parametrize("value", [None, np.nan, np.float32("nan"), "", b""])
def test_what_nobody_recorded_is_unknown(declared: dict[str, Any], value: Any) -> None:
    assert told(**declared).of_value(value) == "unknown"


def test_unknown_may_be_said() -> None:
    assert told().of_value("unknown") == "unknown"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0.7, "'k' is 0.7, not 0 or 1; declare which value means success, as { key = \"k\", at_least = TODO }"),
        (-1, "'k' is -1, not 0 or 1"),
        (
            "done",
            "'k' is 'done', not success or failure or unknown; declare which value means success, as { key",
        ),
    ],
)
def test_what_is_neither_is_not_guessed(value: Any, why: str) -> None:
    with pytest.raises(SourceError) as error:
        told().of_value(value)
    assert error.value.reason == "bad_success"
    assert str(error.value).startswith(f"success: {why}")
    assert 'equals = "' not in str(error.value)


@pytest.mark.parametrize(
    ("declared", "value", "outcome"),
    [
        ({"at_least": 0.5}, 0.5, "success"),
        ({"at_least": 0.5}, 0.4, "failure"),
        ({"equals": 2}, np.int64(2), "success"),
        ({"equals": 2}, 1, "failure"),
        ({"equals": "done"}, b"done", "success"),
        ({"equals": "done"}, "aborted", "failure"),
        ({"equals": "done", "failure": "aborted"}, "aborted", "failure"),
        ({"equals": "done", "failure": "aborted"}, "aborted twice", "unknown"),
        ({"contains": "/success/"}, "/lab/success/3", "success"),
        ({"contains": "/success/"}, "/lab/3", "failure"),
        ({"contains": "/success/", "failure": "/failure/"}, "/lab/failure/3", "failure"),
        ({"contains": "/success/", "failure": "/failure/"}, "/lab/3", "unknown"),
    ],
)
def test_a_condition_tells_success_from_failure(declared: dict[str, Any], value: Any, outcome: str) -> None:
    assert told(**declared).of_value(value) == outcome


@pytest.mark.parametrize(
    ("step", "column", "outcome"),
    [
        ("last", [0, 1, 0], "failure"),
        ("last", [0, 0, 1], "success"),
        ("last", [0, 1, np.nan], "unknown"),
        ("any", [0, 1, 0], "success"),
        ("any", [0, np.nan, 0], "failure"),
        ("any", [np.nan, np.nan], "unknown"),
        ("last", [], "unknown"),
        ("any", [], "unknown"),
    ],
)
def test_of_steps_the_last_counts_or_any(step: str, column: list[float], outcome: str) -> None:
    assert told(step=step).of_steps(np.array(column)) == outcome
    assert told(step=step).of_steps(np.array(column)[:, None]) == outcome


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"equals": 1, "at_least": 2}, "use only one of 'equals', 'contains' and 'at_least'"),
        ({"at_least": 2, "failure": "no"}, "failure: requires a text"),
        ({"step": "first"}, "Input should be 'last' or 'any'"),
        ({"equal": 1}, "unknown key 'equal'; did you mean 'equals'?"),
    ],
)
def test_a_wrong_condition_is_refused(declared: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        told(**declared)


def test_a_key_alone_is_enough() -> None:
    assert SuccessSpec.model_validate("k") == told()
