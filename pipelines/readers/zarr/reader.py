"""Read Zarr replay buffers, as diffusion policy and UMI write them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipelines.readers.episode_rows import EpisodeRows, check_apart
from pipelines.readers.fields import Leaf, check_same, digest, first_readable
from pipelines.readers.find import ZARR_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import list_files
from pipelines.readers.reader import ADDED_LATER, SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.zarr.buffer import ReplayBuffer
from pipelines.readers.zarr.guess import guess_source
from pipelines.readers.zarr.store import METADATA, ZIP_NAMES, open_store, reading
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

EPISODE_PATH = "episode_path"  # a per-episode field of every source


class ZarrReader(SourceReader):
    """A reader of one Zarr store, which is a folder or a zip file, or of all stores in a folder.

    An array below the group `steps` has one row per step; any other array has one row per episode. The array
    `episode_ends` has, for each episode, the total number of steps up to its end. Without a `source`, and without that
    array, the key that divides the rows is guessed. The first store that can be read defines the fields.
    """

    format = "zarr"
    source: ZarrSource
    ended = "{count} episodes were planned, but the store ends after {done}"

    def __init__(self, uri: str, source: ZarrSource | None = None) -> None:
        """Read the descriptions of the first store."""
        self.uri = uri
        files = source.files if source else None
        self.folder, file = SourceFolder.around(uri, ZIP_NAMES if files is None else ())
        self.names = (file,) if file else _stores(self.folder, files)
        self._guessed: dict[str, str] = {}
        source = source or self._guess()
        ends = source.episode_ends and source.episode_ends.strip("/")
        self.source = source.model_copy(update={"episode_ends": ends, "steps": source.steps.strip("/")})
        if not self.names:
            patterns = files or ", ".join(f"*{end}" for end in ZARR_NAMES)
            raise UsageError(f"{uri}: no Zarr store here ({patterns})")
        self.leaves = first_readable(self.names, self._describe, otherwise=UsageError(f"{uri}: no Zarr store"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _describe(self, name: str) -> dict[str, Leaf]:
        """Describe a store."""
        with self._buffer(name) as buffer:
            return {EPISODE_PATH: Leaf(Field(path=EPISODE_PATH, kind="text", per_step=False), "value"), **buffer.leaves}

    @contextmanager
    def _buffer(self, name: str) -> Iterator[ReplayBuffer]:
        """Open one store and read its descriptions."""
        path = self.place(name)
        with open_store(self.folder, name) as files:
            with reading(path):
                try:
                    buffer = ReplayBuffer.of(files, self.source)
                except SourceError as error:
                    raise error.at(error.file or path) from error
            yield buffer

    def _guess(self) -> ZarrSource:
        """Guess how the rows of the first store that can be read are divided."""
        for name in self.names:
            try:
                with open_store(self.folder, name) as files, reading(self.place(name)):
                    source, self._guessed = guess_source(files)
            except SourceError:
                continue  # the error is raised when the store is described
            return source
        return ZarrSource(format="zarr")

    def guesses(self) -> Mapping[str, str]:
        """Return the keys that were guessed."""
        return self._guessed

    def parts(self) -> Files:
        """Return one file per store: the zip file, or, in a folder, one that changes when episodes are added."""
        described = {name: self._part(name) for name in self.names}
        check_apart((self.place(name), rows) for name, (_, rows) in described.items() if rows)
        return {SPLIT: [part for part, _ in described.values()]}

    def _part(self, name: str) -> tuple[FilePart, EpisodeRows | None]:
        """Return the part for a store and its episodes; a store that cannot be opened counts as one episode."""
        try:
            with self._buffer(name) as buffer:
                file = name if name.endswith(ZIP_NAMES) else f"{name}/{buffer.last_file}".lstrip("/")
                return FilePart(name=file, size=buffer.size, count=len(buffer.episodes)), buffer.episodes
        except SourceError:
            metadata_files = [] if name.endswith(ZIP_NAMES) else sorted(METADATA & {*self.folder.names(name)})
            file = f"{name}/{metadata_files[0]}".lstrip("/") if metadata_files else name
            return FilePart(name=file, size=self.folder.size(file), count=1), None

    def description(self) -> dict[str, Any]:
        """Return the format, the array with the ends or the key in its place, and the digest of the fields."""
        ends_at = self.source.ends_at
        keys = {"ends_at": ends_at} if ends_at is not None else self.layout()
        keys = {key: value for key, value in keys.items() if key == "ends_at" or key in self.source.row_keys()}
        return {"format": self.format, **keys, "fields_sha256": digest(self.fields)}

    def where(self, part: FilePart) -> str:
        """Return the full path of a store."""
        return self.place(self._store(part))

    def _store(self, part: FilePart) -> str:
        return next(name for name in self.names if not name or part.name == name or part.name.startswith(f"{name}/"))

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a store and yield its planned episodes.

        Then yield a SourceError for each episode that was added later, and one for rows that belong to no episode.
        """
        name, end = self._store(part), part.skip + part.count
        if self.folder.size(part.name) is None:
            raise SourceError("no such file", reason="missing_file", file=self.place(part.name))
        with self._buffer(name) as buffer:
            self._check(buffer)
            for number in range(min(len(buffer.episodes), end)):
                yield Stored(partial(self._values, buffer, number, name=name, columns=columns), f"episode_{number}")
            for _ in range(len(buffer.episodes) - end):
                yield SourceError(ADDED_LATER, reason="undeclared_record", file=self.place(name))
            if error := buffer.episodes.rest():
                yield error.at(self.place(name))

    def _check(self, buffer: ReplayBuffer) -> None:
        """Raise SourceError if a store differs from the first one."""
        known = {path for path in self.leaves if path != EPISODE_PATH}
        if missing := sorted(known - {*buffer.leaves}):
            raise SourceError(f"'{missing[0]}' is missing, but the first store has it", reason="contradicts_fields")
        if more := sorted({*buffer.leaves} - known):
            message = f"'{more[0]}' is not in the first store; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")
        for path in known:
            check_same(self.leaves[path], buffer.leaves[path])

    def _values(self, buffer: ReplayBuffer, number: int, *, name: str, columns: Collection[str] | None) -> Values:
        """Read one episode: its columns and its per-episode values."""
        paths = [path for path in self.leaves if path != EPISODE_PATH and (columns is None or path in columns)]
        with reading(self.place(name)):
            values = {path: buffer.values(path, number, images=self.source.images) for path in paths}
        steps = {path: values[path] for path in paths if self.leaves[path].field.per_step}
        metadata = {path: values[path] for path in paths if path not in steps}
        return steps, {**metadata, EPISODE_PATH: f"{name}/episode_{number}".lstrip("/")}


def _stores(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the stores that match `pattern`; if it is None, those directly in the folder, or else the folder itself."""
    stores = list_files(folder, pattern, ZARR_NAMES)
    return stores if pattern is not None or (stores and METADATA.isdisjoint(folder.names())) else ("",)
