"""`standardize`: one raw episode in memory, without files, in the unified schema or as a view shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pipelines.convert.binding import FLAGS, decoded, listed_texts, outcome_of, texts_of
from pipelines.convert.given import aligned, columns_and_metadata
from schemas.declarations import catalog
from schemas.declarations.derive import derived_action
from schemas.declarations.expr import Expr
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import CameraSpec
from schemas.episode import Episode, take
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.source import Array, Bytes
from schemas.spaces import Space
from schemas.views.resample import TIMES
from schemas.views.views import View, declared_name, reads_action, view


@dataclass(frozen=True, slots=True)
class Vector:
    """How a stored vector is computed."""

    parts: Sequence[Expr]
    paths: frozenset[str]

    @classmethod
    def of(cls, parts: Sequence[Expr]) -> "Vector":
        """Prepare the parts of a state or an action."""
        return cls(parts, frozenset[str]().union(*(expr.paths() for expr in parts)))

    def __call__(self, columns: Mapping[str, Any]) -> Array | None:
        """Compute it; None where it has no parts or a column is missing."""
        if not self.parts or not self.paths <= columns.keys():
            return None
        return np.concatenate([expr(columns) for expr in self.parts], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """A declaration with everything that is the same for each of its episodes."""

    spec: DatasetSpec
    action: Vector
    state: Vector
    action_space: Space
    state_space: Space | None
    paths: Mapping[str, str]  # "/" read as "." -> the path as it is declared
    read: frozenset[str]  # columns that must have as many values as there are steps
    views: dict[str, View]

    @classmethod
    def of(cls, spec: DatasetSpec) -> "Standard":
        """Prepare a declaration."""
        declared = {*spec.read_paths(), *spec.fields, *spec.decode}
        whole = {condition.key for condition in spec.filters.values()} | {spec.id}
        whole |= {spec.success.key} if spec.success else set()
        return cls(
            spec=spec,
            action=Vector.of(spec.action_parts),
            state=Vector.of(spec.state_parts),
            action_space=spec.action_space,
            state_space=spec.state_space,
            paths={path.replace("/", "."): path for path in declared},
            read=frozenset({*spec.read_paths(), *FLAGS}) - whole,
            views={},
        )

    def view(self, name: str) -> View:
        """Find a view; the same one each time."""
        if name not in self.views:
            self.views[name] = view(self.spec, name)
        return self.views[name]


@cache
def _names() -> frozenset[str]:
    return frozenset(catalog.dataset_names())


@cache
def _shipped(name: str) -> Standard:
    return Standard.of(catalog.dataset(name))


def standardize(name: str, steps: Mapping[str, Any], view: str | None = None) -> Episode:
    """Turn one raw episode into the unified schema, or into what a view of it shows.

    `name` is whatever `oxe convert` takes; declarations in files are read anew in each call. `steps` has T values under
    each key of the source: a nested or a flat dict (`observation.state` or `observation/state`) of arrays [T, ...],
    lists of texts, or lists of encoded images; a text may be given once. Keys that are missing, None or without values
    leave the state, the images and the instructions empty, and so does a state that cannot be made where the view does
    not read it. A key that is not declared and has no T values is the whole episode's, and goes to `metadata`. Decoded
    images stay in `raw`. Raises SpecError where the result needs a key that is missing, SourceError where the numbers
    cannot be used, ViewError where there is no such view.

    >>> steps = {"action": {"rel_actions_world": np.ones((2, 7))}}
    >>> standardize("taco_play", steps, view="openvla").action.shape
    (2, 7)
    """
    standard = _shipped(name) if name in _names() else Standard.of(catalog.dataset(name))
    spec, chosen = standard.spec, None if view is None else standard.view(view)
    given, metadata = columns_and_metadata(steps, standard.paths)
    columns, whole, length = aligned(spec, decoded(spec, given), standard.read)
    from_action = _reads_action(spec, view)
    needed = chosen is None or "observation.state" in chosen.columns or (from_action and bool(spec.derived))
    state = standard.state(columns) if needed else _state_if_sound(standard, columns)
    action = standard.action(columns)
    if spec.derived and state is not None and standard.state_space:
        action = derived_action(spec.derived, state, standard.state_space)
    if action is None and from_action:
        made_of = standard.state if spec.derived else standard.action
        missing = min(made_of.paths - columns.keys())
        raise SpecError(f"{spec.name}: the action needs '{missing}'{did_you_mean(missing, columns)}")
    stored = _stored(spec, columns, {**metadata, **whole}, length=length)
    stored |= {"state": state, "state_space": standard.state_space}
    if chosen is None:
        return Episode(**{**stored, "action": action}, action_space=standard.action_space)
    own = _under(spec, columns)
    seen = {f"raw.{path}": column for path, column in own.items() if isinstance(column, np.ndarray)}
    seen |= {TIMES: stored[TIMES]} if TIMES in chosen.columns and stored[TIMES] is not None else {}
    seen |= {} if action is None else {"action": action}
    seen |= {} if state is None else {"observation.state": state}
    viewed = chosen.of_columns(seen, length=length)
    rows = None if viewed.mask.all() else np.flatnonzero(viewed.mask)
    kept = stored if rows is None else {key: _taken(key, value, rows) for key, value in stored.items()}
    ends = _ends(len(viewed.action))
    ends |= chosen.rate(viewed.mask, reward=stored.get("reward"), is_terminal=stored.get("is_terminal"))
    return Episode(**{**kept, **ends}, action=viewed.action, action_space=chosen.space)


def _reads_action(spec: DatasetSpec, view: str | None) -> bool:
    """Say whether a result is made from the stored action, and not from the source's own columns alone."""
    declared = spec.views.get(declared_name(spec, view)) if view else None
    return declared is None or reads_action(declared)


def _state_if_sound(standard: Standard, columns: Mapping[str, Any]) -> Array | None:
    """Compute a state that nothing depends on; None where it cannot be made of these numbers."""
    try:
        state = standard.state(columns)
    except (SpecError, SourceError):
        return None
    if state is None or state.shape[1] != len(standard.state_space or ()):
        return None
    return state if np.isfinite(state).all() else None


def _under(spec: DatasetSpec, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Take the columns that `raw.*` has, under the names they have there."""
    prefix = f"{spec.raw}." if spec.raw else ""
    return {path.removeprefix(prefix): column for path, column in columns.items() if path.startswith(prefix)}


def _stored(
    spec: DatasetSpec, columns: Mapping[str, Any], metadata: Mapping[str, Any], *, length: int
) -> dict[str, Any]:
    """Make everything of an episode but its vectors."""
    texts, index = _instructions(spec.language_keys, columns, metadata, length=length)
    types = {flag: np.float32 if flag == "reward" else bool for flag in FLAGS if flag in columns}
    frames = {"images": _encoded(spec.cameras, columns), "depth": _encoded(spec.depth, columns)}
    taken = {*spec.language_keys[:1], *frames["images"], *frames["depth"]}
    return {
        "id": f"{spec.name}-000000",
        "dataset": spec.name,
        "embodiment": spec.embodiment.name,
        "instructions": texts,
        "instruction_index": index,
        "control_hz": spec.control_hz,
        "outcome": outcome_of(spec, columns, metadata),
        "timestamp": _timestamp(spec, columns, length),
        "raw": _under(spec, {path: column for path, column in columns.items() if path not in taken}),
        "metadata": {path: value for path, value in metadata.items() if path not in spec.language_keys},
        **_ends(length),
        **{flag: np.asarray(columns[flag], kind) for flag, kind in types.items()},
        **{what: {path.rpartition(".")[2]: found[path] for path in found} for what, found in frames.items()},
    }


def _encoded(cameras: Mapping[str, CameraSpec], columns: Mapping[str, Any]) -> dict[str, list[Bytes | None]]:
    """Take the declared cameras' encoded frames; an empty byte string is a missing frame."""
    paths = [camera.key for camera in cameras.values() if isinstance(columns.get(camera.key), list)]
    return {path: [frame or None for frame in columns[path]] for path in paths}


def _timestamp(spec: DatasetSpec, columns: Mapping[str, Any], length: int) -> Array | None:
    if spec.timestamp:
        return np.asarray(columns[spec.timestamp], np.float64) if spec.timestamp in columns else None
    return np.arange(length) / spec.control_hz if spec.control_hz else None


def _instructions(
    language: Sequence[str], columns: Mapping[str, Any], metadata: Mapping[str, Any], *, length: int
) -> tuple[tuple[str, ...], Array | None]:
    """List the distinct instructions, and say which one each step has."""
    texts: dict[str, None] = {}
    index = None
    for path in language:
        if path in columns or path in metadata:
            words = columns[path] if path in columns else listed_texts(metadata[path])
            found, one = texts_of(words if path in columns else [*words[:1]] * length, path)
            index = one if index is None and found else index
            texts |= dict.fromkeys(found) | dict.fromkeys(texts_of(words, path)[0] if path in metadata else ())
    return tuple(texts), index


def _ends(length: int) -> dict[str, Array]:
    step = np.arange(length)
    return {"is_first": step == 0, "is_last": step == length - 1}


def _taken(name: str, value: Any, rows: Array) -> Any:
    """Take some steps of one of an episode's fields, if it has steps."""
    if name in {"images", "depth", "raw"}:
        return {key: take(column, rows) for key, column in value.items()}
    return value[rows] if isinstance(value, np.ndarray) else value
