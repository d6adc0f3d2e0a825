"""The ops of declarations: small, pure, vectorized functions.

Array ops take [T, k] float32 and follow a `|` in an expression. Step ops take all per-step arrays of an episode; the
keys `before` and `after` of a view list them. To add an op, write the function and list it in `vocabulary.py`.
"""

from collections.abc import Mapping

import numpy as np

from schemas.declarations.rotations import from_euler, matrices, to_euler, to_rotation
from schemas.source import Array

Steps = Mapping[str, Array]  # path -> T values; ROW -> the index of the stored step of each value
ROW = "#row"
VIEW_STATE = "#state"  # the state that a view computes; `observation.state` is always the stored one
GIMBAL = 1e-6  # if the sine of the pitch is this close to 1, the pitch counts as 90 degrees

# Numbers


def clip(x: Array, low: float, high: float) -> Array:
    """Clip to [low, high].

    >>> clip(np.float32([[-1], [0.4]]), 0, 1).ravel().tolist()
    [0.0, 0.4000000059604645]
    """
    return np.clip(x, np.float32(low), np.float32(high))


def invert(x: Array) -> Array:
    """Swap 0 and 1 (1 - x), without clipping.

    >>> invert(np.float32([[0], [1]])).ravel().tolist()
    [1.0, 0.0]
    """
    return np.float32(1) - x


def scale(x: Array, factor: float, *more: float) -> Array:
    """Multiply by a factor, such as 1/1000 for millimetres to metres, or by one factor for each column.

    >>> scale(np.float32([[50]]), 1 / 1000).ravel().tolist()
    [0.05000000074505806]
    >>> scale(np.float32([[1, 2]]), 10, 100).tolist()
    [[10.0, 200.0]]
    """
    if more and len(more) + 1 != x.shape[1]:
        raise ValueError(f"expected one factor, or {x.shape[1]}, got {len(more) + 1}")
    return x * np.array([factor, *more], np.float32)


def shift(x: Array, offset: float) -> Array:
    """Add an offset. `shift(1) | scale(1/2)` maps [-1, 1] to [0, 1].

    >>> shift(np.float32([[-1]]), 1).ravel().tolist()
    [0.0]
    """
    return x + np.float32(offset)


def deg2rad(x: Array) -> Array:
    """Convert degrees to radians.

    >>> deg2rad(np.float32([[180]])).ravel().tolist()
    [3.1415927410125732]
    """
    return x * np.float32(np.pi / 180)


def wrap_pi(x: Array) -> Array:
    """Wrap angles in radians to [-pi, pi).

    >>> wrap_pi(np.float32([[-6.2]])).round(3).tolist()
    [[0.08299999684095383]]
    """
    turn = np.float32(2 * np.pi)
    return x - turn * np.floor(x / turn + np.float32(0.5))


def constant(x: Array, value: float, count: int) -> Array:
    """Return `count` columns of one number, for dimensions that a robot does not have.

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
    """Convert [T, 4] quaternions (x, y, z, w) to roll, pitch, yaw like tensorflow-graphics, without normalizing them.

    If a quaternion is longer than 1, the sine of its pitch may be outside [-1, 1]. OpenVLA and Octo then compute NaN;
    this op clips the sine. At a pitch of 90 degrees the yaw is 0.

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
    """Convert [T, 3] rotation vectors (axis times angle, radians) to roll, pitch, yaw.

    >>> rotvec_to_euler(np.float32([[0, 0, 0.5]])).tolist()
    [[0.0, 0.0, 0.5]]
    """
    return to_euler(to_rotation(x, "rotvec"))


def matrix_to_euler(x: Array) -> Array:
    """Convert [T, 9] rotation matrices in row-major order to roll, pitch, yaw.

    >>> matrix_to_euler(np.float32([[0, -1, 0, 1, 0, 0, 0, 0, 1]])).round(4).tolist()
    [[0.0, 0.0, 1.5707999467849731]]
    """
    return to_euler(matrices(x.reshape(len(x), 3, 3)))


def euler_zxy_to_euler(x: Array) -> Array:
    """Convert [T, 3] angles in scipy's order "zxy" (about fixed z, then x, then y) to roll, pitch, yaw.

    >>> euler_zxy_to_euler(np.float32([[0, 0.1, 0.2]])).round(4).tolist()
    [[0.10000000149011612, 0.20000000298023224, 0.0]]
    """
    return to_euler(from_euler(x, "zxy"))


def added_rotvec_to_euler(x: Array, at: Array) -> Array:
    """Convert changes added to the rotation vectors `at` to roll, pitch, yaw of the resulting turn.

    >>> added_rotvec_to_euler(np.float32([[0, 0, 0.1]]), np.float32([[0, 0, 1]])).round(4).tolist()
    [[0.0, 0.0, 0.10000000149011612]]
    """
    target = to_rotation(x.astype(np.float64) + at, "rotvec")
    return to_euler(target * to_rotation(at, "rotvec").inv())


def pose_to_delta(x: Array, at: Array) -> Array:
    """Convert [T, 6] target poses (x, y, z, roll, pitch, yaw) to their change from the poses `at` of the same steps.

    >>> pose_to_delta(np.float32([[2, 0, 0, 0, 0, -3.1]]), np.float32([[1, 0, 0, 0, 0, 3.1]])).round(3).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383]]
    """
    if not len(x):
        return x
    turn = to_rotation(x[:, 3:6], "euler_xyz") * to_rotation(at[:, 3:6], "euler_xyz").inv()
    return np.concatenate([x[:, :3] - at[:, :3], to_euler(turn)], axis=1)


# Step ops


def drop_first(steps: Steps, count: int) -> Steps:
    """Drop the first `count` steps.

    >>> drop_first({"action": np.arange(3)}, 1)["action"].tolist()
    [1, 2]
    """
    return {path: column[int(count) :] for path, column in steps.items()}


def drop_last(steps: Steps, count: int) -> Steps:
    """Drop the last `count` steps.

    >>> drop_last({"action": np.arange(3)}, 1)["action"].tolist()
    [0, 1]
    """
    return {path: column[: max(0, len(column) - int(count))] for path, column in steps.items()}


def stride(steps: Steps, count: int) -> Steps:
    """Keep every `count`-th step, starting with the first.

    >>> stride({"action": np.arange(5)}, 2)["action"].tolist()
    [0, 2, 4]
    """
    return {path: column[:: max(1, int(count))] for path, column in steps.items()}


def drop_noops(steps: Steps) -> Steps:
    """Drop steps that move by less than 1e-4 and do not change the gripper (last column).

    Steps before the first movement are dropped even if the gripper changes. Source: OpenVLA's regeneration of LIBERO.

    >>> drop_noops({"action": np.float32([[0, 1], [1, 1], [0, 1], [0, 0]])})["action"].tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    action = steps["action"]
    moves = np.linalg.norm(action[:, :-1], axis=1) >= 1e-4
    grips = np.concatenate([[False], action[1:, -1] != action[:-1, -1]])[: len(action)]
    kept = moves | (grips & np.logical_or.accumulate(moves))
    return {path: column[kept] for path, column in steps.items()}


def abs_to_delta(steps: Steps) -> Steps:
    """Replace absolute targets (x, y, z, roll, pitch, yaw first) by their change from the previous target.

    The rotation becomes R' R⁻¹; further columns are unchanged. The first step has no previous target and is dropped.

    >>> steps = {"action": np.float32([[1, 0, 0, 0, 0, 3.1, 1], [3, 0, 0, 0, 0, -3.1, 0]])}
    >>> abs_to_delta(steps)["action"].round(3).tolist()
    [[2.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383, 0.0]]
    """
    action = steps["action"]
    delta = pose_to_delta(action[1:, :6], action[:-1, :6])
    return {**drop_first(steps, 1), "action": np.concatenate([delta, action[1:, 6:]], axis=1)}


def achieved_delta(steps: Steps) -> Steps:
    """Replace measured poses (x, y, z, roll, pitch, yaw first) by their change until the next step.

    The rotation becomes R' R⁻¹; further columns are unchanged. The last step is dropped, because no step follows.

    >>> steps = {"action": np.float32([[1, 0, 0, 0, 0, 3.1, 1], [3, 0, 0, 0, 0, -3.1, 0]])}
    >>> achieved_delta(steps)["action"].round(3).tolist()
    [[2.0, 0.0, 0.0, 0.0, 0.0, 0.08299999684095383, 1.0]]
    """
    action = steps["action"]
    delta = pose_to_delta(action[1:, :6], action[:-1, :6])
    return {**drop_last(steps, 1), "action": np.concatenate([delta, action[:-1, 6:]], axis=1)}


def relabel_achieved_delta(steps: Steps, state: Array) -> Steps:
    """Replace each action by the change of `state` [T, k] until the next step, keeping its gripper (last column).

    The last step is dropped, because no step follows. Angles are not wrapped: a yaw that goes from 3.1 to
    -3.1 gives -6.2, as in the published statistics. Source: OpenVLA and Octo, `relabel_bridge_actions`.

    >>> steps = {"action": np.float32([[9, 1], [9, 0]])}
    >>> relabel_achieved_delta(steps, np.float32([[2], [5]]))["action"].tolist()
    [[3.0, 1.0]]
    """
    achieved = np.concatenate([state[1:] - state[:-1], steps["action"][:-1, -1:]], axis=1)
    return {**drop_last(steps, 1), "action": achieved}
