"""Describe the fields of a LeRobotDataset: stored columns, videos, image files and per-episode values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from pipelines.readers.fields import first_readable, or_ignore
from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot import columns
from pipelines.readers.lerobot.info import DatasetInfo
from pipelines.readers.lerobot.paths import CheckedPaths
from schemas.errors import SourceError
from schemas.source import Field

TASK, TASKS, TIME = "task", "task_index", "timestamp"
MAX_TRIES = 100  # data files to try until one can be read


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFields:
    """The fields of a dataset; the keys of each mapping are the names of features or columns."""

    stored: Mapping[str, Field]  # columns of the data files
    cameras: Mapping[str, Field]  # videos, and image files whose paths are in no column
    missing: Mapping[str, SourceError]  # features that are declared, but are in no file
    episode: Mapping[str, Field]  # columns of the table of episodes
    has_task: bool  # whether the text of the task is known

    def fields(self) -> Iterator[Field]:
        """Yield every field of an episode."""
        yield from self.stored.values()
        if self.has_task:
            yield Field(path=TASK, kind="text", doc=f"the text of {TASKS}")
        yield from self.cameras.values()
        yield from self.episode.values()

    def check(self, schema: pa.Schema, info: DatasetInfo, ignore: tuple[str, ...]) -> None:
        """Raise SourceError if a file's columns differ from the first file's.

        Types of numbers are not compared here: when the values are read, narrower types are widened, and wider ones
        raise SourceError.
        """
        try:
            actual = stored_fields(schema, info, ignore)
        except SourceError as error:  # a column that cannot be read; the first file has none
            raise SourceError(error.message, reason="contradicts_fields") from error
        if differing := sorted(actual.keys() ^ self.stored.keys()):
            difference = (
                "is not in the first file" if differing[0] in actual else "is missing, but the first file has it"
            )
            message = f"column '{differing[0]}' {difference}; {or_ignore(differing[0])}"
            raise SourceError(message, reason="contradicts_fields")
        for name, field in self.stored.items():
            if replace(actual[name], dtype=field.dtype, doc=field.doc) != field:
                forms = [f"{f.kind} {f.dtype} {list(f.shape)}" for f in (actual[name], field)]
                message = f"{name} is {forms[0]} here and {forms[1]} in the first file"
                raise SourceError(message, reason="contradicts_fields")


def describe_fields(
    folder: SourceFolder, info: DatasetInfo, checked: CheckedPaths, *, images: str, tasks: bool
) -> DatasetFields:
    """Describe a dataset from info.json, the table of episodes and the first data file that can be read."""
    schema, path = _first_schema(folder, checked)
    stored = stored_fields(schema, info, checked.ignore)
    if TIME in stored:
        doc = f"seconds, {info.fps:g} frames per second" if info.fps else "seconds"
        stored[TIME] = replace(stored[TIME], doc=doc)
    cameras, missing = {}, {}
    for key, feature in info.features.items():
        if key in stored or key in checked.ignore:
            continue
        if feature.dtype in {"video", "image"}:
            encoding = images.partition(" ")[0] if feature.dtype == "video" else None
            cameras[key] = Field(path=key, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding)
        else:
            message = f"{key} is declared, but {path} has no such column; leave it out with source.ignore = ['{key}']"
            missing[key] = SourceError(message, reason="bad_info", file=info.where)
    listed = checked.paths.episodes.fields()
    used = {*stored, *cameras, TASK}
    return DatasetFields(
        stored=stored,
        cameras=cameras,
        missing=missing,
        episode={name: replace(f, path=f"episode.{name}" if name in used else name) for name, f in listed.items()},
        has_task=tasks and TASK not in stored and TASKS in stored and not stored[TASKS].ragged,
    )


def stored_fields(schema: pa.Schema, info: DatasetInfo, ignore: tuple[str, ...]) -> dict[str, Field]:
    """Describe the columns of one data file."""
    selected = [column for column in schema if column.name not in ignore]
    return {c.name: columns.field_of(c.name, c.type, info.features.get(c.name)) for c in selected}


def _first_schema(folder: SourceFolder, checked: CheckedPaths) -> tuple[pa.Schema, str]:
    """Return the schema and name of the first data file that can be read."""
    episodes = checked.paths.episodes
    names = list(dict.fromkeys(checked.paths.data(row) for row in range(len(episodes))))

    def schema(name: str) -> tuple[pa.Schema, str]:
        with columns.open_parquet(folder, name) as file:
            return file.schema_arrow, name

    no_episodes = SourceError("no episodes are listed", reason="bad_info", file=episodes.where)
    return first_readable(names[:MAX_TRIES], schema, otherwise=no_episodes)
