from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from schemas.mixture.filters import Comparison, Condition, Joined, Not, parse

TABLE = {
    "length": [5, 20, 50],
    "split": ["train", "val", "train"],
    "instructions": [["open the drawer"], [], ["close it", "open the drawer"]],
    "metadata.success": [True, None, False],
    "metadata.mass/kg": [0.5, None, 1.5],
}

SPELLED: dict[str, list[str]] = {  # normalized condition -> other spellings
    # in the documentation
    'length >= 20 and split == "train"': ["length>=20 and split == 'train'"],
    'not (instructions contains "drawer" or length in [1, 2])': [],
    'instructions contains "drawer" and not (metadata.success == false or length in [1, 2])': [],
    'length >= 20 and outcome != "failure"': ["length >= 20 and outcome != 'failure'"],
    'length >= 20 and instructions contains "drawer"': [],
    'length >= 20 and id != "a"': [],
    'outcome == "success"': [],
    # in other tests
    "length > 2": ["length>2"],
    "length >= 7": ["length>=7", "length  >= 7", "(length >= 7)", "\tlength\n>=\r\n7 ", "(((length >= 7)))"],
    "length >= 7 and length < 100": ["length>=7 and length<100"],
    "not length == 200": [],
    'instructions contains "task 2"': ["instructions contains 'task 2'"],
    'split == "train" and episode_index < 6': ["split == 'train' and episode_index < 6"],
    'instructions != " "': [],
    'split == "val" or length < 10': [],
    'split in ["val", "test"]': [],
    "not metadata.success == true": [],
    "metadata.mass/kg > 2.5 or metadata.mass/kg <= 0.5": ["metadata.mass/kg > .25e1 or metadata.mass/kg <= 0.5"],
    'length > 5 and (length < 50 or split == "train")': ["length > 5 and (length < 50 or split == 'train')"],
    'length == 5 or (length == 20 and split == "train")': ["length == 5 or length == 20 and split == 'train'"],
    'length > 2 and not (split == "a" or length < 5)': ["length > 2 and not (split == 'a' or length < 5)"],
    "length > -1": [],
    # operators, words, numbers and quotes
    "not not length == 1": ["not (not length == 1)"],
    "not not (a == 1 and b == 2)": ["not (not (a == 1 and b == 2))"],
    "(a == 1 or b == 2) and c == 3": [],
    "a == 1 and (b == 2 and c == 3)": [],
    "a == 1 and b == 2 and c == 3": ["(a == 1) and b == 2 and (c == 3)"],
    "a == 1 or b == 2": ["a==1or b==2"],
    'a < 1 and b == "c"': ["a <1and b=='c'"],
    'length in [1, 2.5, "a", true]': ["length in[1,2.50,'a',true]"],
    "length in [1]": [],
    "length == 1.0": ["length == 1."],
    "length == 1000.0": ["length == 1e3"],
    "length == 0.01": ["length == 1E-2", "length == .01"],
    "length == 0": ["length == -0"],
    "length == 12": ["length == 00012"],
    "length == 123456789012345678901234567890": [],
    "a/b.c_1 == true": [],
    'not finding("idle") and length > 2': ["not finding('idle') and length>2"],
    'finding == "idle"': ["finding == 'idle'"],
    "_ != false": [],
    "notes == 1": [],
    'split == ""': ["split == ''"],
    'split == "and"': [],
    """split == 'it"s'""": [],
}

columns = st.sampled_from(["length", "metadata.mass/kg"])
comparisons = st.builds(
    Comparison, columns, st.sampled_from(["==", "!=", "<", ">="]), st.integers(0, 60) | st.floats(-2, 2)
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.builds(Not, inner) | st.builds(Joined, st.sampled_from(["and", "or"]), st.tuples(inner, inner)),
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("length >= 20", [1, 2]),
        ('split == "train"', [0, 2]),
        ("split == 'train' and length > 5", [2]),
        ('split == "val" or length < 10', [0, 1]),
        ('not split == "val"', [0, 2]),
        ("length in [5, 50]", [0, 2]),
        ('split in ["val", "test"]', [1]),
        ('instructions contains "drawer"', [0, 2]),
        ('instructions == "close it"', [2]),
        ('split contains "a"', [0, 1, 2]),
        ("metadata.success == true", [0]),
        ("not metadata.success == true", [1, 2]),
        ("metadata.mass/kg > .25e1 or metadata.mass/kg <= 0.5", [0]),
        ("length > 5 and (length < 50 or split == 'train')", [1, 2]),
        ("length == 5 or length == 20 and split == 'train'", [0]),
        ("length > -1", [0, 1, 2]),
    ],
)
def test_a_condition_keeps_the_rows_that_meet_it(text: str, kept: list[int]) -> None:
    assert np.flatnonzero(parse(text).mask(TABLE)).tolist() == kept


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_condition_has_one_spelling(spelling: str) -> None:
    assert {str(parse(text)) for text in (spelling, *SPELLED[spelling])} == {spelling}


@given(conditions)
def test_its_spelling_parses_to_the_same_condition(condition: Condition) -> None:
    again = parse(str(condition))
    assert str(again) == str(condition)
    assert again.mask(TABLE).tolist() == condition.mask(TABLE).tolist()


@given(conditions, conditions)
def test_and_or_and_not_are_those_of_logic(a: Condition, b: Condition) -> None:
    both, either = Joined("and", (a, b)).mask(TABLE), Joined("or", (a, b)).mask(TABLE)
    assert both.tolist() == (a.mask(TABLE) & b.mask(TABLE)).tolist()
    assert either.tolist() == Not(Joined("and", (Not(a), Not(b)))).mask(TABLE).tolist()


def test_it_names_the_columns_that_it_reads() -> None:
    assert parse("length > 2 and not (split == 'a' or length < 5)").columns() == {"length", "split"}


def test_texts_may_hold_anything_but_their_quote() -> None:
    condition = parse("""split == 'say "hi"; import os'""")
    assert condition == Comparison("split", "==", 'say "hi"; import os')
    assert str(parse(str(condition))) == str(condition)


@pytest.mark.parametrize(
    ("text", "said", "place"),
    [
        ("length >", "expected a number, a text in quotes, true or false, found the end", 8),
        ("length = 3", "expected one of == != < <= > >= contains in, found '='", 7),
        ("(length == 1", "expected ')', found the end", 12),
        ("and", "expected a column, found 'and'", 0),
        ("length == 1 split", "expected 'and', 'or' or the end, found 'split'", 12),
        ("length == €", "expected a number, a text in quotes, true or false, found '€'", 10),
        ("length in 3", "expected '[', found '3'", 10),
        ("length in [3", "expected ']', found the end", 12),
        ("", "expected a column, found the end", 0),
        ('split == "train', "expected a number, a text in quotes, true or false, found '\"'", 9),
        ("__import__('os')", "expected one of", 10),
    ],
)
def test_an_error_points_at_the_word(text: str, said: str, place: int) -> None:
    with pytest.raises(UsageError) as found:
        parse(text)
    first, second, third = str(found.value).splitlines()
    assert said in first
    assert second == f"  {text}"
    assert third == " " * (place + 2) + "^"


@given(st.text(max_size=60) | st.text("ab.[]()<>=!,/-+1e 0'\"not", max_size=60))
def test_any_text_is_a_condition_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        parse(text)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"no column 'lenght'; did you mean 'length'?"):
        parse("lenght > 2").mask(TABLE)


def test_a_value_that_does_not_fit_the_column_is_an_error() -> None:
    with pytest.raises(UsageError, match="'split > 2': the values of column 'split' cannot be compared with it"):
        parse("split > 2").mask(TABLE)
    with pytest.raises(UsageError, match="the values of column 'length' cannot be compared with it"):
        parse("length contains 2").mask(TABLE)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UsageError, match="nested more than 50 levels deep"):
        parse("(" * 10_000 + "length == 1" + ")" * 10_000)
    with pytest.raises(UsageError, match="nested more than 50 levels deep"):
        parse("not " * 10_000 + "length == 1")
