"""LeRobotDataset v2.0, v2.1 and v3.0: Parquet and videos or images, one episode a file or several."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import cached_property, partial
from math import prod
from typing import Any

from pipelines.readers.fields import digest
from pipelines.readers.lerobot import columns as parquet
from pipelines.readers.lerobot import episodes as table
from pipelines.readers.lerobot import info as description
from pipelines.readers.lerobot.cameras import Cameras
from pipelines.readers.lerobot.fields import features
from pipelines.readers.lerobot.places import compare
from pipelines.readers.lerobot.steps import Steps
from pipelines.readers.reader import Episodes, FilePart, Files, SourceReader, Stored
from schemas.declarations.formats import LerobotSource
from schemas.errors import SourceError
from schemas.source import Field

DECLARATION = "oxe_spec.toml"
EPISODE = "episode_index"
DENSITY = 0.1  # bytes of a JPEG for one value of a pixel, about


class LerobotReader(SourceReader):
    """A LeRobotDataset; `uri` is its folder, or one above it that holds no other.

    Without a `source`, what info.json has wrong is read otherwise, and noted.
    """

    format = "lerobot"
    source: LerobotSource
    ended = "was planned with more episodes"

    def __init__(self, uri: str, source: LerobotSource | None = None) -> None:
        """Read the descriptions, and the footer of one data file."""
        self.uri = uri
        self.folder = description.root(uri)
        self.info = description.load(self.folder)
        self.listed = table.load(self.folder, self.info)
        self.tasks = table.tasks(self.folder, self.info)
        declared = source or LerobotSource(format="lerobot")
        opened = compare(self.folder, self.info, self.listed, source=declared)
        self.features = features(self.folder, self.info, opened, images=declared.images, tasks=self.tasks is not None)
        self.wrong = (*opened.wrong, *self.features.absent.values())
        if self.wrong and source:
            first, *others = self.wrong
            message = "; ".join([first.message, *(error.message for error in others)])
            raise SourceError(message, reason=first.reason, file=first.file)
        ignore = (*opened.ignore, *self.features.absent)
        self.source = declared.model_copy(update={"ignore": ignore, **opened.paths})
        self.places = opened.places
        self.fields: tuple[Field, ...] = tuple(self.features.fields())

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[int]]:
        """Say which rows of the table of episodes each file holds of each split."""
        found: dict[tuple[str, str], list[int]] = {}
        for split, rows in table.splits(self.info, self.places.indices).items():
            for row in rows:
                found.setdefault((split, self.places.data(row)), []).append(row)
        return found

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        """List the rows of the table of episodes that each file holds, split after split."""
        found: dict[str, list[int]] = {}
        for (_, name), rows in self._rows.items():
            found.setdefault(name, []).extend(rows)
        return found

    def parts(self) -> Files:
        """Name the data files of every split, with the episodes that each holds."""
        videos = [key for key in self.features.beside if self.info.features[key].dtype == "video"]
        sizes = self.folder.sizes(dict.fromkeys(name for _, name in self._rows))
        clips = {row: [self.places.clip(key, row).file for key in videos] for row in range(len(self.listed))}
        filmed = self.folder.sizes(dict.fromkeys(name for names in clips.values() for name in names))
        frame = sum(round(DENSITY * prod(self.info.features[key].shape)) for key in videos)
        lengths, last = self.listed.column("length"), {name: split for split, name in self._rows}
        before = Counter[str]()
        splits: dict[str, list[FilePart]] = {}
        for (split, name), rows in self._rows.items():
            size = sizes[name]
            beside = sum(filmed.pop(clip, None) or 0 for row in rows for clip in clips[row])  # a file counts once
            part = FilePart(
                name=name,
                size=None if size is None else size + beside,
                count=len(rows),
                skip=before[name],
                is_tail=last[name] == split,
                becomes=(size or 0) + sum(lengths[row] for row in rows) * frame,
            )
            splits.setdefault(split, []).append(part)
            before[name] += len(rows)
        return splits

    def description(self) -> dict[str, Any]:
        """Name the version, the robot and its clock, and the fields by their digest."""
        return {
            "format": self.format,
            "codebase_version": self.info.version,
            "robot_type": self.info.robot,
            "fps": self.info.fps,
            "fields_sha256": digest(self.fields),
        }

    def declaration(self) -> str | None:
        """Give the `oxe_spec.toml` that our exports carry."""
        return None if self.folder.size(DECLARATION) is None else self.folder.read(DECLARATION).decode()

    def notes(self) -> Sequence[str]:
        """Say what info.json has wrong."""
        return [*(error.message for error in self.wrong), *table.oddities(self.info, self.listed)]

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield the episodes that meta/ lists, split after split, then what else it holds."""
        rows = self._rows_of.get(part.name, [])
        owned = {self.places.indices[row] for row in rows}
        with (
            closing(Cameras(self.folder, self.places, images=self.source.images)) as cameras,
            parquet.opened(self.folder, part.name) as file,
        ):
            self.features.check(file.schema_arrow, self.info, self.source.ignore)
            steps = Steps(
                places=self.places, features=self.features, tasks=self.tasks or {}, cameras=cameras, wanted=columns
            )
            held = parquet.Rows(file, steps.columns(), self.place(part.name))
            runs = self._runs(held, owned)
            for row in rows:
                yield Stored(partial(steps.read, held, row, runs.get(self.places.indices[row])))
            for index in sorted(runs.keys() - owned):
                message = f"holds rows of episode {index}, which meta/ does not list"
                yield SourceError(message, reason="undeclared_record")

    def _runs(self, held: parquet.Rows, owned: Collection[int]) -> dict[int, tuple[int, int]]:
        """Find the rows of each episode by what they say; where they say nothing, a file of v2 is its one episode."""
        if EPISODE not in held.file.schema_arrow.names:
            if len(owned) == 1 and not self.info.is_v3:
                return dict.fromkeys(owned, (0, held.file.metadata.num_rows))
            message = f"holds several episodes, but no column '{EPISODE}'"
            raise SourceError(message, reason="bad_parquet", file=held.path)
        return held.runs(EPISODE)
