import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.declarations.rotations import to_euler, to_rotation
from schemas.errors import SourceError

ANGLES = st.tuples(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))


def axis(i: int, angle: float) -> np.ndarray:
    """Return the matrix of a rotation about one axis, by the textbook formula."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array(
        [[[1, 0, 0], [0, c, -s], [0, s, c]], [[c, 0, s], [0, 1, 0], [-s, 0, c]], [[c, -s, 0], [s, c, 0], [0, 0, 1]]]
    )[i]


@given(ANGLES)
def test_roll_pitch_yaw_is_rz_ry_rx(angles: tuple[float, float, float]) -> None:
    roll, pitch, yaw = angles
    expected = axis(2, yaw) @ axis(1, pitch) @ axis(0, roll)
    assert np.allclose(to_rotation(np.array([angles]), "euler_xyz").as_matrix()[0], expected)


def test_the_euler_matrix_is_tensorflow_graphics_one() -> None:
    expected = [
        [0.9362934231758118, -0.2750958502292633, 0.21835066378116608],
        [0.2896294891834259, 0.956425130367279, -0.036957018077373505],
        [-0.19866932928562164, 0.09784340113401413, 0.975170373916626],
    ]
    assert np.allclose(to_rotation(np.array([[0.1, 0.2, 0.3]]), "euler_xyz").as_matrix()[0], expected, atol=1e-6)


@given(ANGLES)
def test_every_representation_of_a_rotation_is_read_as_it(angles: tuple[float, float, float]) -> None:
    rotation = to_rotation(np.array([angles]), "euler_xyz")
    written = {
        "rotvec": rotation.as_rotvec(),
        "quat_xyzw": rotation.as_quat() * 3,  # the length of a quaternion does not matter
        "quat_wxyz": np.roll(rotation.as_quat(), 1, axis=1),
    }
    for representation, numbers in written.items():
        assert np.allclose(to_rotation(numbers, representation).as_matrix(), rotation.as_matrix(), atol=1e-12)


def test_a_quaternion_of_length_zero_is_refused() -> None:
    with pytest.raises(SourceError, match="a quaternion has length zero") as error:
        to_rotation(np.float32([[0, 0, 0, 1], [0, 0, 0, 0]]), "quat_xyzw")
    assert error.value.reason == "bad_rotation"


def test_zero_steps_stay_zero_steps() -> None:
    for representation, size in {"euler_xyz": 3, "rotvec": 3, "quat_xyzw": 4, "quat_wxyz": 4}.items():
        assert to_euler(to_rotation(np.zeros((0, size)), representation)).shape == (0, 3)


def test_gimbal_lock_gives_an_equal_rotation_without_a_warning() -> None:
    quaternion = np.array([[0, np.sqrt(0.5), 0, np.sqrt(0.5)]])
    euler = to_euler(to_rotation(quaternion, "quat_xyzw"))
    assert euler.dtype == np.float32
    again = to_rotation(euler, "euler_xyz").as_matrix()
    assert np.allclose(again, to_rotation(quaternion, "quat_xyzw").as_matrix(), atol=1e-6)


def test_a_representation_that_is_none_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="unknown"):
        to_rotation(np.zeros((1, 3)), "unknown")
