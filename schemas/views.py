"""Views: pure functions from an episode's stored columns to what a model trains on, with masked steps left out."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from schemas.episode import Episode
from schemas.errors import SpecError, ViewError, did_you_mean
from schemas.expr import Call, Expr, Path
from schemas.ops import ROW, Steps
from schemas.rotations import to_euler, to_rotation
from schemas.source import Array
from schemas.spaces import Dim, Space
from schemas.spec import DatasetSpec
from schemas.tables import ViewSpec
from schemas.vocabulary import ARRAY_OPS, STEP_OPS

OURS = ("schemas",)  # packages whose functions count as a view's own code
NEEDS = {  # views that several datasets declare, and what the others lack
    "joint": "its recorded commands are not of joints",
    "bimanual14": "its recorded commands are not of two arms with six joints and a gripper each",
    "openvla": "its declaration does not say how OpenVLA reads it",
    "octo": "its declaration does not say how Octo reads it",
}
ROTATION_DIMS = {"euler_xyz": (3, "rad"), "rotvec": (3, "rad"), "quat_xyzw": (4, "1"), "quat_wxyz": (4, "1")}


@dataclass(frozen=True, slots=True)
class Viewed:
    """What a view makes of T stored steps: actions [N, A] of the N steps where `mask` [T] is true."""

    action: Array
    mask: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A named view of one dataset."""

    name: str
    space: Space
    digest: str  # of its declaration and of all code it runs
    columns: frozenset[str]  # the stored columns that it reads
    compute: Callable[[Steps], Viewed]

    def of(self, episode: Episode) -> Viewed:
        """Compute the view of a stored episode; a column that was not stored is a ViewError."""
        steps: dict[str, Array] = {"action": episode.action, ROW: np.arange(len(episode))}
        if episode.state is not None:
            steps["observation.state"] = episode.state
        steps |= {f"raw.{path}": column for path, column in episode.raw.items() if isinstance(column, np.ndarray)}
        return self.of_columns(steps)

    def of_columns(self, steps: Steps) -> Viewed:
        """Compute the view of stored columns, `ROW` among them; what does not fit is a ViewError."""
        try:
            viewed = self.compute(steps)
        except SpecError as error:
            raise ViewError(f"view '{self.name}': {error}") from error
        if viewed.action.shape[1] != len(self.space):
            columns = f"{viewed.action.shape[1]} columns, its space has {len(self.space)} dimensions"
            raise ViewError(f"view '{self.name}': its action has {columns}")
        return viewed

    def apply(self, episode: Episode) -> Episode:
        """Give the episode that the view shows: its action, masked steps removed, first and last step marked anew."""
        viewed = self.of(episode)
        step = np.arange(len(viewed.action))
        return episode.select(
            viewed.mask,
            action=viewed.action,
            action_space=self.space,
            is_first=step == 0,
            is_last=step == len(step) - 1,
        )


def view_names(spec: DatasetSpec) -> tuple[str, ...]:
    """List the views a dataset can give."""
    derived = () if isinstance(eef_delta_space(spec.action_space, spec.state_space), str) else ("eef_delta",)
    return tuple(sorted({*derived} - {*spec.views} | {name for name, v in spec.views.items() if not v.unavailable}))


def declared_name(spec: DatasetSpec, name: str) -> str:
    """Say which view a name means: OpenVLA-OFT reads what it does not declare itself as OpenVLA does."""
    name = name if name in spec.views else name.replace("-", "_")
    return "openvla" if name == "openvla_oft" and name not in spec.views else name


def view(spec: DatasetSpec, name: str) -> View:
    """Find a view: declared with the dataset, or derived from its Spaces. A ViewError says why there is none.

    A "-" in its name may be written for "_"; `openvla_oft` is `openvla` where it is not declared.
    """
    name = declared_name(spec, name)
    if name in spec.views:
        declared, space = spec.views[name], spec.view_space(name)
        if declared.unavailable:
            raise ViewError(f"{spec.name} cannot give the view '{name}': {declared.unavailable}")
        return View(
            name=name,
            space=space,
            digest=_digest(_view_json(declared, space), *DECLARED_CODE, *_ops_of(declared)),
            columns=_columns_of(declared),
            compute=lambda steps: _declared_view(steps, declared),
        )
    if name in NEEDS:
        raise ViewError(f"{spec.name} cannot give the view '{name}': {NEEDS[name]}")
    if name != "eef_delta":
        raise ViewError(f"{spec.name} has no view '{name}'{did_you_mean(name, view_names(spec))}")
    action, state = spec.action_space, spec.state_space
    derived = eef_delta_space(action, state)
    if isinstance(derived, str):
        raise ViewError(f"{spec.name} cannot give the view 'eef_delta': {derived}")
    meaning = {"action": action.to_json(), "state": state.to_json() if state else None}
    return View(
        name=name,
        space=derived,
        digest=_digest(meaning, eef_delta, Space.indices, Path.read),
        columns=frozenset({"action", "observation.state"} if state else {"action"}),
        compute=lambda steps: eef_delta(steps, action, state),
    )


# Declared views


def _declared_view(steps: Steps, declared: ViewSpec) -> Viewed:
    stored = len(steps[ROW])
    for call in declared.before:
        steps = _step(steps, call)
    if declared.action:
        steps = {**steps, "action": np.concatenate([expr(steps) for expr in declared.action], axis=1)}
    for call in declared.after:
        steps = _step(steps, call)
    mask = np.zeros(stored, bool)
    mask[steps[ROW]] = True
    return Viewed(Path("action").read(steps), mask)


def _columns_of(declared: ViewSpec) -> frozenset[str]:
    calls = (*declared.before, *declared.after)
    return frozenset({"action"}).union(*(call.paths() for call in calls), *(expr.paths() for expr in declared.action))


def _step(steps: Steps, call: Call) -> Steps:
    return STEP_OPS[call.op](steps, *call.values(steps))


DECLARED_CODE = (_declared_view, Expr.__call__, Call.values, Path.read)


# eef_delta: seven numbers that mean the same on every arm


def eef_delta_space(action: Space, state: Space | None) -> Space | str:
    """Say what `eef_delta` means for these Spaces, or why they cannot give it."""
    if problem := _no_arm(action, {"delta", "absolute"}):
        return f"its action {problem}"
    if len(action.indices("gripper")) != 1 or action.gripper != "open_is_1":
        return f"its action has {len(action.indices('gripper'))} gripper dimensions, with gripper '{action.gripper}'"
    is_absolute = action.dims[action.indices("position")[0]].mode == "absolute"
    if is_absolute or action.frame == "tool":
        if state is None:
            return "that takes a state with a pose"
        if problem := _no_arm(state, {"absolute"}):
            return f"that takes a state with a pose, and its state {problem}"
        if state.frame == "tool" or (is_absolute and state.frame != action.frame):
            return f"its action is in frame '{action.frame}', its state in '{state.frame}'"
    dims = (
        *(Dim(name, "m", "delta", "position") for name in ("x", "y", "z")),
        *(Dim(name, "rad", "delta", "rotation") for name in ("roll", "pitch", "yaw")),
        Dim("gripper", "1", "absolute", "gripper"),
    )
    frame = state.frame if action.frame == "tool" and state else action.frame
    return Space(
        name="eef_delta", dims=dims, frame=frame, rotation="euler_xyz", gripper="open_is_1", origin=action.origin
    )


def _no_arm(space: Space, modes: set[str]) -> str | None:
    """Say why a vector does not hold a position and a rotation in metres and radians, in a known frame and mode."""
    position, rotation = ([space.dims[i] for i in space.indices(kind)] for kind in ("position", "rotation"))
    size, unit = ROTATION_DIMS.get(space.rotation, (0, ""))
    if len(position) != 3 or not size or len(rotation) != size:
        return f"has {len(position)} position and {len(rotation)} rotation dimensions, with rotation '{space.rotation}'"
    if {dim.unit for dim in position} != {"m"} or {dim.unit for dim in rotation} != {unit}:
        return f"is in {', '.join(sorted({dim.unit for dim in position + rotation}))}, not in metres and radians"
    found = {dim.mode for dim in position + rotation}
    if len(found) > 1 or not found <= modes:
        return f"is {', '.join(sorted(found))}"
    return None if space.frame in {"base", "tool", "world"} else f"is in frame '{space.frame}'"


def eef_delta(steps: Steps, action_space: Space, state_space: Space | None) -> Viewed:
    """Make metres and radians in a fixed frame: p' = p + dp, R' = dR R, dR as roll, pitch, yaw; gripper 1 = open.

    Absolute targets are taken relative to the measured pose of the same step; tool-frame deltas are turned by it.
    Recorded base-frame deltas in roll, pitch, yaw pass unchanged.
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
    return Viewed(np.concatenate([position, turn, gripper], axis=1).astype(np.float32), np.ones(len(action), bool))


# Digests


def _view_json(declared: ViewSpec, space: Space) -> dict[str, Any]:
    return {**declared.model_dump(mode="json"), "space": space.to_json()}


def _ops_of(declared: ViewSpec) -> list[Callable[..., Any]]:
    array_ops = [ARRAY_OPS[call.op] for expr in declared.action for call in expr.ops]
    return array_ops + [STEP_OPS[call.op] for call in (*declared.before, *declared.after)]


def _digest(declaration: Mapping[str, Any], *functions: Callable[..., Any]) -> str:
    """Hash a declaration and the source of `functions`, of every function of ours that they call, and its constants."""
    found: dict[str, str] = {}
    queue = list(functions)
    while queue:
        function = queue.pop()
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in found:
            found[name] = inspect.getsource(function)
            named = {word: function.__globals__.get(word) for word in _words(function.__code__)}
            queue += [f for f in named.values() if inspect.isfunction(f) and f.__module__.split(".")[0] in OURS]
            found |= {f"{name}: {k}": repr(v) for k, v in named.items() if _is_constant(v)}
    content = json.dumps([declaration, sorted(found.items())])
    return hashlib.sha256(content.encode()).hexdigest()


def _is_constant(value: object) -> bool:
    return isinstance(value, str | int | float) or (isinstance(value, tuple) and all(map(_is_constant, value)))


def _words(code: CodeType) -> set[str]:
    """Name what a function refers to, in its comprehensions and lambdas too."""
    return set(code.co_names).union(*(_words(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
