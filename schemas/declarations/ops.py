"""The ops that any declaration may use: small, pure, vectorized functions.

Array ops take [T, k] float32 and stand behind `|` in an expression. Step ops take all per-step arrays of an episode and
stand in a view's `before` and `after`. To add one, write the function and enter it in `vocabulary.py`.
"""

from collections.abc import Mapping

import numpy as np

from schemas.declarations.rotations import from_euler, matrices, to_euler, to_rotation
from schemas.source import Array

Steps = Mapping[str, Array]  # path -> T values; ROW says which stored step each one came from
ROW = "#row"
GIMBAL = 1e-6  # how near to 1 the sine of the pitch counts as 90 degrees

# Numbers


def clip(x: Array, low: float, high: float) -> Array:
    """Limit to [low, high].

    >>> clip(np.float32([[-1], [0.4]]), 0, 1).ravel().tolist()
    [0.0, 0.4000000059604645]
    """
    return np.clip(x, np.float32(low), np.float32(high))


def invert(x: Array) -> Array:
    """Swap 0 and 1; nothing is clipped.

    >>> invert(np.float32([[0], [1]])).ravel().tolist()
    [1.0, 0.0]
    """
    return np.float32(1) - x


def scale(x: Array, factor: float) -> Array:
    """Multiply, e.g. millimetres to metres by 1/1000.

    >>> scale(np.float32([[50]]), 1 / 1000).ravel().tolist()
    [0.05000000074505806]
    """
    return x * np.float32(factor)


def shift(x: Array, offset: float) -> Array:
    """Add. `shift(1) | scale(1/2)` maps [-1, 1] to [0, 1].

    >>> shift(np.float32([[-1]]), 1).ravel().tolist()
    [0.0]
    """
    return x + np.float32(offset)


def deg2rad(x: Array) -> Array:
    """Turn degrees into radians.

    >>> deg2rad(np.float32([[180]])).ravel().tolist()
    [3.1415927410125732]
    """
    return x * np.float32(np.pi / 180)


def wrap_pi(x: Array) -> Array:
    """Bring angles in radians into [-pi, pi).

    >>> wrap_pi(np.float32([[-6.2]])).round(3).tolist()
    [[0.08299999684095383]]
    """
    turn = np.float32(2 * np.pi)
    return x - turn * np.floor(x / turn + np.float32(0.5))


def constant(x: Array, value: float, count: int) -> Array:
    """Give `count` columns of one number instead, for dimensions that a robot does not have.

    >>> constant(np.float32([[7], [8]]), 0, 2).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return np.full((len(x), int(count)), value, np.float32)


def permute(x: Array, *order: int) -> Array:
    """Reorder the columns.

    >>> permute(np.float32([[1, 2, 3]]), 2, 1, 0).tolist()
    [[3.0, 2.0, 1.0]]
    """
    return x[:, [int(i) for i in order]]


# Rotations


def quat_xyzw_to_euler(x: Array) -> Array:
    """Turn [T, 4] quaternions (x, y, z, w) into roll, pitch, yaw as tensorflow-graphics does: nothing is normalized.

    Where OpenVLA and Octo get NaN, because a quaternion is longer than 1, the pitch is that of the nearest rotation.
    At a pitch of 90 degrees the yaw is 0.

    >>> quat_xyzw_to_euler(np.float32([[0, 0, 0, 2], [1, 0, 0, 0]])).round(4).tolist()
    [[0.0, 0.0, 0.0], [3.1415998935699463, 0.0, 0.0]]
    """
    x, y, z, w = x[:, 0], x[:, 1], x[:, 2], x[:, 3]
    one, two = np.float32(1), np.float32(2)
    sine = np.clip(two * (x * z - w * y), -one, one)  # element 20 of the rotation matrix
    roll = np.arctan2(two * (y * z + w * x), one - two * (x * x + y * y))
    yaw = np.arctan2(two * (x * y + w * z), one - two * (y * y + z * z))
    locked, sign = np.abs(np.abs(sine) - one) < GIMBAL, np.sign(sine)
    turned = np.arctan2(-sign * two * (x * y - w * z), -sign * two * (x * z + w * y))
    pitch = np.where(locked, -sign * np.float32(np.pi / 2), -np.arcsin(sine))
    angles = (np.where(locked, turned, roll), pitch, np.where(locked, np.float32(0), yaw))
    return np.stack(angles, axis=1).astype(np.float32) + np.float32(0)  # no -0


def rotvec_to_euler(x: Array) -> Array:
    """Turn [T, 3] rotation vectors (axis times angle, radians) into roll, pitch, yaw.

    >>> rotvec_to_euler(np.float32([[0, 0, 0.5]])).tolist()
    [[0.0, 0.0, 0.5]]
    """
    return to_euler(to_rotation(x, "rotvec"))


def matrix_to_euler(x: Array) -> Array:
    """Turn [T, 9] rotation matrices, row by row, into roll, pitch, yaw.

    >>> matrix_to_euler(np.float32([[0, -1, 0, 1, 0, 0, 0, 0, 1]])).round(4).tolist()
    [[0.0, 0.0, 1.5707999467849731]]
    """
    return to_euler(matrices(x.reshape(len(x), 3, 3)))


def euler_zxy_to_euler(x: Array) -> Array:
    """Turn [T, 3] angles of scipy's "zxy" (about fixed z, then x, then y) into roll, pitch, yaw.

    >>> euler_zxy_to_euler(np.float32([[0, 0.1, 0.2]])).round(4).tolist()
    [[0.10000000149011612, 0.20000000298023224, 0.0]]
    """
    return to_euler(from_euler(x, "zxy"))


def added_rotvec_to_euler(x: Array, at: Array) -> Array:
    """Turn changes that are added to the rotation vectors `at` into roll, pitch, yaw of the turn that they cause.

    >>> added_rotvec_to_euler(np.float32([[0, 0, 0.1]]), np.float32([[0, 0, 1]])).round(4).tolist()
    [[0.0, 0.0, 0.10000000149011612]]
    """
    target = to_rotation(x.astype(np.float64) + at, "rotvec")
    return to_euler(target * to_rotation(at, "rotvec").inv())


def pose_to_delta(x: Array, at: Array) -> Array:
    """Turn [T, 6] target poses (x, y, z, roll, pitch, yaw) into their difference from the poses `at` of the same steps.

    >>> pose_to_delta(np.float32([[2, 0, 0, 0, 0, -3.1]]), np.float32([[1, 0, 0, 0, 0, 3.1]])).round(3).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383]]
    """
    if not len(x):
        return x
    turn = to_rotation(x[:, 3:6], "euler_xyz") * to_rotation(at[:, 3:6], "euler_xyz").inv()
    return np.concatenate([x[:, :3] - at[:, :3], to_euler(turn)], axis=1)


# All steps of an episode


def drop_first(steps: Steps, count: int) -> Steps:
    """Leave out the first `count` steps.

    >>> drop_first({"action": np.arange(3)}, 1)["action"].tolist()
    [1, 2]
    """
    return {path: column[int(count) :] for path, column in steps.items()}


def drop_last(steps: Steps, count: int) -> Steps:
    """Leave out the last `count` steps.

    >>> drop_last({"action": np.arange(3)}, 1)["action"].tolist()
    [0, 1]
    """
    return {path: column[: max(0, len(column) - int(count))] for path, column in steps.items()}


def stride(steps: Steps, count: int) -> Steps:
    """Keep every `count`-th step, the first one included.

    >>> stride({"action": np.arange(5)}, 2)["action"].tolist()
    [0, 2, 4]
    """
    return {path: column[:: max(1, int(count))] for path, column in steps.items()}


def drop_noops(steps: Steps) -> Steps:
    """Leave out steps that move by less than 1e-4 and keep the gripper (last column) as the last step that is kept.

    Still steps at the beginning are left out whatever their gripper does. Source: OpenVLA's regeneration of LIBERO.

    >>> drop_noops({"action": np.float32([[0, 1], [1, 1], [0, 1], [0, 0]])})["action"].tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    action = steps["action"]
    moves = np.linalg.norm(action[:, :-1], axis=1) >= 1e-4
    grips = np.concatenate([[False], action[1:, -1] != action[:-1, -1]])[: len(action)]
    kept = moves | (grips & np.logical_or.accumulate(moves))
    return {path: column[kept] for path, column in steps.items()}


def abs_to_delta(steps: Steps) -> Steps:
    """Replace absolute targets (x, y, z, roll, pitch, yaw first) by their change since the target before.

    The rotation is that of R' R⁻¹; further columns stay; the first step, which has no target before, is left out.

    >>> steps = {"action": np.float32([[1, 0, 0, 0, 0, 3.1, 1], [3, 0, 0, 0, 0, -3.1, 0]])}
    >>> abs_to_delta(steps)["action"].round(3).tolist()
    [[2.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383, 0.0]]
    """
    action = steps["action"]
    delta = pose_to_delta(action[1:, :6], action[:-1, :6])
    return {**drop_first(steps, 1), "action": np.concatenate([delta, action[1:, 6:]], axis=1)}


def achieved_delta(steps: Steps) -> Steps:
    """Replace measured poses (x, y, z, roll, pitch, yaw first) by their change until the next step.

    The rotation is that of R' R⁻¹; further columns stay; the last step, which has no next, is left out.

    >>> steps = {"action": np.float32([[1, 0, 0, 0, 0, 3.1, 1], [3, 0, 0, 0, 0, -3.1, 0]])}
    >>> achieved_delta(steps)["action"].round(3).tolist()
    [[2.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383, 1.0]]
    """
    action = steps["action"]
    delta = pose_to_delta(action[1:, :6], action[:-1, :6])
    return {**drop_last(steps, 1), "action": np.concatenate([delta, action[:-1, 6:]], axis=1)}


def relabel_achieved_delta(steps: Steps, state: Array) -> Steps:
    """Replace each action by the change of `state` [T, k] until the next step, keeping its gripper (last column).

    The last step, which has no next, is left out. Angles are not wrapped: a yaw of 3.1 -> -3.1 gives -6.2, as in the
    published statistics. Source: OpenVLA and Octo, `relabel_bridge_actions`.

    >>> steps = {"action": np.float32([[9, 1], [9, 0]])}
    >>> relabel_achieved_delta(steps, np.float32([[2], [5]]))["action"].tolist()
    [[3.0, 1.0]]
    """
    achieved = np.concatenate([state[1:] - state[:-1], steps["action"][:-1, -1:]], axis=1)
    return {**drop_last(steps, 1), "action": achieved}
