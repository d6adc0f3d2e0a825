"""DROID: velocities in the wrist's frame, and the idle steps that OpenVLA drops."""

import numpy as np

from schemas.declarations.ops import Steps
from schemas.declarations.rotations import to_rotation
from schemas.source import Array

# The 1% and 99% quantiles with which OpenVLA normalizes the velocity command (droid_utils.py).
Q01 = (
    *(-0.7776297926902771, -0.5803514122962952, -0.5795090794563293),
    *(-0.6464047729969025, -0.7041108310222626, -0.8895104378461838),
)
Q99 = (
    *(0.7597932070493698, 0.5726242214441299, 0.7351000607013702),
    *(0.6705610305070877, 0.6464948207139969, 0.8897542208433151),
)
IDLE = 1e-5  # normalized commands below this count as zero


def to_wrist_frame(x: Array, pose: Array) -> Array:
    """Convert velocities [T, 6] from the base frame to the wrist's, the rotation as two rows of its matrix.

    `pose` [T, 6] is the arm's position and roll, pitch, yaw. Returns [T, 9]. Source: OpenVLA,
    `velocity_act_to_wrist_frame`.

    >>> to_wrist_frame(np.float32([[1, 0, 0, 0, 0, 0]]), np.zeros((1, 6), np.float32)).tolist()
    [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """
    if not len(x):
        return np.zeros((0, 9), np.float32)
    wrist = to_rotation(pose[:, 3:6], "euler_xyz")
    turn = wrist.inv() * to_rotation(x[:, 3:6], "euler_xyz") * wrist
    rows = turn.as_matrix()[:, :2].reshape(-1, 6)
    return np.concatenate([wrist.inv().apply(x[:, :3]), rows], axis=1).astype(np.float32)


def drop_idle(steps: Steps) -> Steps:
    """Drop steps whose first six action dimensions are all zero to within 1e-5 of the normalized range.

    Source: OpenVLA, `zero_action_filter`. OpenVLA compares normalized actions. This function compares actions before
    they are normalized, and drops the same steps.

    >>> drop_idle({"action": np.float32([[0] * 7, [0.1] * 7])})["action"].shape
    (1, 7)
    """
    tolerance = IDLE * (np.array(Q99) - np.array(Q01) + 1e-8) / 2
    kept = (np.abs(steps["action"][:, :6]) > tolerance).any(axis=1)
    return {path: column[kept] for path, column in steps.items()}
