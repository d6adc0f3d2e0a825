"""Zarr as diffusion policy and UMI write it: the steps of all episodes one after the other, and where each one ends."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pipelines.readers.fields import Leaf, check_same, digest
from pipelines.readers.find import ZARR_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import matching, natural
from pipelines.readers.reader import FilePart, Reader, ShardRef
from pipelines.readers.zarr.buffer import Buffer, Told
from pipelines.readers.zarr.store import METADATA, ZIP_NAMES, opened, reading
from schemas.declarations.formats import SourceSpec, ZarrSource
from schemas.errors import SourceError, UsageError
from schemas.source import Field, RawEpisode, Unreadable

SPLIT = "train"
PLACE = "episode_path"  # a per-episode field that every source has
ENDS, STEPS = "meta/episode_ends", "data"


class ZarrReader(Reader):
    """A Zarr store (a folder or a zip file), or several in a folder.

    The arrays below the group `steps` have a row for each step, all others one for each episode; the array
    `episode_ends` counts the steps up to the end of each. The fields are those of the first store that can be read.
    Dotted paths in `ignore` are not read, those in `fill` may lack chunks, `frames` says how arrays hold images.
    """

    format = "zarr"

    def __init__(
        self,
        uri: str,
        *,
        episode_ends: str = ENDS,
        steps: str = STEPS,
        files: str | None = None,
        ignore: Sequence[str] = (),
        frames: Mapping[str, str] | None = None,
        fill: Sequence[str] = (),
        images: str = "png",
    ) -> None:
        """Read the descriptions of the first store."""
        self.uri = uri
        self.told = Told(
            ends=episode_ends.strip("/"),
            steps=steps.strip("/"),
            ignore=tuple(ignore),
            frames=frames or {},
            fill=tuple(fill),
        )
        self.pattern, self.images = files, images
        above, _, name = uri.rstrip("/").rpartition("/")
        is_zip = files is None and name.endswith(ZIP_NAMES)
        self.folder = SourceFolder.at((above or "/" if "/" in uri else ".") if is_zip else uri)
        self.names = (name,) if is_zip else _found(self.folder, files)
        if not self.names:
            raise UsageError(f"{uri}: no Zarr store here ({files or ', '.join(f'*{end}' for end in ZARR_NAMES)})")
        self.leaves = self._first()
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())

    def layout(self) -> dict[str, Any]:
        """Give the keys of `source` that open it the same way."""
        told = self.told
        spec = ZarrSource(
            format="zarr",
            episode_ends=told.ends,
            steps=told.steps,
            files=self.pattern,
            ignore=told.ignore,
            frames=dict(told.frames),
            fill=told.fill,
            images=self.images,
        )
        return spec.model_dump(mode="json", exclude=set(SourceSpec.model_fields), exclude_defaults=True)

    def _first(self) -> dict[str, Leaf]:
        """Describe the first store that can be read; where none can, its error stands for all."""
        failure = None
        for name in self.names:
            try:
                with self._buffer(name) as buffer:
                    return {PLACE: Leaf(Field(path=PLACE, kind="text", per_step=False), "value"), **buffer.leaves}
            except SourceError as error:
                if error.reason == "unsupported_field":
                    raise
                failure = failure or error
        raise failure or UsageError(f"{self.uri}: no Zarr store")

    @contextmanager
    def _buffer(self, name: str) -> Iterator[Buffer]:
        """Open one store and read its descriptions."""
        path = self.folder.path(name)
        with opened(self.folder, name) as files:
            with reading(path):
                try:
                    buffer = Buffer.of(files, self.told)
                except SourceError as error:
                    raise SourceError(error.message, reason=error.reason, file=error.file or path) from error
            yield buffer

    def files(self) -> Mapping[str, tuple[FilePart, ...]]:
        """Name one file for each store: that with its last episode's end, or the zip file."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, tuple[FilePart, ...]]:
        first, parts = 0, []
        for name in self.names:
            parts.append(self._part(name, first))
            first += parts[-1].count
        return {SPLIT: tuple(parts)}

    def _part(self, name: str, first: int) -> FilePart:
        """Describe a store; one that cannot be opened counts as one episode."""
        try:
            with self._buffer(name) as buffer:
                file = name if name.endswith(ZIP_NAMES) else f"{name}/{buffer.ends_file}".lstrip("/")
                return FilePart(name=file, size=buffer.size, first=first, count=len(buffer.ends))
        except SourceError:
            within = [] if name.endswith(ZIP_NAMES) else sorted(METADATA & {*self.folder.names(name)})
            file = f"{name}/{within[0]}".lstrip("/") if within else name
            return FilePart(name=file, size=self.folder.size(file), first=first, count=1)

    def place(self, name: str) -> str:
        """Give a file's full path."""
        return self.folder.path(name)

    def description(self) -> dict[str, Any]:
        """Name the layout, and the fields by their digest."""
        return {"format": self.format, "ends_at": self.told.ends, "fields_sha256": digest(self.fields)}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last bytes of files: of a folder's, the last ends; of a zip's, its table of contents."""
        return self.folder.tails(names, count)

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Iterator[RawEpisode | Unreadable]:
        """Yield one value per episode of `ref`, in order; what cannot be read comes as an `Unreadable`."""
        for part in ref.parts:
            yield from self._read_part(part, ref.split, columns)

    def _read_part(
        self, part: FilePart, split: str, columns: Collection[str] | None
    ) -> Iterator[RawEpisode | Unreadable]:
        name = next(name for name in self.names if not name or part.name == name or part.name.startswith(f"{name}/"))
        path, done = self.folder.path(name), 0
        try:
            if self.folder.size(part.name) is None:
                raise SourceError("no such file", reason="missing_file", file=self.folder.path(part.name))
            with self._buffer(name) as buffer:
                self._check(buffer)
                for number in range(part.skip, min(len(buffer.ends), part.skip + part.count)):
                    where = f"{name}/episode_{number}".lstrip("/")
                    index = part.first + done
                    try:
                        with reading(path):
                            steps, metadata = self._values(buffer, number, columns)
                        if columns is None or PLACE in columns:
                            metadata[PLACE] = where
                        yield RawEpisode(index=index, split=split, steps=steps, metadata=metadata, file=path)
                    except SourceError as error:
                        told = SourceError(f"episode_{number}: {error.message}", reason=error.reason, file=path)
                        yield Unreadable.of(told, index=index, split=split)
                    done += 1
                if part.is_tail:
                    yield from self._beyond(buffer, part.skip + part.count, split=split, path=path)
            ended = f"{part.count} episodes were planned, the store ends after {done}"
            failure = SourceError(ended, reason="missing_record", file=path)
        except SourceError as error:
            failure = error
        for index in range(part.first + done, part.first + part.count):
            yield Unreadable.of(failure, index=index, split=split, file=path)

    def _beyond(self, buffer: Buffer, planned: int, *, split: str, path: str) -> Iterator[Unreadable]:
        """Count what no planned episode holds: episodes that came later, and rows that belong to none."""
        told = ["was added after the conversion was planned"] * (len(buffer.ends) - planned)
        if rows := buffer.left_over():
            told.append(f"{rows} steps lie behind the end of the last episode, and belong to none")
        for message in told:
            yield Unreadable.of(SourceError(message, reason="undeclared_record", file=path), index=None, split=split)

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

    def _values(
        self, buffer: Buffer, number: int, columns: Collection[str] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read one episode: what it has per step, and what it has once."""
        wanted = [path for path in self.leaves if path != PLACE and (columns is None or path in columns)]
        values = {path: buffer.values(path, number, images=self.images) for path in wanted}
        steps = {path: values[path] for path in wanted if self.leaves[path].field.per_step}
        return steps, {path: values[path] for path in wanted if path not in steps}


def _found(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the stores that a pattern names, or those directly in the folder; the folder itself is one, too."""
    if pattern is not None:
        return matching(folder, pattern)
    names = folder.names()
    inside = tuple(sorted((name for name in names if name.endswith(ZARR_NAMES)), key=natural))
    return inside if inside and METADATA.isdisjoint(names) else ("",)
