from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.actions import ActionTokenizer, check_physical, unnormalized
from schemas.errors import CheckpointError, UsageError
from stats.norm import NormStats
from tests.finetune.vla import reference

TOKENIZER = ActionTokenizer()


def test_numbers_become_the_tokens_of_the_original_and_back() -> None:
    np.testing.assert_array_equal(TOKENIZER.encode(reference()["at_values"]), reference()["at_token_ids"])
    np.testing.assert_array_equal(TOKENIZER.decode(reference()["at_token_ids"]), reference()["at_decoded"])


def test_every_id_even_one_that_is_no_action_decodes_as_in_the_original() -> None:
    np.testing.assert_array_equal(TOKENIZER.decode(reference()["at_all_ids"]), reference()["at_all_decoded"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_edge_begins_its_own_bin_and_the_number_below_it_ends_the_one_before(dtype: type) -> None:
    edges = np.linspace(-1, 1, 256)
    at = edges.astype(dtype)
    expected = 32000 - np.array([(edges <= value).sum() for value in at])
    np.testing.assert_array_equal(TOKENIZER.encode(at), expected)
    below = np.nextafter(edges[1:], -2)
    np.testing.assert_array_equal(TOKENIZER.encode(below), 32000 - np.arange(1, 256))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=7))
def test_what_comes_back_is_at_most_half_a_bin_away(values: list[float]) -> None:
    there_and_back = TOKENIZER.decode(TOKENIZER.encode(values))
    assert np.abs(there_and_back - np.clip(values, -1, 1)).max() <= 1 / 255 + 1e-12


def test_another_vocabulary_has_its_own_last_tokens() -> None:
    assert ActionTokenizer(49152).encode([1.0, -1.0]).tolist() == [48896, 49151]


def test_a_nan_has_no_token() -> None:
    with pytest.raises(UsageError, match="contains NaN"):
        TOKENIZER.encode([0.0, np.nan])


# Acting


def norm(**more: Any) -> NormStats:
    arrays = {"q01": np.array([-2.0, 0.0, 0.0]), "q99": np.array([2.0, 1.0, 1e300])}
    return NormStats(names=("x", "gripper", "far"), mask=np.array([True, False, True]), **arrays, **more)


def test_only_the_ids_that_encode_returns_are_actions() -> None:
    ids = TOKENIZER.encode(np.linspace(-1.5, 1.5, 5000))
    assert TOKENIZER.is_action(ids).all()
    every = np.arange(-1, 32100)
    assert set(every[TOKENIZER.is_action(every)]) == {*range(31744, 32000)}
    assert {*np.unique(ids)} == {*range(31744, 32000)}


@pytest.mark.parametrize("token", [0, 2, 5, 31743, 32000, 32063])
def test_a_token_that_is_not_an_action_gives_the_middle_and_never_the_largest_action(token: int) -> None:
    ids = np.array([[token, token, 31872], [31744, 31744, 31872]])
    words, largest = unnormalized(TOKENIZER, ids, norm())
    assert words[:2].tolist() == [0.0, 0.5]
    assert largest[:2] == pytest.approx([1.992, 0.996], abs=1e-3)


@pytest.mark.parametrize("value", [1e300, -1e300, 1e8, np.inf, np.nan])
def test_a_number_beyond_any_physical_size_is_named(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"here: dimension gripper of the action is (-?1e\+(300|08)|inf|nan)"):
        check_physical(np.array([[0.0, 1.0, 2.0], [0.0, value, 2.0]]), norm(), where="here")
    check_physical(np.array([1_048_575.0, -5.0, 0.0]), norm(), where="here")  # the steps of a servo
