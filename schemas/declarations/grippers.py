"""Ops on gripper commands over the steps of an episode. Each column is converted independently."""

import math

import numpy as np

from schemas.source import Array

OPEN, CLOSED, EVENT = 0.95, 0.05, 0.1  # thresholds of OpenVLA and Octo; a value equal to one does not count


def binarize_gripper(x: Array, trailing: float = math.nan) -> Array:
    """Binarize to 1 (open, above 0.95) or 0 (closed, below 0.05); values in between take the next binary value.

    If no binary value follows, values in between become `trailing`, or the unchanged last value if `trailing` is NaN.
    NaN in `x` counts as a value in between. Source: OpenVLA and Octo, `binarize_gripper_actions`; Remix uses
    `binarize_gripper(0)`.

    >>> binarize_gripper(np.float32([[1], [1], [0.6], [0.3], [0], [0]])).ravel().tolist()
    [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    opened = x > np.float32(OPEN)
    settled = opened | (x < np.float32(CLOSED))
    row = np.where(settled, np.arange(len(x))[:, None], len(x))
    following = np.minimum.accumulate(row[::-1], axis=0)[::-1]
    last = x[-1:] if math.isnan(trailing) else np.full_like(x[-1:], trailing)
    return np.take_along_axis(np.concatenate([opened.astype(np.float32), last]), following, axis=0)


def rel2abs_gripper(x: Array, threshold: float = EVENT) -> Array:
    """Convert commands to close (+1), open (-1) or stay (0) into the resulting state: 1 open, 0 closed.

    Before the first command to close or open, the gripper is assumed to be in the opposite state. If there is no such
    command, it is assumed to be open. Source: OpenVLA and Octo, `rel2abs_gripper_actions`; Remix uses
    `rel2abs_gripper | invert`.

    >>> rel2abs_gripper(np.float32([[0], [1], [0], [-1], [0]])).ravel().tolist()
    [1.0, 0.0, 0.0, 1.0, 1.0]
    """
    limit = np.float32(threshold)
    event = np.where(x < -limit, np.float32(1), np.where(x > limit, np.float32(-1), np.float32(0)))
    row = np.where(event != 0, np.arange(1, len(x) + 1)[:, None], 0)
    latest = np.maximum.accumulate(row, axis=0)
    first = np.take_along_axis(event, np.argmax(event != 0, axis=0)[None], axis=0) if len(x) else event[:0]
    start = np.where(first == 0, np.float32(1), -first)
    carried = np.take_along_axis(np.concatenate([start, event]), latest, axis=0)
    return carried / np.float32(2) + np.float32(0.5)
