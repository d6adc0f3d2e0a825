"""`Dataset`: read a published dataset."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from schemas.declarations import spec
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode, Frames
from schemas.errors import DatasetError, UsageError, did_you_mean
from schemas.files.folder import Folder, open_folder
from schemas.spaces import Space
from schemas.store import arrow, layout
from schemas.store.arrow import RAW, Layout
from schemas.store.checks import damaged, unreadable
from schemas.store.data_file import DataFile
from schemas.store.episode_index import EpisodeIndex
from schemas.store.huggingface import Steps
from schemas.store.index import Index
from schemas.store.manifest import content_digest, decode_manifest, digests, is_intact
from schemas.views.views import View, view, view_names

if TYPE_CHECKING:
    import datasets
    import polars as pl


MAX_OPEN = 256  # maximum number of open data files; each needs two file descriptors


class Dataset:
    """A published dataset, with access to its episodes and to single frames.

    Methods take the position of an episode among the kept episodes, from 0 to `len - 1`. It differs from
    `Episode.index`, which is the position in the source.
    """

    def __init__(self, folder: Folder, *, checked: bool = True) -> None:
        """Read the manifest. Raises DatasetError if the folder is not a dataset or is damaged.

        Everything that is read is compared with its digest or CRC-32C, unless `checked` is False. `oxe verify` reads
        unchecked, to report all differences and not only the first.
        """
        self.folder, self.checked = folder, checked
        name = self.folder.place(layout.MANIFEST)
        try:
            content = self.folder.read(layout.MANIFEST)
        except FileNotFoundError as error:
            raise DatasetError(
                f"{self.uri}: no {layout.MANIFEST}: not a dataset, or its conversion did not finish"
            ) from error
        except OSError as error:
            raise DatasetError(f"{name}: cannot be read ({error})") from error
        self.manifest: Mapping[str, Any] = decode_manifest(content, name, checked=checked)
        try:
            self.columns = Layout.from_json(self.manifest["columns"])
            self._kept = int(self.manifest["balance"]["kept"])
            _ = self.manifest["spec"], self.manifest["dataset"], self.manifest["steps"]
            self.digest = content_digest(self.manifest)
            self._digests = digests(self.manifest)
            self._entries: Mapping[str, Mapping[str, Any]] = {file["path"]: file for file in self.manifest["files"]}
            for path in self._entries:
                if not layout.DATA_FILE.fullmatch(path):
                    raise DatasetError(f"{name}: files: '{path}' is not the path of a data file")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(f"{name}: damaged ({error!r})") from error
        self._files: dict[str, DataFile] = {}
        self._views: dict[str, View] = {}
        self._decoded: tuple[Any, pa.Table] = None, None  # the row groups that were decoded last

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files and views; another process opens them again when it needs them."""
        return {**self.__dict__, "_files": {}, "_views": {}, "_decoded": (None, None)}

    @property
    def uri(self) -> str:
        """The path or URI it was opened with."""
        return self.folder.uri

    @property
    def path(self) -> Path:
        """The path on this machine. Raises UsageError if it is remote."""
        if self.folder.local is None:
            raise UsageError(f"{self.uri}: is not on this machine; a local dataset is required")
        return self.folder.local

    def __repr__(self) -> str:
        """Return the dataset's place, name and size."""
        size = f"{len(self)} episodes, {self.manifest['steps']} steps"
        return f"Dataset({self.uri!r}: {self.manifest['dataset']}, {size})"

    def __len__(self) -> int:
        """Return the number of kept episodes."""
        return self._kept

    def __iter__(self) -> Iterator[Episode]:
        """Yield every episode."""
        return (self.episode(i) for i in range(len(self)))

    @cached_property
    def spec(self) -> DatasetSpec:
        """The declaration it was converted with."""
        return spec.from_json(self.manifest["spec"], where=f"{self.folder.place(layout.MANIFEST)}: spec")

    @property
    def views(self) -> tuple[str, ...]:
        """The names of its views."""
        return view_names(self.spec)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The names of its colour cameras."""
        return tuple(camera.leaf for camera in self.columns.cameras if not camera.is_depth)

    @property
    def episodes(self) -> "pl.LazyFrame":
        """The episode table, to filter episodes: `ds.episodes.filter(pl.col("length") > 20)`."""
        import polars as pl  # noqa: PLC0415 - not needed to read frames

        table = pl.read_parquet(self.read_listed(layout.EPISODES))
        return table.head(self._kept).lazy()  # rows after the kept ones belong to an unfinished append of version 2

    @cached_property
    def _table(self) -> dict[str, Any]:
        content = self.read_listed(layout.EPISODES)
        try:
            # `read_table` uses threads, which may release the bytes while Python exits; that would abort the process.
            table = pq.ParquetFile(pa.py_buffer(content)).read(use_threads=False)
        except (OSError, ValueError) as error:
            raise unreadable(self.folder.place(layout.EPISODES), error) from error
        return {name: table[name].slice(0, self._kept) for name in table.column_names}

    def read_listed(self, name: str) -> bytes:
        """Read a file in `meta/` or `index/` that the manifest lists, and compare it with its digest.

        While a command replaces files, the one that belongs to the manifest may be in `meta/pending/`. Raises
        DatasetError if the file is missing, or if it is damaged and the dataset was opened with checks.
        """
        place, waiting = self.folder.place(name), layout.pending(name)
        try:
            content: bytes | OSError = self.folder.read(name)
        except OSError as error:
            content = error
        if isinstance(content, bytes) and xxhash.xxh3_128_hexdigest(content) == self._digests[name]:
            return content
        candidates = [content] if isinstance(content, bytes) else []
        candidates += self.folder.read_many([waiting]).values()
        wanted = {self._digests[name], self._digest_now(name)}
        for candidate in candidates:
            if xxhash.xxh3_128_hexdigest(candidate) in wanted:
                return candidate
        if isinstance(content, OSError):
            raise unreadable(place, content) from content
        if self.checked and not (name == layout.EPISODES and self.version == 2 and self.is_growing):
            raise damaged(place, "its digest is not that of the manifest")
        return content

    @property
    def version(self) -> int:
        """The schema version."""
        return int(self.manifest["schema_version"])

    @property
    def is_growing(self) -> bool:
        """Whether an append goes on or was interrupted. In version 2 the episode table then has rows of it already."""
        return self.folder.size(layout.IDENTITY) is not None

    def _digest_now(self, name: str) -> str | None:
        """Return the digest of a file, if the dataset was upgraded after it was opened; None if it was not.

        Raises DatasetError if it was replaced by another dataset.
        """
        content = self.folder.read_many([layout.MANIFEST]).get(layout.MANIFEST, b"")
        if not is_intact(content):
            return None
        now = decode_manifest(content, self.folder.place(layout.MANIFEST))
        if content_digest(now) != self.digest:
            raise DatasetError(f"{self.uri}: was replaced after it was opened; open it again")
        return digests(now).get(name)

    @cached_property
    def index(self) -> EpisodeIndex:
        """Where each episode is."""
        if self.version > 2:
            return EpisodeIndex.decode(self.read_listed(layout.EPISODE_INDEX), self.folder.place(layout.EPISODE_INDEX))
        names = ("file", "split", "row", "length")
        table = {name: self._table[name].to_pylist() for name in names}
        return EpisodeIndex.of(table, self.manifest["files"], cameras=len(self.columns.cameras))

    @cached_property
    def _places(self) -> list[tuple[str, int, int]]:
        files, rows = list(self._entries), self.index.rows
        columns = (rows[name].tolist() for name in ("file", "row", "length"))
        return [(files[file], row, length) for file, row, length in zip(*columns, strict=True)]

    def where(self, i: int) -> tuple[str, int, int]:
        """Return an episode's file, its first row in the file, and its number of steps."""
        if not 0 <= i < len(self._places):
            raise UsageError(f"{self.uri}: no episode {i} (there are {len(self)}, counted from 0)")
        return self._places[i]

    def content_hash(self, i: int) -> str:
        """Return the content hash of an episode, which was computed when it was stored."""
        return str(self._table["content_hash"][i].as_py())

    def image_index(self, path: str) -> Index:
        """Read the index of a data file."""
        name = layout.index_file(path)
        return Index.decode(self.read_listed(name), self.folder.place(name))

    def open_file(self, path: str) -> DataFile:
        """Open a data file, which is not kept open."""
        size, index = self._entries[path]["bytes"], partial(self.image_index, path)
        return DataFile(self.folder, path, size=size, index=index, checked=self.checked)

    def file(self, path: str) -> DataFile:
        """Return a data file, and open it if it is not open yet."""
        opened = self._files.get(path)
        if opened is None:
            if len(self._files) >= MAX_OPEN:
                del self._files[next(iter(self._files))]
            opened = self._files[path] = self.open_file(path)
        return opened

    def rows(self, path: str, start: int, count: int, *, names: Sequence[str]) -> pa.Table:
        """Read a range of rows of some columns that are not images.

        The row groups that were decoded last are kept, because neighbouring episodes share them.
        """
        numbers = self.file(path).numbers
        first, last = numbers.groups(start, start + count)
        key = path, first, last, tuple(names)
        known, table = self._decoded
        if known != key:
            table = numbers.read(first, last, names)
            self._decoded = key, table
        return table.slice(start - int(numbers.group_starts[first]), count).combine_chunks()

    def frame(self, i: int, step: int, cameras: Sequence[str] | None = None) -> dict[str, bytes | None]:
        """Read the encoded images of one step through the index, without parsing Parquet.

        `cameras` are names or roles of cameras. If None, all colour cameras are read. A missing frame is None.
        """
        path, row, length = self.where(i)
        if not 0 <= step < length:
            raise UsageError(f"{self.uri}: episode {i} has no step {step} (it has {length}, counted from 0)")
        file, columns = self.file(path), self._camera_columns
        names = self.cameras if cameras is None else (cameras,) if isinstance(cameras, str) else cameras
        try:
            return {name: file.image(row + step, columns[name]) for name in names}
        except KeyError as error:
            name = error.args[0]
            raise UsageError(f"{self.uri}: no camera '{name}'{did_you_mean(name, columns)}") from error

    @cached_property
    def _camera_columns(self) -> dict[str, int]:
        numbered = list(enumerate(self.columns.cameras))
        roles = {camera.role: number for number, camera in numbered if camera.role}
        return {**roles, **{camera.leaf: number for number, camera in numbered}}

    def episode(self, i: int, view: str | None = None) -> Episode:
        """Read one episode. With a view, it has the view's actions and states, and only the steps that it keeps."""
        stored = self._stored(i)
        return self.view(view).apply(stored) if view else stored

    def view(self, name: str) -> View:
        """Return a view by name. Raises ViewError with the reason if the dataset does not have it."""
        if name not in self._views:
            self._views[name] = view(self.spec, name)
        return self._views[name]

    def action_space(self, view: str | None) -> Space:
        """Return the Space of a view's actions. If `view` is None, return that of the stored actions."""
        return self.view(view).space if view else self.columns.action

    def state_space(self, view: str | None) -> Space | None:
        """Return the Space of a view's states, or of the stored states if `view` is None. None: there are no states."""
        return self.view(view).state_space if view else self.columns.state

    def check_split(self, split: str | None) -> None:
        """Raise UsageError if there is no such split; None means all splits."""
        splits = self.manifest["splits"]
        if split is not None and split not in splits:
            raise UsageError(f"{self.uri}: no split '{split}'{did_you_mean(split, splits)}")

    def to_datasets(
        self, split: str | None = None, *, streaming: bool = False
    ) -> "datasets.DatasetDict | datasets.Dataset | datasets.IterableDatasetDict | datasets.IterableDataset":
        """Open the steps with the library `datasets` (extra `hf`): one split, or all of them as a dict.

        The columns are described in docs/format.md; images have the feature `datasets.Image`. `info.description` is
        JSON with the `names` of the dimensions of action and state, and the `cameras` with their roles. With
        `streaming`, the data files are read where they are. Otherwise `datasets` copies them to its cache on first use.
        Raises UsageError if there is no such split.

            steps = open_dataset("kitchen").to_datasets("train", streaming=True)
            for step in steps: step["observation.images.image"].size, step["instruction"], step["action"]
        """
        self.check_split(split)
        files: dict[str, list[str]] = {}
        for file in self.manifest["files"]:
            files.setdefault(file["split"], []).append(file["path"])
        steps = Steps(folder=self.folder, columns=self.columns, spec=self.spec, files=files)
        return steps.load(split, streaming=streaming)

    def _stored(self, i: int) -> Episode:
        path, start, length = self.where(i)
        file, columns, about = self.file(path), self.columns, self._table
        images = {camera.column for camera in columns.cameras}
        names = [name for name in file.numbers.names if name not in images]
        table = self.rows(path, start, length, names=names)

        def array(name: str) -> Any:
            column = table[name]
            return column.chunk(0) if column.num_chunks else column.combine_chunks()

        present, index = arrow.instruction_column(array("instruction"))
        instructions = tuple(about["instructions"][i].as_py())
        order = np.array([instructions.index(text) for text in present], np.int32)
        frames: dict[str, Frames] = {
            camera.column: [file.image(row, number) for row in range(start, start + length)]
            for number, camera in enumerate(columns.cameras)
        }
        optional = {
            name: arrow.optional_column(array(name))
            for name in ("timestamp", "is_first", "is_last", "is_terminal", "reward")
        }
        return Episode(
            id=about["id"][i].as_py(),
            dataset=self.manifest["dataset"],
            embodiment=self.spec.embodiment.name,
            instructions=instructions,
            instruction_index=None if index is None else order[index],
            control_hz=self.spec.control_hz,
            action=arrow.vectors(array("action"), len(columns.action)),
            action_space=columns.action,
            state=arrow.vectors(array("observation.state"), len(columns.state)) if columns.state else None,
            state_space=columns.state,
            images={c.leaf: frames[c.column] for c in columns.cameras if not c.is_depth},
            depth={c.leaf: frames[c.column] for c in columns.cameras if c.is_depth},
            raw={field.path: arrow.from_arrow(array(RAW + field.path), field) for field in columns.raw},
            index=about["episode_index"][i].as_py(),
            split=about["split"][i].as_py(),
            outcome=about["outcome"][i].as_py(),
            metadata={field.path: about[f"metadata.{field.path}"][i].as_py() for field in columns.metadata},
            **cast("Any", optional),
        )


def open_dataset(path: str | Path) -> Dataset:
    """Open a published dataset from a local folder or an fsspec URI; from a URI, only the requested data is fetched.

    >>> open_dataset("nowhere")
    Traceback (most recent call last):
    schemas.errors.DatasetError: nowhere: no meta/manifest.json: not a dataset, or its conversion did not finish
    """
    return Dataset(open_folder(path))
