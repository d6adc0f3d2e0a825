"""Pairs of dimensions of action and state that have the same quantity, and what rules need from them."""

from pipelines.checks.batch import CHANGES, About

UNSCALED = {"controller", "unknown"}  # units of commands that say nothing about those of the state


def pairs(about: About, *, modes: frozenset[str] = frozenset({"absolute", *CHANGES})) -> list[tuple[int, int]]:
    """Return the indices of dimensions of action and state with the same name and unit, without grippers.

    `modes` are those of the action. Commands in the units of a controller are paired by their name alone. Positions
    and rotations are not paired if one is known to be in the frame of the tool and the other is not; absolute ones
    must have the same frame.
    """
    if about.state is None:
        return []
    joints = modes
    frames = {about.action.frame, about.state.frame} - {"unknown"}
    apart = {"absolute", *CHANGES} if "tool" in frames else {"absolute"}
    modes = modes if len(frames) < 2 else modes - apart
    states = {dim.name: (i, dim) for i, dim in enumerate(about.state.dims) if dim.mode == "absolute"}
    return [
        (i, states[dim.name][0])
        for i, dim in enumerate(about.action.dims)
        if dim.name in states
        and dim.kind != "gripper"
        and dim.mode in (joints if dim.kind == "joint" else modes)
        and (dim.unit in {states[dim.name][1].unit, *UNSCALED} or dim.mode == "velocity")
    ]


def no_state(about: About) -> str | None:
    """Return a reason if there are no states."""
    return None if about.state else "there are no states"


def no_pairs(about: About) -> str | None:
    """Return a reason if command and state cannot be compared."""
    if about.state is None:
        return "there are no states"
    if about.is_derived:
        return "the actions were computed from the states"
    return None if pairs(about) else "no dimension of the action has the name and unit of one of the state"
