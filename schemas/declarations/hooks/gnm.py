"""GNM navigation: waypoints in the robot's own frame."""

import numpy as np

from schemas.declarations.ops import Steps, drop_last, stride
from schemas.source import Array


def waypoint_local(  # noqa: PLR0917 - declarations pass arguments by position
    steps: Steps, position: Array, yaw: Array, count: int
) -> Steps:
    """Keep every `count`-th step; each action becomes the displacement to the next kept step, in the robot's frame.

    `position` is [T, 2] in metres. All displacements are multiplied by one factor: the length of the first action
    divided by the distance that the robot moves in the first step, before any step is dropped. If it does not move in
    that step, the result is infinite. The last step is dropped. Source: Octo, `gnm_dataset_transform`.

    >>> steps = {"action": np.float32([[2, 0]] * 3)}
    >>> ahead = np.float32([[0, 0], [0, 1], [0, 2]])
    >>> (waypoint_local(steps, ahead, np.full((3, 1), np.pi / 2, np.float32), 1)["action"].round(4) + 0).tolist()
    [[2.0, 0.0], [2.0, 0.0]]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.linalg.norm(steps["action"][:1], axis=1) / np.linalg.norm(position[1:2] - position[:1], axis=1)
        every = max(1, int(count))
        way = np.diff(position[::every], axis=0)
        heading = yaw[::every][: len(way), 0]
        cos, sin = np.cos(heading), np.sin(heading)
        local = np.stack([cos * way[:, 0] + sin * way[:, 1], cos * way[:, 1] - sin * way[:, 0]], axis=1)
        return {**drop_last(stride(steps, count), 1), "action": (local * unit[:, None]).astype(np.float32)}
