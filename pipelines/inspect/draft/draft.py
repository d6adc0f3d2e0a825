"""`inspect --draft`: from a source to a proposed declaration."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.convert.binding import bind
from pipelines.inspect.draft.claims import Claim, todo
from pipelines.inspect.draft.clock import clock, described
from pipelines.inspect.draft.roles import cameras, language, role
from pipelines.inspect.draft.sample import Sample, sample
from pipelines.inspect.draft.spaces import Spaces, chosen
from pipelines.inspect.draft.write import Proposal
from pipelines.readers.reader import Reader
from schemas.declarations import catalog
from schemas.declarations.formats import OURS
from schemas.declarations.spec import DatasetSpec
from schemas.errors import OxeError, UsageError

ROBOT = ("robot_type", "robot", "robots", "robot_name")
CONTROLLER = ("controller", "controller_type", "control_mode", "controller_configs")
SHIPPED = 3  # declarations that are named
SUCCESS = {"success", "is_success", "successful", "succeeded"}
NAMES = {
    "episode_path": 0,
    "file_path": 1,
    "episode_id": 2,
    "id": 3,
    "uuid": 4,
}  # last words of what may name an episode


def draft(reader: Reader, uri: str, *, limit: int | None = None) -> Proposal:
    """Propose a declaration of an opened source from its first episodes; `uri` is what the declaration shall say."""
    seen = sample(reader, limit=limit)
    if not seen.steps:
        raise UsageError(
            f"{uri}: none of the first episodes can be read, so nothing can be drafted; 'oxe inspect' says why"
        )
    odd = _odd_lengths(seen)
    actions, other_actions = chosen(seen, "action")
    seen = _without(seen, {path for path, more in odd.items() if more != 1})
    states, other_states = chosen(seen, "state")
    timed = clock(seen, [path for path in sorted(seen.episodes[0]) if role(seen.fields[path]) == "clock"])
    spaces = Spaces(seen, state=states, action=actions, rate=timed.rate)
    texts = language(reader.fields)
    shown, depth = cameras(reader.fields)
    name = _name(reader, uri)
    layout, lost = _layout(reader, odd)
    notes = [
        *(f"Also looks like an action: {path}; kept as raw.{path}." for path in other_actions),
        *([f"Not part of the state, kept as raw.*: {', '.join(other_states)}."] if other_states else []),
        *lost,
        *_pixels(seen),
    ]
    return Proposal(
        name=name,
        source={"format": reader.format, "uri": uri, **layout},
        episodes=len(seen.episodes),
        steps=seen.steps,
        clock=timed,
        robot=_told(seen, ROBOT, "its name"),
        controller=_told(seen, CONTROLLER, "such as eef_delta, joint_position"),
        state=spaces.state,
        action=spaces.action,
        language=_language(texts, seen),
        id=_id(seen),
        success=_success(seen),
        cameras=shown,
        depth=depth,
        shipped=_shipped(reader),
        notes=notes,
    )


def _name(reader: Reader, uri: str) -> str:
    told = reader.description().get("name")
    parts = [part for part in re.split(r"[/\\]", uri.rstrip("/")) if part and not re.fullmatch(r"[v\d.]+", part)]
    word = str(told) if isinstance(told, str) and told else (parts or ["my_dataset"])[-1].partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", word).strip("_.-") or "my_dataset"


def _told(seen: Sample, keys: tuple[str, ...], ask: str) -> Claim:
    for where, value in described(seen, keys):
        found = value.get("type") if isinstance(value, Mapping) else value
        listed = [str(item) for item in found] if isinstance(found, list) else [found]
        if listed and all(isinstance(item, str) and item for item in listed):
            return Claim(" and ".join(map(str, listed)), "high", f"{where} says so")
    return todo(ask)


def _language(texts: list[str], seen: Sample) -> Claim | None:
    if not texts:
        return None
    first, *others = texts
    sample_text = seen.texts.get(first) or next((str(m[first]) for m in seen.metadata if m.get(first)), "")
    more = f"; also {', '.join(others)}" if others else ""
    return Claim(first, "medium" if others else "high", f"by its name; such as {sample_text[:60]!r}{more}")


def _id(seen: Sample) -> Claim | None:
    """Take a per-episode field whose values are all different, if all episodes were seen."""
    paths = [path for path, field in seen.fields.items() if not field.per_step and not field.shape and not field.ragged]
    for path in sorted((p for p in paths if p.rpartition(".")[2] in NAMES), key=lambda p: NAMES[p.rpartition(".")[2]]):
        values = [str(episode.get(path)) for episode in seen.metadata]
        is_place = path == "episode_path"
        if len(set(values)) == len(values) and (seen.is_whole or is_place) and "" not in values:
            return Claim(
                path,
                "high",
                "where each episode lies" if is_place else f"{len(values)} different values in all episodes",
            )
    return None


def _success(seen: Sample) -> Claim | None:
    """Take a per-episode field that is called success, where it is true or false throughout."""
    for path in seen.fields:
        values = [episode.get(path) for episode in seen.metadata]
        if path.rpartition(".")[2] in SUCCESS and values and all(value in {0, 1} for value in values):
            return Claim(path, "high", f"its name; true of {sum(map(bool, values))} of {len(values)} episodes")
    return None


def _odd_lengths(seen: Sample) -> dict[str, int]:
    """Say by how many steps columns are longer than the action, or than most columns."""
    paths = sorted(set().union(*seen.episodes))
    first = (chosen(seen, "action")[0] or paths[:1])[0]
    odd = {}
    for path in paths:
        counts = seen.lengths(path, first)
        if set(counts) != {0}:
            odd[path] = next(iter(counts)) if len(counts) == 1 else 0
    steps = len(seen.episodes[0][first]) if first in seen.episodes[0] else None
    return odd | {path: count - steps for path, count in seen.frames.items() if steps is not None and count != steps}


def _without(seen: Sample, paths: set[str]) -> Sample:
    kept = tuple({p: column for p, column in episode.items() if p not in paths} for episode in seen.episodes)
    return replace(seen, episodes=kept)


def _layout(reader: Reader, odd: Mapping[str, int]) -> tuple[dict[str, Any], list[str]]:
    """Give the keys of `source`, those that leave out steps and columns without a match included, and say so."""
    layout = dict(reader.layout())
    if not odd:
        return layout, []
    known = OURS[reader.format].model_fields if reader.format in OURS else {}
    longer = [path for path, more in odd.items() if more == 1]
    others = [path for path in odd if path not in longer]
    notes = []
    for key, paths, why in (
        ("drop_last", longer, "one step more than the action: their last step is not read"),
        ("ignore", others, "another number of steps than the action: they are not read"),
    ):
        if paths and key in known:
            layout[key] = sorted({*layout.get(key, ()), *paths})
            notes.append(f"source.{key}: {len(paths)} fields have {why}.")
        elif paths:
            notes.append(f"{', '.join(paths)}: not as many steps as the action; such episodes are quarantined.")
    return layout, notes


def _pixels(seen: Sample) -> list[str]:
    """Name columns of numbers that may be images, which only `frames` of a source can say."""
    shapes = {p: f.shape for p, f in seen.fields.items() if f.kind == "number" and f.per_step and len(f.shape) == 3}
    return [
        f"{path}: {list(shape)} numbers a step may be an image: source.frames says how it is laid out, such as "
        f"{{ {path} = '{'hwc' if shape[-1] in {1, 3, 4} else 'chw'} 0..255' }}; until then it is kept as raw.{path}."
        for path, shape in shapes.items()
        if {shape[0], shape[-1]} & {1, 3, 4}
    ]


def _shipped(reader: Reader) -> list[str]:
    """Name shipped declarations that fit the source's fields: the one of its own name, or those that tell most."""
    told = str(reader.description().get("name") or "")
    known = {field.path: field for field in reader.fields}
    found: list[tuple[int, str]] = []
    for name in catalog.dataset_names():
        spec = catalog.dataset(name)
        if spec.source.format == reader.format and _fits(spec, reader, known):
            found.append((-len(spec.read_paths() | spec.fields.keys()), name))
    names = [name for _, name in sorted(found)]
    own = catalog.name_of(told) if told else None
    return [own] if own in names else names[:SHIPPED]


def _fits(spec: DatasetSpec, reader: Reader, known: Mapping[str, Any]) -> bool:
    shapes = (
        (path, field.shape) for path, field in spec.fields.items() if field.shape is not None and field.dtype != "text"
    )
    same = all(path in known and (tuple(known[path].shape) or (1,)) == (tuple(shape) or (1,)) for path, shape in shapes)
    try:
        return same and bool(bind(spec, reader.fields))
    except OxeError:
        return False
