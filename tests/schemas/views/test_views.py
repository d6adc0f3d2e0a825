import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import ViewError
from schemas.source import Array
from schemas.spaces import Dim, Space
from schemas.views.eef import eef_delta, eef_delta_space
from schemas.views.views import view, view_names
from tests.schemas.makers import TOY, load, make_episode, make_space

GOLDEN = Path(__file__).parents[2] / "golden" / "bridge_openvla.json"
REPRESENTATIONS = ("euler_xyz", "rotvec", "quat_xyzw", "quat_wxyz")


def matrices(numbers: Array, representation: str) -> Array:
    """Convert rotations to matrices, each representation by its textbook formula."""
    if representation == "euler_xyz":
        roll, pitch, yaw = (Rotation.from_euler(a, numbers[:, [i]]).as_matrix() for i, a in enumerate("xyz"))
        return np.asarray(yaw @ pitch @ roll)
    if representation == "rotvec":
        return np.asarray(Rotation.from_rotvec(numbers).as_matrix())
    x, y, z, w = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).T[
        [0, 1, 2, 3] if representation == "quat_xyzw" else [1, 2, 3, 0]
    ]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def poses(representation: str, *, steps: int = 3) -> st.SearchStrategy[Array]:
    """Draw [steps, 3 + 3 or 4] positions and rotations."""
    size = 4 if representation.startswith("quat") else 3
    rotation = npst.arrays(np.float32, (steps, size), elements=st.floats(-1.5, 1.5, width=32))
    far = rotation.filter(lambda x: size == 3 or (np.linalg.norm(x, axis=1) > 0.1).all())
    position = npst.arrays(np.float32, (steps, 3), elements=st.floats(-1, 1, width=32))
    return st.builds(lambda p, r: np.concatenate([p, r], axis=1), position, far)


def with_gripper(pose: Array) -> Array:
    return np.concatenate([pose, np.linspace(0, 1, len(pose), dtype=np.float32)[:, None]], axis=1)


@pytest.mark.parametrize(("frame", "mode"), [("base", "delta"), ("tool", "delta"), ("base", "absolute")])
@pytest.mark.parametrize("of_state", REPRESENTATIONS)
@pytest.mark.parametrize("of_action", REPRESENTATIONS)
@settings(max_examples=25)
@given(data=st.data())
def test_eef_delta_leads_from_the_measured_pose_to_the_commanded_one(
    frame: str, mode: str, of_state: str, of_action: str, data: st.DataObject
) -> None:
    """p' = p + dp and R' = dR R, composed from matrices."""
    action, state = with_gripper(data.draw(poses(of_action))), with_gripper(data.draw(poses(of_state)))
    action_space = make_space(mode=mode, frame=frame, rotation=of_action)
    state_space = make_space(name="state", mode="absolute", rotation=of_state)
    out = eef_delta({"action": action, "observation.state": state}, action_space, state_space)
    assert out.shape == (len(action), 7)
    assert out.dtype == np.float32
    at, r = state[:, :3].astype(np.float64), matrices(state[:, 3:-1].astype(np.float64), of_state)
    by, turn = action[:, :3].astype(np.float64), matrices(action[:, 3:-1].astype(np.float64), of_action)
    if mode == "absolute":
        target, target_r = by, turn
    elif frame == "tool":
        target, target_r = at + np.einsum("tij,tj->ti", r, by), r @ turn
    else:
        target, target_r = at + by, turn @ r
    np.testing.assert_allclose(at + out[:, :3], target, atol=1e-5)
    np.testing.assert_allclose(matrices(out[:, 3:6].astype(np.float64), "euler_xyz") @ r, target_r, atol=2e-3)
    np.testing.assert_array_equal(out[:, 6], action[:, -1])


def test_recorded_base_frame_deltas_in_roll_pitch_yaw_pass_bit_for_bit() -> None:
    action = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    assert eef_delta({"action": action}, make_space(), None).tobytes() == action.tobytes()


def test_eef_delta_says_what_it_means() -> None:
    space = eef_delta_space(make_space(frame="tool", rotation="rotvec"), make_space(mode="absolute", frame="world"))
    assert isinstance(space, Space)
    assert [dim.name for dim in space.dims] == ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    assert [dim.mode for dim in space.dims] == ["delta"] * 6 + ["absolute"]
    assert (space.frame, space.rotation, space.gripper, space.origin) == (
        "world",
        "euler_xyz",
        "open_is_1",
        "commanded",
    )


STATE = make_space(name="state", mode="absolute")
JOINTS = make_space(dims=tuple(Dim(f"joint_{i}", "rad", "absolute", "joint") for i in range(7)))
REFUSALS: dict[str, tuple[Space, Space | None, str]] = {
    "joints": (JOINTS, None, "its action has 0 position and 0 rotation dimensions, with rotation 'euler_xyz'"),
    "no rotation": (
        make_space(rotation="none"),
        None,
        "its action has 3 position and 3 rotation dimensions, with rotation 'none'",
    ),
    "disputed rotation": (
        make_space(rotation="unknown"),
        None,
        "its action has 3 position and 3 rotation dimensions, with rotation 'unknown'",
    ),
    "only a yaw": (
        make_space(dims=(*make_space().dims[:3], *make_space().dims[5:])),
        None,
        "its action has 3 position and 1 rotation dimensions, with rotation 'euler_xyz'",
    ),
    "no metres": (
        make_space(unit="controller"),
        None,
        "its action has units controller, rad, not metres and radians",
    ),
    "velocities": (make_space(mode="velocity"), None, "its action has mode velocity"),
    "mixed modes": (
        make_space(dims=(*make_space().dims[:3], *make_space(mode="absolute").dims[3:])),
        None,
        "its action has mode absolute and delta",
    ),
    "disputed frame": (make_space(frame="unknown"), None, "its action is in frame 'unknown'"),
    "disputed gripper": (
        make_space(gripper="unknown"),
        None,
        "its action has 1 gripper dimensions, with gripper 'unknown'",
    ),
    "no gripper": (
        make_space(dims=make_space().dims[:6], gripper="none"),
        None,
        "its action has 0 gripper dimensions, with gripper 'none'",
    ),
    "tool frame without a state": (
        make_space(frame="tool"),
        None,
        "it needs a pose in the state, and there is no state",
    ),
    "absolute without a state": (
        make_space(mode="absolute"),
        None,
        "it needs a pose in the state, and there is no state",
    ),
    "a state of joints": (
        make_space(frame="tool"),
        JOINTS,
        (
            "it needs a pose in the state, and its state has 0 position and 0 rotation dimensions, "
            "with rotation 'euler_xyz'"
        ),
    ),
    "a state in other units": (
        make_space(mode="absolute"),
        make_space(mode="absolute", unit="unknown"),
        "it needs a pose in the state, and its state has units rad, unknown, not metres and radians",
    ),
    "a state of deltas": (
        make_space(mode="absolute"),
        make_space(),
        "it needs a pose in the state, and its state has mode delta",
    ),
    "another frame": (
        make_space(mode="absolute"),
        replace(STATE, frame="world"),
        "its action is in frame 'base', its state in 'world'",
    ),
    "a state in the tool's own frame": (
        make_space(frame="tool"),
        replace(STATE, frame="tool"),
        "its action is in frame 'tool', its state in 'tool'",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_eef_delta_says_why_it_cannot_be_given(what: str) -> None:
    action, state, why = REFUSALS[what]
    assert eef_delta_space(action, state) == why


def refusing() -> DatasetSpec:
    declared = load()
    action = declared.embodiment.action.model_copy(update={"frame": "unknown"})
    return declared.model_copy(update={"embodiment": declared.embodiment.model_copy(update={"action": action})})


def test_a_view_that_cannot_be_derived_is_refused_with_the_reason() -> None:
    assert view_names(refusing()) == ("openvla",)
    with pytest.raises(ViewError) as error:
        view(refusing(), "eef_delta")
    assert str(error.value) == "toy has no view 'eef_delta': its action is in frame 'unknown'"


def test_an_unknown_view_gets_the_closest() -> None:
    with pytest.raises(ViewError) as error:
        view(load(), "octo")
    assert str(error.value) == (
        "toy has no view 'octo': its declaration does not say how Octo reads it; only datasets that the project "
        "trained on have it: use the view 'eef_delta' to train it on this one"
    )
    with pytest.raises(ViewError) as error:
        view(load(), "x")
    assert str(error.value) == "toy has no view 'x'. (known: eef_delta, openvla)"
    with pytest.raises(ViewError, match=r"'open_vla'; did you mean 'openvla'\? \(known: eef_delta, openvla\)"):
        view(load(), "open_vla")


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: case["reference"].split()[-1])
def test_bridge_gives_openvla_what_its_own_code_makes(case: dict[str, Any]) -> None:
    action, state = np.float32(case["action"]), np.float32(case["state"])
    declared = catalog.dataset("bridge_dataset")
    steps = {"action": action, "observation.state": state}
    stored = np.concatenate([expression(steps) for expression in declared.action_parts], axis=1)
    assert stored.tobytes() == action.tobytes()
    columns = {"action": stored, "observation.state": state}
    viewed = view(declared, "openvla").of_columns(columns, length=len(action))
    np.testing.assert_allclose(viewed.action, np.float32(case["expected_action"]), atol=2e-5)
    assert viewed.mask.tolist() == [False, *[True] * (len(action) - 2), False]
    assert view(declared, "openvla").space.origin == "achieved"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_short_episode_has_no_more_viewed_steps_than_it_can(steps: int) -> None:
    viewed = view(load(), "openvla").of(make_episode(steps))
    assert viewed.action.shape == (max(0, steps - 2), 7)
    assert viewed.mask.sum() == max(0, steps - 2)


def test_masked_steps_are_removed_and_the_ends_are_marked_anew() -> None:
    stored = make_episode(5)
    viewed = view(load(), "openvla").apply(stored)
    assert len(viewed) == 3
    assert viewed.is_first is not None
    assert viewed.is_last is not None
    assert viewed.is_first.tolist() == [True, False, False]
    assert viewed.is_last.tolist() == [False, False, True]
    assert viewed.action_space == view(load(), "openvla").space
    assert viewed.images["image"] == stored.images["image"][1:4]
    assert viewed.state is not None
    assert stored.state is not None
    np.testing.assert_array_equal(viewed.state, stored.state[1:4])
    np.testing.assert_array_equal(viewed.action[:, :6], np.diff(stored.state[1:5, :6], axis=0))
    assert len(stored) == 5


def test_a_view_of_a_column_that_was_not_stored_says_which() -> None:
    text = TOY.replace('before = ["drop_first(1)"]', 'action = ["raw.torqe", "action[:5]"]')
    with pytest.raises(ViewError) as error:
        view(load(text), "openvla").of(make_episode())
    assert str(error.value) == (
        "view 'openvla': unknown key 'raw.torqe'; did you mean 'raw.torque'? "
        "(known: action, observation.state, raw.torque)"
    )


def test_eef_delta_of_an_episode_without_its_state_says_so() -> None:
    declared = catalog.dataset("demo_bench")
    episode = make_episode(action_space=make_space(frame="tool", rotation="rotvec"), state=None, state_space=None)
    with pytest.raises(ViewError, match=r"view 'eef_delta': unknown key 'observation.state'"):
        view(declared, "eef_delta").of(episode)


def test_openvla_oft_is_openvla_where_it_is_not_declared() -> None:
    bridge, libero = (catalog.dataset(name) for name in ("bridge_dataset", "libero_10_no_noops"))
    for name in ("openvla_oft", "openvla-oft"):
        assert view(bridge, name).digest == view(bridge, "openvla").digest
        assert view(libero, name).name == "openvla_oft"
    with pytest.raises(ViewError, match="has no view 'openvla'"):
        view(catalog.dataset("gnm_dataset"), "openvla_oft")
