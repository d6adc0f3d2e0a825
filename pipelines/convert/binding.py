"""From a raw episode to the unified schema: a declaration, bound to the fields of one source, is a pure function."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.convert.fit import check_fit, misfit
from schemas.declarations.derive import derived_action
from schemas.declarations.expr import Expr
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.success import Outcome
from schemas.declarations.vocabulary import DECODERS
from schemas.episode import Episode, Frames
from schemas.errors import SourceError
from schemas.images import Sniffer
from schemas.source import Array, Bytes, Column, Field, Ragged, RawEpisode
from schemas.store.arrow import Camera, Layout, MaterializedView
from schemas.views.views import View, view

FLAGS = ("is_first", "is_last", "is_terminal", "reward")  # RLDS's own names; taken from the source where it has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A declaration and the source it fits: what to read, and how to make an Episode of it."""

    spec: DatasetSpec
    layout: Layout
    views: tuple[View, ...]  # materialized ones
    language: tuple[str, ...]
    columns: frozenset[str]  # paths that the reader must decode

    def episode(self, raw: RawEpisode) -> Episode:
        """Make the unified episode; one that cannot be made is a SourceError with the reason it is counted under."""
        try:
            return self._episode(raw, self._n_steps(raw))
        except SourceError as error:
            if error.file:
                raise
            raise SourceError(error.message, reason=error.reason, file=raw.file, offset=raw.offset) from error

    def why_drop(self, raw: RawEpisode) -> str | None:
        """Say why an episode is left out although it can be read, or None to keep it."""
        for name, condition in self.spec.filters.items():
            if not condition.keeps(raw.metadata[condition.key]):
                return f"filter_{name}"
        return None if self._n_steps(raw) else "zero_steps"

    def _n_steps(self, raw: RawEpisode) -> int:
        """Count the steps; where observations go on after the last action, the error names the key that says so."""
        try:
            return raw.n_steps()
        except SourceError as error:
            longer = one_longer(raw.steps, _paths([*self.spec.expressions.values()]))
            if not longer or "drop_last" not in type(self.spec.source).model_fields:
                raise
            fix = f"; an observation after the last action? source.drop_last = {longer} leaves it out"
            raise SourceError(error.message + fix, reason=error.reason, file=error.file, offset=error.offset) from error

    def _episode(self, raw: RawEpisode, n_steps: int) -> Episode:
        spec, layout = self.spec, self.layout
        raw = replace(raw, steps=decoded(spec, raw.steps))
        name = str(raw.metadata[spec.id]) if spec.id else f"{spec.name}-{raw.index:06d}"
        instructions, instruction_index = self._instructions(raw, n_steps)
        flags = {flag: raw.steps[flag] for flag in FLAGS if layout.origins.get(flag)}
        prefix = f"{spec.raw}." if spec.raw else ""
        state = _vector(spec.state_parts, raw.steps) if layout.state else None
        return Episode(
            id=name,
            dataset=spec.name,
            embodiment=spec.embodiment.name,
            instructions=instructions,
            instruction_index=instruction_index,
            control_hz=spec.control_hz,
            action=action_of(spec, raw.steps, state),
            action_space=layout.action,
            state=state,
            state_space=layout.state,
            images={c.leaf: _frames(c, raw.steps[c.path]) for c in layout.cameras if not c.is_depth},
            depth={c.leaf: _frames(c, raw.steps[c.path]) for c in layout.cameras if c.is_depth},
            timestamp=self._timestamp(raw, n_steps),
            raw={field.path: _raw_column(field, raw.steps[prefix + field.path]) for field in layout.raw},
            index=raw.index,
            split=raw.split,
            outcome=outcome_of(spec, raw.steps, raw.metadata),
            is_first=np.asarray(flags.get("is_first", np.arange(n_steps) == 0), bool),
            is_last=np.asarray(flags.get("is_last", np.arange(n_steps) == n_steps - 1), bool),
            is_terminal=np.asarray(flags["is_terminal"], bool) if "is_terminal" in flags else None,
            reward=np.asarray(flags["reward"], np.float32) if "reward" in flags else None,
            metadata={field.path: raw.metadata[field.path] for field in layout.metadata},
        )

    def _timestamp(self, raw: RawEpisode, n_steps: int) -> Array | None:
        if path := self.spec.timestamp:
            return _rising(np.asarray(raw.steps[path], np.float64), path)
        return np.arange(n_steps) / self.spec.control_hz if self.spec.control_hz else None

    def _instructions(self, raw: RawEpisode, n_steps: int) -> tuple[tuple[str, ...], Array | None]:
        if not self.language:
            return (), None
        first, *others = self.language
        listed = [] if first in raw.steps else listed_texts(raw.metadata[first])
        column = raw.steps[first] if first in raw.steps else (listed[:1] or [b""]) * n_steps
        texts, index = texts_of(column, first)
        texts += [text for text in texts_of(listed, first)[0] if text not in texts]
        for path in others:
            column = raw.steps[path] if path in raw.steps else listed_texts(raw.metadata[path])
            texts += [text for text in texts_of(column, path)[0] if text not in texts]
        return tuple(texts), index


def bind(
    spec: DatasetSpec,
    fields: Sequence[Field],
    *,
    keep_raw: bool = True,
    materialize: Sequence[str] = (),
) -> Binding:
    """Fit a declaration to a source's fields; a key that the source does not have is a SpecError."""
    steps = {field.path: decoded_field(spec, field) for field in fields if field.per_step}
    episodes = {field.path: field for field in fields if not field.per_step}
    check_fit(spec, steps, episodes)
    cameras = _cameras(spec, steps)
    language = spec.language_keys
    consumed = {camera.path for camera in cameras} | set(language[:1])
    prefix = f"{spec.raw}." if spec.raw else ""
    kept = [field for path, field in steps.items() if keep_raw and path.startswith(prefix) and path not in consumed]
    flags = [flag for flag in FLAGS if flag in steps and not misfit("flag", steps[flag])]
    views = tuple(view(spec, name) for name in materialize)
    origins: dict[str, str | None] = {flag: flag if flag in flags else None for flag in FLAGS}
    origins["instruction"] = language[0] if language else None
    origins["outcome"] = spec.success.key if spec.success else None
    origins["timestamp"] = spec.timestamp or ("control_hz" if spec.control_hz else None)
    if spec.derived:
        origins["action"] = f"{spec.derived}(observation.state)"
    told = {spec.id, *language[:1], *(path for path in language if path in episodes and episodes[path].ragged)}
    if spec.success and spec.success.is_plain and spec.success.key in episodes:
        told |= {spec.success.key} if episodes[spec.success.key].kind == "text" else set()  # the words of `outcome`
    layout = Layout(
        dataset=spec.name,
        action=spec.action_space,
        state=spec.state_space,
        cameras=cameras,
        raw=tuple(replace(field, path=field.path.removeprefix(prefix)) for field in kept),
        metadata=tuple(field for path, field in episodes.items() if path not in told),
        views=tuple(MaterializedView(name=v.name, space=v.space, digest=v.digest) for v in views),
        origins=origins,
    )
    used = _paths(spec.action_parts) | _paths(spec.state_parts) | {field.path for field in kept}
    used |= {camera.path for camera in cameras} | {*language, *flags, *episodes}
    used |= {*filter(None, (spec.timestamp, origins["outcome"]))}
    return Binding(spec=spec, layout=layout, views=views, language=language, columns=frozenset(used))


def one_longer(steps: Mapping[str, Column], action: Collection[str]) -> list[str]:
    """Name the columns with one step more than the action's, where the others have as many; or the folders of them."""
    counts = {len(steps[path]) for path in action if path in steps}
    lengths = {path: len(column) - min(counts, default=0) for path, column in steps.items()}
    if len(counts) != 1 or not {*lengths.values()} <= {0, 1}:
        return []
    shared = {path.partition(".")[0] for path, more in lengths.items() if not more}
    longer = [path for path, more in lengths.items() if more]
    return sorted({path if (folder := path.partition(".")[0]) in shared else folder for path in longer})


def decoded(spec: DatasetSpec, steps: Mapping[str, Column]) -> Mapping[str, Column]:
    """Decode the columns that the declaration's `decode` names, where they are there."""
    found = {path: DECODERS[word](steps[path]) for path, word in spec.decode.items() if path in steps}
    return {**steps, **found} if found else steps


def decoded_field(spec: DatasetSpec, field: Field) -> Field:
    """Describe a field as its decoder leaves it."""
    if field.path not in spec.decode:
        return field
    told = spec.fields[field.path]
    if told.dtype == "text":
        return replace(field, kind="text", dtype="object", shape=(), encoding=None)
    return replace(field, kind="number", dtype=told.dtype, shape=told.shape or (), encoding=None)


def _paths(parts: Sequence[Expr]) -> set[str]:
    return set().union(*(expr.paths() for expr in parts))


def _cameras(spec: DatasetSpec, steps: Mapping[str, Field]) -> tuple[Camera, ...]:
    """Find every stream of images, declared or not; a float image is bit-cast depth and stays raw."""
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
    """Name each by its path's last word, or by the whole path where that is taken."""
    words = [path.rsplit(".", 1)[-1] for path in paths]
    leaves: list[str] = []
    for path, word in zip(paths, words, strict=True):
        leaf = (word if words.count(word) == 1 else path.replace(".", "_")).replace("/", "_")
        while leaf in leaves:
            leaf += "_"
        leaves.append(leaf)
    return leaves


def action_of(spec: DatasetSpec, steps: Mapping[str, Any], state: Array | None) -> Array:
    """Make the action [T, A]: of the source's columns or, where that is declared, of the state."""
    if spec.derived and state is not None and spec.state_space:
        return derived_action(spec.derived, state, spec.state_space)
    return _vector(spec.action_parts, steps)


def outcome_of(spec: DatasetSpec, steps: Mapping[str, Any], metadata: Mapping[str, Any]) -> Outcome:
    """Say how an episode ended, as far as its source tells."""
    if not spec.success:
        return "unknown"
    if spec.success.key in steps:
        return spec.success.of_steps(steps[spec.success.key])
    return spec.success.of_value(metadata.get(spec.success.key))


def _rising(times: Array, path: str) -> Array:
    """Refuse times that stand still or go back: whoever asks for what happened when would get something else."""
    wrong = np.flatnonzero(~(np.diff(times, prepend=-np.inf) > 0) | ~np.isfinite(times))
    if len(wrong):
        step = int(wrong[0])
        before = f" after {times[step - 1]}" if step else ""
        raise SourceError(
            f"{path} is {times[step]}{before} at step {step}; without 'timestamp' in the declaration, time is counted "
            "by control_hz and what was recorded is kept as it is",
            reason="bad_timestamps",
        )
    return times


def _vector(parts: Sequence[Expr], steps: Mapping[str, Any]) -> Array:
    return np.concatenate([expr(steps) for expr in parts], axis=1)


def _frames(camera: Camera, column: Column) -> Frames:
    """Check every image's header; an empty byte string is a missing frame."""
    sniff = Sniffer()
    frames: list[Bytes | None] = []
    for step, item in enumerate(column):  # type: ignore[arg-type]
        if not len(item):
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
        texts_of(items, field.path)
    return column


def listed_texts(texts: Any) -> list[Any]:
    """Take the instructions of a whole episode: one text or a list of them."""
    return list(texts) if isinstance(texts, list | tuple) else [texts]


def texts_of(column: Any, path: str) -> tuple[list[str], Array]:
    """Decode the distinct texts of a column, and say which one each step has."""
    known: dict[bytes, int] = {}
    encoded = (_bytes(item, path) for item in column)
    index = np.fromiter((known.setdefault(item, len(known)) for item in encoded), np.int32, len(column))
    try:
        return [item.decode() for item in known], index
    except UnicodeDecodeError as error:
        step = int(np.argmax(index == list(known).index(error.object)))
        raise SourceError(
            f"{path}: step {step} is not UTF-8 (byte {error.start} of {error.object[:40]!r})", reason="bad_utf8"
        ) from error


def _bytes(item: Any, path: str) -> bytes:
    """Encode one text; `bytes` would take numbers and arrays too."""
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")  # which is no UTF-8, and is refused as such
    if not isinstance(item, bytes | memoryview):
        raise SourceError(f"{path}: a text is needed, got {type(item).__name__}", reason="bad_utf8")
    return bytes(item)
