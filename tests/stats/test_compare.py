from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.source import Array
from stats.compare import Finding, Outside, bounds, compare, meaning
from stats.norm import NormStats
from tests.stats.makers import make_numbers, make_space, make_summary

floats = st.floats(-3, 3, width=32)


def findings(ours: Array, theirs: Array) -> list[Finding]:
    """Compare two arrays of actions as `oxe stats --diff` does."""
    a, b = (NormStats.of(make_summary(x)) for x in (ours, theirs))
    _, low, high = bounds(b)
    return compare({"action": a}, {"action": b}, {"action": Outside.of(ours, low=low, high=high)})


def what(found: list[Finding]) -> dict[tuple[str | None, str], bool]:
    return {(finding.dimension, finding.what): finding.matters for finding in found}


def test_two_recordings_of_the_same_thing_do_not_differ() -> None:
    assert findings(make_numbers(0), make_numbers(1)) == []


@pytest.mark.parametrize("factor", [1000, 100, 180 / np.pi, 1 / 1000])
def test_another_unit_is_suspected(factor: float) -> None:
    x = make_numbers(1, rows=2000)
    x[:, 0] *= np.float32(factor)
    assert what(findings(x, make_numbers(0, rows=2000)))["x0", "unit"]


def test_a_turned_gripper_is_suspected() -> None:
    x = make_numbers(1)
    x[:, 1] = 1 - x[:, 1]
    found = what(findings(x, make_numbers(0)))
    assert found["gripper", "polarity"]
    assert [place for place, word in found if word == "polarity"] == ["gripper"]


def test_a_turned_sign_is_suspected_where_the_distribution_leans() -> None:
    ours, theirs = make_numbers(0), make_numbers(1)
    theirs[:, 0] = np.abs(theirs[:, 0])
    ours[:, 0] = -np.abs(ours[:, 0])
    assert what(findings(ours, theirs))["x0", "polarity"]


def test_values_out_of_range_are_counted_and_matter_above_a_share() -> None:
    ours, theirs = make_numbers(0), make_numbers(1)
    ours[:, 0] = np.where(np.arange(len(ours)) < 100, 50, ours[:, 0])
    (finding,) = (finding for finding in findings(ours, theirs) if finding.what == "range")
    assert finding.matters
    share = ((ours[:, 0] < np.quantile(theirs[:, 0], 0.01)) | (ours[:, 0] > np.quantile(theirs[:, 0], 0.99))).mean()
    assert finding.detail.startswith(f"{share:.1%} of the values are outside")


def test_a_constant_there_that_varies_here_matters_and_not_the_other_way_round() -> None:
    fixed, free = make_numbers(0), make_numbers(1)
    fixed[:, 0] = 0.5
    assert what(findings(free, fixed)) == {("x0", "constant"): True}
    assert what(findings(fixed, free)) == {("x0", "constant"): False}


def test_a_narrow_range_there_is_named() -> None:
    ours, theirs = make_numbers(0), make_numbers(1)
    theirs[:, 0] = np.linspace(1.6, 1.601, len(theirs))
    assert what(findings(ours, theirs))["x0", "degenerate"]


def test_another_place_or_more_spread_matters_and_less_spread_is_only_noted() -> None:
    base, moved, wide, tight = (make_numbers(seed, rows=2000) for seed in range(4))
    moved[:, 0] += 2
    wide[:, 0] *= 5
    tight[:, 0] /= 5
    assert what(findings(moved, base))["x0", "shift"]
    assert what(findings(wide, base))["x0", "spread"]
    assert not what(findings(tight, base))["x0", "spread"]


def test_a_gripper_that_is_open_more_often_is_only_noted_and_one_of_another_range_matters() -> None:
    ours, theirs = make_numbers(0), make_numbers(1)
    theirs[:, 1] = np.arange(len(theirs)) < 15
    assert what(findings(ours, theirs)) == {("gripper", "shift"): False}
    ours[:, 1] = 2 * ours[:, 1] - 1
    assert what(findings(ours, theirs))["gripper", "range"]


def test_vectors_of_another_size_or_meaning_matter_and_missing_ones_do_not() -> None:
    x = make_numbers()
    norm = NormStats.of(make_summary(x))
    other = NormStats.of(make_summary(x, space=make_space(2, frame="tool", origin="achieved")))
    three = NormStats.of(make_summary(make_numbers(dims=3)))
    assert what(compare({"action": norm}, {"action": three}, {})) == {(None, "size"): True}
    assert what(compare({"action": norm}, {}, {})) == {(None, "missing"): False}
    (finding,) = compare({"action": norm}, {"action": other}, {})
    assert finding.detail == "the numbers have different meanings: frame base for tool, origin commanded for achieved"


def test_zeros_for_a_proprio_that_was_not_loaded_are_called_a_placeholder() -> None:
    x = make_numbers()
    zeros = NormStats.of(make_summary(np.zeros_like(x)))
    assert what(compare({"state": NormStats.of(make_summary(x))}, {"state": zeros}, {})) == {
        (None, "placeholder"): False
    }


def test_the_difference_of_two_spaces_is_said_in_words() -> None:
    assert meaning(make_space(), make_space(name="other")) is None
    assert meaning(make_space(2), make_space(3)) == "2 dimensions for 3"


@given(arrays(np.float32, (20, 2), elements=floats), st.integers(0, 20))
def test_counting_outside_is_exact_and_merges(x: Array, cut: int) -> None:
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
    parts = [Outside.of(part, low=low, high=high) for part in (x[cut:], x[:cut])]
    found = Outside.from_json(parts[0].merge(parts[1]).to_json())
    assert found.share.tolist() == ((x < low) | (x > high)).mean(axis=0).tolist()
    assert found.to_json() == Outside.of(x, low=low, high=high).to_json()
    extremes = np.stack([2 * (x.min(axis=0) - low) / (high - low) - 1, 2 * (x.max(axis=0) - low) / (high - low) - 1])
    assert np.abs(found.farthest).tolist() == np.abs(extremes).max(axis=0).tolist()


def test_a_constant_here_and_another_one_there_matters() -> None:
    stuck = make_numbers(0)
    stuck[:, 0] = 0.5
    turned = stuck.copy()
    turned[:, 0] = 100
    assert what(findings(stuck, turned))["x0", "constant"]
    assert findings(stuck, stuck) == []


def test_a_few_numbers_do_not_differ_from_themselves() -> None:
    few = make_numbers(0, rows=20)
    assert findings(few, few) == []


def test_outliers_raise_no_suspicion_where_the_other_file_has_no_quantiles() -> None:
    x = make_numbers(0, rows=2000)
    x[:4, 0] = 200  # 57 times the usual range
    ours = NormStats.of(make_summary(x))
    assert compare({"action": ours}, {"action": replace(ours, q01=None, q99=None)}, {}) == []
