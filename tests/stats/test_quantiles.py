from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from schemas.errors import UsageError
from schemas.source import Array
from stats import quantiles as module
from stats.quantiles import ALL, FEW, Histogram, Search, interpolated, quantiles, ranks
from stats.summary import QUANTILES

WANTED = list(QUANTILES.values())
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=floats)
ties = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([-1.0, 0.0, 0.5]))


def reference(x: Array, wanted: list[float]) -> Array:
    """Compute numpy's quantiles of the same numbers in float64, without negative zeros."""
    return np.quantile(x.astype(np.float64), wanted, axis=0, method="linear") + 0.0


def mixed(rows: int) -> Array:
    """Make normal, tiny, huge, binary, constant and rounded columns."""
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 6)) * [1, 1e-30, 1e30, 1, 0, 1] + [0, 0, 0, 0, 2, 0]
    x[:, 3] = x[:, 3] > 0
    x[:, 5] = x[:, 5].round(1)
    return x.astype(np.float32)


@given(vectors | ties, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_quantiles_are_numpys_bit_for_bit(x: Array, wanted: list[float]) -> None:
    assert quantiles(x, wanted).tobytes() == reference(x, wanted).tobytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 100, FEW - 1, FEW, 300_000])
def test_quantiles_are_numpys_on_columns_of_every_kind(rows: int) -> None:
    x = mixed(rows)
    assert quantiles(x, WANTED).tobytes() == reference(x, WANTED).tobytes()


def test_order_statistics_have_rank_error_zero() -> None:
    x = mixed(50_000)
    places = [0, 1, 499, 25_000, 49_999]
    search = Search.of(places, dims=6)
    while search.bits < ALL:
        search = search.narrowed(Histogram.of(x, search))
    assert np.array_equal(search.values, np.sort(x, axis=0)[places].T)


@pytest.mark.parametrize("limit", [0, module.LIMIT])
def test_any_sharding_and_merge_order_gives_the_same_bits_with_two_passes_or_three(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", limit)
    x = mixed(20_000)
    parts = [x[:1], x[1:9000], x[9000:9000], x[9000:]]
    answers = set()
    for order in permutations(parts):
        search, passes = Search.of(ranks(WANTED, len(x)), dims=6), 0
        while search.bits < ALL:
            counted = reduce(Histogram.merge, [Histogram.of(part, search) for part in order])
            search, passes = search.narrowed(Histogram.from_json(counted.to_json())), passes + 1
        answers.add(interpolated(search, WANTED, len(x)).tobytes())
        assert passes == (2 if limit else 3)
    assert answers == {reference(x, WANTED).tobytes()}


def test_the_state_stays_small_whatever_the_numbers_are() -> None:
    """All finite leading patterns of 16 bits, the worst case for a first pass: 16 bytes each."""
    patterns = np.arange(1 << 16, dtype=np.uint32) << 16
    x = patterns.view(np.float32)
    x = x[np.isfinite(x)][:, None]
    counted = Histogram.of(x, Search.of([0], dims=1))
    assert counted.keys.nbytes + counted.counts.nbytes == 16 * len(x)
    assert counted.counts.tolist() == [1] * len(x)


def test_nothing_has_no_quantiles() -> None:
    with pytest.raises(UsageError, match="quantiles need at least one vector"):
        quantiles(np.zeros((0, 2), np.float32), [0.5])
