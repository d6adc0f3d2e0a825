"""Bind a declaration to the fields of a source: a pure function from raw episodes to the unified schema."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.convert.fit import check_fit, misfit
from pipelines.readers.boundary import source_errors
from schemas.declarations.derive import derived_action
from schemas.declarations.expr import Expr
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.success import Outcome
from schemas.declarations.vocabulary import DECODERS
from schemas.episode import Episode, Frames
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.images import Sniffer
from schemas.source import Array, Bytes, Column, Field, Ragged, RawEpisode
from schemas.store.arrow import Camera, Layout, MaterializedView
from schemas.views.views import View, view

FLAGS = ("is_first", "is_last", "is_terminal", "reward")  # step fields of RLDS; read from the source if present


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A declaration bound to a source. It knows which columns to read and how to compute an Episode from them."""

    spec: DatasetSpec
    layout: Layout
    views: tuple[View, ...]  # views that are stored as columns
    id: str | None  # the metadata field with the id of each episode
    language: tuple[str, ...]
    action: tuple[Expr, ...]  # one per part, in the order of the Space; empty if the action is derived
    state: tuple[Expr, ...]  # one per part, in the order of the Space; empty if there is no state
    columns: frozenset[str]  # paths that the reader reads

    def episode(self, raw: RawEpisode) -> Episode:
        """Compute the unified episode.

        Raises SourceError if that fails; its `reason` is the reason for the quarantine.
        """
        try:
            with source_errors():  # an op, a decoder or a hook may fail on any value
                return self._episode(raw, self._n_steps(raw))
        except SourceError as error:
            if error.file:
                raise
            raise SourceError(error.message, reason=error.reason, file=raw.file, offset=raw.offset) from error

    def drop_reason(self, raw: RawEpisode) -> str | None:
        """Return why a readable episode is dropped, or None to keep it.

        Raises SourceError if a value cannot be used.
        """
        with source_errors(raw.file):
            for name, condition in self.spec.filters.items():
                if not condition.keeps(raw.metadata[condition.key]):
                    return f"filter_{name}"
            return None if self._n_steps(raw) else "zero_steps"

    def _n_steps(self, raw: RawEpisode) -> int:
        """Return the number of steps.

        Raises SourceError if the columns differ in length. If the episode has one more observation than actions, the
        message suggests `source.drop_last`.
        """
        try:
            return raw.n_steps()
        except SourceError as error:
            longer = columns_one_longer(raw.steps, _paths([*self.spec.expressions.values()]))
            if not longer or "drop_last" not in type(self.spec.source).model_fields:
                raise
            fix = f"; if they end with an observation after the last action, set source.drop_last = {longer}"
            raise SourceError(error.message + fix, reason=error.reason, file=error.file, offset=error.offset) from error

    def _episode(self, raw: RawEpisode, n_steps: int) -> Episode:
        steps = decode_columns(self.spec, raw.steps)
        state = self.state_of(steps)
        action = self.action_of(steps, state)
        return Episode(**self.rest_of(raw, steps, n_steps), action=action, action_space=self.layout.action, state=state)

    def state_of(self, steps: Mapping[str, Any]) -> Array | None:
        """Compute the state [T, S] from decoded columns, or None if there is no state."""
        return _vector(self.state, steps) if self.state else None

    def action_of(self, steps: Mapping[str, Any], state: Array | None) -> Array:
        """Compute the action [T, A] from decoded columns or, if the declaration derives it, from the state."""
        spec = self.spec
        if spec.derived and state is not None and self.layout.state:
            return derived_action(spec.derived, state, self.layout.state)
        if not self.action:
            missing = min(_paths(spec.state_parts if spec.derived else spec.action_parts) - steps.keys())
            raise SpecError(f"{spec.name}: the action needs the column '{missing}'{did_you_mean(missing, steps)}")
        return _vector(self.action, steps)

    def rest_of(self, raw: RawEpisode, steps: Mapping[str, Any], n_steps: int) -> dict[str, Any]:
        """Compute the fields of an Episode except its state and action; `steps` are decoded columns."""
        spec, layout, step = self.spec, self.layout, np.arange(n_steps)
        instructions, instruction_index = self._instructions(steps, raw.metadata, n_steps)
        prefix = f"{spec.raw}." if spec.raw else ""
        return {
            "id": str(raw.metadata[self.id]) if self.id else f"{spec.name}-{raw.index:06d}",
            "dataset": spec.name,
            "embodiment": spec.embodiment.name,
            "instructions": instructions,
            "instruction_index": instruction_index,
            "control_hz": spec.control_hz,
            "state_space": layout.state,
            "images": {c.leaf: _frames(c, steps[c.path], spec.max_pixels) for c in layout.cameras if not c.is_depth},
            "depth": {c.leaf: _frames(c, steps[c.path], spec.max_pixels) for c in layout.cameras if c.is_depth},
            "timestamp": self._timestamp(steps, step),
            "raw": {field.path: _raw_column(field, steps[prefix + field.path]) for field in layout.raw},
            "index": raw.index,
            "split": raw.split,
            "outcome": outcome_of(spec, steps, raw.metadata),
            "is_first": self._flag("is_first", steps, step == 0),
            "is_last": self._flag("is_last", steps, step == n_steps - 1),
            "is_terminal": self._flag("is_terminal", steps, None),
            "reward": self._flag("reward", steps, None),
            "metadata": {field.path: raw.metadata[field.path] for field in layout.metadata},
        }

    def _flag(self, name: str, steps: Mapping[str, Any], otherwise: Array | None) -> Array | None:
        if not self.layout.origins[name]:
            return otherwise
        return np.asarray(steps[name], np.float32 if name == "reward" else bool)

    def _timestamp(self, steps: Mapping[str, Any], step: Array) -> Array | None:
        path = self.layout.origins["timestamp"]
        if path and self.spec.timestamp:
            return _check_increasing(np.asarray(steps[path], np.float64), path)
        return step / self.spec.control_hz if path else None

    def _instructions(
        self, steps: Mapping[str, Any], metadata: Mapping[str, Any], n_steps: int
    ) -> tuple[tuple[str, ...], Array | None]:
        """Return the distinct instructions, and for each step the index of its instruction.

        If `language` has several keys, the indices refer to the texts of the first. If it has none, they are None.
        """
        texts: dict[str, None] = {}
        index = None
        for path in self.language:
            column = steps[path] if path in steps else _as_list(metadata[path])
            if index is None and path not in steps:
                index, column = np.zeros(n_steps, np.int32), column or [b""]
            words, each = _distinct_texts(column, path)
            index = each if index is None else index
            texts |= dict.fromkeys(words)
        return tuple(texts), index


def bind(
    spec: DatasetSpec,
    fields: Sequence[Field],
    *,
    keep_raw: bool = True,
    materialize: Sequence[str] = (),
    tolerant: bool = False,
) -> Binding:
    """Bind a declaration to a source's fields; raises SpecError if the source lacks a key.

    With `tolerant`, missing keys are not an error: the fields that depend on them are left out.
    """
    steps = {field.path: decoder_output(spec, field) for field in fields if field.per_step}
    episodes = {field.path: field for field in fields if not field.per_step}
    if not tolerant:
        check_fit(spec, steps, episodes)
    cameras = _cameras(spec, steps)
    language = tuple(path for path in spec.language_keys if path in steps or path in episodes)
    consumed = {camera.path for camera in cameras} | set(language[:1])
    prefix = f"{spec.raw}." if spec.raw else ""
    kept = [field for path, field in steps.items() if keep_raw and path.startswith(prefix) and path not in consumed]
    flags = [flag for flag in FLAGS if flag in steps and not misfit("flag", steps[flag])]
    views = tuple(view(spec, name) for name in materialize)
    origins: dict[str, str | None] = {flag: flag if flag in flags else None for flag in FLAGS}
    origins["instruction"] = language[0] if language else None
    origins["outcome"] = spec.success.key if spec.success else None
    origins["timestamp"] = "control_hz" if spec.control_hz else None
    if spec.timestamp:
        origins["timestamp"] = spec.timestamp if spec.timestamp in steps else None
    if spec.derived:
        origins["action"] = f"{spec.derived}(observation.state)"
    named = {spec.id, *language[:1], *(path for path in language if path in episodes and episodes[path].ragged)}
    if spec.success and spec.success.is_plain and spec.success.key in episodes:
        named |= {spec.success.key} if episodes[spec.success.key].kind == "text" else set()  # stored as `outcome`
    layout = Layout(
        dataset=spec.name,
        action=spec.action_space,
        state=spec.state_space,
        cameras=cameras,
        raw=tuple(replace(field, path=field.path.removeprefix(prefix)) for field in kept),
        metadata=tuple(field for path, field in episodes.items() if path not in named),
        views=tuple(
            MaterializedView(name=v.name, space=v.space, digest=v.digest, state=v.state_space if v.has_state else None)
            for v in views
        ),
        origins=origins,
    )
    used = _paths(spec.action_parts) | _paths(spec.state_parts) | {field.path for field in kept}
    used |= {camera.path for camera in cameras} | {*language, *flags, *episodes}
    used |= {*filter(None, (spec.timestamp, origins["outcome"]))}
    return Binding(
        spec=spec,
        layout=layout,
        views=views,
        id=spec.id if spec.id in episodes else None,
        language=language,
        action=tuple(spec.action_parts) if _paths(spec.action_parts) <= steps.keys() else (),
        state=tuple(spec.state_parts) if _paths(spec.state_parts) <= steps.keys() else (),
        columns=frozenset(used),
    )


def columns_one_longer(steps: Mapping[str, Column], action: Collection[str]) -> list[str]:
    """List the columns that have one more step than the action.

    If all columns of a group, such as `observation`, have one more step, only the group is listed. The list is empty if
    any column is neither as long as the action nor one step longer.
    """
    counts = {len(steps[path]) for path in action if path in steps}
    lengths = {path: len(column) - min(counts, default=0) for path, column in steps.items()}
    if len(counts) != 1 or not {*lengths.values()} <= {0, 1}:
        return []
    shared = {path.partition(".")[0] for path, more in lengths.items() if not more}
    longer = [path for path, more in lengths.items() if more]
    return sorted({path if (folder := path.partition(".")[0]) in shared else folder for path in longer})


def decode_columns(spec: DatasetSpec, steps: Mapping[str, Column]) -> Mapping[str, Column]:
    """Decode the columns that the declaration lists under `decode`; columns that are missing are ignored.

    In columns of bool, each byte other than 0 becomes 1.
    """
    stored = {path: _as_stored(column) for path, column in steps.items()}
    decoded = {path: DECODERS[word](stored[path]) for path, word in spec.decode.items() if path in stored}
    return {**stored, **decoded}


def _as_stored(column: Column) -> Column:
    """Return a column as Arrow stores it: in an array of bool, a source may have other bytes than 0 and 1."""
    if isinstance(column, Ragged):
        values: Any = _as_stored(column.values)
        return column if values is column.values else replace(column, values=values)
    if isinstance(column, np.ndarray) and column.dtype == np.bool_ and column.size:
        bits = np.ascontiguousarray(column).view(np.uint8)
        return bits != 0 if bits.max() > 1 else column
    return column


def decoder_output(spec: DatasetSpec, field: Field) -> Field:
    """Return the field that the decoder of `field` produces; a field without a decoder is returned as it is."""
    if field.path not in spec.decode:
        return field
    declared = spec.fields[field.path]
    if declared.dtype == "text":
        return replace(field, kind="text", dtype="object", shape=(), encoding=None)
    return replace(field, kind="number", dtype=declared.dtype, shape=declared.shape or (), encoding=None)


def _paths(parts: Sequence[Expr]) -> set[str]:
    return set().union(*(expr.paths() for expr in parts))


def _cameras(spec: DatasetSpec, steps: Mapping[str, Field]) -> tuple[Camera, ...]:
    """Find every image stream, declared or not.

    An image of floats is skipped: it is depth stored as the bits of an image, and stays a raw column.
    """
    declared = {**spec.cameras, **{f"depth {role}": depth for role, depth in spec.depth.items()}}
    roles = {camera.key: role.removeprefix("depth ") for role, camera in declared.items()}
    channels = {camera.key: camera.channels for camera in declared.values()}
    units = {depth.key: depth.metres_per_unit for depth in spec.depth.values()}
    images = [f for f in steps.values() if f.kind == "image" and not f.ragged and not f.dtype.startswith("float")]
    leaves = _leaves([field.path for field in images])
    cameras = [
        Camera(
            leaf=leaf,
            path=field.path,
            role=roles.get(field.path),
            is_depth=field.path in units or field.dtype == "uint16",
            metres_per_unit=units.get(field.path),
            channels=channels.get(field.path, "rgb"),
        )
        for field, leaf in zip(images, leaves, strict=True)
    ]
    return tuple(cameras)


def _leaves(paths: Sequence[str]) -> list[str]:
    """Name each path by its last part, or by the whole path if two paths have the same last part."""
    words = [path.rsplit(".", 1)[-1] for path in paths]
    leaves: list[str] = []
    for path, word in zip(paths, words, strict=True):
        leaf = (word if words.count(word) == 1 else path.replace(".", "_")).replace("/", "_")
        while leaf in leaves:
            leaf += "_"
        leaves.append(leaf)
    return leaves


def outcome_of(spec: DatasetSpec, steps: Mapping[str, Any], metadata: Mapping[str, Any]) -> Outcome:
    """Return whether an episode succeeded, or "unknown" if its source does not record that."""
    if not spec.success:
        return "unknown"
    if spec.success.key in steps:
        return spec.success.of_steps(steps[spec.success.key])
    return spec.success.of_value(metadata.get(spec.success.key))


def _check_increasing(times: Array, path: str) -> Array:
    """Return the times; raises SourceError unless they are finite and strictly increasing."""
    wrong = np.flatnonzero(~(np.diff(times, prepend=-np.inf) > 0) | ~np.isfinite(times))
    if len(wrong):
        step = int(wrong[0])
        before = f" after {times[step - 1]}" if step else ""
        raise SourceError(
            f"{path}: step {step} is {times[step]}{before}, but times must increase; "
            "if only the times are wrong, and the steps are complete and in order, remove 'timestamp' from the "
            "declaration to count time by control_hz; if time starts again there, several episodes are stored as one",
            reason="bad_timestamps",
        )
    return times


def _vector(parts: Sequence[Expr], steps: Mapping[str, Any]) -> Array:
    return np.concatenate([expr(steps) for expr in parts], axis=1)


def _frames(camera: Camera, column: Column, max_pixels: int) -> Frames:
    """Check the header of every image; an empty byte string becomes a missing frame."""
    sniff = Sniffer(max_pixels)
    frames: list[Bytes | None] = []
    for step, item in enumerate(column):  # type: ignore[arg-type]
        if not item:
            frames.append(None)
            continue
        try:
            sniff(item)
        except SourceError as error:
            raise SourceError(f"{camera.path}: step {step}: {error.message}", reason=error.reason) from error
        frames.append(item)
    return frames


def _raw_column(field: Field, column: Column) -> Column:
    if field.kind == "text":
        items = column.values if isinstance(column, Ragged) else column
        _distinct_texts(items, field.path)
    return column


def _as_list(texts: Any) -> list[Any]:
    """Return the instructions of an episode, one text or several, as a list."""
    return list(texts) if isinstance(texts, list | tuple) else [texts]


def _distinct_texts(column: Any, path: str) -> tuple[list[str], Array]:
    """Return the distinct texts of a column, and for each step the index of its text."""
    known: dict[bytes, int] = {}
    encoded = (_encoded(item, path) for item in column)
    index = np.fromiter((known.setdefault(item, len(known)) for item in encoded), np.int32, len(column))
    try:
        return [item.decode() for item in known], index
    except UnicodeDecodeError as error:
        step = int(np.argmax(index == list(known).index(error.object)))
        raise SourceError(
            f"{path}: step {step} is not valid UTF-8 (byte {error.start} of {error.object[:40]!r})", reason="bad_utf8"
        ) from error


def _encoded(item: Any, path: str) -> bytes:
    """Encode one text; raises SourceError for numbers and arrays, which `bytes` would accept."""
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")  # not valid UTF-8: an error is raised when it is decoded
    if not isinstance(item, bytes | memoryview):
        raise SourceError(f"{path}: expected a text, got {type(item).__name__}", reason="bad_utf8")
    return bytes(item)
