"""`check`: compare a declaration with a source and its first episodes, before a long conversion."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.conventions.check import Conventions, contradictions, conventions
from pipelines.conventions.trajectories import Trajectories
from pipelines.convert.binding import Binding, bind, decoder_output
from pipelines.convert.fit import check_fit
from pipelines.convert.rate import rate_mismatch
from pipelines.readers.coverage import Coverage
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode
from schemas.errors import SourceError, SpecError, closest
from schemas.images import sniff
from schemas.source import Array, Field, RawEpisode, Unreadable
from schemas.spaces import Space

# Values beyond these limits suggest a wrong declaration.
MAX_POSITION_M, MAX_ROTATION_RAD, GRIPPER_SLACK = 10.0, 2 * np.pi + 0.1, 0.25


@dataclass(slots=True)
class CheckReport:
    """The result of `check`."""

    dataset: str
    source: str
    read: int = 0  # episodes
    dropped: int = 0  # episodes that the declaration's filters drop
    problems: list[str] = field(default_factory=list)  # the conversion would fail or be wrong
    notes: list[str] = field(default_factory=list)  # harmless differences
    ranges: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # action or state -> dimension -> range
    conventions: Conventions = field(default_factory=dict)  # what the motion says about the declared action

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the object printed by `oxe datasets check --json`."""
        judged = {aspect: one.to_json() for aspect, one in self.conventions.items()}
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__slots__}, "conventions": judged}


def check(spec: DatasetSpec, source: str, *, episodes: int = 3, follow_links: bool = False) -> CheckReport:
    """Compare a declaration with the fields of a source and with its first `episodes` episodes.

    The episodes are read only if the description and the fields of the source have no problems.

    Raises UsageError or SourceError if the source cannot be read at all.
    """
    reader = open_source(source, spec.source, follow_links=follow_links)
    out = CheckReport(dataset=spec.name, source=source, notes=[*Coverage.of(reader).sentences(), *reader.notes()])
    fps = reader.description().get("fps")
    if fps and spec.control_hz and fps != spec.control_hz:
        out.problems.append(f"control_hz is {spec.control_hz:g}, but the source has {fps:g} frames per second")
    steps = {field.path: decoder_output(spec, field) for field in reader.fields if field.per_step}
    metadata = {field.path: field for field in reader.fields if not field.per_step}
    _compare_fields(spec, {**metadata, **steps}, out)
    if not out.problems:  # otherwise the same keys would be reported twice
        try:
            check_fit(spec, steps, metadata)
        except SpecError as error:
            out.problems.append(str(error))
    if not out.problems:
        _compare_episodes(bind(spec, reader.fields), _raw(reader, episodes), out)
    return out


def _compare_fields(spec: DatasetSpec, known: Mapping[str, Field], out: CheckReport) -> None:
    """Look up every key of the declaration in the source, and compare the declared shapes."""
    needed = spec.read_paths()
    for path in sorted(needed | spec.fields.keys()):
        declared = spec.fields.get(path)
        if path not in known:
            message = f"the source has no '{path}'"
            if path in needed:
                out.problems.append(message + closest(path, known))
            else:
                out.notes.append(f"{message}, which the declaration describes but does not read")
        elif declared and declared.shape is not None and declared.dtype != "text" and known[path].kind == "number":
            shape = tuple(known[path].shape)
            if (shape or (1,)) != (declared.shape or (1,)):  # a scalar counts as a vector of length 1
                message = f"'{path}': declared with shape {list(declared.shape)} per step, the source has {list(shape)}"
                (out.problems if path in needed else out.notes).append(message)
    if needed - known.keys():
        out.notes.append(f"the source has: {', '.join(sorted(known))}")
    unread = known.keys() - needed - spec.fields.keys()
    if unread:
        out.notes.append(f"not in the declaration, kept unchanged: {', '.join(sorted(unread))}")


def _compare_episodes(binding: Binding, episodes: Iterable[RawEpisode | Unreadable], out: CheckReport) -> None:
    """Convert the first episodes without writing them, and compare images, times and ranges."""
    values: dict[str, list[Array]] = {"action": [], "state": []}
    for raw in episodes:
        out.read += 1
        try:
            if isinstance(raw, Unreadable):
                raise raw.error()
            if binding.drop_reason(raw):
                out.dropped += 1
                continue
            episode = binding.episode(raw)
        except SourceError as error:
            out.problems.append(f"episode {raw.index}: {error.reason}: {error}")
            continue
        values["action"].append(episode.action)
        if episode.state is not None:
            values["state"].append(episode.state)
        _compare_images(binding, episode, out)
        _compare_clock(binding.spec, episode, out)
    _compare_motion(binding, values, out)
    if not out.read:
        out.notes.append("the source has no episodes")
    for name, space in (("action", binding.layout.action), ("state", binding.layout.state)):
        if space and values[name]:
            joined = np.concatenate(values[name])
            low, high = joined.min(axis=0).tolist(), joined.max(axis=0).tolist()
            out.ranges[name] = {dim.name: [low[i], high[i]] for i, dim in enumerate(space.dims)}
            out.problems += [f"{name}: {oddity}" for oddity in oddities(joined, space)]


def _compare_motion(binding: Binding, values: Mapping[str, list[Array]], out: CheckReport) -> None:
    """Compare commands with the motion that followed."""
    spec, layout = binding.spec, binding.layout
    steps = Trajectories.of(values["action"], values["state"]) if values["state"] else None
    out.conventions = conventions(
        layout.action, layout.state, steps, hz=spec.control_hz, is_derived=spec.derived is not None
    )
    out.problems += [f"action: {aspect}: {one.evidence}" for aspect, one in contradictions(out.conventions)]


def _compare_clock(spec: DatasetSpec, episode: Episode, out: CheckReport) -> None:
    if spec.timestamp and (problem := rate_mismatch(spec.control_hz, episode.timestamp)):
        out.problems.append(f"episode {episode.index}: {problem}")


def _raw(reader: Reader, count: int) -> Iterator[RawEpisode | Unreadable]:
    for ref in plan(reader.files(), limit=count):
        yield from reader.read(ref)


def _compare_images(binding: Binding, episode: Episode, out: CheckReport) -> None:
    cameras = {camera.key: camera for camera in binding.spec.cameras.values()}
    for camera in binding.layout.cameras:
        frame = next((frame for frame in episode.images.get(camera.leaf, ()) if frame is not None), None)
        if frame is None or camera.path not in cameras or not cameras[camera.path].shape:
            continue
        header = sniff(frame, binding.spec.max_pixels)
        actual, declared = (header.height, header.width, header.channels), cameras[camera.path].shape
        note = f"'{camera.path}': declared with images of {list(declared)}, the source has {list(actual)}"
        if actual != declared and note not in out.notes:
            out.notes.append(note)


def oddities(values: Array, space: Space) -> Iterator[str]:
    """Describe the values of the vectors [T, k] that contradict the Space, such as positions above 10 m."""
    for i, dim in enumerate(space.dims):
        low, high = float(values[:, i].min()), float(values[:, i].max())
        is_far = max(-low, high) > {"position": MAX_POSITION_M, "rotation": MAX_ROTATION_RAD}.get(dim.kind, np.inf)
        is_sided = dim.kind == "gripper" and dim.mode == "absolute" and space.gripper in {"open_is_1", "closed_is_1"}
        limits = f"{dim.name} ranges from {low:.4g} to {high:.4g}"
        if is_far and dim.unit == "m":
            yield f"{limits}: too far for metres; are these millimetres?"
        if is_far and dim.unit == "rad" and dim.mode != "velocity":
            yield f"{limits}: too large for radians; are these degrees?"
        if is_sided and dim.unit == "1" and (low < -GRIPPER_SLACK or high > 1 + GRIPPER_SLACK):
            yield f"{limits}: a gripper must range from 0 to 1"
    rotation = space.indices("rotation")
    if space.rotation.startswith("quat") and len(rotation) == 4:
        length = np.linalg.norm(values[:, rotation], axis=1)
        if np.abs(length - 1).max() > 0.05:
            yield f"the quaternions have lengths from {length.min():.3g} to {length.max():.3g}, expected 1"
