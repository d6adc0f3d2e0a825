import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from schemas.declarations.expr import Call, Path, parse, parse_step_op
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS
from schemas.errors import SpecError
from schemas.source import Array

KEYS = ("action", "observation.state", "a/b.c_1", "_x")
NUMBERS = st.integers(-50, 50).map(str) | st.floats(-10, 10, width=16).map(lambda x: f"{x:f}")
SPACES = st.sampled_from(["", " ", "  "])


@st.composite
def slices(draw: st.DrawFn) -> tuple[str, slice]:
    """Draw a slice of the last axis, as text and as a Python slice."""
    i, j = draw(st.none() | st.integers(-6, 6)), draw(st.none() | st.integers(-6, 6))
    if i is not None and draw(st.booleans()):
        return f"[{i}]", slice(i, i + 1 or None)
    if i is None and j is None and draw(st.booleans()):
        return "", slice(None)
    return f"[{'' if i is None else i}:{'' if j is None else j}]", slice(i, j)


def number(text: str) -> np.float32:
    top, _, bottom = text.partition("/")
    return np.float32(float(top) / float(bottom or 1))


Op = tuple[str, Callable[[Array], Array]]


@st.composite
def ops(draw: st.DrawFn) -> Op:
    """Draw an op as text and as plain numpy."""
    a, b, gap = draw(NUMBERS), draw(NUMBERS), draw(SPACES)
    divisor = draw(st.integers(1, 9).map(lambda n: f"/{n}") | st.just(""))
    one = number(a + divisor)
    return draw(
        st.sampled_from(
            [
                (f"clip({a},{gap}{b})", lambda x: np.minimum(np.maximum(x, number(a)), number(b))),
                ("invert", lambda x: np.float32(1) - x),
                ("invert()", lambda x: np.float32(1) - x),
                (f"scale({gap}{a}{divisor} )", lambda x: x * one),
                (f"shift{gap}({a}{divisor})", lambda x: x + one),
                ("deg2rad", lambda x: x * np.float32(np.pi / 180)),
            ]
        )
    )


@given(st.sampled_from(KEYS), slices(), st.lists(ops(), max_size=4), SPACES, st.data())
def test_an_expression_keeps_its_text_and_computes_what_numpy_does(
    key: str, part: tuple[str, slice], chain: list[Op], gap: str, data: st.DataObject
) -> None:
    text = gap + f"{gap}|{gap}".join([key + part[0], *(op for op, _ in chain)]) + gap
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]))
    elements = st.floats(-100, 100, width=32) if np.dtype(dtype).kind == "f" else None
    column = data.draw(npst.arrays(dtype, st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=elements))
    expected = column.astype(np.float32)[:, part[1]]
    for _, function in chain:
        expected = function(expected)
    expression = parse(text)
    values = expression({key: column})
    assert str(expression) == text
    assert str(parse(str(expression))) == text
    assert parse(str(expression)) == expression
    assert expression.paths() == {key}
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected)


def test_a_scalar_per_step_is_one_column() -> None:
    steps = {"gripper": np.arange(3)}
    assert parse("gripper")(steps).tolist() == [[0], [1], [2]]
    assert parse("gripper[-1:]")(steps).tolist() == [[0], [1], [2]]


def test_a_slice_of_a_scalar_means_what_it_says() -> None:
    assert parse("gripper[1:]")({"gripper": np.arange(3)}).shape == (3, 0)


def test_keys_may_hold_slashes_and_digits() -> None:
    assert parse("clip_function_input/base_pose.x1[:2]").source == Path("clip_function_input/base_pose.x1", None, 2)


def test_one_index_is_one_column() -> None:
    assert parse("a[2]").source == Path("a", 2, 3)
    assert parse("a[-1]").source == Path("a", -1, None)


def test_a_step_op_reads_paths_and_numbers() -> None:
    call = parse_step_op("relabel_achieved_delta(observation.state[:6])")
    assert call == Call("relabel_achieved_delta", (Path("observation.state", None, 6),))
    assert call.paths() == {"observation.state"}
    assert parse_step_op("drop_last(2)") == Call("drop_last", (2.0,))


WRONG = {
    "": "'': expected a path, found 'the end'",
    "   ": "'   ': expected a path, found 'the end'",
    "3": "'3': expected a path, found '3'",
    "a |": "'a |': expected a path, found 'the end'",
    "a | | invert": "'a | | invert': expected a path, found '|'",
    "a b": "'a b': cannot read 'b' here",
    "a[1:2": "'a[1:2': expected ']', found 'the end'",
    "a[1:2:3]": "'a[1:2:3]': expected ']', found ':'",
    "a[]": "'a[]': expected ':', found ']'",
    "a[1.5:]": "'a[1.5:]': '1.5' is not a whole number or is too large",
    "a[1e3]": "'a[1e3]': '1e3' is not a whole number or is too large",
    "a[b]": "'a[b]': expected ':', found 'b'",
    "a + b": "'a + b': cannot read '+ b'",
    "a.b | invert # x": "'a.b | invert # x': cannot read '# x'",
    "a | invrt": f"unknown op 'invrt'; did you mean 'invert'? (known: {', '.join(sorted(ARRAY_OPS))})",
    "a | drop_first(1)": f"unknown op 'drop_first'. (known: {', '.join(sorted(ARRAY_OPS))})",
    "a | clip(0)": "op 'clip' is used as clip(low, high), got 1 arguments",
    "a | clip(0, 1, 2)": "op 'clip' is used as clip(low, high), got 3 arguments",
    "a | invert(1)": "op 'invert' is used as invert(), got 1 arguments",
    "a | scale": "op 'scale' is used as scale(factor, *more), got 0 arguments",
    "a | clip(0, b)": "op 'clip' is used as clip(low, high): high must be a number",
    "a | permute(0, 1.5)": "op 'permute' is used as permute(*order): order must be a whole number from 0",
    "a | permute(-1)": "op 'permute' is used as permute(*order): order must be a whole number from 0",
    "a | permute(b)": "op 'permute' is used as permute(*order): order must be a whole number from 0",
    "a | scale(1/0)": "'a | scale(1/0)': division by zero",
    "a | scale(1/b)": "'a | scale(1/b)': expected a number, found 'b'",
    "a | scale(1e999)": "'a | scale(1e999)': a number is too large",
    "a | scale(1e300/1e-300)": "'a | scale(1e300/1e-300)': a number is too large",
    "a | scale(1": "'a | scale(1': expected ')', found 'the end'",
    "a | scale(1,)": "'a | scale(1,)': expected a number, found ')'",
    "a | scale(1) invert": "'a | scale(1) invert': cannot read 'invert' here",
}
WRONG_STEP_OPS = {
    "drop_frst(1)": f"unknown op 'drop_frst'; did you mean 'drop_first'? (known: {', '.join(sorted(STEP_OPS))})",
    "invert": f"unknown op 'invert'. (known: {', '.join(sorted(STEP_OPS))})",
    "drop_first": "op 'drop_first' is used as drop_first(count), got 0 arguments",
    "drop_first(action)": "op 'drop_first' is used as drop_first(count): count must be a whole number from 0",
    "drop_first(-1)": "op 'drop_first' is used as drop_first(count): count must be a whole number from 0",
    "drop_last(0.5)": "op 'drop_last' is used as drop_last(count): count must be a whole number from 0",
    "relabel_achieved_delta(1)": "op 'relabel_achieved_delta' is used as relabel_achieved_delta(state): "
    "state must be a path",
    "drop_first(1) | drop_last(1)": "'drop_first(1) | drop_last(1)': cannot read '|' here",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_expression_says_what_is_wrong(text: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert str(error.value) == WRONG[text]


@pytest.mark.parametrize("text", WRONG_STEP_OPS)
def test_a_wrong_step_op_says_what_is_wrong(text: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_step_op(text)
    assert str(error.value) == WRONG_STEP_OPS[text]


VECTOR = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("text", "steps", "message"),
    [
        ("actoin", {"action": VECTOR}, "unknown key 'actoin'; did you mean 'action'? (known: action)"),
        ("a", {"a": [b"text"]}, "'a' is not a vector of numbers per step"),
        ("a", {"a": np.array(["text"])}, "'a' is not a vector of numbers per step"),
        (
            "a | permute(3)",
            {"a": VECTOR},
            "'a | permute(3)': permute fails on 3 columns: index 3 is out of bounds for axis 1 with size 3",
        ),
    ],
)
def test_an_expression_that_does_not_fit_its_source_says_why(text: str, steps: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)(steps)
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["a | quat_xyzw_to_euler", "a[:2] | rotvec_to_euler"])
def test_a_rotation_of_the_wrong_width_names_expression_and_op(text: str) -> None:
    with pytest.raises(SpecError, match=r"'a.*': \w+_to_euler fails on \d columns: "):
        parse(text)({"a": VECTOR})


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch owned')",
        "a | __import__('os')",
        "a[__import__('os')]",
        "a | scale(__import__('os'))",
        "().__class__.__bases__",
        "lambda: 0",
        "a if 1 else b",
        "a | clip(*b)",
        "f'{a}'",
        "a | scale(True)",
        "a;b",
        "a\0",
    ],
)
def test_python_is_never_evaluated(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


def test_a_dunder_path_is_a_column_name_and_nothing_else() -> None:
    with pytest.raises(SpecError, match=r"unknown key '__class__\.__mro__'"):
        parse("__class__.__mro__")({})


@given(st.text(max_size=60) | st.text("ab.[]()|:,/-+1e 0'\"", max_size=60))
def test_any_text_is_an_expression_or_a_spec_error(text: str) -> None:
    for read in (parse, parse_step_op):
        with suppress(SpecError):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "a" + " " * 1_000_000 + "?",
        "a " * 300_000,
        "a" + " | invert" * 100_000 + " " * 100_000,
        "a | clip(" + "1, " * 200_000 + "1)",
        "a[" + "9" * 100_000 + "]",
        "a | scale(" + "9" * 100_000 + ")",
        "a" + "[" * 100_000,
        "a | " + "(" * 100_000,
        "a | " + "x" * 100_000,
    ],
    ids=["path", "spaces", "words", "ops", "arguments", "index", "number", "brackets", "calls", "op"],
)
def test_a_hostile_text_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    with suppress(SpecError):
        parse(text)
    assert time.process_time() - began < 5
