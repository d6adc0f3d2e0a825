"""Derive actions from the measured state, for datasets without recorded commands."""

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from schemas.declarations.rotations import to_euler, to_rotation
from schemas.source import Array
from schemas.spaces import DELTA, Space, why_not_pose

Derivation: TypeAlias = Literal["next_state", "achieved_delta"]


def derived_space(derivation: Derivation, state: Space) -> Space | str:
    """Return the Space of an action derived from a state, or why it cannot be derived."""
    if derivation == "next_state":
        return replace(state, name="action", origin="achieved")
    if problem := why_not_pose(state, {"absolute"}):
        return f"'achieved_delta' needs a pose in the state, and the state {problem}"
    if state.frame == "tool":
        return "'achieved_delta' needs a pose in a fixed frame, and the state is in frame 'tool'"
    dims = (*DELTA, *(state.dims[i] for i in state.indices("gripper")))
    return replace(state, name="action", dims=dims, rotation="euler_xyz", origin="achieved")


def derived_action(derivation: Derivation, state: Array, space: Space) -> Array:
    """Compute [T, A] actions from states [T, S]: the next state, or the change to it (p' = p + dp, R' = dR R).

    The gripper of an action is that of the next state. No state follows the last one, so the last action is to stay.

    >>> space = Space(name="s", dims=(), frame="none", rotation="none", gripper="none", origin="achieved")
    >>> derived_action("next_state", np.float32([[1], [2], [5]]), space).ravel().tolist()
    [2.0, 5.0, 5.0]
    """
    following = np.concatenate([state[1:], state[-1:]])
    if derivation == "next_state":
        return following
    position, rotation, gripper = (space.indices(kind) for kind in ("position", "rotation", "gripper"))
    change = np.zeros((len(state), len(DELTA)), np.float32)
    if len(state) > 1:
        rotations = to_rotation(state[:, rotation], space.rotation)
        change[:-1, :3] = np.diff(state[:, position], axis=0)
        change[:-1, 3:] = to_euler(rotations[1:] * rotations[:-1].inv())
    return np.concatenate([change, following[:, gripper]], axis=1)
