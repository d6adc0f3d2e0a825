"""`export rlds`: a published dataset as RLDS, with the declaration that reads it back."""

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tomli_w

from pipelines.folders import make_output
from pipelines.progress import Progress, silent
from pipelines.readers.rlds import DECLARATION, FEATURES, INFO
from pipelines.writers.rlds import Feature, Shard, features_json, info_json, metadata_column
from schemas.arrow import Camera
from schemas.episode import Episode
from schemas.errors import DatasetError, UsageError
from schemas.folder import LocalFolder
from schemas.images import sniff
from schemas.source import Column, Field
from schemas.spaces import Space
from schemas.spec import DatasetSpec
from schemas.store import Dataset
from schemas.tables import SpaceSpec

VERSION = "1.0.0"
OURS = r"[^/]+\.tfrecord-\d+-of-\d+|features\.json|dataset_info\.json|oxe_spec\.toml|tmp-[0-9a-f]+"
TOLD = {"is_terminal": "bool", "reward": "float32", "timestamp": "float64"}  # only where the source has them

Fill: TypeAlias = Callable[[Episode], Column | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written."""

    out: str
    episodes: int
    steps: int
    files: int
    without_steps: int  # episodes left out because the view masks all their steps
    view: str | None

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe export --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def export_rlds(
    dataset: Dataset,
    out: Path,
    *,
    view: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Write `dataset` as RLDS that `tfds.builder_from_directory(out)` opens.

    Without a view everything stored is written, and converting `out` gives the same dataset again. With one, its
    actions are, and the steps it masks are left out, as are episodes of which nothing remains. Raises ViewError where
    the dataset cannot give it, DatasetError where it is damaged or has no episodes.
    """
    if not len(dataset):
        raise DatasetError(f"{dataset.uri}: no episodes to export")
    space = dataset.view(view).space if view else dataset.columns.action
    make_output(out, source=dataset.uri, ours={FEATURES, DECLARATION}, holds=OURS, overwrite=overwrite)
    folder = LocalFolder(out)
    name = re.sub(r"\W", "_", dataset.spec.name)
    columns = _columns(dataset, view=view, space=space)
    features = features_json(list(columns))
    splits: dict[str, list[Shard]] = {}
    steps = 0
    try:
        for split, numbers in _shards(dataset).items():
            for number, episodes in enumerate(numbers):
                path = out / f"{name}-{split}.tfrecord-{number:05d}-of-{len(numbers):05d}"
                shard = Shard(path)
                splits.setdefault(split, []).append(shard)
                with closing(shard.file):
                    for i in episodes:
                        episode = _checked(dataset, i, view)
                        if len(episode):
                            shard.add({feature: value(episode) for feature, value in columns.items()})
                        steps += len(episode)
                        progress(1, 0)
        folder.write(FEATURES, features.encode())
        folder.write(DECLARATION, tomli_w.dumps(_declaration(dataset, view=view, space=space)).encode())
        info = info_json(name, splits, version=VERSION, description=dataset.spec.description)
        folder.write(INFO, info.encode())
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)  # half an export reads like a whole one
        if isinstance(error, OSError):
            raise UsageError(f"{out}: cannot be written ({error})") from error
        raise
    shards = [shard for written in splits.values() for shard in written]
    exported = sum(shard.episodes for shard in shards)
    return Report(
        out=str(out),
        episodes=exported,
        steps=steps,
        files=len(shards),
        without_steps=len(dataset) - exported,
        view=view,
    )


def _checked(dataset: Dataset, i: int, view: str | None) -> Episode:
    """Read an episode that is what was stored: damage must not travel on."""
    stored = dataset.episode(i)
    if stored.content_hash() != dataset.content_hash(i):
        raise DatasetError(f"{dataset.uri}: episode {i} is damaged; 'oxe verify' tells more")
    return dataset.view(view).apply(stored) if view else stored


def _shards(dataset: Dataset) -> dict[str, list[list[int]]]:
    """Group episodes as the dataset's files do: split -> files -> positions."""
    files: dict[str, list[int]] = {file["path"]: [] for file in dataset.manifest["files"]}
    for i in range(len(dataset)):
        files[dataset.where(i)[0]].append(i)
    splits: dict[str, list[list[int]]] = {}
    for file in dataset.manifest["files"]:
        splits.setdefault(file["split"], []).append(files[file["path"]])
    return splits


def _columns(dataset: Dataset, *, view: str | None, space: Space) -> dict[Feature, Fill]:
    """Say which features are written and what fills each."""
    fills = _vectors(dataset, space) | _step_metadata(dataset)
    fills |= {_image_field(dataset, camera): _frames_of(camera) for camera in dataset.columns.cameras}
    if not view:
        fills |= {_raw_field(field): _raw_of(field.path) for field in dataset.columns.raw}
    fills |= {field: _metadata_of(field) for field in dataset.columns.metadata}
    id_path, texts_path, outcome_path = _own_paths(dataset)
    fills[Field(path=id_path, kind="text", per_step=False)] = lambda e: [e.id.encode()]
    if dataset.columns.origins["instruction"]:
        texts = Field(path=texts_path, kind="text", ragged=1, per_step=False)
        fills[texts] = lambda e: [text.encode() for text in e.instructions]
    if dataset.columns.origins["outcome"]:
        fills[Field(path=outcome_path, kind="text", per_step=False)] = lambda e: [e.outcome.encode()]
    lacking = _sometimes_lacking(dataset)
    return {Feature(field, field in lacking): fill for field, fill in fills.items()}


def _own_paths(dataset: Dataset) -> tuple[str, str, str]:
    """Name the fields that carry ids, instructions and outcomes: ones that the source does not have."""
    taken = {field.path for field in dataset.columns.metadata}
    folder = "" if "episode_metadata" in taken else "episode_metadata."
    names = []
    for word in ("oxe_id", "oxe_instructions", "oxe_outcome"):
        name = folder + word
        while name in taken:
            name += "_"
        names.append(name)
    return names[0], names[1], names[2]


def _sometimes_lacking(dataset: Dataset) -> set[Field]:
    """Find the per-episode fields that some episodes have no value of."""
    fields = dataset.columns.metadata
    nulls = dataset.episodes.select(f"metadata.{field.path}" for field in fields).null_count().collect()
    return {field for field, (count,) in zip(fields, nulls.iter_columns(), strict=True) if count}


def _vectors(dataset: Dataset, space: Space) -> dict[Field, Fill]:
    state = dataset.columns.state
    action = Field(path="action", kind="number", dtype="float32", shape=(len(space),))
    if not state:
        return {action: attrgetter("action")}
    observed = Field(path="observation.state", kind="number", dtype="float32", shape=(len(state),))
    return {action: attrgetter("action"), observed: attrgetter("state")}


def _step_metadata(dataset: Dataset) -> dict[Field, Fill]:
    """Fill RLDS's own step fields, as far as the source told them."""
    origins = dataset.columns.origins
    dtypes = {"is_first": "bool", "is_last": "bool"}
    dtypes |= {name: dtype for name, dtype in TOLD.items() if origins[name]}
    told: dict[Field, Fill] = {
        Field(path=name, kind="number", dtype=dtype): attrgetter(name) for name, dtype in dtypes.items()
    }
    discount = Field(path="discount", kind="number", dtype="float32")
    own = any(f.path == "discount" and f.kind == "number" and f.shape == () for f in dataset.columns.raw)
    text = Field(path="language_instruction", kind="text")
    return {**told, discount: _own_discount if own else _no_discount, text: _instructions}


def _own_discount(episode: Episode) -> Column:
    return np.asarray(episode.raw["discount"], np.float32)


def _no_discount(episode: Episode) -> Column:
    return np.ones(len(episode), np.float32)


def _frames_of(camera: Camera) -> Fill:
    """Write a missing frame as an empty string, which Octo's and our readers take for one."""
    frames = attrgetter("depth" if camera.is_depth else "images")
    return lambda e: [b"" if frame is None else frame for frame in frames(e)[camera.leaf]]


def _raw_of(path: str) -> Fill:
    return lambda e: e.raw[path]


def _metadata_of(field: Field) -> Fill:
    return lambda e: None if e.metadata[field.path] is None else metadata_column(e.metadata[field.path], field)


def _camera_path(camera: Camera) -> str:
    folder = "depth." if camera.is_depth else "cameras." if camera.leaf in {"state", "depth", "cameras"} else ""
    return f"observation.{folder}{camera.leaf}"


def _image_field(dataset: Dataset, camera: Camera) -> Field:
    """Describe a camera by its first frame; sizes may differ from episode to episode and are left open."""
    frames = (
        image
        for i in range(len(dataset))
        for step in range(dataset.where(i)[2])
        if (image := dataset.frame(i, step, [camera.leaf])[camera.leaf]) is not None
    )
    first = next(frames, None)
    header = sniff(first) if first is not None else None
    channels = header.channels if header else 1 if camera.is_depth else 3
    dtype = "uint16" if header and header.bits == 16 else "uint8"
    form = header.format if header else "png"
    return Field(path=_camera_path(camera), kind="image", dtype=dtype, shape=(None, None, channels), encoding=form)


def _raw_field(field: Field) -> Field:
    """Place a raw field below `raw`; shapes of unknown size have become nested sequences, other images bytes."""
    levels = len(field.shape) if field.kind == "number" and None in field.shape else 0
    kind = "bytes" if field.kind == "image" else field.kind
    return replace(
        field,
        path=f"raw.{field.path}",
        kind=kind,
        shape=() if levels or field.kind == "image" else field.shape,
        ragged=field.ragged + levels,
        encoding=None,
    )


def _instructions(episode: Episode) -> list[bytes]:
    if episode.instruction_index is None:
        return [b""] * len(episode)
    texts = [text.encode() for text in episode.instructions]
    return [texts[i] for i in episode.instruction_index]


def _declaration(dataset: Dataset, *, view: str | None, space: Space) -> Mapping[str, Any]:
    """Write the declaration that fits the export: every vector is canonical already."""
    spec, columns = dataset.spec, dataset.columns
    embodiment = spec.embodiment
    if view:
        embodiment = embodiment.model_copy(update={"name": f"{embodiment.name}.{view}", "action": SpaceSpec.of(space)})
    if not columns.state:
        embodiment = embodiment.model_copy(update={"state": None})
    roles = [camera for camera in columns.cameras if camera.role]
    id_path, texts_path, outcome_path = _own_paths(dataset)
    declared = {
        **spec.to_json(),
        "source": {"format": "rlds", "version": VERSION},
        "embodiment": embodiment.model_dump(mode="json", exclude_none=True),
        "language": ["language_instruction", texts_path] if columns.origins["instruction"] else [],
        "cameras": {c.role: _camera(c) for c in roles if not c.is_depth},
        "depth": {c.role: _camera(c) for c in roles if c.is_depth},
        "fields": {},
        "decode": {},
        "filters": {},
        "state": embodiment.state.slices("observation.state") if embodiment.state else {},
        "action": embodiment.action.slices("action"),
        "last_action": "recorded" if view or spec.has_last_action else "placeholder",
        "success": outcome_path if columns.origins["outcome"] else None,
        "id": id_path,
        "raw": "raw",
    }
    if columns.origins["timestamp"]:
        declared["timestamp"] = "timestamp"
    if view:
        declared.pop("views", None)
        declared["control_hz"] = dataset.view(view).control_hz or spec.control_hz
    return DatasetSpec.model_validate(declared).to_json()


def _camera(camera: Camera) -> dict[str, Any]:
    known = {"metres_per_unit": camera.metres_per_unit} if camera.metres_per_unit else {}
    return {"key": _camera_path(camera), "channels": camera.channels, **known}
