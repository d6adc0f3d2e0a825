import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from schemas.declarations.ops import ROW, drop_first, drop_last, relabel_achieved_delta
from schemas.declarations.vocabulary import ARRAY_OPS, STEP_OPS
from schemas.source import Array

# Outputs of OpenVLA's and Octo's functions, rounded to float32.
EULER_OF_QUATERNION = [
    ([0, 0, 0, 1], [0, 0, 0]),
    ([0.14943813, 0, 0, 0.98877108], [0.3, 0, 0]),
    ([0, 0.14943813, 0, 0.98877108], [0, 0.3, 0]),
    ([0, 0, 0.14943813, 0.98877108], [0, 0, 0.3]),
    ([0.13969404, 0.27938808, 0.41908211, 0.85252452], [0.53072047, 0.36750019, 1.01470292]),
    ([0, 0, 0.99749499, 0.070737202], [0, 0, 3]),
    ([0, 0, -0.14943813, -0.98877108], [0, 0, 0.3]),
    ([0, 0, 0, 2], [0, 0, 0]),
    ([1, 0, 0, 0], [np.pi, 0, 0]),
]
VECTORS = npst.arrays(np.float32, (5, 4), elements=st.floats(-10, 10, width=32))


@pytest.mark.parametrize(("quaternion", "euler"), EULER_OF_QUATERNION)
def test_quat_xyzw_to_euler_answers_as_tensorflow_graphics(quaternion: list[float], euler: list[float]) -> None:
    out = ARRAY_OPS["quat_xyzw_to_euler"](np.array([quaternion], np.float32))
    np.testing.assert_allclose(out[0], euler, atol=2e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_quat_xyzw_to_euler_finds_the_pole(sign: int) -> None:
    out = ARRAY_OPS["quat_xyzw_to_euler"](np.float32([[0, sign * 0.70710678, 0, 0.70710678]]))
    np.testing.assert_allclose(out[0, 1], sign * np.pi / 2, atol=1e-3)


def test_a_quaternion_longer_than_one_gets_the_nearest_pitch_where_upstream_makes_nan() -> None:
    out = ARRAY_OPS["quat_xyzw_to_euler"](np.float32([[0, 1, 0, 1]]))
    np.testing.assert_allclose(out, [[0, np.pi / 2, 0]], atol=1e-6)


@given(npst.arrays(np.float32, (5, 4), elements=st.floats(-1, 1, width=32)))
def test_quat_xyzw_to_euler_of_rotations_is_scipys(quaternions: Array) -> None:
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    unit = np.where(length > 0.1, quaternions / np.maximum(length, 0.1), [0, 0, 0, 1]).astype(np.float32)
    angles = Rotation.from_quat(unit).as_euler("xyz", suppress_warnings=True)
    is_plain = np.abs(np.sin(angles[:, 1])) < 0.99
    found = Rotation.from_euler("xyz", ARRAY_OPS["quat_xyzw_to_euler"](unit)[is_plain])
    assert (found * Rotation.from_quat(unit[is_plain]).inv()).magnitude().max(initial=0) < 1e-5


@given(npst.arrays(np.float32, (6, 3), elements=st.floats(-3, 3, width=32)))
def test_targets_and_poses_become_the_turns_between_them(angles: Array) -> None:
    poses = np.concatenate([angles[:, ::-1], angles, angles[:, :1]], axis=1)
    rotations = Rotation.from_euler("xyz", angles.astype(np.float64))
    for op, kept in (("abs_to_delta", poses[1:, 6]), ("achieved_delta", poses[:-1, 6])):
        found = STEP_OPS[op]({"action": poses})["action"]
        np.testing.assert_array_equal(found[:, :3], poses[1:, :3] - poses[:-1, :3])
        turned = Rotation.from_euler("xyz", found[:, 3:6].astype(np.float64)) * rotations[:-1]
        assert (turned * rotations[1:].inv()).magnitude().max() < 2e-3  # float32 angles near the pole
        np.testing.assert_array_equal(found[:, 6], kept)


@given(npst.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(2)), elements=st.sampled_from([0.0, 1.0])))
def test_still_steps_are_those_that_the_loop_leaves_out(action: Array) -> None:
    kept: list[int] = []
    for i, row in enumerate(action):
        if abs(row[0]) >= 1e-4 or (kept and row[1] != action[kept[-1], 1]):
            kept.append(i)
    np.testing.assert_array_equal(STEP_OPS["drop_noops"]({"action": action})["action"], action[kept])


@given(st.floats(-20, 20, width=32))
def test_wrapped_angles_point_the_same_way(angle: float) -> None:
    wrapped = float(ARRAY_OPS["wrap_pi"](np.float32([[angle]]))[0, 0])
    assert -np.pi - 1e-5 <= wrapped <= np.pi + 1e-5
    np.testing.assert_allclose([np.cos(wrapped), np.sin(wrapped)], [np.cos(angle), np.sin(angle)], atol=1e-5)


@given(npst.arrays(np.float32, (4, 3), elements=st.floats(-0.75, 0.75, width=32)))
def test_rotvec_to_euler_is_rodrigues(rotvec: Array) -> None:
    for v, (roll, pitch, yaw) in zip(rotvec.astype(np.float64), ARRAY_OPS["rotvec_to_euler"](rotvec), strict=True):
        angle = np.linalg.norm(v)
        k = np.cross(np.eye(3), v / angle) if angle else np.zeros((3, 3))
        matrix = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
        r20, r21, r22 = matrix[2]
        expected = np.arctan2(r21, r22), -np.arcsin(r20), np.arctan2(matrix[1, 0], matrix[0, 0])
        np.testing.assert_allclose((roll, pitch, yaw), expected, atol=1e-5)


@given(VECTORS, st.floats(-2, 2), st.floats(-2, 2))
def test_the_arithmetic_ops_are_float32_arithmetic(x: Array, a: float, b: float) -> None:
    low, high = np.float32(min(a, b)), np.float32(max(a, b))
    expected = {
        "clip": (np.minimum(np.maximum(x, low), high), (low, high)),
        "invert": (np.float32(1) - x, ()),
        "scale": (x * np.float32(a), (a,)),
        "shift": (x + np.float32(a), (a,)),
        "permute": (x[:, [3, 1, 2, 0]], (3.0, 1.0, 2.0, 0.0)),
        "deg2rad": (x * np.float32(np.pi / 180), ()),
    }
    for name, (values, args) in expected.items():
        out = ARRAY_OPS[name](x, *args)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, values)


def test_invert_does_not_clip() -> None:
    assert ARRAY_OPS["invert"](np.float32([[-1], [2]])).ravel().tolist() == [2, -1]


@given(VECTORS, st.data())
def test_relabel_takes_the_change_until_the_next_step_and_keeps_the_gripper(action: Array, data: st.DataObject) -> None:
    state = data.draw(npst.arrays(np.float32, (5, 3), elements=st.floats(-10, 10, width=32)))
    out = relabel_achieved_delta({"action": action, ROW: np.arange(5)}, state)
    expected = [[*(state[t + 1] - state[t]), action[t, -1]] for t in range(4)]
    np.testing.assert_array_equal(out["action"], np.array(expected, np.float32))
    assert out[ROW].tolist() == [0, 1, 2, 3]


def test_relabel_does_not_wrap_angles() -> None:
    state = np.float32([[0, 3.1], [0.1, -3.1]])
    out = relabel_achieved_delta({"action": np.float32([[9, 1], [9, 0]])}, state)
    np.testing.assert_array_equal(out["action"], np.float32([[np.float32(0.1), np.float32(-3.1) - np.float32(3.1), 1]]))


@pytest.mark.parametrize("steps", [0, 1])
def test_relabel_leaves_nothing_of_an_episode_without_a_next_step(steps: int) -> None:
    columns = {"action": np.zeros((steps, 7), np.float32), ROW: np.arange(steps)}
    out = relabel_achieved_delta(columns, np.zeros((steps, 6), np.float32))
    assert out["action"].shape == (0, 7)
    assert len(out[ROW]) == 0


@given(st.integers(0, 5), st.integers(0, 8))
def test_drops_take_every_column_from_its_end(steps: int, count: int) -> None:
    columns = {"action": np.arange(steps), "raw.a": np.arange(steps) * 2}
    for path, column in columns.items():
        assert drop_first(columns, count)[path].tolist() == column.tolist()[count:]
        assert drop_last(columns, count)[path].tolist() == column.tolist()[: max(0, steps - count)]


def test_no_op_changes_what_it_is_given() -> None:
    x = np.float32([[0.5, 1, 0.2, 0.3]])
    x = np.concatenate([x, np.eye(3, dtype=np.float32).reshape(1, 9)], axis=1)
    args = {
        "clip": (0, 1),
        "scale": (2,),
        "shift": (2,),
        "permute": (3, 2, 1, 0),
        "constant": (0, 2),
        "added_rotvec_to_euler": (x[:, :3],),
        "pose_to_delta": (x[:, :6],),
        "to_wrist_frame": (x[:, :6],),
    }
    widths = {"quat": slice(4), "rotvec": slice(3), "added": slice(3), "euler": slice(3), "matrix": slice(4, 13)}
    widths |= {"pose": slice(6), "to": slice(6)}
    for name, op in ARRAY_OPS.items():
        before = x[:, widths.get(name.partition("_")[0], slice(None))].copy()
        given_x = before.copy()
        op(given_x, *args.get(name, ()))
        np.testing.assert_array_equal(given_x, before)


def test_every_op_has_a_sentence_and_an_example() -> None:
    for op in [*ARRAY_OPS.values(), *STEP_OPS.values()]:
        assert ">>>" in (inspect.getdoc(op) or "")
