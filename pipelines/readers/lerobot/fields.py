"""The fields of a LeRobotDataset: its columns as they are stored, and what lies beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from pipelines.readers.fields import first_readable
from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot import columns
from pipelines.readers.lerobot.info import Info
from pipelines.readers.lerobot.places import Opened
from schemas.errors import SourceError
from schemas.source import Field

TASK, TASKS, TIME = "task", "task_index", "timestamp"
TRIES = 100  # data files, for one that can be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a dataset holds, by the names of the features."""

    stored: Mapping[str, Field]  # columns of the data files
    beside: Mapping[str, Field]  # cameras that are videos, or image files that no column names
    absent: Mapping[str, SourceError]  # declared, but nowhere
    episode: Mapping[str, Field]  # columns of the table of episodes
    has_task: bool  # whether the number of the task can be told as its text

    def fields(self) -> Iterator[Field]:
        """Give all that an episode has."""
        yield from self.stored.values()
        if self.has_task:
            yield Field(path=TASK, kind="text", doc=f"the text of {TASKS}")
        yield from self.beside.values()
        yield from self.episode.values()

    def check(self, schema: pa.Schema, info: Info, ignore: tuple[str, ...]) -> None:
        """Refuse a file whose columns are not those of the first one; narrower numbers are widened as they are read."""
        try:
            found = stored_fields(schema, info, ignore)
        except SourceError as error:  # the first file holds nothing of that sort
            raise SourceError(error.message, reason="contradicts_fields") from error
        if other := sorted(found.keys() ^ self.stored.keys()):
            there = "is not in the first file" if other[0] in found else "is missing, which the first file has"
            message = f"column '{other[0]}' {there}; leave it out with source.ignore = ['{other[0]}']"
            raise SourceError(message, reason="contradicts_fields")
        for name, field in self.stored.items():
            if replace(found[name], dtype=field.dtype, doc=field.doc) != field:
                says = [f"{f.kind} {f.dtype} {list(f.shape)}" for f in (found[name], field)]
                message = f"{name} is {says[0]} here and {says[1]} in the first file"
                raise SourceError(message, reason="contradicts_fields")


def features(folder: SourceFolder, info: Info, opened: Opened, *, images: str, tasks: bool) -> Features:
    """Describe a dataset by its info.json, its table of episodes and the first data file that can be read."""
    schema, path = _first_schema(folder, opened)
    stored = stored_fields(schema, info, opened.ignore)
    if TIME in stored:
        rate = f"seconds, {info.fps:g} frames per second" if info.fps else "seconds"
        stored[TIME] = replace(stored[TIME], doc=rate)
    beside, absent = {}, {}
    for key, feature in info.features.items():
        if key in stored or key in opened.ignore:
            continue
        if feature.dtype in {"video", "image"}:
            encoding = images.partition(" ")[0] if feature.dtype == "video" else None
            beside[key] = Field(path=key, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding)
        else:
            message = f"{key} is declared, but no column of {path}; leave it out with source.ignore = ['{key}']"
            absent[key] = SourceError(message, reason="bad_info", file=info.where)
    told = opened.places.episodes.fields()
    taken = {*stored, *beside, TASK}
    return Features(
        stored=stored,
        beside=beside,
        absent=absent,
        episode={name: replace(f, path=f"episode.{name}" if name in taken else name) for name, f in told.items()},
        has_task=tasks and TASK not in stored and TASKS in stored and not stored[TASKS].ragged,
    )


def stored_fields(schema: pa.Schema, info: Info, ignore: tuple[str, ...]) -> dict[str, Field]:
    """Describe the columns of one data file."""
    kept = [column for column in schema if column.name not in ignore]
    return {c.name: columns.field_of(c.name, c.type, info.features.get(c.name)) for c in kept}


def _first_schema(folder: SourceFolder, opened: Opened) -> tuple[pa.Schema, str]:
    """Read the first footer that can be, and name its file."""
    episodes = opened.places.episodes
    names = list(dict.fromkeys(opened.places.data(row) for row in range(len(episodes))))

    def schema(name: str) -> tuple[pa.Schema, str]:
        with columns.opened(folder, name) as file:
            return file.schema_arrow, name

    nothing = SourceError("lists no episode", reason="bad_info", file=episodes.where)
    return first_readable(names[:TRIES], schema, otherwise=nothing)
