from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from schemas.source import Array
from stats.moments import ROWS, Moments, exact_sum

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=floats)


def same(a: Moments, b: Moments) -> bool:
    return a.to_json() == b.to_json()


@given(vectors, st.integers(0, 30))
def test_merging_parts_is_exactly_the_whole_in_any_order(x: Array, cut: int) -> None:
    first, second = Moments.of(x[:cut]), Moments.of(x[cut:])
    assert same(first.merge(second), Moments.of(x))
    assert same(second.merge(first), Moments.of(x))
    assert same(Moments.of(np.random.default_rng(0).permutation(x)), Moments.of(x))


@given(vectors)
def test_the_sums_are_those_of_rational_numbers(x: Array) -> None:
    found = Moments.of(x)
    for d in range(x.shape[1]):
        values = [Fraction(float(value)) for value in x[:, d]]
        assert Fraction(found.sums[d], 1 << 149) == sum(values)
        assert Fraction(found.squares[d], 1 << 298) == sum(value**2 for value in values)


@given(vectors)
def test_mean_is_rounded_once_and_std_is_the_root_of_the_variance_rounded_once(x: Array) -> None:
    found, n = Moments.of(x), len(x)
    for d in range(x.shape[1]):
        values = [Fraction(float(value)) for value in x[:, d]]
        mean = sum(values) / n
        variance = sum((value - mean) ** 2 for value in values) / n
        assert found.mean[d] == float(mean)
        assert found.std[d] == float(variance) ** 0.5


@pytest.mark.parametrize("rows", [1, 7, 1000, ROWS + 1, 3 * ROWS])
def test_it_is_numpy_on_the_whole_array_to_the_last_bits(rows: int) -> None:
    x = (np.random.default_rng(rows).normal(size=(rows, 4)) * [1, 1e-6, 1e4, 0] + [0, 1e-5, 3, 0.5]).astype(np.float32)
    found, columns = Moments.of(x), np.ascontiguousarray(x.T).astype(np.float64)  # contiguous: numpy adds pairwise
    np.testing.assert_array_max_ulp(found.mean, columns.mean(axis=1), maxulp=4)
    np.testing.assert_array_max_ulp(found.std, columns.std(axis=1), maxulp=4)
    assert np.array_equal(found.low, x.min(axis=0))
    assert np.array_equal(found.high, x.max(axis=0))
    assert found.count == rows


def test_a_small_spread_about_a_large_mean_is_not_lost() -> None:
    """openpi and LeRobot compute E[x^2] - E[x]^2 in floating point: mean 3, std 1e-4 gives 0 in float32."""
    x = np.float32(3) + np.random.default_rng(0).normal(0, 1e-4, (1000, 1)).astype(np.float32)
    wide = x[:, 0].astype(np.float64)
    np.testing.assert_array_max_ulp(Moments.of(x).std, np.array([wide.std()]), maxulp=4)


def test_a_full_block_of_the_largest_numbers_adds_up_exactly() -> None:
    top = float(np.finfo(np.float32).max)
    x = np.full(ROWS, top)
    x[1::3] = -float(np.finfo(np.float32).smallest_subnormal)
    wanted = sum(Fraction(value) for value in x.tolist())
    assert Fraction(exact_sum(x, 149), 1 << 149) == wanted


def test_it_survives_a_journey_through_json() -> None:
    found = Moments.of(np.float32([[1, -2], [3, 1e-40]]))
    assert same(Moments.from_json(found.to_json()), found)
