"""Read sources in which each episode is a folder or a file."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any

from pipelines.readers.episode_rows import UNDIVIDED, EpisodeRows, RowGuess, check_apart, is_row_key
from pipelines.readers.episode_rows import guess as guess_key
from pipelines.readers.fields import Leaf, check_same, digest, first_readable
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.rows import FileTable, row_table
from pipelines.readers.files.tree import VIDEOS, episode_fields, files_of, reading
from pipelines.readers.files.whole import per_episode_arrays, without_values
from pipelines.readers.find import EPISODE_FOLDER, EPISODE_NAMES, PICKLES
from pipelines.readers.folder import SourceFolder, pickle_error
from pipelines.readers.names import covers, matching
from pipelines.readers.reader import SPLIT, VIDEO_EXPANSION, Episodes, FilePart, Files, SourceReader, Stored, Values
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
        self.source = source or FolderSource(format="folder", episodes=file or guess(self.folder))
        self.names = (".",) if self.source.episodes == "." else matching(self.folder, self.source.episodes)
        self._row_guess = None if source else self._guess_rows()
        if self._row_guess:
            self.source = self.source.model_copy(update=self._row_guess.keys)
        if not self.names:
            raise UsageError(
                f"{uri}: no such file"
                if file
                else f"{uri}: nothing here is called '{self.source.episodes}' (source.episodes)"
            )
        self.whole = () if source or self._row_guess else per_episode_arrays(self.folder, self.names, self.source)
        self.source = self.source.model_copy(update={"per_episode": self.whole}) if self.whole else self.source
        self.empty: Mapping[str, tuple[int | None, ...]] = {}
        self.leaves = first_readable(self.names, self._describe, otherwise=UsageError(f"{uri}: no episodes"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _guess_rows(self) -> RowGuess | None:
        """Guess how the rows are divided from the first files that can be read; None if they show one episode each."""
        for name in self.names[:LOOKED_AT]:
            try:
                with reading(self.place(name)):
                    if key := guess_key(row_table(episode_fields(self.folder, name, self.source))):
                        return key
            except SourceError as error:
                if error.reason in UNDIVIDED:
                    raise
        return None

    def _table(self, name: str) -> FileTable:
        """Describe the columns of a table of many episodes."""
        with reading(self.place(name)):
            return FileTable.of(episode_fields(self.folder, name, self.source), self.source)

    def _fields(self, name: str) -> dict[str, LazyField]:
        """Describe the fields of an episode; raise SourceError if it shows that it is a table of many."""
        fields = episode_fields(self.folder, name, self.source)
        if self.source.episode_flags is None and (key := guess_key(row_table(fields))):
            raise key.error()
        return fields

    def _describe(self, name: str) -> dict[str, Leaf]:
        """Describe an episode."""
        with reading(self.place(name)):
            fields = self._table(name).episode(0) if self.source.has_tables else self._fields(name)
            if not any(field.count for field in fields.values() if field.leaf.field.per_step):
                raise SourceError("contains no steps", reason="no_episodes")
        self.empty = without_values(fields)
        fields = {path: field for path, field in fields.items() if path not in self.empty}
        episode_path = Leaf(Field(path=EPISODE_PATH, kind="text", per_step=False), "value")
        return {EPISODE_PATH: episode_path, **{path: field.leaf for path, field in fields.items()}}

    def guesses(self) -> Mapping[str, str]:
        """Return the guessed keys, each with the reason."""
        names = ", ".join(f"'{path}'" for path in self.whole)
        whole = {"per_episode": f"{names}, arrays without a row per step"} if self.whole else {}
        return whole | ({self._row_guess.key: str(self._row_guess)} if self._row_guess else {})

    def notes(self) -> Sequence[str]:
        """Describe the fields of the first episode that hold no values."""
        return [
            f"{path}: the shape is {list(shape)} in the first episode, so it is left out."
            for path, shape in sorted(self.empty.items())
        ]

    def parts(self) -> Files:
        """Return one part per episode or table: the name of one of its files, and the total size of all of them."""
        tables = {name: self._rows_of(name) for name in self.names} if self.source.has_tables else {}
        check_apart((self.place(name), rows) for name, rows in tables.items() if rows)
        counts = {name: 1 if rows is None else len(rows) for name, rows in tables.items()}
        return {SPLIT: [self._part(name, count=counts.get(name, 1)) for name in self.names]}

    def _part(self, name: str, *, count: int) -> FilePart:
        try:
            files = files_of(self.folder, name)
        except SourceError:  # the error is reported when the episode is read
            files = []
        sizes = self.folder.sizes(files)
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
            fields = table.episode(number) if table else self._fields(name)
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
            message = f"'{more[0]}' is not in the first episode; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")
        fields = {path: field for path, field in fields.items() if path in known}
        for path, field in fields.items():
            is_text = self.leaves[path].form == "texts" and field.cells is not None
            if not is_text:
                check_same(self.leaves[path], field.leaf)
        rows = {
            self._rows(field) for field in fields.values() if field.leaf.field.per_step and field.leaf.form not in MEDIA
        }
        for path, field in fields.items():
            if len(rows) == 1 and field.leaf.form in MEDIA and self._rows(field) not in rows:
                message = f"{path} has {self._rows(field)} frames, but there are {rows.pop()} rows"
                raise SourceError(message, reason="frame_count")


def guess(folder: SourceFolder) -> str:
    """Guess the pattern of the episodes: numbered folders with a common stem, or files of one type.

    It is `.` if the folder has a table of many episodes, with a file for each column.

    Raises UsageError if there are none.
    """
    names = folder.names()
    stems = Counter(re.sub(r"[0-9]+$", "", name) for name in names if EPISODE_FOLDER.fullmatch(name))
    if stems:
        return f"{max(stems, key=lambda stem: (stems[stem], stem)) or '[0-9]'}*"
    arrays = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if len(arrays) > 1 and any(map(is_row_key, arrays)):
        return "."  # the arrays of one table
    for ending in EPISODE_NAMES:
        if any(name.endswith(ending) for name in names):
            return f"*{ending}"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        raise pickle_error(folder.path(pickles[0]))
    raise UsageError(f"{folder.uri}: no episodes here; name their folders or files in source.episodes")
