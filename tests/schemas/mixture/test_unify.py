"""Sources are unified by the names and meanings of dimensions, or refused with the difference."""

from dataclasses import replace

import pytest

from schemas.errors import SpecError
from schemas.mixture.spec import MixtureSpec
from schemas.mixture.unify import unified
from schemas.spaces import Dim, Space


def make_space(names: str = "x y gripper", **changes: str) -> Space:
    dims = tuple(Dim(name, "m", "delta", "position") for name in names.split())
    told = {"frame": "base", "rotation": "none", "gripper": "none", "origin": "commanded"} | changes
    return Space(name="action", dims=dims, **told)  # type: ignore[arg-type]


def spec(**changes: object) -> MixtureSpec:
    return MixtureSpec.model_validate({"name": "m", "weighting": "share", "weights": {"a": 1.0, "b": 1.0}, **changes})


def test_equal_spaces_meet_without_a_word() -> None:
    assert unified(spec(), {"a": make_space(), "b": replace(make_space(), name="other")}) == (("x", "y", "gripper"), [])


def test_another_number_of_dimensions_needs_names() -> None:
    spaces = {"a": make_space(), "b": make_space("x y")}
    with pytest.raises(SpecError, match="a has 3 dimensions, b has 2; list the dimensions of the mixture: dims"):
        unified(spec(), spaces)
    assert unified(spec(dims=("x", "y", "gripper")), spaces)[0] == ("x", "y", "gripper")


def test_a_dimension_must_mean_the_same_wherever_it_is() -> None:
    other = make_space()
    other = replace(other, dims=(replace(other.dims[0], mode="absolute"), *other.dims[1:]))
    with pytest.raises(SpecError, match="mode of x is delta in a and absolute in b"):
        unified(spec(), {"a": make_space(), "b": other})


def test_a_convention_may_differ_only_where_the_mixture_accepts_it() -> None:
    spaces = {"a": make_space(), "b": make_space(frame="tool")}
    with pytest.raises(SpecError, match=r"frame is base in a, tool in b.*accept mixes them as they are"):
        unified(spec(), spaces)
    assert unified(spec(accept=("frame",)), spaces)[1] == ["frame is base in a, tool in b"]


def test_the_labels_of_a_project_may_differ_and_are_told() -> None:
    spaces = {"a": make_space(), "b": make_space("dx dy grip", origin="achieved")}
    dims, differences = unified(spec(view="openvla"), spaces)
    assert dims == ("x", "y", "gripper")
    assert "origin is achieved in b, commanded in a" in differences


@pytest.mark.parametrize("view", [None, "openvla"])
def test_a_share_of_travel_is_never_mixed_with_an_angle(view: str | None) -> None:
    joints = {unit: Dim("elbow", unit, "absolute", "joint") for unit in ("travel", "rad")}
    spaces = {unit: replace(make_space(), dims=(dim,)) for unit, dim in joints.items()}
    with pytest.raises(SpecError, match="unit of elbow is travel in travel and rad in rad: a share of an arm's"):
        unified(spec(view=view), spaces)
