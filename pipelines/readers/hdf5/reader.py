"""Read HDF5 files in any declared layout, with one episode per group or per file."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import h5py

from pipelines.readers.fields import Leaf, digest, first_readable
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Hdf5Episode
from pipelines.readers.hdf5.splits import split_groups, split_name
from pipelines.readers.names import list_files
from pipelines.readers.reader import SPLIT, VIDEO_EXPANSION, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.sidecars import Sidecars, video_type
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Field


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
        self.source, self.leaves = first_readable(
            self.names, partial(self._describe, source), otherwise=UsageError(f"{uri}: no HDF5 file")
        )
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _describe(self, source: Hdf5Source | None, name: str) -> tuple[Hdf5Source, dict[str, Leaf]]:
        """Return the layout of a file, and the fields of its first episode that can be read."""
        path = self.place(name)
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(path):
                declared = source or Hdf5Source(format="hdf5", episodes=tree.guess(file))
                no_groups = _no_group_error(declared, path)

                def leaves(group: str) -> dict[str, Leaf]:
                    try:
                        return Hdf5Episode(file, group, folder=self.folder, file_name=name, source=declared).leaves()
                    except SpecError as error:
                        raise SpecError(f"{path}: {group}: {error}") from error
                    except SourceError as error:
                        raise error.at(path, prefix=group) from error

                return declared, first_readable(_groups(file, declared), leaves, otherwise=no_groups)
        except SourceError as error:
            raise error.at(error.file or path) from error

    def parts(self) -> Files:
        """Return the files of every split with their numbers of episodes, ordered by the numbers in the file names.

        A file without episodes, or that cannot be read, counts as one episode.
        """
        sizes = self._sizes()
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
        splits = self.source.splits
        if not (self.source.episodes or "").strip("/"):
            return {split_name(splits[0]) if splits else SPLIT: 1}
        try:
            with tree.open_hdf5(self.folder, name) as file, tree.reading(self.place(name)):
                groups = _splits(file, self.source)
                return {split: len(names) for split, names in groups.items() if names}
        except SourceError:
            return {}

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
        """Return the format, the pattern of the episodes and the digest of the fields."""
        return {"format": self.format, "episodes_at": self.source.episodes, "fields_sha256": digest(self.fields)}

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a file and yield each of its episodes, split by split."""
        path = self.place(part.name)
        with tree.open_hdf5(self.folder, part.name) as file:

            def read(name: str) -> Values:
                with tree.reading(path):
                    episode = Hdf5Episode(file, name, folder=self.folder, file_name=part.name, source=self.source)
                    return episode.read(self.leaves, columns)

            with tree.reading(path):
                names = _groups(file, self.source)
            if not names:
                raise _no_group_error(self.source, path)
            for name in names:
                yield Stored(partial(read, name), name)


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
