from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.declarations.derive import Derivation, derived_action, derived_space
from schemas.declarations.rotations import to_rotation
from schemas.declarations.spec import DatasetSpec, from_json
from schemas.errors import SourceError, SpecError
from schemas.source import Array
from schemas.spaces import Dim, Space
from schemas.views.views import view, view_names
from tests.schemas.makers import TOY, load, make_episode, make_space
from tests.schemas.views.test_views import REPRESENTATIONS, poses, with_gripper

STATE = make_space(name="state", mode="absolute", origin="achieved")
ACTION = TOY[TOY.index("[action]") : TOY.index("[views")]


def declared(derivation: str, *, text: str = TOY) -> DatasetSpec:
    return load(f'action = {{ derive = "{derivation}" }}\n{text}'.replace(ACTION, ""))


def test_next_state_is_the_state_of_the_next_step_and_the_last_one_stays() -> None:
    state = np.float32([[1, 2], [3, 4], [5, 6]])
    assert derived_action("next_state", state, STATE).tolist() == [[3, 4], [5, 6], [5, 6]]
    assert derived_space("next_state", STATE) == replace(STATE, name="action")


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@given(data=st.data())
def test_achieved_deltas_lead_from_each_measured_pose_to_the_next(representation: str, data: st.DataObject) -> None:
    state = with_gripper(data.draw(poses(representation, steps=4)))
    space = make_space(name="state", mode="absolute", rotation=representation, origin="achieved")
    action = derived_action("achieved_delta", state, space)
    assert (action.shape, action.dtype) == ((4, 7), np.float32)
    at = to_rotation(state[:, space.indices("rotation")], representation)
    np.testing.assert_allclose(state[:-1, :3] + action[:-1, :3], state[1:, :3], atol=1e-6)
    reached = to_rotation(action[:-1, 3:6], "euler_xyz") * at[:-1]
    np.testing.assert_allclose(reached.as_matrix(), at[1:].as_matrix(), atol=2e-3)
    np.testing.assert_array_equal(action[:-1, 6], state[1:, -1])


def test_the_last_achieved_delta_is_none_and_holds_the_gripper() -> None:
    state = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    assert derived_action("achieved_delta", state, STATE)[-1].tolist() == [0] * 6 + [float(state[-1, 6])]


@pytest.mark.parametrize("derivation", ["next_state", "achieved_delta"])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_short_episode_has_as_many_actions_as_states(derivation: Derivation, steps: int) -> None:
    assert derived_action(derivation, np.ones((steps, 7), np.float32), STATE).shape == (steps, 7)


def test_a_state_that_is_no_rotation_is_refused() -> None:
    space = make_space(name="state", mode="absolute", rotation="quat_xyzw")
    with pytest.raises(SourceError, match="quaternion has length zero"):
        derived_action("achieved_delta", np.zeros((2, 8), np.float32), space)


JOINTS = (Dim("j1", "rad", "absolute", "joint"),)
REFUSED: dict[str, tuple[Space, str]] = {
    "joints": (
        replace(STATE, dims=JOINTS),
        "the state has 0 position and 0 rotation dimensions, with rotation 'euler_xyz'",
    ),
    "another unit": (make_space(mode="absolute", unit="unknown"), "the state has units rad, unknown, not metres"),
    "deltas": (make_space(), "the state has mode delta"),
    "an unknown frame": (replace(STATE, frame="unknown"), "the state is in frame 'unknown'"),
    "the tool's own frame": (replace(STATE, frame="tool"), "needs a pose in a fixed frame"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_achieved_delta_says_which_state_it_needs(what: str) -> None:
    space, why = REFUSED[what]
    found = derived_space("achieved_delta", space)
    assert isinstance(found, str)
    assert why in found


# In a declaration


def test_a_declaration_derives_the_action_in_place_of_its_expressions() -> None:
    spec = declared("achieved_delta")
    assert (spec.derived, spec.expressions, spec.action_parts) == ("achieved_delta", {}, [])
    assert (spec.action_space.origin, spec.action_space.frame) == ("achieved", "base")
    assert [(dim.name, dim.mode) for dim in spec.action_space.dims] == [
        *((name, "delta") for name in ("x", "y", "z", "roll", "pitch", "yaw")),
        ("gripper", "absolute"),
    ]
    spec = declared("next_state")
    assert spec.state_space is not None
    assert spec.action_space == replace(spec.state_space, name="action")
    assert list(spec.embodiment.action.parts) == ["xyz", "rpy", "gripper"]


@pytest.mark.parametrize("derivation", ["next_state", "achieved_delta"])
def test_a_derived_action_is_in_the_manifest_and_read_back(derivation: str) -> None:
    spec = declared(derivation)
    assert spec.to_json()["action"] == {"derive": derivation}
    assert from_json(spec.to_json(), where="manifest") == spec


WRONG = {
    "no action": (
        TOY.replace(ACTION, ""),
        (
            "toy.toml: action: is required; give an expression for each part or, if no commands were recorded, "
            "derive it from the state: action = { derive = 'next_state' } (the state of the next step) or "
            "{ derive = 'achieved_delta' } (the change of pose until the next step)"
        ),
    ),
    "an unknown derivation": (
        'action = { derive = "next" }\n' + TOY.replace(ACTION, ""),
        "toy.toml: action.derive: Input should be 'next_state' or 'achieved_delta'",
    ),
    "expressions too": (
        TOY.replace("[action]", '[action]\nderive = "next_state"'),
        "toy.toml: action: unknown key 'xyz'. (known: derive)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_derivation_names_the_fix(what: str) -> None:
    text, message = WRONG[what]
    with pytest.raises(SpecError) as error:
        load(text)
    assert str(error.value) == message


def test_a_derived_action_needs_a_state_that_gives_it() -> None:
    text = """
    name = "bare"
    action = { derive = "next_state" }
    embodiment = { name = "arm", robot = "toy", controller = "joints" }
    """
    with pytest.raises(SpecError, match=r"action\.derive: 'next_state' needs a state, and the embodiment has"):
        load(text)
    joints = 'parts = { j = "joint a b, rad, absolute" }'
    text = text.replace(
        '"joints" }', f'"joints", state = {{ origin = "achieved", {joints} }} }}\nstate = {{ j = "q" }}'
    )
    assert [dim.name for dim in load(text).action_space.dims] == ["a", "b"]
    with pytest.raises(SpecError, match="'achieved_delta' needs a pose in the state, and the state has 0 position"):
        load(text.replace("next_state", "achieved_delta"))


# Views of it


@pytest.mark.parametrize("derivation", ["next_state", "achieved_delta"])
def test_views_leave_out_the_last_step_whose_action_is_none(derivation: Derivation) -> None:
    spec, stored = declared(derivation), make_episode(5)
    assert stored.state is not None
    action = derived_action(derivation, stored.state, STATE)
    stored = replace(stored, action=action, action_space=spec.action_space)
    assert view_names(spec) == ("eef_delta", "openvla")
    viewed = view(spec, "eef_delta").of(stored)
    assert viewed.mask.tolist() == [True] * 4 + [False]
    expected = derived_action("achieved_delta", stored.state, STATE)[:-1]
    np.testing.assert_allclose(viewed.action, expected, atol=1e-6)
    assert view(spec, "openvla").of(stored).mask.tolist() == [False, True, True, False, False]
    assert len(view(spec, "eef_delta").apply(stored)) == 4


def test_a_view_that_does_not_read_the_action_keeps_the_last_step() -> None:
    text = TOY.replace('after  = ["relabel_achieved_delta(observation.state[:6])"]', 'action = ["observation.state"]')
    assert view(declared("next_state", text=text), "openvla").of(make_episode(5)).mask.tolist() == [False] + [True] * 4


def test_a_source_may_say_that_its_last_action_is_none() -> None:
    def masks(text: str) -> list[Any]:
        return [view(load(text), name).of(make_episode(3)).mask.tolist() for name in ("eef_delta", "openvla")]

    placeholder = 'last_action = "placeholder"\n' + TOY
    assert masks(TOY) == [[True] * 3, [False, True, False]]
    assert masks(placeholder) == [[True, True, False], [False, False, False]]
    assert view(load(placeholder), "eef_delta").digest != view(load(TOY), "eef_delta").digest


def test_an_empty_episode_has_an_empty_view() -> None:
    empty: Array = view(declared("next_state"), "eef_delta").of(make_episode(0)).mask
    assert empty.tolist() == []
