"""Zarr as diffusion policy and UMI write it: the steps of all episodes one after the other, and where each one ends."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipelines.readers.fields import Leaf, check_same, digest, first_readable
from pipelines.readers.find import ZARR_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import listed
from pipelines.readers.reader import ADDED, SPLIT, Episodes, FilePart, Files, SourceReader, Stored, Values
from pipelines.readers.zarr.buffer import Buffer
from pipelines.readers.zarr.store import METADATA, ZIP_NAMES, opened, reading
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field

PLACE = "episode_path"  # a per-episode field that every source has


class ZarrReader(SourceReader):
    """A Zarr store (a folder or a zip file), or several in a folder.

    The arrays below the group `steps` have a row for each step, all others one for each episode; the array
    `episode_ends` counts the steps up to the end of each. The fields are those of the first store that can be read.
    """

    format = "zarr"
    source: ZarrSource
    ended = "{count} episodes were planned, the store ends after {done}"

    def __init__(self, uri: str, source: ZarrSource | None = None) -> None:
        """Read the descriptions of the first store."""
        self.uri = uri
        source = source or ZarrSource(format="zarr")
        places = {"episode_ends": source.episode_ends.strip("/"), "steps": source.steps.strip("/")}
        self.source = source.model_copy(update=places)
        self.folder, file = SourceFolder.around(uri, ZIP_NAMES if source.files is None else ())
        self.names = (file,) if file else _found(self.folder, source.files)
        if not self.names:
            looked = source.files or ", ".join(f"*{end}" for end in ZARR_NAMES)
            raise UsageError(f"{uri}: no Zarr store here ({looked})")
        self.leaves = first_readable(self.names, self._described, otherwise=UsageError(f"{uri}: no Zarr store"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def _described(self, name: str) -> dict[str, Leaf]:
        """Describe a store."""
        with self._buffer(name) as buffer:
            return {PLACE: Leaf(Field(path=PLACE, kind="text", per_step=False), "value"), **buffer.leaves}

    @contextmanager
    def _buffer(self, name: str) -> Iterator[Buffer]:
        """Open one store and read its descriptions."""
        path = self.place(name)
        with opened(self.folder, name) as files:
            with reading(path):
                try:
                    buffer = Buffer.of(files, self.source)
                except SourceError as error:
                    raise error.at(error.file or path) from error
            yield buffer

    def parts(self) -> Files:
        """Name one file for each store: that with its last episode's end, or the zip file."""
        return {SPLIT: [self._part(name) for name in self.names]}

    def _part(self, name: str) -> FilePart:
        """Describe a store; one that cannot be opened counts as one episode."""
        try:
            with self._buffer(name) as buffer:
                file = name if name.endswith(ZIP_NAMES) else f"{name}/{buffer.ends_file}".lstrip("/")
                return FilePart(name=file, size=buffer.size, count=len(buffer.ends))
        except SourceError:
            within = [] if name.endswith(ZIP_NAMES) else sorted(METADATA & {*self.folder.names(name)})
            file = f"{name}/{within[0]}".lstrip("/") if within else name
            return FilePart(name=file, size=self.folder.size(file), count=1)

    def description(self) -> dict[str, Any]:
        """Name where the ends are, and the fields by their digest."""
        return {"format": self.format, "ends_at": self.source.episode_ends, "fields_sha256": digest(self.fields)}

    def where(self, part: FilePart) -> str:
        """Return the full path of a store."""
        return self.place(self._store(part))

    def _store(self, part: FilePart) -> str:
        return next(name for name in self.names if not name or part.name == name or part.name.startswith(f"{name}/"))

    def episodes(self, part: FilePart, columns: Collection[str] | None) -> Episodes:
        """Open a store and yield each of its episodes; those that came later, and rows of none, are errors."""
        name, end = self._store(part), part.skip + part.count
        if self.folder.size(part.name) is None:
            raise SourceError("no such file", reason="missing_file", file=self.place(part.name))
        with self._buffer(name) as buffer:
            self._check(buffer)
            for number in range(min(len(buffer.ends), end)):
                yield Stored(partial(self._values, buffer, number, name=name, columns=columns), f"episode_{number}")
            more = [ADDED] * (len(buffer.ends) - end)
            if rows := buffer.left_over():
                more.append(f"{rows} steps lie behind the end of the last episode, and belong to none")
            for message in more:
                yield SourceError(message, reason="undeclared_record", file=self.place(name))

    def _check(self, buffer: Buffer) -> None:
        """Refuse a store that is not as the first one."""
        known = {path for path in self.leaves if path != PLACE}
        if missing := sorted(known - {*buffer.leaves}):
            raise SourceError(f"there is no '{missing[0]}', which the first store has", reason="contradicts_fields")
        if more := sorted({*buffer.leaves} - known):
            message = f"'{more[0]}' is not in the first store; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")
        for path in known:
            check_same(self.leaves[path], buffer.leaves[path])

    def _values(self, buffer: Buffer, number: int, *, name: str, columns: Collection[str] | None) -> Values:
        """Read one episode: what it has per step, and what it has once."""
        wanted = [path for path in self.leaves if path != PLACE and (columns is None or path in columns)]
        with reading(self.place(name)):
            values = {path: buffer.values(path, number, images=self.source.images) for path in wanted}
        steps = {path: values[path] for path in wanted if self.leaves[path].field.per_step}
        metadata = {path: values[path] for path in wanted if path not in steps}
        return steps, {**metadata, PLACE: f"{name}/episode_{number}".lstrip("/")}


def _found(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the stores that a pattern names, or those directly in the folder; the folder itself is one, too."""
    stores = listed(folder, pattern, ZARR_NAMES)
    return stores if pattern is not None or (stores and METADATA.isdisjoint(folder.names())) else ("",)
