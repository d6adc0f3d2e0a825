import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from schemas.declarations.hooks.droid import drop_idle, to_wrist_frame
from schemas.source import Array

SIX = npst.arrays(np.float32, (4, 6), elements=st.floats(-1.5, 1.5, width=32))


@given(SIX, SIX)
def test_a_velocity_in_the_wrist_frame_turned_back_is_the_velocity(velocity: Array, pose: Array) -> None:
    found = to_wrist_frame(velocity, pose).astype(np.float64)
    wrist = Rotation.from_euler("xyz", pose[:, 3:].astype(np.float64))
    np.testing.assert_allclose(wrist.apply(found[:, :3]), velocity[:, :3], atol=1e-5)
    rows = found[:, 3:].reshape(-1, 2, 3)
    matrix = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
    turned = wrist * Rotation.from_matrix(matrix) * wrist.inv()
    expected = Rotation.from_euler("xyz", velocity[:, 3:].astype(np.float64))
    assert (turned * expected.inv()).magnitude().max() < 1e-5


def test_an_episode_without_steps_has_none_in_any_frame() -> None:
    assert to_wrist_frame(np.zeros((0, 6), np.float32), np.zeros((0, 6), np.float32)).shape == (0, 9)


def test_a_gripper_that_moves_alone_is_idle() -> None:
    steps = {"action": np.float32([[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1e-3, 0, 1]]), "row": np.arange(2)}
    assert drop_idle(steps)["row"].tolist() == [1]
