"""`standardize`: convert one raw episode in memory to the unified schema or to a view."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pipelines.convert.binding import FLAGS, Binding, bind, decode_columns
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode, selected
from schemas.errors import SourceError, SpecError
from schemas.source import Array, Field, Ragged, RawEpisode
from schemas.views.views import View, view

PER_EPISODE = ("episode_metadata.", "traj_metadata.")  # prefixes of fields with one value per episode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedSpec:
    """A declaration, and values that are computed from it once and used for every episode."""

    spec: DatasetSpec
    paths: Mapping[str, str]  # declared path with "/" replaced by "." -> declared path
    per_step: frozenset[str]  # columns that must have one value per step
    views: dict[str, View]

    @classmethod
    def of(cls, spec: DatasetSpec) -> "PreparedSpec":
        """Prepare a declaration."""
        declared = {*spec.read_paths(), *spec.fields, *spec.decode}
        per_episode = {condition.key for condition in spec.filters.values()} | {spec.id}
        per_episode |= {spec.success.key} if spec.success else set()
        return cls(
            spec=spec,
            paths={path.replace("/", "."): path for path in declared},
            per_step=frozenset({*spec.read_paths(), *FLAGS}) - per_episode,
            views={},
        )

    def view(self, name: str) -> View:
        """Return a view; it is created on the first call and then reused."""
        if name not in self.views:
            self.views[name] = view(self.spec, name)
        return self.views[name]


@cache
def _dataset_names() -> frozenset[str]:
    return frozenset(catalog.dataset_names())


@cache
def _shipped(name: str) -> PreparedSpec:
    return PreparedSpec.of(catalog.dataset(name))


def standardize(name: str, steps: Mapping[str, Any], view: str | None = None) -> Episode:
    """Convert one raw episode to the unified schema, or to a view of it.

    `name` is the name of a shipped dataset, a TOML file or an exported dataset, as for `oxe convert`. A TOML file or
    an exported dataset is read again on each call. `steps` maps each key of the source to T values: an array [T, ...],
    a list of texts, or a list of encoded images. It may be nested or flat (`observation.state` or
    `observation/state`).

    The result is the episode that `oxe convert` would store, with these differences:

    - Keys may be missing, None or empty. The fields that depend on them are empty.
    - A text may be passed once instead of T times.
    - A key that is not declared and does not have T values is stored in `metadata`.
    - If the view does not use the state, a state that cannot be computed is left empty.
    - Encoded images are recognized only under declared keys. Arrays of pixels are stored in `raw`.

    Raises SpecError if a required key is missing, SourceError if a value cannot be used, and ViewError if the view
    does not exist.

    >>> steps = {"action": {"rel_actions_world": np.ones((2, 7))}}
    >>> standardize("taco_play", steps, view="openvla").action.shape
    (2, 7)
    """
    prepared = _shipped(name) if name in _dataset_names() else PreparedSpec.of(catalog.dataset(name))
    chosen = None if view is None else prepared.view(view)
    raw, n_steps = _raw_episode(prepared, steps)
    binding = _binding(prepared, *_signature(raw))
    return _viewed_episode(binding, raw, chosen, n_steps=n_steps) if chosen else binding.episode(raw)


def _viewed_episode(binding: Binding, raw: RawEpisode, view: View, *, n_steps: int) -> Episode:
    """Compute the episode of a view; a state or action that the view does not read may be missing."""
    columns = decode_columns(binding.spec, raw.steps)
    derived = binding.spec.derived is not None
    reads_state = "observation.state" in view.columns or (view.reads_action and derived)
    state = binding.state_of(columns) if reads_state else _state_or_none(binding, columns)
    has_action = state is not None if derived else binding.action
    action = binding.action_of(columns, state) if view.reads_action or has_action else None
    values = {**binding.rest_of(raw, columns, n_steps), "state": state, "action": action}
    viewed = view.of_values(values, n_steps)
    changes = view.changes(viewed, values["reward"], values["is_terminal"])
    return Episode(**{**selected(values, viewed.mask), **changes})


def _state_or_none(binding: Binding, columns: Mapping[str, Any]) -> Array | None:
    """Compute a state that the view does not use, or return None if that fails."""
    try:
        state = binding.state_of(columns)
    except (SpecError, SourceError):
        return None
    if state is None or state.shape[1] != len(binding.layout.state or ()):
        return None
    return state if np.isfinite(state).all() else None


def _signature(raw: RawEpisode) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the path, type and shape of each column, and the path and type of each metadata value."""
    columns = tuple(
        (path, column.dtype, column.shape[1:]) if isinstance(column, np.ndarray) else (path, type(column), ())
        for path, column in raw.steps.items()
    )
    return columns, tuple((path, type(value)) for path, value in raw.metadata.items())


@lru_cache
def _binding(prepared: PreparedSpec, columns: tuple[Any, ...], metadata: tuple[Any, ...]) -> Binding:
    """Bind a declaration to the values that `_signature` describes."""
    spec = prepared.spec
    cameras = {camera.key for camera in (*spec.cameras.values(), *spec.depth.values())}
    fields = []
    for path, kind, shape in columns:
        if isinstance(kind, np.dtype):
            fields.append(Field(path=path, kind="number", dtype=kind.name, shape=shape))
        elif kind is Ragged:
            fields.append(Field(path=path, kind="bytes", ragged=1))
        else:
            fields.append(Field(path=path, kind="image" if path in cameras else "bytes"))
    for path, kind in metadata:
        is_text = issubclass(kind, str | bytes | list)
        fields.append(Field(path=path, kind="text" if is_text else "number", ragged=int(kind is list), per_step=False))
    return bind(spec, fields, tolerant=True)


def _raw_episode(prepared: PreparedSpec, steps: Mapping[str, Any]) -> tuple[RawEpisode, int]:
    """Separate columns with T values from metadata, and count the steps.

    All declared columns must have the same length T; only a text may be passed once. A column that is not declared and
    has another length becomes metadata.
    """
    name = prepared.spec.name
    columns, metadata = _columns_and_metadata(steps, prepared.paths)
    if not columns:
        raise SourceError(f"{name}: the episode has no columns")
    single = [path for path in prepared.spec.language_keys if path in columns and len(columns[path]) == 1]
    declared = {path: len(columns[path]) for path in columns if path in prepared.per_step and path not in single}
    lengths = declared or {path: len(column) for path, column in columns.items()}
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    if lengths[shortest] != lengths[longest]:
        unequal = f"{longest} has {lengths[longest]} steps, {shortest} has {lengths[shortest]}"
        raise SourceError(f"{name}: columns have unequal lengths: {unequal}", reason="unequal_lengths")
    n_steps = lengths[shortest]
    others = {path: column for path, column in columns.items() if len(column) != n_steps}
    if others:
        columns = {path: column for path, column in columns.items() if path not in others}
    return RawEpisode(index=0, split="train", steps=columns, metadata={**metadata, **others}), n_steps


def _columns_and_metadata(
    steps: Mapping[str, Any], declared: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flatten a dict of raw values. Lists of numbers become arrays, and arrays of texts become lists.

    `declared` maps each declared path, with "/" replaced by ".", to the path as declared. Other paths are unchanged.
    None and empty values are left out. If all columns are empty, they are kept, as an episode without steps.
    """
    columns: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for key, raw in _flatten(steps):
        dotted = key.replace("/", ".")
        path, value = declared.get(dotted, key), _value(raw, key)
        has_steps = bool(value.ndim) if isinstance(value, np.ndarray) else isinstance(value, list | Ragged)
        if has_steps and not dotted.startswith(PER_EPISODE):
            columns[path] = value
        elif value is not None and not (has_steps and _is_empty(value)):
            metadata[path] = value
    if any(len(column) for column in columns.values()):
        columns = {path: column for path, column in columns.items() if not _is_empty(column)}
    return columns, metadata


def _flatten(steps: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of each leaf of a nested dict."""
    for key, value in steps.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any, path: str) -> Any:
    """Convert to an array of numbers, a list of texts or images, or one metadata value."""
    if value is None or isinstance(value, str | bytes | Ragged):
        return value
    if isinstance(value, list | tuple):
        first = next((item for item in value if item is not None), None)
        if first is None or isinstance(first, str | bytes | memoryview):
            return list(value) if first is not None or not value else None
    try:
        column = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as error:
        raise SourceError(f"{path}: expected numbers of one shape, or texts ({error})") from error
    return _texts(column) if column.dtype.kind in "OSU" else column


def _texts(column: Array) -> Any:
    """Convert an array of texts or images, [T] or [T, 1], to a list; None if all values are None."""
    is_column = column.ndim > 1 and column.size == len(column)
    values = (column.reshape(-1) if is_column else column).tolist()
    return None if isinstance(values, list) and values and all(item is None for item in values) else values


def _is_empty(column: Array | list[Any] | Ragged) -> bool:
    return not (column.size if isinstance(column, np.ndarray) else len(column))
