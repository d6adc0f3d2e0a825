"""The view `eef_delta`: seven numbers with the same meaning for every arm."""

import numpy as np

from schemas.declarations.expr import Path
from schemas.declarations.ops import Steps
from schemas.declarations.rotations import to_euler, to_rotation
from schemas.source import Array
from schemas.spaces import DELTA, Dim, Space, why_not_pose


def eef_delta_space(action: Space, state: Space | None) -> Space | str:
    """Return the Space of `eef_delta` for an action and a state, or why it cannot be computed from them."""
    if problem := why_not_pose(action, {"delta", "absolute"}):
        return f"its action {problem}"
    if len(action.indices("gripper")) != 1 or action.gripper != "open_is_1":
        return f"its action has {len(action.indices('gripper'))} gripper dimensions, with gripper '{action.gripper}'"
    is_absolute = action.dims[action.indices("position")[0]].mode == "absolute"
    if is_absolute or action.frame == "tool":
        if state is None:
            return "it needs a pose in the state, and there is no state"
        if problem := why_not_pose(state, {"absolute"}):
            return f"it needs a pose in the state, and its state {problem}"
        if state.frame == "tool" or (is_absolute and state.frame != action.frame):
            return f"its action is in frame '{action.frame}', its state in '{state.frame}'"
    dims = (*DELTA, Dim("gripper", "1", "absolute", "gripper"))
    frame = state.frame if action.frame == "tool" and state else action.frame
    return Space(
        name="eef_delta", dims=dims, frame=frame, rotation="euler_xyz", gripper="open_is_1", origin=action.origin
    )


def eef_delta(steps: Steps, action_space: Space, state_space: Space | None) -> Array:
    """Compute deltas in metres and radians in a fixed frame: p' = p + dp, R' = dR R, dR as roll, pitch, yaw.

    The gripper is 1 if open. Absolute targets become deltas from the measured pose of the same step. Deltas in the tool
    frame are rotated into the fixed frame by that pose. Recorded base-frame deltas in roll, pitch, yaw are unchanged.
    """
    action = steps["action"]
    position, turn = action[:, action_space.indices("position")], action[:, action_space.indices("rotation")]
    gripper = action[:, action_space.indices("gripper")]
    mode = action_space.dims[action_space.indices("position")[0]].mode
    if mode == "absolute" or action_space.frame == "tool" or action_space.rotation != "euler_xyz":
        rotation = to_rotation(turn, action_space.rotation)
        if state_space is not None and (mode == "absolute" or action_space.frame == "tool"):
            state = Path("observation.state").read(steps)
            at = to_rotation(state[:, state_space.indices("rotation")], state_space.rotation)
            if mode == "absolute":
                position, rotation = position - state[:, state_space.indices("position")], rotation * at.inv()
            else:
                position, rotation = at.apply(position), at * rotation * at.inv()
        turn = to_euler(rotation)
    return np.concatenate([position, turn, gripper], axis=1).astype(np.float32)
