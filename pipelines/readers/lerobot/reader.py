"""Read LeRobotDatasets, versions 2.0, 2.1 and 3.0."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from math import prod
from typing import Any

from pipelines.readers.fields import digest
from pipelines.readers.lerobot import columns as parquet
from pipelines.readers.lerobot import episodes as episode_table
from pipelines.readers.lerobot import info as dataset_info
from pipelines.readers.lerobot.cameras import Cameras
from pipelines.readers.lerobot.fields import describe_fields
from pipelines.readers.lerobot.locate import DataFiles
from pipelines.readers.lerobot.paths import check_paths
from pipelines.readers.lerobot.steps import StepReader
from pipelines.readers.lerobot.unread import unread_files
from pipelines.readers.lerobot.videos import unused_frames, video_notes
from pipelines.readers.reader import Episodes, FilePart, Files, LeftOut, SourceReader, Stored
from schemas.declarations.formats import LerobotSource
from schemas.errors import SourceError
from schemas.source import Field

DECLARATION = "oxe_spec.toml"
JPEG_DENSITY = 0.1  # estimated bytes of a JPEG per pixel and channel


class LerobotReader(SourceReader):
    """A LeRobotDataset; `uri` is its folder, or a folder above it that contains no other LeRobotDataset.

    Without a `source`, mistakes in info.json are corrected, and `notes` describes them. With a `source`, they raise
    SourceError.
    """

    format = "lerobot"
    source: LerobotSource
    ended = "was planned with more episodes"

    def __init__(self, uri: str, source: LerobotSource | None = None) -> None:
        """Read the metadata and the footer of one data file."""
        self.uri = uri
        self.folder = dataset_info.open_dataset(uri)
        self.info = dataset_info.load(self.folder)
        self.table = episode_table.load(self.folder, self.info)
        self.tasks = episode_table.tasks(self.folder, self.info)
        declared = source or LerobotSource(format="lerobot")
        checked = check_paths(self.folder, self.info, self.table, source=declared)
        self.dataset_fields = describe_fields(
            self.folder, self.info, checked, images=declared.images, tasks=self.tasks is not None
        )
        self.mistakes = (*checked.mistakes, *self.dataset_fields.missing.values())
        if self.mistakes and source:
            first, *others = self.mistakes
            message = "; ".join([first.message, *(error.message for error in others)])
            raise SourceError(message, reason=first.reason, file=first.file)
        ignore = (*checked.ignore, *self.dataset_fields.missing)
        self.source = declared.model_copy(update={"ignore": ignore, **checked.templates})
        self.paths, self.data = checked.paths, DataFiles(self.folder, checked.paths)
        self.fields: tuple[Field, ...] = tuple(self.dataset_fields.fields())

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[int]]:
        """The rows of the table of episodes, by split and data file."""
        rows_by_file: dict[tuple[str, str], list[int]] = {}
        for split, rows in episode_table.splits(self.info, self.paths.indices).items():
            for row in rows:
                rows_by_file.setdefault((split, self.data.file(row)), []).append(row)
        return rows_by_file

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        """The rows of the table of episodes, by data file; in each file, they are ordered by split."""
        rows_by_file: dict[str, list[int]] = {}
        for (_, name), rows in self._rows.items():
            rows_by_file.setdefault(name, []).extend(rows)
        return rows_by_file

    def parts(self) -> Files:
        """Return the data files of every split with their numbers of episodes."""
        videos = self._videos
        sizes = self.folder.sizes(dict.fromkeys(name for _, name in self._rows))
        clips = {row: [self.paths.clip(key, row).file for key in videos] for row in range(len(self.table))}
        video_sizes = self.folder.sizes(dict.fromkeys(name for names in clips.values() for name in names))
        frame_size = sum(round(JPEG_DENSITY * prod(self.info.features[key].shape)) for key in videos)
        lengths, last_split = self.table.column("length"), {name: split for split, name in self._rows}
        before = Counter[str]()
        splits: dict[str, list[FilePart]] = {}
        for (split, name), rows in self._rows.items():
            size = sizes[name]
            video_size = sum(
                video_sizes.pop(clip, None) or 0 for row in rows for clip in clips[row]
            )  # each video file is counted once, for its first episode
            part = FilePart(
                name=name,
                size=None if size is None else size + video_size,
                count=len(rows),
                skip=before[name],
                is_tail=last_split[name] == split,
                becomes=(size or 0) + sum(lengths[row] for row in rows) * frame_size,
            )
            splits.setdefault(split, []).append(part)
            before[name] += len(rows)
        return splits

    def total_steps(self) -> int:
        """Return the sum of the lengths in the table of episodes."""
        return int(sum(self.table.column("length")))

    def description(self) -> dict[str, Any]:
        """Return the format, version, robot and frame rate, and the digest of the fields."""
        return {
            "format": self.format,
            "codebase_version": self.info.version,
            "robot_type": self.info.robot,
            "fps": self.info.fps,
            "fields_sha256": digest(self.fields),
        }

    def declaration(self) -> str | None:
        """Return the `oxe_spec.toml` of our exports; None if there is none."""
        return None if self.folder.size(DECLARATION) is None else self.folder.read(DECLARATION).decode()

    def notes(self) -> Sequence[str]:
        """Describe the mistakes in info.json, and unusual videos."""
        return [
            *(error.message for error in self.mistakes),
            *episode_table.inconsistencies(self.info, self.table),
            *self.data.notes(),
            *self._video_notes,
        ]

    def guesses(self) -> Mapping[str, str]:
        """Return the path templates and the ignored features that correct mistakes in info.json."""
        layout = self.layout() if self.mistakes else {}
        return {
            key: f"{layout[key]!r}, because info.json is wrong"
            for key in ("data_path", "video_path", "ignore")
            if key in layout
        }

    def left_out(self) -> Sequence[LeftOut]:
        """Count the files that no episode refers to, and the frames of videos that belong to no episode."""
        return self._left_out

    @cached_property
    def _left_out(self) -> list[LeftOut]:
        return [*unread_files(self.folder, self.paths, self.data), *unused_frames(self.paths, self._videos)]

    @cached_property
    def _video_notes(self) -> list[str]:
        return list(video_notes(self.folder, self.paths, self._videos))

    @property
    def _videos(self) -> list[str]:
        return [key for key in self.dataset_fields.cameras if self.info.features[key].dtype == "video"]

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield its episodes, split by split, then a SourceError for each that the table lacks."""
        rows = self._rows_of.get(part.name, [])
        expected = {self.paths.indices[row] for row in rows}
        with (
            closing(Cameras(self.folder, self.paths, images=self.source.images)) as cameras,
            parquet.open_parquet(self.folder, part.name) as file,
        ):
            self.dataset_fields.check(file.schema_arrow, self.info, self.source.ignore)
            steps = StepReader(
                paths=self.paths, fields=self.dataset_fields, tasks=self.tasks or {}, cameras=cameras, selected=columns
            )
            parquet_rows = parquet.ParquetRows(file, steps.columns(), self.place(part.name))
            runs = self._runs(parquet_rows, expected)
            for row in rows:
                run = runs.get(self.paths.indices[row])
                yield Stored(partial(steps.read, parquet_rows, row, run, others=sorted(runs)))
            for index in sorted(runs.keys() - expected):
                if message := self._undeclared(index):
                    yield SourceError(message, reason="undeclared_record")

    def _undeclared(self, index: int) -> str:
        """Return why rows of an episode that belong to another file, or to none, are not read.

        The result is empty if the episode is quarantined anyway, because it has no rows in its own file.
        """
        if index not in self.paths.indices:
            return f"contains rows of episode {index}, which meta/ does not list"
        row = self.paths.indices.index(index)
        if not self.data.contains(row):
            return ""
        return f"contains rows of episode {index}, which {self.data.file(row)} contains as well"

    def _runs(self, parquet_rows: parquet.ParquetRows, expected: Collection[int]) -> dict[int, tuple[int, int]]:
        """Return the range of rows of each episode, by `episode_index`.

        A file of version 2 may lack this column, if it contains a single episode.
        """
        if parquet.EPISODE not in parquet_rows.file.schema_arrow.names:
            if len(expected) == 1 and not self.info.is_v3:
                return dict.fromkeys(expected, (0, parquet_rows.file.metadata.num_rows))
            message = f"contains several episodes, but no column '{parquet.EPISODE}'"
            raise SourceError(message, reason="bad_parquet", file=parquet_rows.path)
        return parquet_rows.runs(parquet.EPISODE)
