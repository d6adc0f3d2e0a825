"""Write one published data file: Parquet with unchanged image bytes, and its index.

Image columns are stored with PLAIN encoding, uncompressed and without statistics, so that the index can point to the
bytes of each image. Other columns are compressed with zstd.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.convert.binding import Binding
from pipelines.convert.turned import count_turned
from pipelines.readers.boundary import source_errors
from schemas.episode import Episode
from schemas.errors import SourceError
from schemas.files.folder import Folder
from schemas.source import Array, Ragged
from schemas.store import index, layout
from schemas.store.arrow import IMAGE, to_batch
from schemas.views.views import Viewed

ROW_GROUP = 512
GROUP_BYTES = 256 << 20  # a row group ends earlier when its images have so many bytes, because they are in memory
MAX_BYTES = 1 << 30  # maximum per column and episode, as an Arrow array has 32-bit offsets
PAGE_BYTES = 64 << 20  # so large that each row group has one page per image column


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """The manifest's entry of a finished data file."""

    path: str
    split: str
    rows: int
    episodes: int
    bytes: int
    xxh3_128: str
    index_bytes: int
    index_start: int  # where the images begin in the index
    index_xxh3_128: str
    turned: Mapping[str, int] = field(default_factory=dict)  # by camera: images that their EXIF data turn

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON; `turned` is left out if there are no such images."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) != {}}


class ParquetShard:
    """Writes the episodes of one shard to a temporary file, which `finish` moves to its final name."""

    def __init__(self, out: Folder, name: str, binding: Binding) -> None:
        """Prepare the shard `name` of `out`. The temporary file is created with the first row group."""
        self.out, self.binding = out, binding
        self.path = layout.data_file(name)
        self.schema = binding.layout.schema()
        self.cameras = [camera.column for camera in binding.layout.cameras]
        self.episodes: list[dict[str, Any]] = []
        self.rows = 0
        self.turned: Counter[str] = Counter()
        self._tmp: Path | None = None
        self._lengths: list[Array] = []
        self._waiting: list[tuple[Episode, dict[str, Viewed]]] = []  # episodes that are not converted to Arrow yet
        self._rest: pa.Table = self.schema.empty_table()  # fewer rows than a row group
        self._bytes = 0  # size of the images that are not written yet
        self._writer: pq.ParquetWriter | None = None

    def add(self, episode: Episode) -> None:
        """Write one episode."""
        with source_errors():
            _check_size(episode)
            views = {view.name: view.of(episode) for view in self.binding.views}
            row = self._row(episode)
        frames = [episode.depth[c.leaf] if c.is_depth else episode.images[c.leaf] for c in self.binding.layout.cameras]
        sizes = [[-1 if frame is None else len(frame) for frame in camera] for camera in frames]
        # The episode has passed all checks.
        self._lengths.append(np.array(sizes, np.int64).reshape(len(frames), len(episode)).T)
        self.turned += Counter({leaf: count_turned(images) for leaf, images in episode.images.items()})
        self._waiting.append((episode, views))
        self.episodes.append(row)
        self.rows += len(episode)
        self._bytes += int(self._lengths[-1].clip(0).sum())
        self._flush(everything=self._bytes >= GROUP_BYTES)

    def _row(self, episode: Episode) -> dict[str, Any]:
        return {
            "episode_index": episode.index,
            "id": episode.id,
            "split": episode.split,
            "instructions": list(episode.instructions),
            "outcome": episode.outcome,
            "length": len(episode),
            "file": self.path,
            "row": self.rows,
            "content_hash": episode.content_hash(),
            **{f"metadata.{path}": value for path, value in episode.metadata.items()},
        }

    def _flush(self, *, everything: bool = False) -> None:
        """Write all full row groups; with `everything`, also the remaining rows."""
        rows = len(self._rest) + sum(len(episode) for episode, _ in self._waiting)
        full = rows if everything else rows - rows % ROW_GROUP
        if not full:
            return
        self._bytes = 0
        if self._waiting:
            views = {view.name: [viewed[view.name] for _, viewed in self._waiting] for view in self.binding.views}
            episodes = [episode for episode, _ in self._waiting]
            batch = to_batch(episodes, self.binding.layout, self.schema, views=views)
            self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([batch])])
            self._waiting = []
        if self._writer is None:
            self._tmp = self.out.staged(layout.DATA)
            self._writer = pq.ParquetWriter(self._tmp, self.schema, **_options(self.schema))
        self._writer.write_table(self._rest.slice(0, full), row_group_size=ROW_GROUP)
        self._rest = self._rest.slice(full)

    def finish(self, split: str, *, published: Mapping[str, Any] | None = None) -> FileRecord | None:
        """Close, index and hash the file and move it to its final name; returns None if no episode was written.

        With `published`, the manifest's entry of this file, it is moved only if it is the same file again.
        """
        self._flush(everything=True)
        if self._writer is None or self._tmp is None:
            return None
        self._writer.close()
        lengths, digest = np.concatenate(self._lengths), xxhash.xxh3_128()
        built = index.build(self._tmp, columns=self.cameras, lengths=lengths, chunk=digest.update)
        encoded, start = built.encode()
        record = FileRecord(
            path=self.path,
            split=split,
            rows=self.rows,
            episodes=len(self.episodes),
            bytes=self._tmp.stat().st_size,
            xxh3_128=digest.hexdigest(),
            index_bytes=len(encoded),
            index_start=start,
            index_xxh3_128=xxhash.xxh3_128_hexdigest(encoded),
            turned=dict(sorted(self.turned.items())),
        )
        if published is None or record.to_json() == published:
            self.out.write(layout.index_file(self.path), encoded, sync=False)
            self.out.adopt(self._tmp, self.path, sync=False)
        return record

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        if self._writer is not None and self._writer.is_open:
            try:
                self._writer.close()
            except OSError:
                self._writer.is_open = False  # closing writes the footer, which also fails if the disk is full
        if self._tmp is not None:
            self.out.drop(self._tmp)


def _check_size(episode: Episode) -> None:
    """Raise SourceError if a column does not fit into one Arrow array."""
    for name, column in episode.columns().items():
        values = column.values if isinstance(column, Ragged) else column
        if not isinstance(values, np.ndarray) and sum(map(len, filter(None, values))) > MAX_BYTES:
            raise SourceError(f"episode {episode.id}: {name} contains more than 1 GiB", reason="too_large")


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Return pyarrow's options for each leaf.

    Vectors are written without dictionary and statistics, because their values rarely repeat.
    """
    leaves = [(field.type, leaf, kind) for field in schema for leaf, kind in _leaves(field.type, field.name)]
    plain = [leaf for outer, leaf, _ in leaves if outer == IMAGE]
    packed = [leaf for outer, leaf, _ in leaves if outer != IMAGE]
    scalars = [leaf for outer, leaf, _ in leaves if outer != IMAGE and not _is_list(outer)]
    texts = [leaf for outer, leaf, kind in leaves if outer != IMAGE and kind == pa.string()]
    return {
        "compression": {**dict.fromkeys(packed, "zstd"), **dict.fromkeys(plain, "none")},
        "use_dictionary": sorted({*scalars, *texts}),
        "write_statistics": scalars,
        "data_page_size": PAGE_BYTES,
        "store_schema": True,
    }


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaves(kind: pa.DataType, path: str) -> list[tuple[str, pa.DataType]]:
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(child.type, f"{path}.{child.name}")]
    return _leaves(kind.value_type, f"{path}.list.element") if _is_list(kind) else [(path, kind)]
