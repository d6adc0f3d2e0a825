"""A finished dataset is one whose files are there, and a killed command's files get to their places."""

import json
from pathlib import Path

import pytest

from oxe_tools import open_dataset
from pipelines.convert.files import settle
from schemas.files.folder import LocalFolder
from schemas.store.checks import FIX
from tests.pipelines.toy import Toy, columns, files, make_toy
from tests.version2 import downgrade

DATA, INDEX = "data/train-00000-of-00001.parquet", "index/train-00000-of-00001.idx"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = make_toy(tmp_path, [columns(i) for i in range(3)])
    assert toy.convert().code == 0
    return toy


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", [DATA, INDEX])
@pytest.mark.parametrize("again", ["convert", "append"])
def test_a_dataset_without_one_of_its_files_is_not_called_finished(
    toy: Toy, name: str, version: int, again: str
) -> None:
    if version == 2:
        downgrade(toy.out)
    if (version, again) == (2, "append"):
        return
    assert toy.convert().code == 0
    (toy.out / name).unlink()
    done = toy.convert(*(["--append"] if again == "append" else []))
    assert (done.code, done.out, done.err) == (2, "", f"oxe: {toy.out / name}: is missing; {FIX}\n")
    assert toy.convert("--overwrite").code == 0
    assert toy.verify().code == 0


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_a_file_of_another_size_is_named(toy: Toy, name: str) -> None:
    size = (toy.out / name).stat().st_size
    with (toy.out / name).open("ab") as file:
        file.write(b"x")
    assert toy.convert().err == f"oxe: {toy.out / name}: has {size + 1} bytes, expected {size}; {FIX}\n"


@pytest.mark.parametrize("name", ["meta/episodes.parquet", "meta/episodes.idx", "meta/quarantine.parquet"])
def test_a_damaged_or_missing_table_is_named(toy: Toy, name: str) -> None:
    data = bytearray((toy.out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (toy.out / name).write_bytes(data)
    assert f"{name}: damaged (its digest is not that of the manifest)" in toy.convert().err
    (toy.out / name).unlink()
    assert f"{name}: cannot be read (" in toy.convert().err


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
