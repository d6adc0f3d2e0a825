from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from oxe_tools import open_dataset
from pipelines.convert import parquet
from tests.pipelines.toy import Toy, columns, jpeg, make_toy

FILE = "data/train-00000-of-00001.parquet"


@pytest.fixture
def long(tmp_path: Path) -> Toy:
    """Create episodes that do not fill row groups, with some frames missing."""
    images = [b"" if step % 7 == 0 else jpeg(step) for step in range(700)]
    toy = make_toy(
        tmp_path, [columns(0), columns(1, steps=700, image=images), columns(2, steps=1), columns(3, steps=400)]
    )
    assert toy.convert("--materialize", "late").code == 0
    return toy


def chunks(toy: Toy, leaf: str) -> list[Any]:
    metadata = pq.read_metadata(toy.out / FILE)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [c for g in groups for c in map(g.column, range(g.num_columns)) if c.path_in_schema == leaf]


def test_row_groups_are_full_whatever_the_episodes(long: Toy) -> None:
    metadata = pq.read_metadata(long.out / FILE)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [512, 512, 1104 - 2 * 512]


def test_a_row_group_ends_early_when_its_images_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 5 * len(jpeg(0)))
    toy = make_toy(tmp_path, [columns(i, steps=n) for i, n in enumerate((3, 4, 2, 9, 1))])
    assert toy.convert().code == 0
    metadata = pq.read_metadata(toy.out / FILE)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [7, 11, 1]
    assert toy.verify().code == 0
    assert [len(episode) for episode in open_dataset(toy.out)] == [3, 4, 2, 9, 1]


def test_image_bytes_are_plain_and_all_else_is_packed(long: Toy) -> None:
    for chunk in chunks(long, "observation.images.image.bytes"):
        assert (chunk.compression, chunk.has_dictionary_page, chunk.is_stats_set) == ("UNCOMPRESSED", False, False)
        assert "PLAIN" in chunk.encodings
    for leaf in ("action.list.element", "raw.observation.torque.list.element", "action.late.list.element", "timestamp"):
        assert {chunk.compression for chunk in chunks(long, leaf)} == {"ZSTD"}


def test_image_bytes_lie_in_the_file_as_the_source_has_them(long: Toy) -> None:
    data = (long.out / FILE).read_bytes()
    index = open_dataset(long.out).file(FILE).index
    for row, step in ((4, 1), (702, 699)):
        offset, length = index.offsets.item(row, 0), index.lengths.item(row, 0)
        assert data[offset : offset + length] == jpeg(step)
    assert index.lengths.item(3, 0) == 0  # the first frame of the second episode is missing
    assert pq.read_table(long.out / FILE)["observation.images.image"][3].as_py() is None


@pytest.mark.parametrize("page", [1, 2000])
def test_pages_of_any_size_are_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(parquet, "PAGE_BYTES", page)
    images = [b"" if step % 5 == 0 else jpeg(step, size=32) for step in range(200)]
    toy = make_toy(tmp_path, [columns(0, steps=200, image=images)])
    assert toy.convert().code == 0
    assert toy.verify().code == 0
    dataset = open_dataset(toy.out)
    assert [dataset.frame(0, step)["image"] or b"" for step in range(200)] == images


def test_rows_say_episode_and_step(long: Toy) -> None:
    table = pq.read_table(long.out / FILE)
    lengths = [3, 700, 1, 400]
    assert table["episode_index"].to_pylist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert table["step_index"].to_pylist() == [step for n in lengths for step in range(n)]
    episodes = pq.read_table(long.out / "meta/episodes.parquet")
    assert (episodes["row"].to_pylist(), episodes["length"].to_pylist()) == ([0, 3, 703, 704], lengths)


def test_a_view_is_null_where_it_masks(long: Toy) -> None:
    table = pq.read_table(long.out / FILE, columns=["step_index", "action", "action.late"]).to_pylist()
    for row in table:
        assert row["action.late"] == (None if row["step_index"] == 0 else row["action"])


def test_every_episode_reads_back_across_row_groups(long: Toy) -> None:
    dataset = open_dataset(long.out)
    for i, steps in enumerate([3, 700, 1, 400]):
        np.testing.assert_array_equal(dataset.episode(i).action, np.asarray(columns(i, steps=steps)["action"]))


def test_the_huggingface_key_tells_images_from_numbers(long: Toy) -> None:
    datasets = pytest.importorskip("datasets")
    schema = pq.read_schema(long.out / FILE)
    features = datasets.Features.from_arrow_schema(schema)
    assert isinstance(features["observation.images.image"], datasets.Image)
    assert features.arrow_schema.field("action").type == schema.field("action").type
