"""Where each episode is, in rows of fixed width."""

from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DatasetError
from schemas.store.dataset import open_dataset
from schemas.store.episode_index import EPISODE, EpisodeIndex
from tests.schemas.makers import publish

FILES = [
    {"path": "data/a.parquet", "split": "train", "index_start": 100},
    {"path": "data/b.parquet", "split": "val", "index_start": 204},
]
TABLE = {"file": ["data/a.parquet", "data/a.parquet", "data/b.parquet"], "split": ["train", "train", "val"]}
NUMBERS = {"row": [0, 5, 0], "length": [5, 0, 7]}


def test_an_episode_has_its_file_split_rows_and_place_in_the_index() -> None:
    made = EpisodeIndex.of({**TABLE, **NUMBERS}, FILES, cameras=3)
    assert made.splits == ("train", "val")
    assert made.rows.tolist() == [(0, 0, 0, 5, 100), (0, 0, 5, 0, 100 + 5 * 16 * 3), (1, 1, 0, 7, 204)]
    assert EPISODE.itemsize == 32


@given(count=st.integers(0, 400), seed=st.integers(0, 9))
def test_it_is_read_as_it_was_written_and_each_block_has_its_checksum(count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8).view(EPISODE)[:, 0]
    data = EpisodeIndex(splits=("train", "\u00e4"), rows=rows).encode()
    read = EpisodeIndex.decode(data, "here")
    assert (read.splits, read.rows.tobytes()) == (("train", "\u00e4"), rows.tobytes())
    start = 12 + int.from_bytes(data[8:12], "little")
    blocks = [data[at : min(at + 4096, start + 32 * count)] for at in range(start, start + 32 * count, 4096)]
    assert np.frombuffer(data, "<u4", len(blocks), start + 32 * count).tolist() == [crc32c(block) for block in blocks]
    assert len(data) == start + 32 * count + 4 * len(blocks)


def test_no_cut_of_it_is_taken_for_one() -> None:
    data = EpisodeIndex.of({**TABLE, **NUMBERS}, FILES, cameras=3).encode()
    for wrong in (*(data[:end] for end in range(len(data))), data + b"\0", b"OXEIDX02" + data[8:]):
        with pytest.raises(DatasetError, match=r"^here: "):
            EpisodeIndex.decode(wrong, "here")


def test_a_file_that_the_manifest_does_not_list_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"meta/episodes\.parquet: the manifest does not list 'data/c\.parquet'"):
        EpisodeIndex.of({**TABLE, **NUMBERS, "file": ["data/c.parquet"] * 3}, FILES, cameras=1)


def test_a_dataset_finds_its_episodes_by_it(tmp_path: Path) -> None:
    dataset = open_dataset(publish(tmp_path, lengths=(5, 3, 4)))
    for i, row in enumerate(dataset.index.rows):
        path, first, length = dataset.where(i)
        assert (int(row["row"]), int(row["length"])) == (first, length)
        index = (dataset.path / path.replace("data", "index", 1).replace(".parquet", ".idx")).read_bytes()
        cameras = len(dataset.columns.cameras)
        at, size, _ = np.frombuffer(index, "<u8,<u4,<u4", cameras, int(row["index"]))[0].tolist()
        leaf = dataset.columns.cameras[0].leaf
        assert (dataset.path / path).read_bytes()[at : at + size] == dataset.frame(i, 0, [leaf])[leaf]
