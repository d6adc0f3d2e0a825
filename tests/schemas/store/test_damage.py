"""What is damaged is noticed when it is read: every kind of damage, in every file of a dataset."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

from pipelines.statistics.statistics import statistics
from schemas.episode import Episode
from schemas.errors import DatasetError, UsageError
from schemas.store.checks import FIX
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.toy import Toy, columns, jpeg, make_toy, oxe

READ = ("data", "index", "meta/manifest.json", "meta/episodes.parquet", "meta/episodes.idx")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Two data files of different sizes, and two of the same size; three row groups in the largest."""
    missing = [b"" if step % 5 == 2 else jpeg(step) for step in range(600)]
    episodes = [columns(0, steps=600, image=missing), *(columns(i, steps=4, image=[jpeg(i)] * 4) for i in range(1, 6))]
    toy = make_toy(tmp_path_factory.mktemp("pristine"), episodes, splits={"train": 2, "s1": 1, "s2": 1, "val": 2})
    assert toy.convert("--materialize", "late").code == 0
    return toy


@pytest.fixture
def toy(pristine: Toy, tmp_path: Path) -> Toy:
    shutil.copytree(pristine.out, tmp_path / "out")
    return Toy(folder=tmp_path)


def said(episode: Episode) -> list[Any]:
    """List everything that an episode contains, bit for bit."""
    flat = {
        name: value.tobytes() if isinstance(value, np.ndarray) else repr(value)
        for name, value in episode.columns().items()
    }
    return [episode.id, episode.split, episode.instructions, episode.metadata, episode.outcome, flat]


def content(dataset: Dataset) -> Iterator[Any]:
    """Read a dataset in every way."""
    for i in range(len(dataset)):
        yield said(dataset.episode(i))
        yield dataset.content_hash(i)
        yield [dataset.frame(i, step) for step in range(dataset.where(i)[2])]
    yield dataset.episodes.collect().to_dicts()
    yield statistics(dataset, recompute=True).to_json()["vectors"]


def reads(out: Path) -> list[Any] | str:
    """Return the whole content, or the message of the error."""
    try:
        return list(content(open_dataset(out)))
    except (DatasetError, UsageError) as error:  # UsageError: what a worker of the statistics reports
        return str(error)


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def grow(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.randrange(1, 9))


def zeros(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randrange(1, 512))
    data[start:stop] = bytes(stop - start)


def swap(data: bytearray, rng: random.Random) -> None:
    size = rng.randrange(1, max(2, len(data) // 3))
    one = rng.randrange(len(data) - 2 * size + 1)
    other = rng.randrange(one + size, len(data) - size + 1)
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, grow, zeros, swap)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_no_damage_changes_what_is_read_and_verify_misses_none(pristine: Toy, toy: Toy, kind: Any, seed: int) -> None:
    expected = reads(pristine.out)
    rng = random.Random(f"{kind.__name__} {seed}")  # noqa: S311 - not a secret
    files = [path for path in sorted(toy.out.rglob("*")) if str(path.relative_to(toy.out)).startswith(READ)]
    noticed = 0
    for path in [path for path in files if path.is_file()]:
        whole = path.read_bytes()
        data = bytearray(whole)
        kind(data, rng)
        if data == whole:
            continue
        path.write_bytes(data)
        found = reads(toy.out)
        assert found == expected or isinstance(found, str), path
        if isinstance(found, str):
            noticed += 1
            assert path.name in found
            assert ": cannot be read (" in found or ": damaged (" in found or "schema version" in found, found
        else:
            assert path.parent.name == "data"  # a header or a length that no reader of ours needs
        assert oxe("verify", toy.out).code in {1, 2}
        path.write_bytes(whole)
    assert noticed >= len(files) // 3
    assert reads(toy.out) == expected


def test_a_damaged_image_is_noticed_wherever_it_is(toy: Toy) -> None:
    (first, *_) = open_dataset(toy.out).manifest["files"]
    path = toy.out / first["path"]
    images = open_dataset(toy.out).image_index(first["path"]).images[:, 0]
    whole, rng = path.read_bytes(), random.Random(0)  # noqa: S311 - not a secret
    for row in rng.sample(np.flatnonzero(images["length"]).tolist(), 40):
        start, length, expected = images[row].tolist()
        assert crc32c(whole[start : start + length]) == expected
        data = bytearray(whole)
        data[start + rng.randrange(length)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        episode, step = (0, row) if row < 600 else (1, row - 600)
        with pytest.raises(DatasetError) as error:
            open_dataset(toy.out).frame(episode, step)
        why = f"the image in row {row} of observation.images.image does not have the CRC-32C of the index"
        assert str(error.value) == f"{path}: damaged ({why}); {FIX}"


def test_a_damaged_number_is_noticed_in_every_column_and_row_group(toy: Toy) -> None:
    (first, *_) = open_dataset(toy.out).manifest["files"]
    path = toy.out / first["path"]
    numbers = open_dataset(toy.out).file(first["path"]).numbers
    whole = path.read_bytes()
    for group, leaf in np.ndindex(numbers._starts.shape):
        data = bytearray(whole)
        data[int(numbers._starts[group, leaf]) + int(numbers._sizes[group, leaf]) // 2] ^= 4
        path.write_bytes(data)
        with pytest.raises(DatasetError) as error:
            list(open_dataset(toy.out))
        assert f"{path}: damaged ({numbers._leaves[leaf]}, row group {group}: it does not have" in str(error.value)


@pytest.mark.parametrize("below", ["data", "index"])
def test_two_files_that_changed_places_are_noticed(toy: Toy, below: str) -> None:
    one, other = (toy.out / below).glob("s[12]-*")
    one.rename(toy.out / "one")
    other.rename(one)
    (toy.out / "one").rename(other)
    found = reads(toy.out)
    assert isinstance(found, str)
    assert f"{toy.out / below}/s" in found


def test_a_manifest_that_was_edited_is_refused(toy: Toy) -> None:
    path = toy.out / "meta/manifest.json"
    path.write_text(path.read_text().replace('"robot": "toy"', '"robot": "tou"'))
    assert reads(toy.out) == (
        f"{path}: damaged (its digest does not match its content); restore it from a copy, or "
        "convert again with --overwrite"
    )


def test_a_dataset_that_was_replaced_while_it_is_open_is_not_called_damaged(toy: Toy, pristine: Toy) -> None:
    opened = open_dataset(toy.out)
    other = make_toy(toy.folder / "other", [columns(9)])
    assert other.convert().code == 0
    shutil.rmtree(toy.out)
    other.out.rename(toy.out)
    with pytest.raises(DatasetError, match="was replaced after it was opened; open it again"):
        opened.episode(0)
