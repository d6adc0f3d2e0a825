"""Read HDF5 files in any declared layout, with one episode per group or per file."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import h5py

from pipelines.readers.beside import files_beside, left_out_files, own_videos, video_notes
from pipelines.readers.episode_rows import EpisodeRows, check_apart
from pipelines.readers.fields import Leaf, digest, first_readable
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.groups import check_siblings
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Hdf5Episode
from pipelines.readers.hdf5.guess import Hdf5Guess, guess_source
from pipelines.readers.hdf5.rows import CACHE, Hdf5Table
from pipelines.readers.hdf5.splits import split_groups, split_name
from pipelines.readers.hdf5.table_guess import guess_rows, table_key
from pipelines.readers.names import list_files
from pipelines.readers.patterns import siblings
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
from pipelines.readers.sidecars import Sidecars, is_sidecar, video_type
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Field


@dataclass(frozen=True, slots=True)
class FileContents:
    """The groups of one file."""

    groups: Mapping[str, Sequence[str]]  # split -> episodes, or tables of many
    counts: Mapping[str, int]  # split -> number of episodes
    tables: Sequence[tuple[str, EpisodeRows]] = ()  # the rows of each table of many episodes, by its place
    others: Mapping[str, bool] = field(default_factory=dict)  # what is beside the episodes -> whether it is a group


class Hdf5Reader(SourceReader):
    """A reader of one HDF5 file, or of all HDF5 files in a folder.

    Without a `source`, the layout is guessed from the first files that can be read. The first episode that can be read
    defines the fields.
    """

    format = "hdf5"
    source: Hdf5Source

    def __init__(self, uri: str, source: Hdf5Source | None = None) -> None:
        """Read the structure of the first episode."""
        self.uri = uri
        if source and source.videos:
            video_type()  # fail now, not at the first frame
        pattern = source.files if source else None
        self.folder, file = SourceFolder.around(uri, HDF5_NAMES if pattern is None else ())
        self.names = (file,) if file else list_files(self.folder, pattern, HDF5_NAMES)
        if not self.names:
            raise UsageError(f"{uri}: no HDF5 file here ({pattern or ', '.join(f'*{end}' for end in HDF5_NAMES)})")
        self.is_file = bool(file)
        guess = None if source else guess_source(self.folder, self.names, where=uri)
        self.guess = guess and guess_rows(guess, self.folder, self.names)
        self.source = self.guess.source if self.guess else source or Hdf5Source(format="hdf5", episodes="/")
        self.empty: Mapping[str, str] = {}
        self.leaves = first_readable(self.names, self._describe, otherwise=UsageError(f"{uri}: no HDF5 file"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _describe(self, name: str) -> dict[str, Leaf]:
        """Return the fields of a file's first episode that can be read."""
        path = self.place(name)
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(path):

                def leaves(group: str) -> dict[str, Leaf]:
                    try:
                        episode = self._episode(file, group, name)
                        fields = episode.leaves()
                    except SpecError as error:
                        raise SpecError(f"{path}: {group}: {error}") from error
                    except SourceError as error:
                        raise error.at(path, prefix=group) from error
                    self.empty = episode.empty_shapes()
                    return fields

                no_groups = _no_group_error(self.source, path)
                return first_readable(_groups(file, self.source), leaves, otherwise=no_groups)
        except SourceError as error:
            raise error.at(error.file or path) from error

    def _episode(self, file: h5py.File, group: str, name: str) -> Hdf5Episode:
        """Open an episode, or, if a key divides the rows, a table of many; no values of its fields are read.

        Raises SourceError if an episode shows that it is a table of many.
        """
        if self.source.has_tables:
            return self._table(file, group, name)
        episode = Hdf5Episode(file, group, folder=self.folder, file_name=name, source=self.source)
        if self.source.episode_flags is None and (key := table_key(episode, is_file=self.source.is_whole_file)):
            raise key.error()
        return episode

    def _table(self, file: h5py.File, group: str, name: str) -> Hdf5Table:
        return Hdf5Table(file, group, folder=self.folder, file_name=name, source=self.source)

    def guesses(self) -> Mapping[str, str]:
        """Return the guessed keys, each with the reason."""
        return self.guess.why if self.guess else {}

    def notes(self) -> Sequence[str]:
        """Describe empty datasets and groups of the first episode, and videos that are not declared."""
        empty = [f"{path}: {what} in the first episode, so it is left out." for path, what in self.empty.items()]
        stem = self.names[0].rpartition("/")[2].rpartition(".")[0]
        group = next(iter(self._contents[self.names[0]].groups.values()), ["/"])[0].rpartition("/")[2]
        unusual = Sidecars(self.folder, self.names[0].rpartition("/")[0]).oddities(self.source.videos.values())
        return [*empty, *unusual, *video_notes(self._files_beside, {"episode": group, "file": stem})]

    def left_out(self) -> Sequence[LeftOut]:
        """Count groups and datasets beside the episodes, and files beside the HDF5 files."""
        counts: list[LeftOut] = []
        for what, is_group in (("groups", True), ("datasets", False)):
            paths = [
                f"{name}/{path}"
                for name, contents in self._contents.items()
                for path, is_one in contents.others.items()
                if is_one == is_group
            ]
            counts += [LeftOut(what, len(paths), paths[0])] if paths else []
        return [*counts, *left_out_files(self._files_beside)]

    @cached_property
    def _files_beside(self) -> list[str]:
        """The files that are not read; beside a single HDF5 file only videos, because it may be in any folder."""
        patterns = (*self.source.videos.values(), *self.source.beside.values())
        folders = {name.rpartition("/")[0] for name in self.names}
        files = [name for name in files_beside(self.folder, {*self.names}) if not is_sidecar(name, folders, patterns)]
        return own_videos(files, HDF5_NAMES) if self.is_file else files

    def parts(self) -> Files:
        """Return the files of every split with their numbers of episodes, ordered by the numbers in the file names.

        A file without episodes, or that cannot be read, counts as one episode.
        """
        sizes = self._sizes()
        check_apart(table for contents in self._contents.values() for table in contents.tables)
        known = {name: self._counts(name) for name in self.names}
        declared = [*map(split_name, self.source.splits)]
        counts = {name: by_split or {[*declared, SPLIT][0]: 1} for name, by_split in known.items()}
        splits = dict.fromkeys([*declared, *(split for by_split in counts.values() for split in by_split)])
        has_videos = bool(self.source.videos)
        return {
            split: [
                replace(
                    _part(name, split, counts=by_split, size=sizes[name], has_videos=has_videos),
                    is_counted=bool(known[name]),
                )
                for name, by_split in counts.items()
                if split in by_split
            ]
            for split in splits
        }

    def _counts(self, name: str) -> dict[str, int]:
        """Return the number of episodes in each split of a file; empty if the file cannot be read."""
        return {**self._contents[name].counts}

    @cached_property
    def _contents(self) -> Mapping[str, FileContents]:
        """The groups of each file. If each file is one episode, no file is opened."""
        if self.source.is_whole_file and not self.source.has_tables:
            split = next(map(split_name, self.source.splits), SPLIT)
            return {name: FileContents({split: ["/"]}, {split: 1}) for name in self.names}
        return {name: self._file_contents(name) for name in self.names}

    def _file_contents(self, name: str) -> FileContents:
        """List the groups of a file, and count its episodes; none if it is unreadable."""
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(self.place(name)):
                groups, nodes = _splits(file, self.source), tree.Hdf5Tree(file)
                if self.guess and not self.source.is_whole_file:
                    check_siblings(nodes, self.guess.groups, where=self.place(name))
                tables = {
                    group: self._table(file, group, name).rows if self.source.has_tables else None
                    for paths in groups.values()
                    for group in paths
                }
                counts = {
                    split: sum(1 if (rows := tables[group]) is None else len(rows) for group in paths)
                    for split, paths in groups.items()
                    if paths
                }
                placed = [(self.place(f"{name}{group}".rstrip("/")), rows) for group, rows in tables.items() if rows]
                return FileContents(groups, counts, placed, _others(nodes, self.source, self.guess))
        except SourceError:
            return FileContents({}, {})

    def _sizes(self) -> dict[str, int | None]:
        """Return the size of each file plus its videos, because most of the output comes from the videos."""
        sizes = self.folder.sizes(self.names)
        for name in self.names if self.source.videos else ():
            sidecars = Sidecars(self.folder, name.rpartition("/")[0])
            video_sizes = [sidecars.sizes(pattern) for pattern in self.source.videos.values()]
            if (size := sizes[name]) is not None:
                sizes[name] = size + sum(
                    {file: size for by_name in video_sizes for file, size in by_name.items()}.values()
                )
        return sizes

    def description(self) -> dict[str, Any]:
        """Return the format, the pattern of the episodes, the key that divides tables, and the digest of the fields."""
        keys = {key: value for key, value in self.layout().items() if key in self.source.row_keys()}
        at = {"episodes_at": self.source.episodes} if self.source.episodes else {}
        return {"format": self.format, **at, **keys, "fields_sha256": digest(self.fields)}

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, split by split."""
        path = self.place(part.name)
        cache = CACHE if self.source.has_tables else 0
        rest: list[SourceError] = []
        with tree.open_hdf5(self.folder, part.name, cache=cache) as file:

            def read(name: str, table: Hdf5Table | None = None, number: int = 0) -> Values:
                with tree.reading(path):
                    episode = table.episode(number) if table else self._episode(file, name, part.name)
                    return episode.read(self.leaves, columns)

            with tree.reading(path):
                names = _groups(file, self.source)
            if not names:
                raise _no_group_error(self.source, path)
            for name in names:
                if not self.source.has_tables:
                    yield Stored(partial(read, name), name)
                    continue
                with tree.reading(path):
                    table = self._table(file, name, part.name)
                for number in range(len(table.rows)):
                    yield Stored(partial(read, name, table, number), f"{name.rstrip('/')}/episode_{number}")
                if error := table.rows.rest():
                    rest.append(error.at(path, prefix=name))
        yield from rest


def _splits(file: h5py.File, source: Hdf5Source) -> dict[str, list[str]]:
    return split_groups(file, source.episodes or "/", source.splits, ignore=source.ignore)


def _others(nodes: tree.Hdf5Tree, source: Hdf5Source, guess: Hdf5Guess | None) -> dict[str, bool]:
    """Return what is beside the episodes' groups, and whether it is a group, by path.

    What the declaration names in `ignore` or `splits` is left out.
    """
    paths = siblings(nodes, source.episodes or "/")
    if guess:
        paths += [path for path in (ignored[1:] for ignored in guess.groups.ignore) if path in nodes]
    else:
        paths = [path for path in paths if f"/{path}" not in source.ignore]
    masks = [mask.strip("/") for mask in source.splits]
    paths = [path for path in paths if not any(f"{mask}/".startswith(f"{path}/") for mask in masks)]
    return {path: nodes.head(path) is None for path in paths}


def _groups(file: h5py.File, source: Hdf5Source) -> list[str]:
    """Return the groups of a file's episodes, split by split."""
    return [group for groups in _splits(file, source).values() for group in groups]


def _part(name: str, split: str, *, counts: Mapping[str, int], size: int | None, has_videos: bool) -> FilePart:
    """Return the part of a file with the episodes of one split; the parts of a file follow one another by split."""
    splits, count, total = [*counts], counts[split], sum(counts.values())
    return FilePart(
        name=name,
        size=None if size is None else size * count // total,
        count=count,
        skip=sum(counts[other] for other in splits[: splits.index(split)]),
        is_tail=split == splits[-1],
        becomes=VIDEO_EXPANSION * (size or 0) * count // total if has_videos else None,
    )


def _no_group_error(source: Hdf5Source, path: str) -> SourceError:
    return SourceError(f"no group matches '{source.episodes}'", reason="no_episodes", file=path)
