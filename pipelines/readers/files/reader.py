"""Loose files: a folder, or a file, for each episode."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from pipelines.readers.fields import Leaf, check_same, digest
from pipelines.readers.files.piece import Piece
from pipelines.readers.files.tree import VIDEOS, Told, files_of, pieces_of, reading
from pipelines.readers.find import EPISODE_FOLDER, EPISODE_NAMES, PICKLES
from pipelines.readers.folder import SourceFolder, pickle_refused
from pipelines.readers.names import covers, matching
from pipelines.readers.reader import FILMED, FilePart, Reader, ShardRef
from schemas.declarations.formats import FolderSource, SourceSpec
from schemas.errors import SourceError, UsageError
from schemas.source import Field, RawEpisode, Unreadable

SPLIT = "train"
PLACE = "episode_path"  # a per-episode field that every source has
MEDIA = {"blobs", "video"}


class EpisodeFilesReader(Reader):
    """A folder in which each episode is a folder or a file, as the pattern `episodes` names them.

    What an episode's files are called is what its fields are called. The fields are those of the first episode that
    can be read. Dotted paths in `ignore` are not read, those in `per_episode` have no step axis, those in `drop_last`
    have one step more than the others, the images of those in `unnumbered` have no numbers of frames in their names.
    """

    format = "folder"

    def __init__(
        self,
        uri: str,
        *,
        episodes: str | None = None,
        ignore: Sequence[str] = (),
        per_episode: Sequence[str] = (),
        drop_last: Sequence[str] = (),
        unnumbered: Sequence[str] = (),
        ignore_lines: str | None = None,
        images: str | None = None,
    ) -> None:
        """Read the descriptions of the first episode."""
        self.uri = uri
        self.told = Told(
            ignore=tuple(ignore),
            per_episode=tuple(per_episode),
            drop_last=tuple(drop_last),
            unnumbered=tuple(unnumbered),
            ignore_lines=ignore_lines,
            images=images,
        )
        above, _, name = uri.rstrip("/").rpartition("/")
        is_file = episodes is None and name.endswith(EPISODE_NAMES)
        self.folder = SourceFolder.at((above or "/" if "/" in uri else ".") if is_file else uri)
        self.episodes = episodes or (name if is_file else guess(self.folder))
        self.names = matching(self.folder, self.episodes)
        if not self.names:
            raise UsageError(
                f"{uri}: no such file"
                if is_file
                else f"{uri}: nothing here is called '{self.episodes}', as source.episodes says"
            )
        self.leaves = self._first()
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def layout(self) -> dict[str, Any]:
        """Give the keys of `source` that open it the same way."""
        told = {name: getattr(self.told, name) for name in Told.__slots__}
        spec = FolderSource(format="folder", episodes=self.episodes, **told)
        return spec.model_dump(mode="json", exclude=set(SourceSpec.model_fields), exclude_defaults=True)

    def _first(self) -> dict[str, Leaf]:
        """Describe the first episode that can be read; where none can, its error stands for all."""
        failure = None
        for name in self.names:
            try:
                with reading(self.folder.path(name)):
                    pieces = pieces_of(self.folder, name, self.told)
                    if not any(piece.count for piece in pieces.values() if piece.leaf.field.per_step):
                        raise SourceError("holds no steps", reason="no_episodes")
            except SourceError as error:
                if error.reason == "unsupported_field":
                    raise
                failure = failure or error
                continue
            place = Leaf(Field(path=PLACE, kind="text", per_step=False), "value")
            return {PLACE: place, **{path: piece.leaf for path, piece in pieces.items()}}
        raise failure or UsageError(f"{self.uri}: no episodes")

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name one file of each episode, with the size of all of its files."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        parts = []
        for index, name in enumerate(self.names):
            files = self._files_of(name)
            sizes = self.folder.sizes(files)
            size = sum(size or 0 for size in sizes.values()) if files else None
            filmed = sum(sizes[file] or 0 for file in files if file.endswith(VIDEOS))
            becomes = (size or 0) + (FILMED - 1) * filmed
            part = FilePart(name=files[0] if files else name, size=size, first=index, count=1, becomes=becomes)
            parts.append(part)
        return {SPLIT: tuple(parts)}

    def _files_of(self, name: str) -> list[str]:
        try:
            return files_of(self.folder, name)
        except SourceError:  # reading it says why
            return []

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the layout, and the fields by their digest."""
        return {"format": self.format, "episodes_at": self.episodes, "fields_sha256": digest(self.fields)}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files: of each episode, of the one that names it."""
        return self.folder.tails(names, count)

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            if not part.count:
                continue
            path = self.folder.path(part.name)
            try:
                if part.size is None or self.folder.size(part.name) is None:
                    raise SourceError("no such file", reason="missing_file", file=path)
                name = self._episode(part.name)
                path = self.folder.path(name)
                with reading(path):
                    steps, metadata = self._values(name, columns)
                yield RawEpisode(index=part.first, split=ref.split, steps=steps, metadata=metadata, file=path)
            except SourceError as error:
                yield Unreadable.of(error, index=part.first, split=ref.split, file=path)

    def _episode(self, file: str) -> str:
        """Find the episode that a file belongs to."""
        above = [file, *map(str, PurePosixPath(file).parents)]
        return next(name for name in above if name in self._known)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def _values(self, name: str, columns: Collection[str] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read one episode: what it has per step, and what it has once."""
        pieces = pieces_of(self.folder, name, self.told)
        self._check(pieces)
        metadata: dict[str, Any] = {}
        steps: dict[str, Any] = {}
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
        return max(0, piece.count - covers(self.told.drop_last, piece.leaf.field.path))

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
