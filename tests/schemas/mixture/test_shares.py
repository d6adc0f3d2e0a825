"""Water-filling: caps hold, what exceeds them is divided in proportion, and shares add up to 1."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SpecError
from schemas.mixture.shares import shares, water_filled
from schemas.mixture.spec import load

PARTS = st.fractions(Fraction(1, 1000), 1)


def temperature(degree: float) -> dict[str, float]:
    text = f'name = "m"\nweighting = "temperature"\ntemperature = {degree}\n[weights]\na = 1.0\nb = 1.0'
    found = shares(load(text, where="m.toml"), {"a": 100, "b": 10_000})
    return {name: part.share for name, part in found.sources.items()}


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(PARTS, PARTS), min_size=1))
def test_no_bound_is_exceeded_and_those_below_theirs_keep_their_proportions(
    given_: dict[str, tuple[Fraction, Fraction]],
) -> None:
    weights, bounds = ({name: pair[i] for name, pair in given_.items()} for i in (0, 1))
    room = sum(bounds.values())
    bounds = {name: bound / min(room, 1) for name, bound in bounds.items()}  # so that shares can add up to 1
    found = water_filled(weights, bounds, where="m")
    assert sum(found.values()) == 1
    assert all(found[name] <= bounds[name] for name in found)
    levels = {found[name] / weights[name] for name in found if found[name] < bounds[name]}
    assert len(levels) <= 1
    assert all(found[name] / weights[name] <= level for level in levels for name in found)


def test_bounds_without_room_for_all_draws_say_how_much_they_leave() -> None:
    with pytest.raises(SpecError, match=r"m: caps: allow only 0.2 of the draws"):
        water_filled({"a": Fraction(1)}, {"a": Fraction(1, 5)}, where="m")


def test_temperature_goes_from_the_sizes_to_equal_shares() -> None:
    assert temperature(1.0)["a"] == pytest.approx(100 / 10_100)
    assert temperature(2.0)["a"] == pytest.approx(10 / 110)
    assert temperature(1e9)["a"] == pytest.approx(0.5)


@pytest.mark.parametrize("line", ['weighting = "temperature"', 'weighting = "share"\ntemperature = 2.0'])
def test_a_temperature_goes_with_its_weighting(line: str) -> None:
    with pytest.raises(SpecError, match="temperature: is required with weighting"):
        load(f'name = "m"\n{line}\n[weights]\na = 1.0', where="m.toml")
