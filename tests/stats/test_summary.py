import numpy as np
import pytest

from stats.moments import Moments
from stats.quantiles import Histogram, Search, quantiles
from stats.summary import BINS, QUANTILES, Summary, is_narrow
from tests.stats.makers import make_numbers, make_space, make_summary


def test_every_figure_is_numpys() -> None:
    x = make_numbers(dims=3)
    found, wide = make_summary(x), x.astype(np.float64)
    for name, q in QUANTILES.items():
        assert np.array_equal(getattr(found, name), np.quantile(wide, q, axis=0)), name
    assert np.array_equal(found.min, wide.min(axis=0))
    assert np.array_equal(found.max, wide.max(axis=0))
    assert found.count == len(x)


def test_an_actions_gripper_is_not_normalized_and_a_states_is() -> None:
    x = make_numbers(dims=3)
    assert make_summary(x).mask.tolist() == [True, True, False]
    assert make_summary(x, is_action=False).mask.tolist() == [True, True, True]


def test_constant_and_narrow_dimensions_are_flagged_by_name() -> None:
    x = make_numbers(dims=4, rows=1000)
    x[:, 0] = 0.25
    x[:, 1] = 1.6 + 1e-4 * x[:, 1]  # openpi#814: a range of 0.001
    assert make_summary(x).flags == {"x0": "constant", "x1": "narrow"}


@pytest.mark.parametrize(
    ("low", "high", "std", "expected"),
    [
        (1.5995, 1.6005, 0.0002, True),
        (-0.0005, 0.0005, 0.0002, False),  # small steps do not make a range small
        (0.0, 0.0, 0.1, True),  # at most 1% is not 0
        (-1e-6, 1e-6, 0.1, True),  # nearly everything is noise
        (-0.01, 0.0113, 0.122, False),  # dobbe of OpenVLA: far outliers, normal range
    ],
)
def test_narrow_is_meant_for_the_size_of_the_values(low: float, high: float, std: float, *, expected: bool) -> None:
    assert is_narrow(np.array([low]), np.array([high]), scale=np.array([std])).tolist() == [expected]


def test_the_sketch_has_the_shape_of_the_distribution() -> None:
    x = make_numbers(rows=20_000)
    x[:, 0] = np.random.default_rng(0).random(20_000)
    uniform, gripper = make_summary(x).sketch
    assert uniform.max() < 1.25 * uniform.min()
    assert uniform.sum() == gripper.sum() == 20_000
    assert (gripper[0] + gripper[-1], gripper[1:-1].sum()) == (20_000, 0)


def test_statistics_of_chunks_have_one_row_for_each_step() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3 * 2)).astype(np.float32)
    histogram = Histogram.of(x, Search.of([], dims=6))
    found = quantiles(x, list(QUANTILES.values()))
    chunks = Summary.of(make_space(2), Moments.of(x), quantiles=found, histogram=histogram, is_action=True)
    assert (chunks.mean.shape, chunks.sketch.shape, chunks.mask.shape) == ((3, 2), (3, 2, BINS), (2,))
    assert np.array_equal(chunks.q50[1], np.quantile(x[:, 2:4].astype(np.float64), 0.5, axis=0))


def test_it_survives_json() -> None:
    found = make_summary(make_numbers())
    assert Summary.from_json(found.to_json()).to_json() == found.to_json()
