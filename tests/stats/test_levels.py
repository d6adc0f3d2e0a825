"""`Levels` gives the same results as numpy, for any division of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stats.levels import FIGURES, Levels

NUMBERS = hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(-50, 50))
PIXELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))


@given(st.one_of(NUMBERS, PIXELS))
def test_the_figures_are_numpys(x: np.ndarray) -> None:  # type: ignore[type-arg]
    found = Levels.of(x).figures(255.0)
    wanted = {"min": x.min(), "max": x.max(), "mean": x.mean(), "std": x.std()}
    wanted |= {name: np.quantile(x, q) for name, q in FIGURES.items()}
    assert found == pytest.approx({name: float(value) / 255 for name, value in wanted.items()}, abs=1e-12)


@given(NUMBERS, NUMBERS)
def test_two_parts_give_the_figures_of_the_whole(x: np.ndarray, y: np.ndarray) -> None:  # type: ignore[type-arg]
    joined = Levels.of(x).merge(Levels.of(y))
    assert joined.figures() == Levels.of(np.concatenate([x, y])).figures()
    assert joined.figures() == Levels.of(y).merge(Levels.of(x)).figures()


@given(PIXELS)
def test_json_holds_them_exactly(x: np.ndarray) -> None:  # type: ignore[type-arg]
    levels = Levels.of(x)
    assert Levels.from_json(levels.to_json()).figures() == levels.figures()


def test_a_value_that_repeats_is_counted_once() -> None:
    levels = Levels.counted(np.array([3, 1, 3]), np.array([1, 2, 4]))
    assert (levels.values.tolist(), levels.counts.tolist()) == ([1, 3], [2, 5])
