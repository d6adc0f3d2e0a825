"""HDF5 in any layout that a declaration names: groups of one file as episodes, or a file for each."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import h5py

from pipelines.readers.beside import Beside, video_type
from pipelines.readers.fields import Leaf, digest, first_readable
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Held
from pipelines.readers.hdf5.splits import split_groups, split_name
from pipelines.readers.names import listed
from pipelines.readers.reader import FILMED, SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Field


class Hdf5Reader(SourceReader):
    """HDF5 files in a folder, or one of them; without a `source`, the first file tells where the episodes are.

    The fields are those of the first episode that can be read.
    """

    format = "hdf5"
    source: Hdf5Source

    def __init__(self, uri: str, source: Hdf5Source | None = None) -> None:
        """Read the structure of the first episode."""
        self.uri = uri
        if source and source.videos:
            video_type()  # now, not at the first frame
        pattern = source.files if source else None
        self.folder, file = SourceFolder.around(uri, HDF5_NAMES if pattern is None else ())
        self.names = (file,) if file else listed(self.folder, pattern, HDF5_NAMES)
        if not self.names:
            raise UsageError(f"{uri}: no HDF5 file here ({pattern or ', '.join(f'*{end}' for end in HDF5_NAMES)})")
        self.source, self.leaves = first_readable(
            self.names, partial(self._first, source), otherwise=UsageError(f"{uri}: no HDF5 file")
        )
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _first(self, source: Hdf5Source | None, name: str) -> tuple[Hdf5Source, dict[str, Leaf]]:
        """Describe the first episode of a file that can be read."""
        path = self.place(name)
        try:
            with tree.opened(self.folder, name) as file, tree.reading(path):
                known = source or Hdf5Source(format="hdf5", episodes=tree.guess(file))
                nothing = _nothing(known, path)

                def leaves(group: str) -> dict[str, Leaf]:
                    try:
                        return Held(file, group, folder=self.folder, file_name=name, source=known).leaves()
                    except SpecError as error:
                        raise SpecError(f"{path}: {group}: {error}") from error
                    except SourceError as error:
                        raise error.at(path, prefix=group) from error

                return known, first_readable(_groups(file, known), leaves, otherwise=nothing)
        except SourceError as error:
            raise error.at(error.file or path) from error

    def parts(self) -> Files:
        """Name the files of every split, in the order of the numbers in their names, with the episodes of each."""
        sizes = self._sizes()
        counts = {name: self._counts(name) for name in self.names}
        declared = map(split_name, self.source.splits)
        splits = dict.fromkeys([*declared, *(split for held in counts.values() for split in held)])
        filmed = bool(self.source.videos)
        return {
            split: [
                _part(name, split, held=held, size=sizes[name], filmed=filmed)
                for name, held in counts.items()
                if split in held
            ]
            for split in splits
        }

    def _counts(self, name: str) -> dict[str, int]:
        """Count a file's episodes by split; one in which none can be found counts as one that cannot be read."""
        splits = self.source.splits
        one = {split_name(splits[0]) if splits else SPLIT: 1}
        if not (self.source.episodes or "").strip("/"):
            return one
        try:
            with tree.opened(self.folder, name) as file, tree.reading(self.place(name)):
                groups = _splits(file, self.source)
                return {split: len(held) for split, held in groups.items() if held} or one
        except SourceError:
            return one

    def _sizes(self) -> dict[str, int | None]:
        """Tell each file's size, with that of the videos beside it: they make up most of what is written."""
        sizes = self.folder.sizes(self.names)
        for name in self.names if self.source.videos else ():
            beside = Beside(self.folder, name.rpartition("/")[0])
            found = [beside.sizes(pattern) for pattern in self.source.videos.values()]
            if (size := sizes[name]) is not None:
                sizes[name] = size + sum({file: size for held in found for file, size in held.items()}.values())
        return sizes

    def description(self) -> dict[str, Any]:
        """Name where the episodes are, and the fields by their digest."""
        return {"format": self.format, "episodes_at": self.source.episodes, "fields_sha256": digest(self.fields)}

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, split after split."""
        path = self.place(part.name)
        with tree.opened(self.folder, part.name) as file:

            def read(name: str) -> Values:
                with tree.reading(path):
                    held = Held(file, name, folder=self.folder, file_name=part.name, source=self.source)
                    return held.read(self.leaves, columns)

            with tree.reading(path):
                names = _groups(file, self.source)
            if not names:
                raise _nothing(self.source, path)
            for name in names:
                yield Stored(partial(read, name), name)


def _splits(file: h5py.File, source: Hdf5Source) -> dict[str, list[str]]:
    return split_groups(file, source.episodes or "/", source.splits)


def _groups(file: h5py.File, source: Hdf5Source) -> list[str]:
    """Name a file's episodes, split after split."""
    return [group for groups in _splits(file, source).values() for group in groups]


def _part(name: str, split: str, *, held: Mapping[str, int], size: int | None, filmed: bool) -> FilePart:
    """Name a split's run of episodes in a file, whose splits come one after the other."""
    splits, count, total = [*held], held[split], sum(held.values())
    return FilePart(
        name=name,
        size=None if size is None else size * count // total,
        count=count,
        skip=sum(held[other] for other in splits[: splits.index(split)]),
        is_tail=split == splits[-1],
        becomes=FILMED * (size or 0) * count // total if filmed else None,
    )


def _nothing(source: Hdf5Source, path: str) -> SourceError:
    return SourceError(f"no group matches '{source.episodes}'", reason="no_episodes", file=path)
