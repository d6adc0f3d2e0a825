"""`export rlds`: a published dataset as RLDS, with the declaration that reads it back."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from pipelines.folders import make_output
from pipelines.readers.rlds import DECLARATION, FEATURES, INFO
from pipelines.writers.parquet import write_atomically
from pipelines.writers.rlds import Feature, Shard, features_json, info_json, metadata_column
from schemas.arrow import Camera
from schemas.episode import Episode, Frames
from schemas.errors import UsageError
from schemas.images import sniff
from schemas.source import Column, Field
from schemas.spaces import Space
from schemas.spec import DatasetSpec, SpaceSpec
from schemas.store import Dataset

ID, TEXTS = "episode_metadata.oxe_id", "episode_metadata.oxe_instructions"
VERSION = "1.0.0"
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written."""

    out: str
    episodes: int
    steps: int
    files: int
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
    progress: Progress = lambda episodes: None,
) -> Report:
    """Write `dataset` as RLDS that `tfds.builder_from_directory(out)` opens.

    Without a view everything stored is written, and converting `out` gives the same dataset again. With one, its actions
    are, and the steps it masks are left out. Raises ViewError where the dataset cannot give it.
    """
    space = dataset.view(view).space if view else dataset.columns.action
    make_output(out, source=str(dataset.path), ours={FEATURES, DECLARATION}, overwrite=overwrite)
    name = re.sub(r"\W", "_", dataset.spec.name)
    columns = _columns(dataset, view=view, space=space)
    splits: dict[str, list[Shard]] = {}
    steps = 0
    with ExitStack() as files:
        try:
            for split, numbers in _shards(dataset).items():
                for number, episodes in enumerate(numbers):
                    path = out / f"{name}-{split}.tfrecord-{number:05d}-of-{len(numbers):05d}"
                    shard = Shard(path)
                    files.callback(shard.file.close)
                    for i in episodes:
                        episode = dataset.episode(i, view)
                        shard.add({feature: value(episode) for feature, value in columns.items()})
                        steps += len(episode)
                        progress(1)
                    shard.file.close()
                    splits.setdefault(split, []).append(shard)
        except OSError as error:
            raise UsageError(f"{out}: cannot be written ({error})") from error
    write_atomically(out / FEATURES, features_json(list(columns)).encode())
    write_atomically(out / DECLARATION, tomli_w.dumps(_declaration(dataset, view=view, space=space)).encode())
    info = info_json(name, splits, version=VERSION, description=dataset.spec.description)
    write_atomically(out / INFO, info.encode())
    files_written = sum(map(len, splits.values()))
    return Report(out=str(out), episodes=len(dataset), steps=steps, files=files_written, view=view)


def _shards(dataset: Dataset) -> dict[str, list[list[int]]]:
    """Group episodes as the dataset's files do: split -> files -> positions."""
    files: dict[str, list[int]] = {file["path"]: [] for file in dataset.manifest["files"]}
    for i in range(len(dataset)):
        files[dataset.where(i)[0]].append(i)
    splits: dict[str, list[list[int]]] = {}
    for file in dataset.manifest["files"]:
        splits.setdefault(file["split"], []).append(files[file["path"]])
    return splits


def _columns(dataset: Dataset, *, view: str | None, space: Space) -> dict[Feature, Callable[[Episode], Column]]:
    """Say which features are written and what fills each."""
    columns = dataset.columns
    out: dict[Feature, Callable[[Episode], Column]] = {}

    def add(field: Field, value: Callable[[Episode], Any]) -> None:
        out[Feature(field)] = value

    def vector(path: str, size: int) -> Field:
        return Field(path=path, kind="number", dtype="float32", shape=(size,))

    def scalar(path: str, dtype: str) -> Field:
        return Field(path=path, kind="number", dtype=dtype)

    add(vector("action", len(space)), lambda e: e.action)
    if columns.state:
        add(vector("observation.state", len(columns.state)), lambda e: e.state)
    for camera in columns.cameras:
        add(
            _image_field(dataset, camera),
            lambda e, c=camera: _stored_frames((e.depth if c.is_depth else e.images)[c.leaf]),
        )
    add(Field(path="language_instruction", kind="text"), _instructions)
    for flag in ("is_first", "is_last"):
        add(scalar(flag, "bool"), lambda e, f=flag: getattr(e, f))
    if columns.origins["is_terminal"]:
        add(scalar("is_terminal", "bool"), lambda e: e.is_terminal)
    if columns.origins["reward"]:
        add(scalar("reward", "float32"), lambda e: e.reward)
    add(scalar("discount", "float32"), lambda e: np.ones(len(e), np.float32))
    if columns.origins["timestamp"]:
        add(scalar("timestamp", "float64"), lambda e: e.timestamp)
    for field in () if view else columns.raw:
        add(_raw_field(field), lambda e, f=field: e.raw[f.path])
    for field in columns.metadata:
        add(field, lambda e, f=field: metadata_column(e.metadata[f.path], f))
    add(Field(path=ID, kind="text", per_step=False), lambda e: [e.id.encode()])
    if len(dataset.spec.language_keys) > 1:
        texts = Field(path=TEXTS, kind="text", ragged=1, per_step=False)
        add(texts, lambda e: [text.encode() for text in e.instructions])
    return out


def _camera_path(camera: Camera) -> str:
    return f"observation.{'depth.' if camera.is_depth else ''}{camera.leaf}"


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


def _stored_frames(frames: Frames) -> list[Any]:
    """Write a missing frame as an empty string, which Octo's and our readers take for one."""
    return [b"" if frame is None else frame for frame in frames]


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
    language = ["language_instruction", *([TEXTS] if len(spec.language_keys) > 1 else [])]
    roles = [camera for camera in columns.cameras if camera.role]
    declared = {
        **spec.to_json(),
        "source": {"format": "rlds", "version": VERSION},
        "embodiment": embodiment.model_dump(mode="json", exclude_none=True),
        "language": language if columns.origins["instruction"] else [],
        "cameras": {c.role: _camera_path(c) for c in roles if not c.is_depth},
        "depth": {c.role: _depth(c) for c in roles if c.is_depth},
        "state": embodiment.state.slices("observation.state") if embodiment.state else {},
        "action": embodiment.action.slices("action"),
        "id": ID,
        "raw": "raw",
    }
    if columns.origins["timestamp"]:
        declared["timestamp"] = "timestamp"
    if view:
        declared.pop("views", None)
    return DatasetSpec.model_validate(declared).to_json()


def _depth(camera: Camera) -> dict[str, Any]:
    unit = camera.metres_per_unit
    return {"key": _camera_path(camera), **({} if unit is None else {"metres_per_unit": unit})}
