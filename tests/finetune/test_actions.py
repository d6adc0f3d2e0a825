import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.actions import ActionTokenizer
from schemas.errors import UsageError
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
