"""`meta/episodes.idx`: where each episode is, as rows of fixed width that can be read by range.

docs/reference/index-files.md specifies the file. It has the same order as `meta/episodes.parquet`, from which it can
be computed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schemas.errors import DatasetError
from schemas.source import Array
from schemas.store import layout
from schemas.store.checks import crc
from schemas.store.index import IMAGE, check_size, read_start, start_of

MAGIC = b"OXEEPI01"
EPISODE = np.dtype([("file", "<u4"), ("split", "<u4"), ("row", "<u8"), ("length", "<u8"), ("index", "<u8")])
BLOCK = 128  # episodes that have one CRC-32C: 4 KiB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeIndex:
    """Where E episodes are."""

    splits: tuple[str, ...]
    rows: Array  # [E] of EPISODE: file (its number in the manifest), split, first row, steps, first byte in the index

    @classmethod
    def of(cls, table: Mapping[str, Sequence[Any]], files: Sequence[Mapping[str, Any]], *, cameras: int) -> Self:
        """Make it from the columns `file`, `split`, `row` and `length` of the episode table, and the manifest's files.

        Raises DatasetError if an episode is in a file or split that the manifest does not list.
        """
        numbers = {file["path"]: i for i, file in enumerate(files)}
        splits = {split: i for i, split in enumerate(dict.fromkeys(file["split"] for file in files))}
        rows = np.zeros(len(table["file"]), EPISODE)
        try:
            rows["file"] = [numbers[path] for path in table["file"]]
            rows["split"] = [splits[split] for split in table["split"]]
        except KeyError as error:
            raise DatasetError(f"{layout.EPISODES}: the manifest does not list {error}") from error
        rows["row"], rows["length"] = table["row"], table["length"]
        starts = np.array([file.get("index_start", 0) for file in files], np.uint64)  # version 2 does not use them
        width = np.uint64(IMAGE.itemsize * cameras)
        rows["index"] = starts[rows["file"]] + rows["row"] * width if len(files) else 0
        return cls(splits=tuple(splits), rows=rows)

    def encode(self) -> bytes:
        """Return the content of the file: a header, the rows, and a CRC-32C of each block of 128 rows."""
        data = self.rows.tobytes()
        size = BLOCK * EPISODE.itemsize
        sums = [crc(data[start : start + size]) for start in range(0, len(data), size)]
        header = {"episodes": len(self.rows), "splits": list(self.splits)}
        return start_of(MAGIC, header) + data + np.array(sums, "<u4").tobytes()

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Parse the file. Raises DatasetError with its `place` if it is not valid.

        The CRC-32C are for readers of some of the rows. A reader of all compares the digest of the file.
        """
        header, start = read_start(data, (MAGIC,), place)
        try:
            count, splits = int(header["episodes"]), tuple(map(str, header["splits"]))
        except (LookupError, TypeError, ValueError) as error:
            raise DatasetError(f"{place}: the index has a broken header ({error!r})") from error
        check_size(data, start + EPISODE.itemsize * count + 4 * -(-count // BLOCK), place, valid=count >= 0)
        return cls(splits=splits, rows=np.frombuffer(data, EPISODE, count, start))
