"""Read sources in which each episode is a folder or a file."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from glob import escape
from pathlib import PurePosixPath
from typing import Any

from pipelines.readers.alike import visible
from pipelines.readers.endings import EPISODE_NAMES, VIDEOS
from pipelines.readers.episode_rows import UNDIVIDED, EpisodeRows, RowGuess, check_apart
from pipelines.readers.episode_rows import guess as guess_key
from pipelines.readers.fields import Leaf, check_same, digest, first_readable, or_ignore
from pipelines.readers.files.damage import reading
from pipelines.readers.files.guess import guess
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.rows import FileTable, row_table
from pipelines.readers.files.step_files import StepRanges, read_ranges, step_fields, step_like
from pipelines.readers.files.tree import EpisodeFields, episode_fields, files_of
from pipelines.readers.files.whole import per_episode_arrays, without_values
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import covers, matching, natural_key
from pipelines.readers.reader import (
    SPLIT,
    VIDEO_EXPANSION,
    Episodes,
    FilePart,
    Files,
    LeftOut,
    SourceReader,
    Stored,
    Values,
)
from pipelines.readers.sidecars import oddities
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

EPISODE_PATH = "episode_path"  # a per-episode field of every source
MEDIA = {"blobs", "video"}
LOOKED_AT = 8  # files in which a guess looks for tables of many episodes


class EpisodeFilesReader(SourceReader):
    """A reader of a folder in which each episode is a folder or a file.

    The names of an episode's files become the names of its fields. The first episode that can be read defines the
    fields. Without a `source`, the pattern of the episodes' names is guessed.
    """

    format = "folder"
    source: FolderSource

    def __init__(self, uri: str, source: FolderSource | None = None) -> None:
        """Read the descriptions of the first episode."""
        self.uri = uri
        self.folder, file = SourceFolder.around(uri, () if source else EPISODE_NAMES)
        self._is_file = bool(file)
        self._guess = None if source or file else guess(self.folder)
        guessed = self._guess.source if self._guess else FolderSource(format="folder", episodes=escape(file) or "*")
        self.source = source or guessed
        self.names = self._named()
        self._row_guess = None if source or self.source.step_files else self._guess_rows()
        if self._row_guess:
            self.source = self.source.model_copy(update=self._row_guess.keys)
        if not self.names:
            raise UsageError(
                f"{uri}: no such file"
                if file
                else f"{uri}: nothing here is called '{self.source.episodes}' (source.episodes)"
            )
        is_whole_guessed = source is None and not self._row_guess and not self.source.step_files
        self.whole = per_episode_arrays(self.folder, [*map(_path, self.names)], self.source) if is_whole_guessed else ()
        self.source = self.source.model_copy(update={"per_episode": self.whole}) if self.whole else self.source
        self.empty: Mapping[str, tuple[int | None, ...]] = {}
        self.leaves = first_readable(self.names, self._describe, otherwise=UsageError(f"{uri}: no episodes"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _named(self) -> tuple[str, ...]:
        """List the episodes by path: folders, files, or the first of their step files."""
        if self.source.step_ranges:
            return tuple(self._step_files)
        if self.source.episodes == ".":
            return (".",)
        return tuple(name for name in matching(self.folder, self.source.episodes) if name not in self.source.ignore)

    @cached_property
    def _ranges(self) -> tuple[StepRanges, ...]:
        """The ranges of step files in each folder that `source.episodes` matches; empty if none are declared."""
        if not self.source.step_ranges:
            return ()
        folders = ("",) if self.source.episodes == "." else matching(self.folder, self.source.episodes)
        return tuple(read_ranges(self.folder, below, self.source) for below in folders)

    @cached_property
    def _step_files(self) -> dict[str, tuple[str, ...]]:
        """The step files of each episode that is a range of them."""
        return {name: files for ranges in self._ranges for name, files in ranges.episodes.items()}

    def _files_of(self, name: str) -> Sequence[str]:
        """List the files of an episode."""
        return self._step_files.get(name) or files_of(self.folder, _path(name))

    def _guess_rows(self) -> RowGuess | None:
        """Guess how the rows are divided from the first files that can be read; None if they show one episode each."""
        for name in self.names[:LOOKED_AT]:
            try:
                with reading(self.place(name)):
                    if key := guess_key(row_table(self._content_of(name).fields)):
                        return key
            except SourceError as error:
                if error.reason in UNDIVIDED:
                    raise
        return None

    def _table(self, name: str) -> FileTable:
        """Describe the columns of a table of many episodes."""
        with reading(self.place(name)):
            return FileTable.of(self._content_of(name).fields, self.source)

    def _fields_of(self, name: str) -> EpisodeFields:
        """Describe the fields of an episode; raise SourceError if it shows that it is a table of many.

        Step files are not asked: each folder or range of them is an episode.
        """
        content = self._content_of(name)
        is_asked = self.source.episode_flags is None and not self.source.step_files
        if is_asked and (key := guess_key(row_table(content.fields))):
            raise key.error()
        return content

    def _content_of(self, name: str) -> EpisodeFields:
        """Describe the fields of an episode or a table."""
        if files := self._step_files.get(name):
            return EpisodeFields(step_fields(self.folder, files, self.source))
        return episode_fields(self.folder, _path(name), self.source)

    def _describe(self, name: str) -> dict[str, Leaf]:
        """Describe an episode."""
        with reading(self.place(name)):
            content = self._content_of(name) if self.source.has_tables else self._fields_of(name)
            fields = FileTable.of(content.fields, self.source).episode(0) if self.source.has_tables else content.fields
            if not any(field.count for field in fields.values() if field.leaf.field.per_step):
                raise SourceError("contains no steps", reason="no_episodes")
        self._first_left_out = content.left_out()
        self.empty = without_values(fields)
        fields = {path: field for path, field in fields.items() if path not in self.empty}
        episode_path = Leaf(Field(path=EPISODE_PATH, kind="text", per_step=False), "value")
        return {EPISODE_PATH: episode_path, **{path: field.leaf for path, field in fields.items()}}

    def parts(self) -> Files:
        """Return one part per episode or table: the name of one of its files, and the total size of all of them."""
        tables = {name: self._rows_of(name) for name in self.names} if self.source.has_tables else {}
        check_apart((self.place(name), rows) for name, rows in tables.items() if rows)
        counts = {name: 1 if rows is None else len(rows) for name, rows in tables.items()}
        return {SPLIT: [self._part(name, count=counts.get(name, 1)) for name in self.names]}

    def _part(self, name: str, *, count: int) -> FilePart:
        try:
            files = self._files_of(name)
            sizes = self.folder.sizes(files)
        except SourceError:  # the error is reported when the episode is read
            return FilePart(name=name, size=0, count=count)
        size = sum(size or 0 for size in sizes.values()) if files else None
        video_size = sum(sizes[file] or 0 for file in files if file.endswith(VIDEOS))
        becomes = (size or 0) + (VIDEO_EXPANSION - 1) * video_size
        return FilePart(name=files[0] if files else name, size=size, count=count, becomes=becomes)

    def _rows_of(self, name: str) -> EpisodeRows | None:
        """Return which rows of a table belong to which episode; None if it cannot be read."""
        try:
            return self._table(name).rows
        except SourceError:  # the error is reported when the table is read, and counts as one episode
            return None

    def guesses(self) -> Mapping[str, str]:
        """Return the guessed keys with their evidence; empty if the source is declared, or is one file."""
        names = ", ".join(f"'{path}'" for path in self.whole)
        guesses = dict(self._guess.evidence) if self._guess else {}
        guesses |= {"per_episode": f"{names}, arrays without a row per step"} if self.whole else {}
        return guesses | ({self._row_guess.key: str(self._row_guess)} if self._row_guess else {})

    def notes(self) -> Sequence[str]:
        """Describe empty fields and unusual videos of the first episode, and episodes that seem to be steps."""
        empty = [
            f"{path}: the shape is {list(shape)} in the first episode, so it is left out."
            for path, shape in sorted(self.empty.items())
        ]
        videos = [name for name in self._files_of(self.names[0]) if name.lower().endswith(VIDEOS)]
        return [*empty, *oddities(self.folder, videos), *self._step_notes()]

    def _step_notes(self) -> Sequence[str]:
        """Return a note if the declared episodes seem to be files, or folders of files, that hold one step each."""
        if self.source.step_files or not self.names:
            return ()
        first = self.names[0]
        is_folder = self.folder.is_folder(first)
        below = _path(first) if is_folder else first.rpartition("/")[0]
        files = visible(self.folder, below) if is_folder else [name.rpartition("/")[2] for name in self.names]
        pattern = None if self._is_file else step_like(self.folder, below, files)
        if pattern is None:
            return ()
        where = self.place(below) if below else self.uri
        return (f"each file in {where} seems to hold one step; if so, declare source.step_files = '{pattern}'",)

    def left_out(self) -> Sequence[LeftOut]:
        """Count what is not in an episode, and what is not read of the first one."""
        return (*self._beside, *self._first_left_out)

    @cached_property
    def _beside(self) -> tuple[LeftOut, ...]:
        """Count the folders and files that belong to no episode; none if the source is one file."""
        if self._is_file or self.names == (".",):
            return ()
        outside = [name for ranges in self._ranges for name in ranges.outside]
        files = {name for files in self._step_files.values() for name in files}
        above = {str(folder) for name in self.names for folder in PurePosixPath(name).parents}
        known = {*self.names, *above, *files, *outside, *(() if self._guess else self.source.ignore)}
        places = [
            f"{below}/{name}".removeprefix("./") for below in sorted(above) for name in visible(self.folder, below)
        ]
        beside = [name for name in places if name not in known and not name.endswith(f"/{self.source.step_ranges}")]
        beside = [name for name in beside if name != self.source.step_ranges]
        folders = [name for name in beside if self.folder.is_folder(name)]
        kinds = {
            "step files outside all ranges": outside,
            "folders": folders,
            "files": [name for name in beside if name not in {*folders}],
        }
        return tuple(LeftOut(what, len(paths), min(paths, key=natural_key)) for what, paths in kinds.items() if paths)

    def description(self) -> dict[str, Any]:
        """Return the format, the pattern of the episodes, the key that divides tables, and the digest of the fields."""
        keys = {key: value for key, value in self.layout().items() if key in self.source.row_keys()}
        at = self.source.episodes
        return {"format": self.format, "episodes_at": at, **keys, "fields_sha256": digest(self.fields)}

    def where(self, part: FilePart) -> str:
        """Return the full path of an episode."""
        return self.place(self._episode(part.name))

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Yield the episode that a file belongs to, or each one in its table."""
        if part.size is None or self.folder.size(part.name) is None:
            self._files_of(self._episode(part.name))  # raises why, if they cannot be listed
            raise SourceError("no such file", reason="missing_file", file=self.place(part.name))
        name = self._episode(part.name)
        if not self.source.has_tables:
            yield Stored(partial(self._values, name, columns))
            return
        table = self._table(name)
        for number in range(len(table.rows)):
            yield Stored(partial(self._values, name, columns, table, number=number), f"episode_{number}")
        if error := table.rows.rest():
            yield error.at(self.place(name))

    def _episode(self, file: str) -> str:
        """Return the name of the episode that a file belongs to."""
        above = [file, *map(str, PurePosixPath(file).parents)]
        return next(name for name in above if name in self._name_set)

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    def _values(
        self, name: str, columns: Collection[str] | None, table: FileTable | None = None, *, number: int = 0
    ) -> Values:
        """Read one episode, or the one with this number in a table: its columns and its per-episode values."""
        metadata: dict[str, Any] = {}
        steps: dict[str, Any] = {}
        with reading(self.place(name)):
            fields = table.episode(number) if table else self._fields_of(name).fields
            self._check(fields)
            for path, leaf in self.leaves.items():
                if columns is not None and path not in columns:
                    continue
                if path == EPISODE_PATH:
                    metadata[path] = f"{name}/episode_{number}".removeprefix("./") if table else name
                elif path not in fields:
                    metadata[path] = [] if leaf.field.ragged else None
                elif leaf.field.per_step:
                    steps[path] = self._column(leaf, fields[path])
                else:
                    metadata[path] = fields[path].read(1)
        return steps, metadata

    def _column(self, leaf: Leaf, field: LazyField) -> Any:
        rows = self._rows(field)
        if leaf.form == "texts" and field.cells is not None:
            return field.cells[:rows]
        values = field.read(rows)
        return values.astype(leaf.field.dtype, copy=False) if leaf.form == "numbers" else values

    def _rows(self, field: LazyField) -> int:
        return max(0, field.count - covers(self.source.drop_last, field.leaf.field.path))

    def _check(self, fields: Mapping[str, LazyField]) -> None:
        """Raise SourceError if an episode does not match the first one, or has more or fewer frames than table rows.

        Only per-episode values may be missing.
        """
        known = {path for path in self.leaves if path != EPISODE_PATH}
        required = {path for path in known if self.leaves[path].field.per_step}
        if missing := sorted(required - {*fields}):
            raise SourceError(f"'{missing[0]}' is missing, but the first episode has it", reason="contradicts_fields")
        if more := sorted({*fields} - known - {*without_values(fields)}):
            message = f"'{more[0]}' is not in the first episode; {or_ignore(more[0])}"
            raise SourceError(message, reason="contradicts_fields")
        fields = {path: field for path, field in fields.items() if path in known}
        for path, field in fields.items():
            is_text = self.leaves[path].form == "texts" and field.cells is not None
            if not is_text and not _is_empty_list(field, self.leaves[path]):
                check_same(self.leaves[path], field.leaf)
        rows = {
            self._rows(field) for field in fields.values() if field.leaf.field.per_step and field.leaf.form not in MEDIA
        }
        for path, field in fields.items():
            if len(rows) == 1 and field.leaf.form in MEDIA and self._rows(field) not in rows:
                message = (
                    f"{path} has {self._rows(field)} frames, but there are {rows.pop()} rows; if these are no frames, "
                    f"leave them out with source.ignore = ['{path}']"
                )
                raise SourceError(message, reason="frame_count")


def _is_empty_list(field: LazyField, first: Leaf) -> bool:
    """Whether a per-episode value is an empty list, which fits a list of any type."""
    is_list = first.form == "value" and bool(first.field.ragged or first.field.shape)
    return is_list and field.leaf.form == "value" and bool(field.leaf.field.ragged) and field.read(1) == []


def _path(name: str) -> str:
    """Return the path of an episode; "." is the folder of the source."""
    return "" if name == "." else name
