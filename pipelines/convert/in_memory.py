"""`standardize`: one raw episode in memory, without files, in the unified schema or as a view shows it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pipelines.convert.binding import FLAGS, Binding, bind, decoded
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode, selected
from schemas.errors import SourceError, SpecError
from schemas.source import Array, Field, Ragged, RawEpisode
from schemas.views.views import View, view

PER_EPISODE = ("episode_metadata.", "traj_metadata.")  # whatever lies below has no steps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standard:
    """A declaration with everything that is the same for each of its episodes."""

    spec: DatasetSpec
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
    lists of texts, or lists of encoded images. `oxe convert` would store the same episode, but tolerates less. Here

    - keys may be missing, None or without values: what is made of them stays empty;
    - a text may be given once instead of T times;
    - a key that is not declared and has no T values is the whole episode's, and goes to `metadata`;
    - a state that cannot be made stays empty where the view does not read it;
    - images are found where they are declared, and decoded ones stay in `raw`.

    Raises SpecError where the result needs a key that is missing, SourceError where the values cannot be used,
    ViewError where there is no such view.

    >>> steps = {"action": {"rel_actions_world": np.ones((2, 7))}}
    >>> standardize("taco_play", steps, view="openvla").action.shape
    (2, 7)
    """
    standard = _shipped(name) if name in _names() else Standard.of(catalog.dataset(name))
    chosen = None if view is None else standard.view(view)
    raw, n_steps = _raw_episode(standard, steps)
    binding = _bound(standard, *_described(raw))
    return _shown(binding, raw, chosen, n_steps=n_steps) if chosen else binding.episode(raw)


def _shown(binding: Binding, raw: RawEpisode, view: View, *, n_steps: int) -> Episode:
    """Make the episode that a view shows; a state or action that the view does not read may be missing."""
    columns = decoded(binding.spec, raw.steps)
    derived = binding.spec.derived is not None
    reads_state = "observation.state" in view.columns or (view.reads_action and derived)
    state = binding.state_of(columns) if reads_state else _state_if_sound(binding, columns)
    has_action = state is not None if derived else binding.action
    action = binding.action_of(columns, state) if view.reads_action or has_action else None
    values = {**binding.rest_of(raw, columns, n_steps), "state": state, "action": action}
    viewed = view.of_values(values, n_steps)
    changes = view.changes(viewed, values["reward"], values["is_terminal"])
    return Episode(**{**selected(values, viewed.mask), **changes})


def _state_if_sound(binding: Binding, columns: Mapping[str, Any]) -> Array | None:
    """Make a state that nothing depends on; None where it cannot be made of these numbers."""
    try:
        state = binding.state_of(columns)
    except (SpecError, SourceError):
        return None
    if state is None or state.shape[1] != len(binding.layout.state or ()):
        return None
    return state if np.isfinite(state).all() else None


def _described(raw: RawEpisode) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Name what was given: columns by type and shape of one value, values of the whole episode by type."""
    columns = tuple(
        (path, column.dtype, column.shape[1:]) if isinstance(column, np.ndarray) else (path, type(column), ())
        for path, column in raw.steps.items()
    )
    return columns, tuple((path, type(value)) for path, value in raw.metadata.items())


@lru_cache
def _bound(standard: Standard, columns: tuple[Any, ...], metadata: tuple[Any, ...]) -> Binding:
    """Bind a declaration to what `_described` names; texts are told from bytes only where they are declared."""
    spec = standard.spec
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


def _raw_episode(standard: Standard, steps: Mapping[str, Any]) -> tuple[RawEpisode, int]:
    """Tell columns of T values from values of the whole episode, and count the steps.

    Columns that are read must agree, but for a single text; others of another length belong to the whole episode.
    """
    name = standard.spec.name
    columns, metadata = _columns_and_metadata(steps, standard.paths)
    if not columns:
        raise SourceError(f"{name}: an episode without a single column")
    single = [path for path in standard.spec.language_keys if path in columns and len(columns[path]) == 1]
    sure = {path: len(columns[path]) for path in columns if path in standard.read and path not in single}
    lengths = sure or {path: len(column) for path, column in columns.items()}
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    if lengths[shortest] != lengths[longest]:
        unequal = f"{longest} has {lengths[longest]} steps, {shortest} has {lengths[shortest]}"
        raise SourceError(f"{name}: columns of unequal length: {unequal}", reason="unequal_lengths")
    n_steps = lengths[shortest]
    whole = {path: column for path, column in columns.items() if len(column) != n_steps}
    if whole:
        columns = {path: column for path, column in columns.items() if path not in whole}
    return RawEpisode(index=0, split="train", steps=columns, metadata={**metadata, **whole}), n_steps


def _columns_and_metadata(
    steps: Mapping[str, Any], declared: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flatten a dict of raw values; lists of numbers become arrays, arrays of texts lists.

    `declared` gives the path as the declaration spells it for one with "/" read as "."; others keep their spelling.
    None and whatever is empty is no value, except where no column has a single step: such an episode has none.
    """
    columns: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for given, raw in _flat(steps):
        dotted = given.replace("/", ".")
        path, value = declared.get(dotted, given), _value(raw, given)
        has_steps = bool(value.ndim) if isinstance(value, np.ndarray) else isinstance(value, list | Ragged)
        if has_steps and not dotted.startswith(PER_EPISODE):
            columns[path] = value
        elif value is not None and not (has_steps and _is_empty(value)):
            metadata[path] = value
    if any(len(column) for column in columns.values()):
        columns = {path: column for path, column in columns.items() if not _is_empty(column)}
    return columns, metadata


def _flat(steps: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of a nested dict under dotted paths."""
    for key, value in steps.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any, path: str) -> Any:
    """Make an array of numbers, a list of texts or images, or one value of the whole episode."""
    if value is None or isinstance(value, str | bytes | Ragged):
        return value
    if isinstance(value, list | tuple):
        first = next((item for item in value if item is not None), None)
        if first is None or isinstance(first, str | bytes | memoryview):
            return list(value) if first is not None or not value else None
    try:
        column = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as error:
        raise SourceError(f"{path}: neither numbers nor texts of one shape ({error})") from error
    return _texts(column) if column.dtype.kind in "OSU" else column


def _texts(column: Array) -> Any:
    """Unpack an array of texts or images, also one of shape [T, 1]; one that holds nothing but None is no value."""
    is_column = column.ndim > 1 and column.size == len(column)
    values = (column.reshape(-1) if is_column else column).tolist()
    return None if isinstance(values, list) and values and all(item is None for item in values) else values


def _is_empty(column: Array | list[Any] | Ragged) -> bool:
    return not (column.size if isinstance(column, np.ndarray) else len(column))
