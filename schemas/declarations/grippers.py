"""Gripper commands over time: scans along the steps of an episode, each column by itself, without a loop per step."""

import math

import numpy as np

from schemas.source import Array

OPEN, CLOSED, EVENT = 0.95, 0.05, 0.1  # the thresholds of OpenVLA and Octo, all strict


def binarize_gripper(x: Array, trailing: float = math.nan) -> Array:
    """Make each value 0 or 1 (above 0.95 open, below 0.05 closed); those in between take the next settled value.

    A trailing run in between keeps the raw last value, or becomes `trailing`; NaN is in between. Source: OpenVLA and
    Octo, `binarize_gripper_actions`; Remix's is `binarize_gripper(0)`.

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
    """Turn commands to close (+1), to open (-1) and to stay (0) into the state they lead to: 1 open, 0 closed.

    Before the first event the gripper is in the opposite of what that event asks for; without any event it is open.
    Source: OpenVLA and Octo, `rel2abs_gripper_actions`; Remix's is `rel2abs_gripper | invert`.

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
