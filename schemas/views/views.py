"""Views: pure functions from an episode's stored columns to the actions and steps that a model trains on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from schemas.declarations.expr import Call, Path
from schemas.declarations.ops import ROW, VIEW_STATE, Steps, drop_last
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import ViewSpec
from schemas.declarations.vocabulary import STEP_OPS
from schemas.episode import Episode
from schemas.errors import SpecError, ViewError, did_you_mean
from schemas.source import Array
from schemas.spaces import Space
from schemas.views.digests import op_version, view_digest
from schemas.views.eef import eef_delta, eef_delta_space
from schemas.views.resample import TIMES, over_intervals, resampled, why_not_combined

VERSIONS = {  # versions of the code that computes views, besides ops; raise one when its result changes
    "declared": 1,
    "eef_delta": 1,
    "resampled": 1,
}
READ = ("action", "state", TIMES, "raw")  # fields of an episode that a view can read
PROJECTS = ("openvla", "octo")  # their views give the project's own labels
NEEDS = {  # view that only some datasets declare -> why the others do not have it
    "joint": "its recorded commands are not of joints",
    "bimanual14": "its recorded commands are not of two arms with six joints and a gripper each",
    "openvla": "its declaration does not say how OpenVLA reads it",
    "octo": "its declaration does not say how Octo reads it",
}


@dataclass(frozen=True, slots=True)
class Viewed:
    """The result of a view of T stored steps: `mask` [T] is true for the N kept steps.

    They have actions [N, A] and states [N, S]. The states are None if the dataset stores none and the view has no own.
    """

    action: Array
    mask: Array
    state: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A named view of one dataset."""

    name: str
    space: Space
    digest: str  # hash of its declaration and the versions of the code that computes it
    columns: frozenset[str]  # stored columns that it reads
    compute: Callable[[Steps], Viewed]
    state_space: Space | None
    has_state: bool = False  # whether it computes its own state; otherwise it has the stored one
    control_hz: float | None = None  # control rate; None: the rate of the stored steps
    reads_action: bool = True  # False if it is computed without the stored action

    def of(self, episode: Episode) -> Viewed:
        """Compute the view of a stored episode. Raises ViewError if a column is not stored."""
        return self.of_values({name: getattr(episode, name) for name in READ}, len(episode))

    def of_values(self, values: Mapping[str, Any], n_steps: int) -> Viewed:
        """Compute the view from the fields of an episode by name; action, state and timestamp may be None."""
        steps: dict[str, Array] = {
            f"raw.{path}": column for path, column in values["raw"].items() if isinstance(column, np.ndarray)
        }
        if values["action"] is not None:
            steps["action"] = values["action"]
        if values["state"] is not None:
            steps["observation.state"] = values["state"]
        if TIMES in self.columns and values[TIMES] is not None:
            steps[TIMES] = values[TIMES]
        return self.of_columns(steps, length=n_steps)

    def of_columns(self, steps: Steps, *, length: int) -> Viewed:
        """Compute the view from the stored columns of `length` steps. Raises ViewError if the columns do not fit it."""
        try:
            viewed = self.compute({**steps, ROW: np.arange(length)})
        except SpecError as error:
            raise ViewError(f"view '{self.name}': {error}") from error
        if viewed.action.shape[1] != len(self.space):
            raise self._misfit("action", viewed.action, "space", dims=len(self.space))
        if self.has_state and viewed.state is not None and viewed.state.shape[1] != len(self.state_space or ()):
            raise self._misfit("state", viewed.state, "state_space", dims=len(self.state_space or ()))
        return viewed

    def _misfit(self, which: str, vectors: Array, key: str, *, dims: int) -> ViewError:
        columns = f"{vectors.shape[1]} columns, its {key} has {dims} dimensions"
        return ViewError(f"view '{self.name}': its {which} has {columns}")

    def apply(self, episode: Episode) -> Episode:
        """Return the episode with the view's actions and states, and only the steps that it keeps.

        `is_first` and `is_last` are true for the first and the last kept step.
        """
        viewed = self.of(episode)
        return episode.select(viewed.mask, **self.changes(viewed, episode.reward, episode.is_terminal))

    def changes(self, viewed: Viewed, reward: Array | None, is_terminal: Array | None) -> dict[str, Any]:
        """Return the new values of the fields that the view replaces. All other fields only lose the dropped steps."""
        step = np.arange(len(viewed.action))
        changed = {"action": viewed.action, "action_space": self.space}
        changed |= {"state": viewed.state, "state_space": self.state_space}
        changed |= {"is_first": step == 0, "is_last": step == len(step) - 1}
        if self.control_hz is not None:
            changed |= {"control_hz": self.control_hz, **over_intervals(viewed.mask, reward, is_terminal)}
        return changed


def view_names(spec: DatasetSpec) -> tuple[str, ...]:
    """List the views of a dataset."""
    derived = () if isinstance(eef_delta_space(spec.action_space, spec.state_space), str) else ("eef_delta",)
    return tuple(sorted({*derived} - {*spec.views} | {name for name, v in spec.views.items() if not v.unavailable}))


def _declared_name(spec: DatasetSpec, name: str) -> str:
    """Return the name of a declared view for a name in which "-" may stand for "_".

    If `openvla_oft` is not declared, it means `openvla`.
    """
    name = name if name in spec.views else name.replace("-", "_")
    return "openvla" if name == "openvla_oft" and name not in spec.views else name


def view(spec: DatasetSpec, name: str) -> View:
    """Return a view that is declared with the dataset or derived from its Spaces. Raises ViewError with the reason.

    In the name, "-" may stand for "_". If `openvla_oft` is not declared, it means `openvla`.
    """
    name = _declared_name(spec, name)
    if name in spec.views:
        view_spec, space = spec.views[name], spec.view_space(name)
        if view_spec.unavailable:
            raise ViewError(f"{spec.name} has no view '{name}': {view_spec.unavailable}")
        if view_spec.control_hz and (why := _why_no_rate(view_spec, space)):
            raise ViewError(f"{spec.name} has no view '{name}' at {view_spec.control_hz:g} Hz: {why}")
        of_action = _reads_action(view_spec)
        cut = not spec.has_last_action and of_action
        state_space = spec.view_state_space(name)
        return View(
            name=name,
            space=space,
            state_space=state_space,
            has_state=bool(view_spec.state),
            digest=view_digest(_view_json(view_spec, space, state_space, cut=cut), _versions_of(view_spec)),
            columns=_columns_of(view_spec),
            compute=partial(_viewed, make=partial(_declared_view, view_spec=view_spec, space=space), cut=cut),
            control_hz=view_spec.control_hz,
            reads_action=of_action,
        )
    if name in NEEDS:
        raise ViewError(f"{spec.name} has no view '{name}': {NEEDS[name]}{_instead(spec, name)}")
    if name != "eef_delta":
        raise ViewError(f"{spec.name} has no view '{name}'{did_you_mean(name, view_names(spec))}")
    action, state, cut = spec.action_space, spec.state_space, not spec.has_last_action
    derived = eef_delta_space(action, state)
    if isinstance(derived, str):
        raise ViewError(f"{spec.name} has no view 'eef_delta': {derived}")
    meaning = {"action": action.to_json(), "state": state.to_json() if state else None, "cut": cut}
    return View(
        name=name,
        space=derived,
        state_space=state,
        digest=view_digest(meaning, {"eef_delta": VERSIONS["eef_delta"]}),
        columns=frozenset({"action", "observation.state"} if state else {"action"}),
        compute=partial(_viewed, make=partial(_eef_view, action=action, state=state), cut=cut),
    )


def _instead(spec: DatasetSpec, name: str) -> str:
    """Return a hint for own data that are asked for the view of a project."""
    if name not in PROJECTS or "eef_delta" not in view_names(spec):
        return ""
    return "; only datasets that the project trained on have it: use the view 'eef_delta' to train it on this one"


def _viewed(steps: Steps, make: Callable[[Steps], Steps], *, cut: bool) -> Viewed:
    """Compute a view. With `cut`, the last step is dropped, because its action was not recorded."""
    mask = np.zeros(len(steps[ROW]), bool)
    kept = make(drop_last(steps, 1) if cut else steps)
    mask[kept[ROW]] = True
    return Viewed(Path("action").read(kept), mask, kept.get(VIEW_STATE, kept.get("observation.state")))


def _eef_view(steps: Steps, *, action: Space, state: Space | None) -> Steps:
    return {**steps, "action": eef_delta(steps, action, state)}


def _declared_view(steps: Steps, view_spec: ViewSpec, space: Space) -> Steps:
    for call in view_spec.before:
        steps = _step(steps, call)
    own = {name: exprs for name, exprs in (("action", view_spec.action), (VIEW_STATE, view_spec.state)) if exprs}
    if own:  # all are computed from the same steps
        vectors = {name: np.concatenate([expr(steps) for expr in exprs], axis=1) for name, exprs in own.items()}
        steps = {**steps, **vectors}
    for call in view_spec.after:
        steps = _step(steps, call)
    return resampled(steps, view_spec.control_hz, space) if view_spec.control_hz else steps


def _reads_action(view_spec: ViewSpec) -> bool:
    return not view_spec.action or any("action" in expr.paths() for expr in (*view_spec.action, *view_spec.state))


def _why_no_rate(view_spec: ViewSpec, space: Space) -> str | None:
    """Return why a view cannot have a lower rate than the stored steps; None if it can."""
    if any(call.op == "pose_to_delta" for expr in view_spec.action for call in expr.ops):
        return "pose_to_delta computes changes from the pose of each step, which overlap and cannot be added"
    return why_not_combined(space)


def _columns_of(view_spec: ViewSpec) -> frozenset[str]:
    read = {"action", TIMES} if view_spec.control_hz else {"action"}
    return view_spec.paths() | read


def _step(steps: Steps, call: Call) -> Steps:
    return STEP_OPS[call.op](steps, *call.values(steps))


def _view_json(view_spec: ViewSpec, space: Space, state_space: Space | None, *, cut: bool) -> dict[str, Any]:
    # Without defaults, so that a new key in declarations does not change the digests of views that do not use it.
    meaning: dict[str, Any] = {"space": space.to_json(), "cut": cut}
    if view_spec.state and state_space:
        meaning["state_space"] = state_space.to_json()
    return {**view_spec.model_dump(mode="json", exclude_defaults=True), **meaning}


def _versions_of(view_spec: ViewSpec) -> dict[str, int | str]:
    ours = ("declared", "resampled") if view_spec.control_hz else ("declared",)
    return {call.op: op_version(call.op) for call in view_spec.calls()} | {name: VERSIONS[name] for name in ours}
