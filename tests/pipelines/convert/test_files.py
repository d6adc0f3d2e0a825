"""A finished dataset is one whose files are there, and a killed command's files get to their places."""

import json
import re
from pathlib import Path

import pytest

from oxe_tools import open_dataset
from pipelines.convert.files import check_files, find_damage, settle
from schemas.errors import DatasetError
from schemas.files.folder import LocalFolder
from schemas.store.checks import FIX
from tests.pipelines.toy import Toy, columns, files, make_toy

DATA, INDEX = "data/train-00000-of-00001.parquet", "index/train-00000-of-00001.idx"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = make_toy(tmp_path, [columns(i) for i in range(3)])
    assert toy.convert().code == 0
    return toy


def damaged(out: Path, name: str, kind: str) -> None:
    path = out / name
    if kind == "missing":
        path.unlink()
    elif kind == "longer":
        with path.open("ab") as file:
            file.write(b"x")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("name", [DATA, INDEX])
@pytest.mark.parametrize("kind", ["missing", "longer"])
def test_the_sizes_of_all_files_are_checked(toy: Toy, name: str, kind: str) -> None:
    damaged(toy.out, name, kind)
    with pytest.raises(DatasetError) as error:
        check_files(LocalFolder(toy.out))
    size = (toy.out / name).stat().st_size if kind == "longer" else 0
    why = f"has {size} bytes, expected {size - 1}" if size else "is missing"
    assert str(error.value) == f"{toy.out / name}: {why}; {FIX}"


@pytest.mark.parametrize("name", ["meta/episodes.parquet", "meta/episodes.idx", "meta/quarantine.parquet"])
def test_a_damaged_or_missing_table_is_named(toy: Toy, name: str) -> None:
    damaged(toy.out, name, "flipped")
    with pytest.raises(DatasetError, match=re.escape(f"{name}: damaged (its digest is not that of the manifest)")):
        check_files(LocalFolder(toy.out))
    (toy.out / name).unlink()
    with pytest.raises(DatasetError, match=re.escape(f"{name}: cannot be read (")):
        check_files(LocalFolder(toy.out))


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_contents_are_compared_only_on_demand(toy: Toy, name: str) -> None:
    damaged(toy.out, name, "flipped")
    check_files(LocalFolder(toy.out))
    assert list(find_damage(LocalFolder(toy.out), contents=True)) == [name]


def test_what_belongs_to_the_manifest_is_moved_to_its_place_and_the_rest_is_removed(toy: Toy) -> None:
    expected = files(toy.out)
    for name in (INDEX, "meta/episodes.parquet"):
        place = toy.out / "meta/pending" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((toy.out / name).read_bytes())
        (toy.out / name).write_bytes(b"of another version")
    (toy.out / "meta/pending/meta/quarantine.parquet").write_bytes(b"not of this dataset")
    assert len(list(open_dataset(toy.out))) == 3
    assert toy.verify().code == 0
    settle(LocalFolder(toy.out))
    (toy.out / "meta/verification.json").unlink()
    assert files(toy.out) == expected
    settle(LocalFolder(toy.out))
    assert files(toy.out) == expected


def test_an_overwrite_removes_what_is_pending(toy: Toy) -> None:
    (toy.out / "meta/pending").mkdir()
    (toy.out / "meta/pending/x").write_bytes(b"")
    assert toy.convert("--overwrite").code == 0
    assert not (toy.out / "meta/pending").exists()
    assert json.loads((toy.out / "meta/manifest.json").read_text())["schema_version"] == 3
