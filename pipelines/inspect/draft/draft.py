"""`oxe inspect --draft`: propose a declaration of a source."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.convert.binding import bind
from pipelines.inspect.draft.choose import ROBOT_KEYS, choose_fields, robot_words
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.clock import clock, described
from pipelines.inspect.draft.lengths import layout, odd_fields
from pipelines.inspect.draft.owners import owner
from pipelines.inspect.draft.parts import SpaceDraft
from pipelines.inspect.draft.robot_draft import RobotDraft
from pipelines.inspect.draft.robots import Fields, groups
from pipelines.inspect.draft.roles import cameras, language, role
from pipelines.inspect.draft.sample import Sample, read_sample
from pipelines.inspect.draft.spaces import Spaces
from pipelines.inspect.draft.write import Proposal
from pipelines.readers.coverage import Coverage
from pipelines.readers.reader import Reader
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import OxeError, UsageError

CONTROLLER = ("controller", "controller_type", "control_mode", "controller_configs")
CONTROLLERS: Mapping[tuple[str, ...], str] = {  # kind and mode of all parts of the action but the gripper -> name
    ("joint", "absolute"): "joint_position",
    ("joint", "delta"): "joint_delta",
    ("joint", "velocity"): "joint_velocity",
    ("eef", "absolute"): "eef_pose",
    ("eef", "delta"): "eef_delta",
    ("eef", "velocity"): "eef_velocity",
}
MAX_SHIPPED = 3  # a draft names at most this many shipped declarations
SUCCESS = {"success", "is_success", "successful", "succeeded"}  # last word of a field with the outcome
IDS = ("episode_path", "file_path", "episode_id", "id", "uuid")  # last word of a field with ids, the likeliest first


def draft(reader: Reader, uri: str, *, limit: int | None = None) -> Proposal:
    """Propose a declaration of an opened source from its first episodes.

    `uri` is the source's URI in the declaration; `limit` is the number of episodes to read; if None, 50. Raises
    UsageError if none of these episodes can be read.
    """
    sample = read_sample(reader, limit=limit)
    if not sample.steps:
        raise UsageError(f"{uri}: cannot draft: none of the first episodes can be read; run 'oxe inspect' to see why")
    odd = odd_fields(sample)
    actions, other_actions = choose_fields(sample, "action")
    sample = _without(sample, {field.path for field in odd if not field.is_longer})
    states, other_states = choose_fields(sample, "state")
    timed = clock(sample, [path for path in sorted(sample.episodes[0]) if role(sample.fields[path]) == "clock"])
    spaces = Spaces(sample, state=states, action=actions, rate=timed.rate)
    fields: Fields = {"state": groups(states, other_states), "action": groups(actions, other_actions)}
    known = RobotDraft.of(sample, fields)
    states, other_states = known.chosen("state", states, other_states)
    actions, other_actions = known.chosen("action", actions, other_actions)
    action = known.space("action") or spaces.action
    texts = language(reader.fields)
    shown, depth = cameras(reader.fields)
    name = _name(reader, uri)
    keys, layout_notes = layout(reader, odd)
    things = [path for path in other_states if owner(path, robot_words(sample)) in {"unknown", "thing"}]
    other_states = [path for path in other_states if path not in things]
    notes = [
        *Coverage.of(reader).sentences(),
        *(f"Also looks like an action: {path}; kept as raw.{path}." for path in other_actions),
        *([f"Not part of the state, kept as raw.*: {', '.join(other_states)}."] if other_states else []),
        *([f"By their names not of the robot, kept as raw.*: {', '.join(things)}."] if things else []),
        *layout_notes,
        *known.notes(),
        *_pixels(sample),
    ]
    return Proposal(
        name=name,
        source={"format": reader.format, "uri": uri, **keys},
        episodes=len(sample.episodes),
        total=sample.total,
        steps=sample.steps,
        clock=known.clock(timed),
        embodiment_name=known.name or name,
        morphology=known.morphology,
        embodiment=known.question(),
        vectors=known.vectors,
        robot=known.robot() or _described(sample, ROBOT_KEYS, "name of the robot"),
        controller=known.controller() or _controller(sample, action),
        state=known.space("state") or spaces.state,
        action=action,
        language=_language(texts, sample),
        id=_id(sample),
        success=_success(sample),
        cameras=shown,
        depth=depth,
        shipped=_shipped(reader),
        notes=notes,
    )


def _name(reader: Reader, uri: str) -> str:
    name = reader.description().get("name")
    parts = [part for part in re.split(r"[/\\]", uri.rstrip("/")) if part and not re.fullmatch(r"[v\d.]+", part)]
    word = str(name) if isinstance(name, str) and name else (parts or ["my_dataset"])[-1].partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", word).strip("_.-") or "my_dataset"


def _described(sample: Sample, keys: tuple[str, ...], question: str) -> Claim:
    for where, value in described(sample, keys):
        names = value.get("type") if isinstance(value, Mapping) else value
        listed = [str(item) for item in names] if isinstance(names, list) else [names]
        if listed and all(isinstance(item, str) and item for item in listed):
            return Claim(" and ".join(map(str, listed)), "high", f"from {where}")
    return todo(question)


def _controller(sample: Sample, action: SpaceDraft | None) -> Claim:
    """Claim the controller that the recording describes, or else the one that the drafted action has."""
    claim = _described(sample, CONTROLLER, "name of the controller, such as eef_delta or joint_position")
    parts = [part for part in (action.parts if action else ()) if part.kind.value != "gripper"]
    kinds = {"eef" if part.kind.value in {"position", "rotation"} else part.kind.value for part in parts}
    modes = {part.mode.value for part in parts}
    name = CONTROLLERS.get((*kinds, *modes)) if len(kinds) == len(modes) == 1 else None
    return Claim(name, "medium", "what the parts of the action are") if claim.is_open and name else claim


def _language(texts: list[str], sample: Sample) -> Claim | None:
    if not texts:
        return None
    first, *others = texts
    sample_text = sample.texts.get(first) or next((str(m[first]) for m in sample.metadata if m.get(first)), "")
    more = f"; also {', '.join(others)}" if others else ""
    return Claim(first, "medium" if others else "high", f"chosen by name; for example {sample_text[:60]!r}{more}")


def _id(sample: Sample) -> Claim | None:
    """Claim a per-episode field that is named as an id and differs between episodes.

    The sample must contain all episodes of the source, unless the field is `episode_path`.
    """
    scalars = (f.path for f in sample.fields.values() if not f.per_step and not f.shape and not f.ragged)
    names = {path: path.rpartition(".")[2] for path in scalars}
    for path in sorted((path for path in names if names[path] in IDS), key=lambda path: IDS.index(names[path])):
        values = [str(episode.get(path)) for episode in sample.metadata]
        is_location = path == "episode_path"
        if len(set(values)) == len(values) and (sample.is_whole or is_location) and "" not in values:
            evidence = "path of the episode" if is_location else f"different in all {len(values)} episodes"
            return Claim(path, "high", evidence)
    return None


def _success(sample: Sample) -> Claim | None:
    """Claim a per-episode field that is named as an outcome, if all its values are true or false."""
    for path in sample.fields:
        values = [episode.get(path) for episode in sample.metadata]
        if path.rpartition(".")[2] in SUCCESS and values and all(value in {0, 1} for value in values):
            return Claim(path, "high", f"chosen by name; true in {sum(map(bool, values))} of {len(values)} episodes")
    return None


def _without(sample: Sample, paths: set[str]) -> Sample:
    episodes = tuple({p: column for p, column in episode.items() if p not in paths} for episode in sample.episodes)
    return replace(sample, episodes=episodes)


def _pixels(sample: Sample) -> list[str]:
    """Return notes about number columns that may be images, which must be declared in `source.frames`."""
    shapes = {p: f.shape for p, f in sample.fields.items() if f.kind == "number" and f.per_step and len(f.shape) == 3}
    return [
        f"{path}: {list(shape)} numbers per step may be an image. If so, declare its layout in source.frames, such as "
        f"{{ {path} = '{'hwc' if shape[-1] in {1, 3, 4} else 'chw'} 0..255' }}; otherwise it is kept as raw.{path}."
        for path, shape in shapes.items()
        if {shape[0], shape[-1]} & {1, 3, 4}
    ]


def _shipped(reader: Reader) -> list[str]:
    """Return the shipped declarations that fit the source's fields.

    If one of them has the name of the source, only that one is returned; otherwise the three with the most fields.
    """
    own_name = str(reader.description().get("name") or "")
    fields = {field.path: field for field in reader.fields}
    ranked: list[tuple[int, str]] = []
    for name in catalog.dataset_names():
        spec = catalog.dataset(name)
        if spec.source.format == reader.format and _fits(spec, reader, fields):
            ranked.append((-len(spec.read_paths() | spec.fields.keys()), name))
    names = [name for _, name in sorted(ranked)]
    own = catalog.name_of(own_name) if own_name else None
    return [own] if own in names else names[:MAX_SHIPPED]


def _fits(spec: DatasetSpec, reader: Reader, fields: Mapping[str, Any]) -> bool:
    shapes = {
        path: tuple(field.shape) or (1,)
        for path, field in spec.fields.items()
        if field.shape is not None and field.dtype != "text"
    }
    is_same = all(path in fields and (tuple(fields[path].shape) or (1,)) == shape for path, shape in shapes.items())
    try:
        return is_same and bool(bind(spec, reader.fields))
    except OxeError:
        return False
