"""The op vocabulary of declarations: small, pure, vectorized functions.

Array ops take [T, k] float32 and stand behind `|` in an expression. Step ops take all per-step arrays of an episode and
stand in a view's `before` and `after`. To add one, write the function below under its decorator: its name is the op.
"""

from collections.abc import Callable, Mapping

import numpy as np

from schemas.rotations import to_euler, to_rotation
from schemas.source import Array

Steps = Mapping[str, Array]  # path -> T values; ROW says which stored step each one came from
ROW = "#row"

ARRAY_OPS: dict[str, Callable[..., Array]] = {}
STEP_OPS: dict[str, Callable[..., Steps]] = {}


def array_op(function: Callable[..., Array]) -> Callable[..., Array]:
    """Enter a function of [T, k] into the vocabulary."""
    ARRAY_OPS[function.__name__] = function
    return function


def step_op(function: Callable[..., Steps]) -> Callable[..., Steps]:
    """Enter a function of all per-step arrays into the vocabulary."""
    STEP_OPS[function.__name__] = function
    return function


# Numbers


@array_op
def clip(x: Array, low: float, high: float) -> Array:
    """Limit to [low, high].

    >>> clip(np.float32([[-1], [0.4]]), 0, 1).ravel().tolist()
    [0.0, 0.4000000059604645]
    """
    return np.clip(x, np.float32(low), np.float32(high))


@array_op
def invert(x: Array) -> Array:
    """Swap 0 and 1; nothing is clipped.

    >>> invert(np.float32([[0], [1]])).ravel().tolist()
    [1.0, 0.0]
    """
    return np.float32(1) - x


@array_op
def scale(x: Array, factor: float) -> Array:
    """Multiply, e.g. millimetres to metres by 1/1000.

    >>> scale(np.float32([[50]]), 1 / 1000).ravel().tolist()
    [0.05000000074505806]
    """
    return x * np.float32(factor)


@array_op
def shift(x: Array, offset: float) -> Array:
    """Add. `shift(1) | scale(1/2)` maps [-1, 1] to [0, 1].

    >>> shift(np.float32([[-1]]), 1).ravel().tolist()
    [0.0]
    """
    return x + np.float32(offset)


@array_op
def deg2rad(x: Array) -> Array:
    """Turn degrees into radians.

    >>> deg2rad(np.float32([[180]])).ravel().tolist()
    [3.1415927410125732]
    """
    return x * np.float32(np.pi / 180)


@array_op
def permute(x: Array, *order: int) -> Array:
    """Reorder the columns.

    >>> permute(np.float32([[1, 2, 3]]), 2, 1, 0).tolist()
    [[3.0, 2.0, 1.0]]
    """
    return x[:, [int(i) for i in order]]


# Grippers


@array_op
def binarize_gripper(x: Array) -> Array:
    """Make each value 0 or 1 (above 0.95 open, below 0.05 closed); those in between take the next settled value.

    A trailing run in between keeps the raw last value. Source: OpenVLA and Octo, `binarize_gripper_actions`.

    >>> binarize_gripper(np.float32([[1], [1], [0.6], [0.3], [0], [0]])).ravel().tolist()
    [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    opened, settled = x > np.float32(0.95), (x > np.float32(0.95)) | (x < np.float32(0.05))
    row = np.where(settled, np.arange(len(x))[:, None], len(x))
    following = np.minimum.accumulate(row[::-1], axis=0)[::-1]
    out = np.concatenate([opened.astype(np.float32), x[-1:]])
    return np.take_along_axis(out, following, axis=0)


# Rotations


@array_op
def quat_xyzw_to_euler(x: Array) -> Array:
    """Turn [T, 4] quaternions (x, y, z, w) into roll, pitch, yaw.

    >>> quat_xyzw_to_euler(np.float32([[1, 0, 0, 1]])).round(4).tolist()
    [[1.5707999467849731, 0.0, 0.0]]
    """
    return to_euler(to_rotation(x, "quat_xyzw"))


@array_op
def rotvec_to_euler(x: Array) -> Array:
    """Turn [T, 3] rotation vectors (axis times angle, radians) into roll, pitch, yaw.

    >>> rotvec_to_euler(np.float32([[0, 0, 0.5]])).tolist()
    [[0.0, 0.0, 0.5]]
    """
    return to_euler(to_rotation(x, "rotvec"))


# All steps of an episode


@step_op
def drop_first(steps: Steps, count: int) -> Steps:
    """Leave out the first `count` steps.

    >>> drop_first({"action": np.arange(3)}, 1)["action"].tolist()
    [1, 2]
    """
    return {path: column[int(count) :] for path, column in steps.items()}


@step_op
def drop_last(steps: Steps, count: int) -> Steps:
    """Leave out the last `count` steps.

    >>> drop_last({"action": np.arange(3)}, 1)["action"].tolist()
    [0, 1]
    """
    return {path: column[: max(0, len(column) - int(count))] for path, column in steps.items()}


@step_op
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
