"""`export rlds`: write a dataset as RLDS, with the declaration that reads it back."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from pipelines.beam.engine import Engine
from pipelines.convert.binding import Binding
from pipelines.export.declaration import FieldPaths, declaration
from pipelines.export.images import DEEP, checked, rlds_channels, why_not_rlds
from pipelines.export.plan import (
    ExportOptions,
    ExportRef,
    ExportReport,
    in_order_of_steps,
    read_verified,
    shards_of_files,
)
from pipelines.export.recorded import recorded_vector
from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json, metadata_column
from pipelines.readers.rlds.reader import FEATURES, INFO
from pipelines.verify import Verification
from schemas.episode import Episode
from schemas.errors import UsageError
from schemas.files.folder import LocalFolder
from schemas.images import ImageHeader, sniff
from schemas.source import Bytes, Column, Field
from schemas.spaces import Space
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset

VERSION = "1.0.0"
OPTIONAL = {"is_terminal": "bool", "reward": "float32", "timestamp": "float64"}  # written if the source has them

Getter: TypeAlias = Callable[[Episode], Column | None]  # returns the values of one feature in an episode


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """Counts of one written shard."""

    episodes: int
    bytes: int
    steps: int


class RldsExport:
    """An export that `tfds.builder_from_directory` opens; each file of the dataset becomes one shard."""

    pattern = r"[^/]+\.tfrecord-\d+-of-\d+|features\.json|dataset_info\.json"

    def __init__(self, dataset: Dataset, out: LocalFolder, options: ExportOptions) -> None:
        """Choose the features and how to compute the values of each."""
        self.dataset, self.out, self.options = dataset, out, options
        self.name = re.sub(r"\W", "_", dataset.spec.name)
        self.space = dataset.action_space(options.view)
        self.columns = _columns(dataset, view=options.view, space=self.space)
        self.features = features_json(list(self.columns))

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan one shard for each file of the dataset."""
        return shards_of_files(self.dataset)

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one TFRecord file."""
        name = f"{self.name}-{ref.split}.tfrecord-{ref.number:05d}-of-{ref.of:05d}"
        tmp, steps = self.out.staged(""), 0
        try:
            with closing(TfRecordWriter(tmp)) as shard:
                for i in ref.positions:
                    episode = read_verified(self.dataset, i, self.options.view)
                    if len(episode):
                        shard.add({feature: value(episode) for feature, value in self.columns.items()})
                    steps += len(episode)
            self.out.adopt(tmp, name, sync=False)
        finally:
            self.out.drop(tmp)
        return [name], {"episodes": shard.episodes, "bytes": shard.bytes, "steps": steps}

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:  # noqa: ARG002 - LeRobotExport uses it
        """Write `features.json` and `dataset_info.json`."""
        splits: dict[str, list[ShardCounts]] = {}
        for ref, record in zip(refs, records, strict=True):
            splits.setdefault(ref.split, []).append(ShardCounts(**record))
        info = info_json(self.name, splits, version=VERSION, description=self.dataset.spec.description)
        self.out.write(FEATURES, self.features.encode())
        self.out.write(INFO, info.encode())
        shards = [shard for split in splits.values() for shard in split]
        episodes = sum(shard.episodes for shard in shards)
        return ExportReport(
            out=self.out.uri,
            episodes=episodes,
            steps=sum(shard.steps for shard in shards),
            files=len(shards),
            without_steps=len(self.dataset) - episodes,
            view=self.options.view,
        )

    def declaration(self) -> Mapping[str, Any]:
        """Return the declaration that reads the export back."""
        id_path, texts_path, outcome_path = _own_paths(self.dataset)
        paths = FieldPaths(
            source={"format": "rlds", "version": VERSION},
            language=("language_instruction", texts_path),
            id=id_path,
            outcome=outcome_path,
            timestamp="timestamp" if self.dataset.columns.origins["timestamp"] else None,
            cameras={camera.column: _camera_path(camera) for camera in self.dataset.columns.cameras},
        )
        return declaration(self.dataset, paths, view=self.options.view, space=self.space)

    @property
    def videos(self) -> Sequence[str]:
        """Keys of the cameras that become videos: none, since every image keeps its encoding."""
        return ()

    def settings(self) -> Mapping[str, Any]:
        """Return an empty mapping, since the declaration describes everything."""
        return {}

    def as_exported(self, episode: Episode, binding: Binding) -> Episode:  # noqa: ARG002 - cameras keep their names
        """Return the episode with its instructions sorted by their first step. With a view, raw fields are removed."""
        return in_order_of_steps(replace(episode, raw={}) if self.options.view else episode)

    def comparable(self, episode: Episode) -> Episode:
        """Return the episode unchanged."""
        return episode

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Do nothing, since the comparison of the episodes covers everything."""


def _columns(dataset: Dataset, *, view: str | None, space: Space) -> dict[RldsFeature, Getter]:
    """Map each feature to the function that returns its values."""
    getters = _vectors(dataset, space, view=view) | _step_metadata(dataset)
    for camera in dataset.columns.cameras:
        header = _first_header(dataset, camera)
        if header and (why := why_not_rlds(header, header, is_depth=camera.is_depth)):
            raise UsageError(f"{dataset.uri}: {camera.column}: the first image is {why}")
        getters[_image_field(camera, header)] = _frames_of(camera, header)
    if not view:
        getters |= {_raw_field(field): _raw_of(field.path) for field in dataset.columns.raw}
    getters |= {_metadata_field(field): _metadata_of(field) for field in dataset.columns.metadata}
    id_path, texts_path, outcome_path = _own_paths(dataset)
    getters[Field(path=id_path, kind="text", per_step=False)] = lambda e: [e.id.encode()]
    if dataset.columns.origins["instruction"]:
        texts = Field(path=texts_path, kind="text", ragged=1, per_step=False)
        getters[texts] = lambda e: [text.encode() for text in e.instructions]
    if dataset.columns.origins["outcome"]:
        getters[Field(path=outcome_path, kind="text", per_step=False)] = lambda e: [e.outcome.encode()]
    nullable = _nullable_fields(dataset)
    return {RldsFeature(field, field in nullable): getter for field, getter in getters.items()}


def _own_paths(dataset: Dataset) -> tuple[str, str, str]:
    """Choose free names for the fields with ids, instructions and outcomes."""
    taken = {field.path for field in dataset.columns.metadata}
    folder = "" if "episode_metadata" in taken else "episode_metadata."
    names = []
    for word in ("oxe_id", "oxe_instructions", "oxe_outcome"):
        name = folder + word
        while name in taken:
            name += "_"
        names.append(name)
    return names[0], names[1], names[2]


def _nullable_fields(dataset: Dataset) -> set[Field]:
    """Return the per-episode fields that are null in some episodes."""
    fields = dataset.columns.metadata
    nulls = dataset.episodes.select(f"metadata.{field.path}" for field in fields).null_count().collect()
    return {_metadata_field(field) for field, (count,) in zip(fields, nulls.iter_columns(), strict=True) if count}


def _vectors(dataset: Dataset, space: Space, *, view: str | None) -> dict[Field, Getter]:
    state, recorded = dataset.state_space(view), recorded_vector(dataset, "action", view=view)
    action = Field(path="action", kind="number", dtype="float32", shape=(len(space),))
    getters: dict[Field, Getter] = {action: recorded.values if recorded else attrgetter("action")}
    if state:
        observed, recorded = (
            replace(action, path="observation.state", shape=(len(state),)),
            recorded_vector(dataset, "state", view=view),
        )
        getters[observed] = recorded.values if recorded else attrgetter("state")
    return getters


def _step_metadata(dataset: Dataset) -> dict[Field, Getter]:
    """Return RLDS's standard fields of a step; the optional ones are included only if the source has them."""
    origins = dataset.columns.origins
    dtypes = {"is_first": "bool", "is_last": "bool"}
    dtypes |= {name: dtype for name, dtype in OPTIONAL.items() if origins[name]}
    fields: dict[Field, Getter] = {
        Field(path=name, kind="number", dtype=dtype): attrgetter(name) for name, dtype in dtypes.items()
    }
    discount = Field(path="discount", kind="number", dtype="float32")
    is_recorded = any(f.path == "discount" and f.kind == "number" and f.shape == () for f in dataset.columns.raw)
    text = Field(path="language_instruction", kind="text")
    return {**fields, discount: _recorded_discount if is_recorded else _no_discount, text: _instructions}


def _recorded_discount(episode: Episode) -> Column:
    return np.asarray(episode.raw["discount"], np.float32)


def _no_discount(episode: Episode) -> Column:
    return np.ones(len(episode), np.float32)


def _frames_of(camera: Camera, first: ImageHeader | None) -> Getter:
    """Return a getter of a camera's images, the first of which has the header `first`.

    A missing image is an empty string, which Octo and this package read as missing. The getter raises DatasetError if
    TensorFlow cannot decode an image.
    """
    frames = attrgetter("depth" if camera.is_depth else "images")

    def why_not(header: ImageHeader) -> str:
        return why_not_rlds(header, first or header, is_depth=camera.is_depth)

    def get(episode: Episode) -> list[Bytes]:
        images = frames(episode)[camera.leaf]
        where = f"{camera.column}: episode {episode.id}"
        return [b"" if image is None else image for image in checked(images, why_not, where=where)]

    return get


def _raw_of(path: str) -> Getter:
    return lambda e: e.raw[path]


def _metadata_of(field: Field) -> Getter:
    exported = _metadata_field(field)
    return lambda e: None if e.metadata[field.path] is None else metadata_column(e.metadata[field.path], exported)


def _metadata_field(field: Field) -> Field:
    """Return a per-episode field as it is exported: nested sequences if several axes have no fixed size."""
    if field.kind != "number" or field.shape.count(None) < 2:
        return field
    return replace(field, shape=(), ragged=field.ragged + len(field.shape), encoding=None)


def _camera_path(camera: Camera) -> str:
    folder = "depth." if camera.is_depth else "cameras." if camera.leaf in {"state", "depth", "cameras"} else ""
    return f"observation.{folder}{camera.leaf}"


def _first_header(dataset: Dataset, camera: Camera) -> ImageHeader | None:
    """Return the header of a camera's first frame; None if it has no frame."""
    frames = (
        image
        for i in range(len(dataset))
        for step in range(dataset.where(i)[2])
        if (image := dataset.frame(i, step, [camera.leaf])[camera.leaf]) is not None
    )
    first = next(frames, None)
    return sniff(first) if first is not None else None


def _image_field(camera: Camera, header: ImageHeader | None) -> Field:
    """Describe a camera by the header of its first frame; the image size is left open, since episodes may differ."""
    channels = rlds_channels(header) if header else 1 if camera.is_depth else 3
    dtype = "uint16" if camera.is_depth and (not header or header.bits == DEEP) else "uint8"
    form = header.format if header else "png"
    return Field(path=_camera_path(camera), kind="image", dtype=dtype, shape=(None, None, channels), encoding=form)


def _raw_field(field: Field) -> Field:
    """Return a raw field as it is exported, below `raw`.

    Images become bytes. If any axis has no fixed size, all axes become nested sequences.
    """
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
