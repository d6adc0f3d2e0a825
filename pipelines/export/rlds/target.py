"""`export rlds`: a published dataset as RLDS, with the declaration that reads it back."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from pipelines.beam.engine import Engine
from pipelines.convert.binding import Binding
from pipelines.export.declaration import Paths, declaration
from pipelines.export.plan import ExportOptions, ExportRef, ExportReport, checked, in_order_of_steps, shards_of_files
from pipelines.export.rlds.writer import Feature, Shard, features_json, info_json, metadata_column
from pipelines.readers.rlds.reader import FEATURES, INFO
from pipelines.verify import Verification
from schemas.episode import Episode
from schemas.files.folder import LocalFolder
from schemas.images import sniff
from schemas.source import Column, Field
from schemas.spaces import Space
from schemas.store.arrow import Camera
from schemas.store.dataset import Dataset

VERSION = "1.0.0"
TOLD = {"is_terminal": "bool", "reward": "float32", "timestamp": "float64"}  # only where the source has them

Fill: TypeAlias = Callable[[Episode], Column | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one shard."""

    episodes: int
    bytes: int
    steps: int


class RldsExport:
    """An export that `tfds.builder_from_directory` opens; each file of the dataset becomes one shard."""

    holds = r"[^/]+\.tfrecord-\d+-of-\d+|features\.json|dataset_info\.json"

    def __init__(self, dataset: Dataset, out: LocalFolder, asked: ExportOptions) -> None:
        """Say which features there are and what fills each."""
        self.dataset, self.out, self.asked = dataset, out, asked
        self.name = re.sub(r"\W", "_", dataset.spec.name)
        self.space = dataset.action_space(asked.view)
        self.columns = _columns(dataset, view=asked.view, space=self.space)
        self.features = features_json(list(self.columns))

    def refs(self) -> tuple[ExportRef, ...]:
        """Plan a shard for each of the dataset's files."""
        return shards_of_files(self.dataset)

    def write(self, ref: ExportRef) -> tuple[Sequence[str], Mapping[str, Any]]:
        """Write one TFRecord file."""
        name = f"{self.name}-{ref.split}.tfrecord-{ref.number:05d}-of-{ref.of:05d}"
        tmp, steps = self.out.staged(""), 0
        try:
            with closing(Shard(tmp)) as shard:
                for i in ref.positions:
                    episode = checked(self.dataset, i, self.asked.view)
                    if len(episode):
                        shard.add({feature: value(episode) for feature, value in self.columns.items()})
                    steps += len(episode)
            self.out.adopt(tmp, name)
        finally:
            self.out.drop(tmp)
        return [name], {"episodes": shard.episodes, "bytes": shard.bytes, "steps": steps}

    def describe(self, refs: Sequence[ExportRef], records: Iterator[Mapping[str, Any]], engine: Engine) -> ExportReport:  # noqa: ARG002 - others count on it
        """Write `features.json` and `dataset_info.json`."""
        splits: dict[str, list[Written]] = {}
        for ref, record in zip(refs, records, strict=True):
            splits.setdefault(ref.split, []).append(Written(**record))
        info = info_json(self.name, splits, version=VERSION, description=self.dataset.spec.description)
        self.out.write(FEATURES, self.features.encode())
        self.out.write(INFO, info.encode())
        shards = [shard for written in splits.values() for shard in written]
        episodes = sum(shard.episodes for shard in shards)
        return ExportReport(
            out=self.out.uri,
            episodes=episodes,
            steps=sum(shard.steps for shard in shards),
            files=len(shards),
            without_steps=len(self.dataset) - episodes,
            view=self.asked.view,
        )

    def declaration(self) -> Mapping[str, Any]:
        """Give the declaration that reads the export back."""
        id_path, texts_path, outcome_path = _own_paths(self.dataset)
        paths = Paths(
            source={"format": "rlds", "version": VERSION},
            language=("language_instruction", texts_path),
            id=id_path,
            outcome=outcome_path,
            timestamp="timestamp" if self.dataset.columns.origins["timestamp"] else None,
            cameras={camera.column: _camera_path(camera) for camera in self.dataset.columns.cameras},
        )
        return declaration(self.dataset, paths, view=self.asked.view, space=self.space)

    @property
    def videos(self) -> Sequence[str]:
        """Name none: all images are kept as they are."""
        return ()

    def settings(self) -> Mapping[str, Any]:
        """Say nothing: the declaration says it all."""
        return {}

    def read_back(self, episode: Episode, binding: Binding) -> Episode:  # noqa: ARG002 - cameras keep their names
        """Give the episode as it is; a view leaves out the source's own numbers."""
        return in_order_of_steps(replace(episode, raw={}) if self.asked.view else episode)

    def comparable(self, episode: Episode) -> Episode:
        """Give it as it is."""
        return episode

    def check(self, record: Mapping[str, Any], out: Verification) -> None:
        """Do nothing: there is nothing but episodes."""


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
