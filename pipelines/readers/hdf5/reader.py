"""HDF5 in any layout that a declaration names: groups of one file as episodes, or a file for each."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import h5py

from pipelines.readers.beside import Beside, video_type
from pipelines.readers.fields import Leaf, digest
from pipelines.readers.find import HDF5_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Held, Told
from pipelines.readers.hdf5.splits import SPLIT, split_groups, split_name
from pipelines.readers.names import matching, natural
from pipelines.readers.reader import FILMED, FilePart, Reader, ShardRef
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Field, RawEpisode, Unreadable


class Hdf5Reader(Reader):
    """HDF5 files in a folder, or one of them.

    `episodes` is a pattern of groups (`data/demo_*`), or `/` where each file is one episode; None: guessed from the
    first file. `splits` names datasets that list the episodes of a split. The fields are those of the first episode
    that can be read; the other keys are those of `Told`, and stand in docs/sources.md.
    """

    format = "hdf5"

    def __init__(
        self,
        uri: str,
        *,
        episodes: str | None = None,
        files: str | None = None,
        splits: Sequence[str] = (),
        ignore: Sequence[str] = (),
        per_episode: Sequence[str] = (),
        drop_last: Sequence[str] = (),
        frames: Mapping[str, str] | None = None,
        in_json: Sequence[str] = (),
        beside: Mapping[str, str] | None = None,
        videos: Mapping[str, str] | None = None,
        images: str | None = None,
    ) -> None:
        """Read the structure of the first episode."""
        self.uri, self.pattern, self.splits = uri, files, splits
        self.told = Told(
            ignore=ignore,
            per_episode=per_episode,
            drop_last=drop_last,
            frames=frames or {},
            in_json=in_json,
            beside=beside or {},
            videos=videos or {},
            images=images,
        )
        if videos:
            video_type()  # now, not at the first frame
        above, _, name = uri.rstrip("/").rpartition("/")
        is_file = files is None and name.endswith(HDF5_NAMES)
        self.folder = SourceFolder.at((above or "/" if "/" in uri else ".") if is_file else uri)
        self.names = (name,) if is_file else _found(self.folder, files)
        if not self.names:
            raise UsageError(f"{uri}: no HDF5 file here ({files or ', '.join(f'*{end}' for end in HDF5_NAMES)})")
        self.episodes, self.leaves = self._first(episodes)
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _first(self, episodes: str | None) -> tuple[str, dict[str, Leaf]]:
        """Describe the first episode that can be read; where none can, its error stands for all."""
        failure = None
        for name in self.names:
            path = self.folder.path(name)
            try:
                with tree.opened(self.folder, name) as file, tree.reading(path):
                    pattern = tree.guess(file) if episodes is None else episodes
                    for group in self._groups(file, pattern):
                        try:
                            return pattern, self._held(file, group, name=name).leaves()
                        except SpecError as error:
                            raise SpecError(f"{path}: {group}: {error}") from error
                        except SourceError as error:
                            told = SourceError(f"{group}: {error.message}", reason=error.reason, file=path)
                            if error.reason == "unsupported_field":  # as in all others, most likely
                                raise told from error
                            failure = failure or told
                    failure = failure or _nothing(pattern, path)
            except SourceError as error:
                if error.reason == "unsupported_field":
                    raise
                failure = failure or SourceError(error.message, reason=error.reason, file=error.file or path)
        raise failure or UsageError(f"{self.uri}: no HDF5 file")

    def _held(self, file: h5py.File, group: str, *, name: str) -> Held:
        return Held(file, group, folder=self.folder, file_name=name, told=self.told)

    def _groups(self, file: h5py.File, pattern: str) -> list[str]:
        """Name a file's episodes, split after split."""
        return [group for groups in split_groups(file, pattern, self.splits).values() for group in groups]

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name the files of every split, in the order of the numbers in their names, with the episodes of each."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        sizes = self._sizes()
        counts = {name: self._counts(name) for name in self.names}
        splits = dict.fromkeys([*map(split_name, self.splits), *(split for held in counts.values() for split in held)])
        first, parts = 0, {split: list[FilePart]() for split in splits}
        for split in splits:
            for name, held in counts.items():
                if split in held:
                    filmed = bool(self.told.videos)
                    part = _part(name, split, held=held, size=sizes[name], first=first, filmed=filmed)
                    parts[split].append(part)
                    first += part.count
        return {split: tuple(listed) for split, listed in parts.items()}

    def _counts(self, name: str) -> dict[str, int]:
        """Count a file's episodes by split; one in which none can be found counts as one that cannot be read."""
        split = split_name(self.splits[0]) if self.splits else SPLIT
        if not self.episodes.strip("/"):
            return {split: 1}
        try:
            with tree.opened(self.folder, name) as file, tree.reading(self.folder.path(name)):
                groups = split_groups(file, self.episodes, self.splits)
                return {split: len(held) for split, held in groups.items() if held} or {split: 1}
        except SourceError:
            return {split: 1}

    def _sizes(self) -> dict[str, int | None]:
        """Tell each file's size, with that of the videos beside it: they make up most of what is written."""
        sizes = self.folder.sizes(self.names)
        for name in self.names if self.told.videos else ():
            beside = Beside(self.folder, name.rpartition("/")[0])
            found = [beside.sizes(pattern) for pattern in self.told.videos.values()]
            if (size := sizes[name]) is not None:
                sizes[name] = size + sum({file: size for held in found for file, size in held.items()}.values())
        return sizes

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the layout, and the fields by their digest."""
        return {"format": self.format, "episodes_at": self.episodes, "fields_sha256": digest(self.fields)}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files."""
        return self.folder.tails(names, count)

    def layout(self) -> dict[str, Any]:
        """Give where the episodes are, as told or guessed, and what else was told."""
        told = {"files": self.pattern, "splits": self.splits, **asdict(self.told)}
        kept = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items() if value}
        return {"episodes": self.episodes, **kept}

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            yield from self._read_part(part, ref.split, columns)

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        path, done = self.folder.path(part.name), 0
        try:
            with tree.opened(self.folder, part.name) as file:
                with tree.reading(path):
                    names = self._groups(file, self.episodes)
                if not names:
                    raise _nothing(self.episodes, path)
                for name in names[part.skip : None if part.is_tail else part.skip + part.count]:
                    index = part.first + done if done < part.count else None
                    try:
                        if index is None:
                            raise SourceError("was added after the conversion was planned", reason="undeclared_record")
                        with tree.reading(path):
                            steps, metadata = self._held(file, name, name=part.name).read(self.leaves, columns)
                        yield RawEpisode(index=index, split=split, steps=steps, metadata=metadata, file=path)
                    except SourceError as error:
                        told = SourceError(f"{name}: {error.message}", reason=error.reason, file=path)
                        yield Unreadable.of(told, index=index, split=split)
                    done += 1
            ended = f"{part.count} episodes were planned, the file ends after {done}"
            failure = SourceError(ended, reason="missing_record", file=path)
        except SourceError as error:
            failure = error
        for index in range(part.first + done, part.first + part.count):
            yield Unreadable.of(failure, index=index, split=split, file=path)


def _part(name: str, split: str, *, held: Mapping[str, int], size: int | None, first: int, filmed: bool) -> FilePart:
    """Name a split's run of episodes in a file, whose splits come one after the other."""
    splits, count, total = [*held], held[split], sum(held.values())
    return FilePart(
        name=name,
        size=None if size is None else size * count // total,
        first=first,
        count=count,
        skip=sum(held[other] for other in splits[: splits.index(split)]),
        is_tail=split == splits[-1],
        becomes=FILMED * (size or 0) * count // total if filmed else None,
    )


def _nothing(pattern: str, path: str) -> SourceError:
    return SourceError(f"no group matches '{pattern}'", reason="no_episodes", file=path)


def _found(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the files that a pattern names, or those directly in the folder."""
    if pattern is None:
        return tuple(sorted((name for name in folder.names() if name.endswith(HDF5_NAMES)), key=natural))
    return matching(folder, pattern)
