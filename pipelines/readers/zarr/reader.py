"""Read Zarr stores: replay buffers, as diffusion policy and UMI write them, and stores with a group per episode."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, TypeAlias

from pipelines.readers.beside import files_beside, left_out_files, own_videos, video_notes
from pipelines.readers.episode_rows import EpisodeRows, check_apart
from pipelines.readers.fields import Leaf, check_same, digest, first_readable, or_ignore
from pipelines.readers.find import ZARR_NAMES
from pipelines.readers.folder import SourceFolder
from pipelines.readers.groups import EpisodeGroups, check_siblings
from pipelines.readers.names import list_files
from pipelines.readers.reader import (
    ADDED_LATER,
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
from pipelines.readers.sidecars import Sidecars, is_sidecar, placeholders, video_type
from pipelines.readers.zarr.buffer import ReplayBuffer
from pipelines.readers.zarr.grouped import GroupedStore
from pipelines.readers.zarr.guess import guess_source
from pipelines.readers.zarr.store import METADATA, ZIP_NAMES, open_store, reading
from pipelines.readers.zarr.table_guess import guess_rows
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError, SpecError, UsageError, did_you_mean
from schemas.source import Field

EPISODE_PATH = "episode_path"  # a per-episode field of every source
FILE, EPISODE = "file", "episode"  # placeholders: the store's name without its ending, and the episode's number or name
OpenStore: TypeAlias = ReplayBuffer | GroupedStore


class ZarrReader(SourceReader):
    """A reader of one Zarr store, which is a folder or a zip file, or of all stores in a folder.

    In a replay buffer, an array below the group `steps` has one row per step; any other array has one row per episode.
    The array `episode_ends` has, for each episode, the total number of steps up to its end, or another key says where
    the episodes end. If `episodes` is declared,
    each group that it matches is an episode. The first store that can be read defines the fields.
    """

    format = "zarr"
    source: ZarrSource
    ended = "{count} episodes were planned, but the store ends after {done}"

    def __init__(self, uri: str, source: ZarrSource | None = None) -> None:
        """Read the descriptions of the first store."""
        self.uri = uri
        if source and source.videos:
            video_type()  # fail now, not at the first frame
        pattern = source.files if source else None
        self.folder, file = SourceFolder.around(uri, ZIP_NAMES if pattern is None else ())
        self.is_store = bool(file)
        self.names = (file,) if file else _stores(self.folder, pattern)
        if not self.names:
            raise UsageError(f"{uri}: no Zarr store here ({pattern or ', '.join(f'*{end}' for end in ZARR_NAMES)})")
        self.above = self.folder  # the folder that contains the stores and the files beside them
        if self.names == ("",):
            self.is_store = True
            self.above = _folder_above(uri) or self.folder
        guess = None if source else guess_source(self.folder, self.names, where=uri)
        rows, why = (None, {}) if source or guess else self._guess_rows()
        declared = source or (guess.source if guess else rows or ZarrSource(format="zarr"))
        self.groups: EpisodeGroups | None = guess.groups if guess else None
        self.why: Mapping[str, str] = guess.why if guess else why
        ends = declared.episode_ends and declared.episode_ends.strip("/")
        self.source = declared.model_copy(update={"episode_ends": ends, "steps": declared.steps.strip("/")})
        self.empty: Mapping[str, tuple[int, ...]] = {}
        self.leaves = first_readable(self.names, self._describe, otherwise=UsageError(f"{uri}: no Zarr store"))
        self.fields: tuple[Field, ...] = tuple(leaf.field for leaf in self.leaves.values())
        self._check_videos()

    def _guess_rows(self) -> tuple[ZarrSource | None, Mapping[str, str]]:
        """Guess how the rows of the first store that can be read are divided."""
        for name in self.names:
            try:
                with open_store(self.folder, name) as files, reading(self.place(name)):
                    guessed = guess_rows(files)
            except SourceError:
                continue  # the error is raised when the store is described
            return guessed
        return None, {}

    def _describe(self, name: str) -> dict[str, Leaf]:
        """Describe a store."""
        with self._opened(name) as store:
            with self._reading(name):
                leaves = dict(store.leaves)
            self.empty = store.empty
        videos = (Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3)) for path in self.source.videos)
        if taken := sorted({*self.source.videos} & leaves.keys()):
            raise SpecError(f"source.videos: '{taken[0]}' is an array of the store; choose another name")
        path = Leaf(Field(path=EPISODE_PATH, kind="text", per_step=False), "value")
        return {EPISODE_PATH: path, **leaves, **{video.path: Leaf(video, "video") for video in videos}}

    def _check_videos(self) -> None:
        """Raise SpecError if a placeholder of a video is not a per-episode value."""
        known = [FILE, EPISODE, *(path for path, leaf in self.leaves.items() if not leaf.field.per_step)]
        for pattern in self.source.videos.values():
            for path in placeholders(pattern):
                if path not in known:
                    raise SpecError(f"source.videos: '{{{path}}}' is not a value{did_you_mean(path, known)}")

    @contextmanager
    def _opened(self, name: str) -> Iterator[OpenStore]:
        """Open one store and read its descriptions."""
        with open_store(self.folder, name) as files:
            with self._reading(name):
                is_grouped = self.source.episodes is not None
                store = GroupedStore(files, self.source) if is_grouped else ReplayBuffer.of(files, self.source)
            yield store

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        path = self.place(name)
        with reading(path):
            try:
                yield
            except SourceError as error:
                raise error.at(error.file or path) from error

    def guesses(self) -> Mapping[str, str]:
        """Return the guessed keys, each with the reason."""
        return self.why

    def notes(self) -> Sequence[str]:
        """Describe arrays without values, and videos that are not declared."""
        notes = [
            f"{path}: the shape is {list(shape)}, so it is left out." for path, shape in sorted(self.empty.items())
        ]
        notes += self._sidecars(self.names[0]).oddities(self.source.videos.values())
        return [*notes, *video_notes(self._files_beside, {EPISODE: self._word, FILE: self._stem(self.names[0])})]

    @cached_property
    def _word(self) -> str:
        """What the first episode is called in the names of its videos."""
        try:
            with self._opened(self.names[0]) as store:
                return store.word(0)
        except SourceError:
            return ""

    def left_out(self) -> Sequence[LeftOut]:
        """Count groups and arrays beside the episodes, and files beside the stores."""
        others = [(f"{name}/{path}".lstrip("/"), kind) for name in self.names for path, kind in self._others(name)]
        counts = []
        for what, is_group in (("groups", True), ("arrays", False)):
            if paths := [path for path, is_one in others if is_one == is_group]:
                counts.append(LeftOut(what, len(paths), paths[0]))
        return [*counts, *left_out_files(self._files_beside)]

    def _others(self, name: str) -> list[tuple[str, bool]]:
        """Return what is beside the episodes' groups in a store, and whether it is a group."""
        if self.source.episodes is None:
            return []
        try:
            with self._opened(name) as store, self._reading(name):
                ignored = [path[1:] for path in self.groups.ignore] if self.groups else []
                return [*store.others(ignored).items()] if isinstance(store, GroupedStore) else []
        except SourceError:
            return []

    @cached_property
    def _files_beside(self) -> list[str]:
        """The files that are not read; beside a store that is the source only videos, because it may be anywhere."""
        own = self.uri.rstrip("/").rpartition("/")[2] if self.names == ("",) else ""
        folders = {name.rpartition("/")[0] for name in self.names}
        files = files_beside(self.above, {*self.names, own}, closed=ZARR_NAMES)
        files = [name for name in files if not is_sidecar(name, folders, [*self.source.videos.values()])]
        return own_videos(files, ZARR_NAMES) if self.is_store else files

    def parts(self) -> Files:
        """Return one file per store: the zip file, or, in a folder, a file that changes when episodes are added."""
        described = {name: self._part(name) for name in self.names}
        check_apart((self.place(name), rows) for name, (_, rows) in described.items() if rows)
        return {SPLIT: [part for part, _ in described.values()]}

    def _part(self, name: str) -> tuple[FilePart, EpisodeRows | None]:
        """Return the part for a store and its rows; a store that cannot be opened counts as one episode."""
        is_zip = name.endswith(ZIP_NAMES)
        try:
            with self._opened(name) as store, self._reading(name):
                if self.groups and isinstance(store, GroupedStore):
                    check_siblings(store.tree, self.groups, where=self.place(name))
                file = name if is_zip else f"{name}/{store.mark}".lstrip("/")
                videos = sum(self._sizes_of_videos(name).values())
                becomes = store.size + VIDEO_EXPANSION * videos if self.source.videos else None
                rows = store.episodes if isinstance(store, ReplayBuffer) else None
                part = FilePart(name=file, size=store.size + videos, count=store.count, becomes=becomes)
                return part, rows
        except SourceError:
            metadata_files = [] if is_zip else sorted(METADATA & {*self.folder.names(name)})
            file = f"{name}/{metadata_files[0]}".lstrip("/") if metadata_files else name
            return FilePart(name=file, size=self.folder.size(file), count=1, is_counted=False), None

    def total_steps(self) -> int | None:
        """Return the sum of the episodes' lengths in all stores; None if a store cannot be opened."""
        steps = 0
        for name in self.names:
            try:
                with self._opened(name) as store:
                    steps += sum(store.length(number) for number in range(store.count))
            except SourceError:
                return None
        return steps

    def _sizes_of_videos(self, name: str) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for pattern in self.source.videos.values():
            sizes |= self._sidecars(name).sizes(pattern.replace(f"{{{FILE}}}", self._stem(name)))
        return sizes

    def _sidecars(self, name: str) -> Sidecars:
        return Sidecars(self.above, name.rpartition("/")[0])

    def _stem(self, name: str) -> str:
        """Return a store's name without its ending."""
        last = (name or self.uri.rstrip("/")).rpartition("/")[2]
        return last.removesuffix(".zip").removesuffix(".zarr")

    def description(self) -> dict[str, Any]:
        """Return the format, where the episodes are, and the digest of the fields."""
        source = self.source
        where = {"ends_at": source.ends_at} if source.episodes is None else {"episodes_at": source.episodes}
        if source.ends_at is None:
            where = {key: value for key, value in self.layout().items() if key in source.row_keys()}
        return {"format": self.format, **where, "fields_sha256": digest(self.fields)}

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
        with self._opened(name) as store:
            if isinstance(store, ReplayBuffer):
                self._check(store.leaves, first="store")
            for number in range(min(store.count, end)):
                read = partial(self._values, store, number, name=name, columns=columns)
                yield Stored(read, store.name(number))
            more = [ADDED_LATER] * (store.count - end)
            if rows := store.rows_after_end():
                more.append(f"{rows} steps come after the end of the last episode and belong to no episode")
            for message in more:
                yield SourceError(message, reason="undeclared_record", file=self.place(name))

    def _check(self, leaves: Mapping[str, Leaf], *, first: str) -> None:
        """Raise SourceError if a store or an episode differs from the first one."""
        known = {path for path, leaf in self.leaves.items() if path != EPISODE_PATH and leaf.form != "video"}
        if missing := sorted(known - {*leaves}):
            message = f"'{missing[0]}' is missing, but the first {first} has it"
            raise SourceError(message, reason="contradicts_fields")
        if more := sorted({*leaves} - known):
            message = f"'{more[0]}' is not in the first {first}; {or_ignore(more[0])}"
            raise SourceError(message, reason="contradicts_fields")
        for path in known:
            check_same(self.leaves[path], leaves[path])

    def _values(self, store: OpenStore, number: int, *, name: str, columns: Collection[str] | None) -> Values:
        """Read one episode: its columns and its per-episode values."""
        paths = [path for path in self.leaves if path != EPISODE_PATH and (columns is None or path in columns)]
        videos = [path for path in paths if self.leaves[path].form == "video"]
        with reading(self.place(name)):
            if isinstance(store, GroupedStore):
                self._check(store.leaves_of(number), first="episode")
            images = self.source.images or "png"
            values = {path: store.values(path, number, images=images) for path in paths if path not in videos}
            values |= {path: self._video(path, store, number, name=name) for path in videos}
        steps = {path: values[path] for path in paths if self.leaves[path].field.per_step}
        metadata = {path: values[path] for path in paths if path not in steps}
        return steps, {**metadata, EPISODE_PATH: f"{name}/{store.name(number)}".lstrip("/")}

    def _video(self, path: str, store: OpenStore, number: int, *, name: str) -> list[bytes]:
        """Read the frames of an episode's video."""

        def value(key: str) -> Any:
            if key == EPISODE_PATH:
                return f"{name}/{store.name(number)}".lstrip("/")
            words = {FILE: self._stem(name), EPISODE: store.word(number)}
            return words[key] if key in words else store.values(key, number, images="png")

        sidecars, rows = self._sidecars(name), store.length(number)
        file = sidecars.find(self.source.videos[path], value, missing="missing_video")
        return sidecars.video(file, frames=rows, used=rows, images=self.source.images or "jpeg 95")


def _stores(folder: SourceFolder, pattern: str | None) -> tuple[str, ...]:
    """List the stores that match `pattern`; if it is None, those directly in the folder, or else the folder itself."""
    stores = list_files(folder, pattern, ZARR_NAMES)
    return stores if pattern is not None or (stores and METADATA.isdisjoint(folder.names())) else ("",)


def _folder_above(uri: str) -> SourceFolder | None:
    """Open the folder that contains a store; None if that is not known from the URI."""
    above, _, name = uri.rstrip("/").rpartition("/")
    if name in {"", ".", ".."} or above.endswith(":/"):
        return None
    return SourceFolder.around(uri, (f"/{name}",))[0]
