"""`Dataset`: read a published dataset."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.declarations import spec
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode, Frames
from schemas.errors import DatasetError, UsageError, did_you_mean
from schemas.files.folder import Folder, open_folder
from schemas.parsing import parse_json
from schemas.source import Array
from schemas.spaces import Space
from schemas.store import arrow, layout
from schemas.store.arrow import RAW, Layout
from schemas.store.huggingface import Steps
from schemas.store.index import Index
from schemas.views.views import View, view, view_names

if TYPE_CHECKING:
    import datasets
    import polars as pl


MAX_OPEN = 256  # maximum number of open data files; each needs a file descriptor


class DataFile:
    """One Parquet file and its index. A local file is memory-mapped; a remote file is fetched in parts."""

    def __init__(self, folder: Folder, path: str) -> None:
        """Open the file. Raises DatasetError if it is missing or unreadable."""
        self.folder, self.path = folder, path
        self.place = folder.place(path)
        self.bytes: mmap.mmap | Fetched
        try:
            file = folder.open_parts(path)
            if folder.local:
                with file:
                    self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            else:
                self.bytes = Fetched(file)
        except (OSError, ValueError) as error:
            raise _damaged(self.place, error) from error

    @cached_property
    def index(self) -> Index:
        """The index of its images."""
        name = layout.index_file(self.path)
        try:
            return Index(self.folder.read(name), self.folder.place(name))
        except OSError as error:
            raise _damaged(self.folder.place(name), error) from error

    @cached_property
    def parquet(self) -> pq.ParquetFile:
        """The file, opened with pyarrow."""
        try:
            if isinstance(self.bytes, Fetched):
                return pq.ParquetFile(self.folder.open_parts(self.path), pre_buffer=True)
            return pq.ParquetFile(pa.py_buffer(self.bytes))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.place}: cannot be read ({error})") from error

    @cached_property
    def group_starts(self) -> Array:
        """The first row of each row group, followed by the number of rows in the file."""
        metadata = self.parquet.metadata
        return np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])

    def image(self, row: int, column: int) -> bytes | None:
        """Read one encoded image, or None if the frame is missing."""
        length = self.index.lengths.item(row, column)
        if not length:
            return None
        start = self.index.offsets.item(row, column)
        return self.bytes[start : start + length]

    def rows(self, start: int, count: int, columns: Sequence[str]) -> Any:
        """Read a range of rows of some columns as an Arrow table."""
        first = int(np.searchsorted(self.group_starts, start, "right")) - 1
        last = int(np.searchsorted(self.group_starts, start + count, "left"))
        table = self.parquet.read_row_groups(list(range(first, last)), columns=list(columns), use_threads=False)
        return table.slice(start - int(self.group_starts[first]), count).combine_chunks()


def _damaged(place: str, error: Exception) -> DatasetError:
    return DatasetError(f"{place}: cannot be read ({error}); run 'oxe verify' to check the other files")


class Fetched:
    """The bytes of a remote file; each slice is one request. Safe to share between threads."""

    def __init__(self, file: IO[bytes]) -> None:
        """Wrap an open file, which must not be used elsewhere afterwards."""
        self.file, self.lock = file, Lock()

    def __getitem__(self, part: slice) -> bytes:
        """Fetch a range of bytes."""
        with self.lock:
            self.file.seek(part.start)
            return self.file.read(part.stop - part.start)


class Dataset:
    """A published dataset, with access to its episodes and to single frames.

    Methods take the position of an episode among the kept episodes, from 0 to `len - 1`. It differs from
    `Episode.index`, which is the position in the source.
    """

    def __init__(self, folder: Folder) -> None:
        """Read the manifest. Raises DatasetError if the folder is not a dataset or is damaged."""
        self.folder = folder
        name = self.folder.place(layout.MANIFEST)
        try:
            self.manifest: Mapping[str, Any] = parse_json(self.folder.read(layout.MANIFEST))
        except FileNotFoundError as error:
            raise DatasetError(
                f"{self.uri}: no {layout.MANIFEST}: not a dataset, or its conversion did not finish"
            ) from error
        except (OSError, ValueError) as error:
            raise DatasetError(f"{name}: cannot be read ({error})") from error
        version = self.manifest.get("schema_version") if isinstance(self.manifest, dict) else None
        if version != arrow.SCHEMA_VERSION:
            raise DatasetError(
                f"{name}: has schema version {version}, expected {arrow.SCHEMA_VERSION}; convert the dataset again"
            )
        try:
            self.columns = Layout.from_json(self.manifest["columns"])
            self._kept = int(self.manifest["balance"]["kept"])
            _ = self.manifest["spec"], self.manifest["dataset"], self.manifest["steps"]
            for file in self.manifest["files"]:
                if not layout.DATA_FILE.fullmatch(file["path"]):
                    raise DatasetError(f"{name}: files: '{file['path']}' is not the path of a data file")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(f"{name}: damaged ({error!r})") from error
        self._files: dict[str, DataFile] = {}
        self._views: dict[str, View] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files and views; another process opens them again when it needs them."""
        return {**self.__dict__, "_files": {}, "_views": {}}

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

        return (
            pl.read_parquet(self._read(layout.EPISODES)).head(self._kept).lazy()
        )  # rows after the kept ones belong to an unfinished append

    @cached_property
    def _table(self) -> dict[str, Any]:
        try:
            # `read_table` uses threads, which may release the bytes while Python exits; that would abort the process.
            table = pq.ParquetFile(pa.py_buffer(self._read(layout.EPISODES))).read(use_threads=False)
        except ValueError as error:
            raise DatasetError(f"{self.folder.place(layout.EPISODES)}: cannot be read ({error})") from error
        return {name: table[name].slice(0, self._kept) for name in table.column_names}

    def _read(self, name: str) -> bytes:
        try:
            return self.folder.read(name)
        except OSError as error:
            raise DatasetError(f"{self.folder.place(name)}: cannot be read ({error})") from error

    @cached_property
    def _places(self) -> list[tuple[str, int, int]]:
        columns = (self._table[name].to_pylist() for name in ("file", "row", "length"))
        return list(zip(*columns, strict=True))

    def where(self, i: int) -> tuple[str, int, int]:
        """Return an episode's file, its first row in the file, and its number of steps."""
        if not 0 <= i < len(self._places):
            raise UsageError(f"{self.uri}: no episode {i} (there are {len(self)}, counted from 0)")
        return self._places[i]

    def content_hash(self, i: int) -> str:
        """Return the content hash of an episode, which was computed when it was stored."""
        return str(self._table["content_hash"][i].as_py())

    def file(self, path: str) -> DataFile:
        """Return a data file, and open it if it is not open yet."""
        opened = self._files.get(path)
        if opened is None:
            if len(self._files) >= MAX_OPEN:
                del self._files[next(iter(self._files))]
            opened = self._files[path] = DataFile(self.folder, path)
        return opened

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
        """Read one episode. With a view, it has the view's actions and only the steps that the view keeps."""
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
        names = [name for name in file.parquet.schema_arrow.names if name not in images]
        table = file.rows(start, length, names)

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
