"""Loose files: a folder, or a file, for each episode."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any

from pipelines.readers.fields import Leaf, check_same, digest, first_readable
from pipelines.readers.files.piece import Piece
from pipelines.readers.files.tree import VIDEOS, files_of, pieces_of, reading
from pipelines.readers.find import EPISODE_FOLDER, EPISODE_NAMES, PICKLES
from pipelines.readers.folder import SourceFolder, pickle_refused
from pipelines.readers.names import covers, matching
from pipelines.readers.reader import FILMED, SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

PLACE = "episode_path"  # a per-episode field that every source has
MEDIA = {"blobs", "video"}


class EpisodeFilesReader(SourceReader):
    """A folder in which each episode is a folder or a file; without a `source`, their names are guessed.

    What an episode's files are called is what its fields are called. The fields are those of the first episode that
    can be read.
    """

    format = "folder"
    source: FolderSource

    def __init__(self, uri: str, source: FolderSource | None = None) -> None:
        """Read the descriptions of the first episode."""
        self.uri = uri
        self.folder, file = SourceFolder.around(uri, () if source else EPISODE_NAMES)
        self.source = source or FolderSource(format="folder", episodes=file or guess(self.folder))
        self.names = matching(self.folder, self.source.episodes)
        if not self.names:
            raise UsageError(
                f"{uri}: no such file"
                if file
                else f"{uri}: nothing here is called '{self.source.episodes}', as source.episodes says"
            )
        self.leaves = first_readable(self.names, self._described, otherwise=UsageError(f"{uri}: no episodes"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _described(self, name: str) -> dict[str, Leaf]:
        """Describe an episode."""
        with reading(self.place(name)):
            pieces = pieces_of(self.folder, name, self.source)
            if not any(piece.count for piece in pieces.values() if piece.leaf.field.per_step):
                raise SourceError("holds no steps", reason="no_episodes")
        place = Leaf(Field(path=PLACE, kind="text", per_step=False), "value")
        return {PLACE: place, **{path: piece.leaf for path, piece in pieces.items()}}

    def parts(self) -> Files:
        """Name one file of each episode, with the size of all of its files."""
        return {SPLIT: [self._part(name) for name in self.names]}

    def _part(self, name: str) -> FilePart:
        try:
            files = files_of(self.folder, name)
        except SourceError:  # reading it says why
            files = []
        sizes = self.folder.sizes(files)
        size = sum(size or 0 for size in sizes.values()) if files else None
        filmed = sum(sizes[file] or 0 for file in files if file.endswith(VIDEOS))
        becomes = (size or 0) + (FILMED - 1) * filmed
        return FilePart(name=files[0] if files else name, size=size, count=1, becomes=becomes)

    def description(self) -> dict[str, Any]:
        """Name where the episodes are, and the fields by their digest."""
        return {"format": self.format, "episodes_at": self.source.episodes, "fields_sha256": digest(self.fields)}

    def where(self, part: FilePart) -> str:
        """Return the full path of an episode."""
        return self.place(self._episode(part.name))

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Yield the one episode that a file belongs to."""
        if part.size is None or self.folder.size(part.name) is None:
            raise SourceError("no such file", reason="missing_file", file=self.place(part.name))
        yield Stored(partial(self._values, self._episode(part.name), columns))

    def _episode(self, file: str) -> str:
        """Find the episode that a file belongs to."""
        above = [file, *map(str, PurePosixPath(file).parents)]
        return next(name for name in above if name in self._known)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def _values(self, name: str, columns: Collection[str] | None) -> Values:
        """Read one episode: what it has per step, and what it has once."""
        metadata: dict[str, Any] = {}
        steps: dict[str, Any] = {}
        with reading(self.place(name)):
            pieces = pieces_of(self.folder, name, self.source)
            self._check(pieces)
            for path, leaf in self.leaves.items():
                if columns is not None and path not in columns:
                    continue
                if path == PLACE:
                    metadata[path] = name
                elif path not in pieces:
                    metadata[path] = [] if leaf.field.ragged else None
                elif leaf.field.per_step:
                    steps[path] = self._column(leaf, pieces[path])
                else:
                    metadata[path] = pieces[path].read(1)
        return steps, metadata

    def _column(self, leaf: Leaf, piece: Piece) -> Any:
        rows = self._rows(piece)
        if leaf.form == "texts" and piece.cells is not None:
            return piece.cells[:rows]
        made = piece.read(rows)
        return made.astype(leaf.field.dtype, copy=False) if leaf.form == "numbers" else made

    def _rows(self, piece: Piece) -> int:
        return max(0, piece.count - covers(self.source.drop_last, piece.leaf.field.path))

    def _check(self, pieces: Mapping[str, Piece]) -> None:
        """Refuse an episode that is not as the first one, or whose frames are not as many as its rows."""
        known = {path for path in self.leaves if path != PLACE}
        needed = {path for path in known if self.leaves[path].field.per_step}
        if missing := sorted(needed - {*pieces}):
            raise SourceError(f"there is no '{missing[0]}', which the first episode has", reason="contradicts_fields")
        if more := sorted({*pieces} - known):
            message = f"'{more[0]}' is not in the first episode; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")
        for path, piece in pieces.items():
            is_text = self.leaves[path].form == "texts" and piece.cells is not None
            if not is_text:
                check_same(self.leaves[path], piece.leaf)
        rows = {self._rows(p) for p in pieces.values() if p.leaf.field.per_step and p.leaf.form not in MEDIA}
        for path, piece in pieces.items():
            if len(rows) == 1 and piece.leaf.form in MEDIA and self._rows(piece) not in rows:
                message = f"{path} has {self._rows(piece)} frames, and there are {rows.pop()} rows"
                raise SourceError(message, reason="frame_count")


def guess(folder: SourceFolder) -> str:
    """Guess which names are episodes: numbered folders of one stem, or the files of one kind."""
    names = folder.names()
    stems = Counter(re.sub(r"[0-9]+$", "", name) for name in names if EPISODE_FOLDER.fullmatch(name))
    if stems:
        return f"{max(stems, key=lambda stem: (stems[stem], stem)) or '[0-9]'}*"
    for ending in EPISODE_NAMES:
        if any(name.endswith(ending) for name in names):
            return f"*{ending}"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        raise pickle_refused(folder.path(pickles[0]))
    raise UsageError(f"{folder.uri}: no episodes here; source.episodes says how their folders or files are called")
