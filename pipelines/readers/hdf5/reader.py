"""Read HDF5 files in any declared layout, with one episode per group or per file."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import h5py

from pipelines.readers.episode_rows import RowGuess, guess, guess_column, guess_ends
from pipelines.readers.fields import Leaf, digest, first_readable
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Hdf5Episode
from pipelines.readers.hdf5.rows import CACHE, Hdf5Table, row_table
from pipelines.readers.hdf5.splits import split_groups, split_name
from pipelines.readers.names import list_files
from pipelines.readers.reader import SPLIT, VIDEO_EXPANSION, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.sidecars import Sidecars, video_type
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Field

LOOKED_AT = 8  # files in which a guess looks for tables of many episodes


class Hdf5Reader(SourceReader):
    """A reader of one HDF5 file, or of all HDF5 files in a folder.

    Without a `source`, the layout is guessed from the first file that can be read. The first episode that can be read
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
        self._guessed: dict[str, str] = {}
        self.source, self.leaves = first_readable(
            self.names, partial(self._describe, source), otherwise=UsageError(f"{uri}: no HDF5 file")
        )
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _describe(self, source: Hdf5Source | None, name: str) -> tuple[Hdf5Source, dict[str, Leaf]]:
        """Return the layout of a file, and the fields of its first episode that can be read."""
        path = self.place(name)
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(path):
                declared = source or self._guess(file, name)
                no_groups = _no_group_error(declared, path)

                def leaves(group: str) -> dict[str, Leaf]:
                    try:
                        return self._open(file, group, file_name=name, source=declared).leaves()
                    except SpecError as error:
                        raise SpecError(f"{path}: {group}: {error}") from error
                    except SourceError as error:
                        raise error.at(path, prefix=group) from error

                return declared, first_readable(_groups(file, declared), leaves, otherwise=no_groups)
        except SourceError as error:
            raise error.at(error.file or path) from error

    def _open(self, file: h5py.File, group: str, *, file_name: str, source: Hdf5Source) -> Hdf5Episode:
        """Open an episode, or, if a key divides its rows, a table of many; no values of its fields are read.

        Raises SourceError if the episode shows that it is a table of many.
        """
        if source.has_tables:
            return Hdf5Table(file, group, folder=self.folder, file_name=file_name, source=source)
        episode = Hdf5Episode(file, group, folder=self.folder, file_name=file_name, source=source)
        if source.episode_flags is None and (guess := _row_guess(episode, is_file=_is_file(source))):
            raise guess.error()
        return episode

    def _guess(self, file: h5py.File, name: str) -> Hdf5Source:
        """Guess where the episodes are: in the groups of a file, or in the rows of this file or of some later ones."""
        source = Hdf5Source(format="hdf5", episodes=tree.guess(file))
        for group in _groups(file, source)[:1]:
            later = [other for other in self.names if other != name][: LOOKED_AT - 1]
            episode = Hdf5Episode(file, group, folder=self.folder, file_name=name, source=source)
            guess = _row_guess(episode, is_file=_is_file(source))
            guess = guess or next(filter(None, map(partial(self._row_guess, source), later)), None)
            if guess is None:
                break
            at = None if _is_file(source) else source.episodes
            source = Hdf5Source(format="hdf5", episodes=at, **guess.keys)
            self._guessed = {guess.key: str(guess)}
            odd = Hdf5Table(file, group, folder=self.folder, file_name=name, source=source).odd_paths()
            self._guessed |= {
                key: f"{paths}, because their rows are neither steps nor episodes" for key, paths in odd.items()
            }
            source = source.model_copy(update={key: tuple(paths) for key, paths in odd.items()})
        return source

    def _row_guess(self, source: Hdf5Source, name: str) -> RowGuess | None:
        """Guess how the rows of another file are divided; None if it cannot be read."""
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(self.place(name)):
                for group in _groups(file, source)[:1]:
                    episode = Hdf5Episode(file, group, folder=self.folder, file_name=name, source=source)
                    return _row_guess(episode, is_file=_is_file(source))
        except SourceError:
            pass
        return None

    def guesses(self) -> Mapping[str, str]:
        """Return the keys that were guessed."""
        return self._guessed

    def parts(self) -> Files:
        """Return the files of every split with their numbers of episodes, ordered by the numbers in the file names."""
        sizes = self._sizes()
        counts = {name: self._counts(name) for name in self.names}
        declared = map(split_name, self.source.splits)
        splits = dict.fromkeys([*declared, *(split for by_split in counts.values() for split in by_split)])
        has_videos = bool(self.source.videos)
        return {
            split: [
                _part(name, split, counts=by_split, size=sizes[name], has_videos=has_videos)
                for name, by_split in counts.items()
                if split in by_split
            ]
            for split in splits
        }

    def _counts(self, name: str) -> dict[str, int]:
        """Return the number of episodes in each split of a file; an unreadable file counts as one episode."""
        splits = self.source.splits
        one_episode = {split_name(splits[0]) if splits else SPLIT: 1}
        if _is_file(self.source) and not self.source.has_tables:
            return one_episode
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(self.place(name)):
                groups = _splits(file, self.source)
                counts = {split: self._count(file, name, groups=names) for split, names in groups.items() if names}
                return counts or one_episode
        except SourceError:
            return one_episode

    def _count(self, file: h5py.File, name: str, *, groups: Sequence[str]) -> int:
        """Return the number of episodes in some groups of a file."""
        if not self.source.has_tables:
            return len(groups)
        tables = (Hdf5Table(file, group, folder=self.folder, file_name=name, source=self.source) for group in groups)
        return sum(len(table.rows) for table in tables)

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
        at = self.source.episodes or "/"
        return {"format": self.format, "episodes_at": at, **keys, "fields_sha256": digest(self.fields)}

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, split by split."""
        path = self.place(part.name)
        cache = CACHE if self.source.has_tables else 0
        rest: list[SourceError] = []
        with tree.open_hdf5(self.folder, part.name, cache=cache) as file:

            def read(name: str, table: Hdf5Table | None = None, number: int = 0) -> Values:
                with tree.reading(path):
                    episode = (
                        table.episode(number)
                        if table
                        else self._open(file, name, file_name=part.name, source=self.source)
                    )
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
                    table = Hdf5Table(file, name, folder=self.folder, file_name=part.name, source=self.source)
                for number in range(len(table.rows)):
                    yield Stored(partial(read, name, table, number), f"{name.rstrip('/')}/episode_{number}")
                if error := table.rows.rest():
                    rest.append(error.at(path, prefix=name))
        yield from rest


def _is_file(source: Hdf5Source) -> bool:
    """Whether each file is one episode or table, and not a group in it."""
    return not (source.episodes or "").strip("/")


def _row_guess(episode: Hdf5Episode, *, is_file: bool) -> RowGuess | None:
    """Guess which key divides the rows of a file or group.

    Flags are not asked in a group, because a group is an episode in all known layouts, and its flags may mean success.
    """
    table = row_table(episode.datasets)
    return guess(table) if is_file else guess_ends(table) or guess_column(table)


def _splits(file: h5py.File, source: Hdf5Source) -> dict[str, list[str]]:
    return split_groups(file, source.episodes or "/", source.splits)


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
