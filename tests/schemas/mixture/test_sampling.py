"""The order of draws: exact shares, every step once per pass, and the same order for any division of the draws."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from schemas.errors import SpecError
from schemas.mixture.sampling import Law, permuted

SIZES = (7, 1, 30, 1000)


def make_law(seed: int = 0, *, shares: tuple[float, ...] = (0.5, 0.125, 0.25, 0.125)) -> Law:
    names = tuple(f"source{i}" for i in range(len(shares)))
    return Law(seed=seed, names=names, shares=shares, sizes=SIZES[: len(shares)])


@given(st.integers(1, 3000), st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8))
def test_a_permutation_gives_every_place_once(size: int, keys: list[int]) -> None:
    found = permuted(np.arange(size, dtype=np.uint64), size, np.array(keys, np.uint64))
    assert sorted(found.tolist()) == list(range(size))


def test_every_step_comes_once_in_each_pass_and_passes_differ() -> None:
    law = make_law()
    first, second = (law.steps(3, np.arange(start, start + 1000)).tolist() for start in (0, 1000))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second
    assert first != sorted(first)


def test_neighbours_do_not_stay_together() -> None:
    steps = make_law().steps(3, np.arange(1000))
    gaps = np.abs(np.diff(steps))
    assert 300 < gaps.mean() < 367  # the mean gap of two independent draws is a third of the size


def test_the_draws_follow_the_shares() -> None:
    law = make_law(shares=(0.6, 0.3, 0.0999, 0.0001))
    counts = law.counters(1_000_000)
    assert chisquare(counts, np.array(law.shares) * 1_000_000).pvalue > 1e-3


def test_shares_that_do_not_add_up_to_one_are_taken_as_proportions() -> None:
    assert make_law(shares=(0.2, 0.2)).sources(0, 500).tolist() == make_law(shares=(0.5, 0.5)).sources(0, 500).tolist()


@given(st.integers(0, 2**63), st.integers(0, 5000), st.lists(st.integers(0, 300), max_size=5))
def test_any_cut_gives_the_same_draws(seed: int, start: int, cuts: list[int]) -> None:
    law = make_law(seed)
    end = start + sum(cuts)
    whole = law.draws(start, end)
    counters, at, sources, steps = law.counters(start), start, [], []
    for cut in cuts:
        part = law.draws(at, at + cut, counters)
        sources += part[0].tolist()
        steps += part[1].tolist()
        counters, at = part[2], at + cut
    assert (sources, steps) == (whole[0].tolist(), whole[1].tolist())
    assert counters.tolist() == whole[2].tolist() == law.counters(end).tolist()


def test_a_stream_gives_the_draws_one_by_one_from_anywhere() -> None:
    law = make_law()
    sources, steps, _ = law.draws(0, 300)
    stream = law.stream(100, block=7)
    assert [next(stream) for _ in range(200)] == list(zip(sources[100:].tolist(), steps[100:].tolist(), strict=True))


def test_another_seed_gives_another_order_and_the_same_seed_the_same() -> None:
    first, same, other = (make_law(seed).draws(0, 100)[1].tolist() for seed in (1, 1, 2))
    assert first == same != other


def test_the_order_is_fixed_for_good() -> None:
    """A lock and a seed have the same order in every release: this is the order of version 1."""
    sources, steps, _ = make_law(42).draws(1000, 1010)
    assert sources.tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 3, 0]
    assert steps.tolist() == [0, 3, 4, 2, 18, 6, 5, 1, 297, 1]


def test_the_steps_of_sources_are_independent() -> None:
    law = Law(seed=0, names=("a", "b"), shares=(0.5, 0.5), sizes=(1000, 1000))
    same = law.steps(0, np.arange(1000)) == law.steps(1, np.arange(1000))
    assert same.sum() < 10


@pytest.mark.parametrize(("shares", "sizes"), [((0.0,), (3,)), ((float("nan"),), (3,)), ((1.0,), (0,)), ((), ())])
def test_what_nothing_can_be_drawn_from_is_refused(shares: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    with pytest.raises(SpecError):
        Law(seed=0, names=("a",) * len(shares), shares=shares, sizes=sizes)


def test_sources_of_one_step_come_again_and_again() -> None:
    law = Law(seed=3, names=("a",), shares=(1.0,), sizes=(1,))
    assert Counter(law.draws(0, 50)[1].tolist()) == {0: 50}
