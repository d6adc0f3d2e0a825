"""`oxe upgrade`: a dataset of version 2 gets checksums in place, and stays what it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.data.loader import Loader
from pipelines.statistics.cache import cached
from pipelines.statistics.numbers import Selection
from pipelines.upgrade import upgrade
from schemas.errors import DatasetError
from schemas.files import durable
from schemas.mixture import lock as locks
from schemas.store.dataset import open_dataset
from tests.finetune.lab import PLAIN, first, reading
from tests.pipelines.convert.test_crash import Forks, forks
from tests.pipelines.toy import Toy, columns, files, make_toy, oxe, oxe_process
from tests.schemas.store.test_damage import content
from tests.version2 import downgrade, source_of_written, written

__all__ = ["forks"]  # a fixture

UPGRADED = ("data/", "meta/episodes.parquet", "meta/quarantine.parquet", "meta/stats.json")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path)


def drawn(folder: Path, cache: Path) -> list[Any]:
    loader = Loader(folder / "toy.lock", reading(chunk=2, preprocessing=PLAIN), batch_size=8, cache=cache)
    return list(first(loader, 200))


# --- version 2 ---


def test_a_dataset_of_version_2_can_be_read_drawn_from_exported_and_verified(out: Path, tmp_path: Path) -> None:
    dataset = open_dataset(out)
    assert dataset.version == 2
    assert [len(episode) for episode in dataset] == [3, 5, 150, 2, 7]
    source = source_of_written(tmp_path / "work").source
    assert oxe("verify", out, "--source", source, "--json").json()["source"] == "compared"
    assert len(drawn(tmp_path, tmp_path / "cache")) >= 200
    assert oxe("export", "rlds", out, "--out", tmp_path / "rlds").code == 0
    assert oxe("verify", tmp_path / "rlds").code == 0
    assert oxe("stats", out).code == 0
    assert open_dataset(out).version == 2


@pytest.mark.parametrize("name", ["meta/episodes.parquet", "index/train-00000-of-00001.idx", "meta/manifest.json"])
def test_what_version_2_has_a_digest_of_is_checked(out: Path, name: str) -> None:
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    with pytest.raises(DatasetError, match=name):
        list(content(open_dataset(out)))


# --- the upgrade ---


def test_an_upgrade_changes_no_data_and_no_digest_that_others_refer_to(out: Path, tmp_path: Path) -> None:
    before, expected = files(out), list(content(open_dataset(out)))
    draws, old = drawn(tmp_path, tmp_path / "cache"), open_dataset(out)
    assert cached(old, Selection(view="late"))
    done = oxe_process("upgrade", out, "--json")
    assert (done.code, done.err) == (0, "")
    size = sum(file["bytes"] for file in old.manifest["files"])
    report = {key: value for key, value in done.json().items() if key != "seconds"}
    assert report == {
        "out": str(out),
        "schema_version": 3,
        "upgraded_from": 2,
        "files": 2,
        "read": 2,
        "bytes": size,
        "dry_run": False,
    }
    after = files(out)
    assert {n for n in before if n.startswith(UPGRADED) and after[n] != before[n]} == set()
    assert sorted(after) == sorted([*before, "meta/episodes.idx"])
    new = open_dataset(out)
    assert (new.version, new.digest) == (3, old.digest)
    assert new.manifest["upgraded_from"] == {"schema_version": 2, "xxh3_128": old.manifest["xxh3_128"]}
    assert list(content(new)) == expected
    assert cached(new, Selection(view="late"))
    lock, _ = locks.read(tmp_path / "toy.lock")
    assert lock.sources["one"].manifest == new.digest
    assert drawn(tmp_path, tmp_path / "cache") == drawn(tmp_path, tmp_path / "other") == draws
    source = source_of_written(tmp_path / "work").source
    assert oxe("verify", out, "--source", source).code == 0


def test_a_dataset_that_is_open_while_it_is_upgraded_can_still_be_read(out: Path) -> None:
    expected, opened = list(content(open_dataset(out))), open_dataset(out)
    assert oxe("upgrade", out).code == 0
    assert list(content(opened)) == expected


def test_an_upgraded_dataset_has_what_a_new_one_has(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i, steps=n) for i, n in enumerate((3, 600, 7))], splits={"train": 2, "val": 1})
    assert toy.convert().code == 0
    new = open_dataset(toy.out)
    kept = {n: c for n, c in files(toy.out).items() if n.startswith(("data", "index", "meta/episodes"))}
    old = downgrade(toy.out)
    assert oxe("upgrade", toy.out).code == 0
    assert {n: c for n, c in files(toy.out).items() if n in kept} == kept
    again = open_dataset(toy.out)
    assert again.digest == old.digest
    differing = {key for key in {**new.manifest, **again.manifest} if new.manifest.get(key) != again.manifest.get(key)}
    assert differing == {"xxh3_128", "upgraded_from"}


def test_a_dry_run_writes_nothing(out: Path) -> None:
    before = files(out)
    done = oxe("upgrade", out, "--dry-run")
    assert (done.code, done.out) == (
        0,
        f"{out}: schema version 2 to 3: 0.2 MB of 2 files would be read; nothing was written\n",
    )
    assert oxe("upgrade", out, "--dry-run", "--json").json()["dry_run"]
    assert files(out) == before


def test_an_upgrade_of_the_current_version_writes_nothing(out: Path) -> None:
    assert oxe("upgrade", out).code == 0
    before = files(out)
    done = oxe("upgrade", out)
    assert (done.code, done.out) == (0, f"{out}: has schema version 3 already; nothing was written\n")
    assert files(out) == before


@pytest.mark.parametrize(
    "name", ["data/val-00000-of-00001.parquet", "index/val-00000-of-00001.idx", "meta/episodes.parquet"]
)
def test_a_damaged_file_is_not_given_checksums(out: Path, name: str) -> None:
    data = bytearray((out / name).read_bytes())
    data[len(data) // 3] ^= 1
    (out / name).write_bytes(data)
    done = oxe("upgrade", out)
    assert (done.code, done.out) == (2, "")
    assert f"{name}: damaged (its digest is not that of the manifest); run 'oxe verify'" in done.err
    assert json.loads((out / "meta/manifest.json").read_text())["schema_version"] == 2


@pytest.mark.parametrize("name", ["data/val-00000-of-00001.parquet", "index/val-00000-of-00001.idx"])
def test_a_missing_file_is_named(out: Path, name: str) -> None:
    (out / name).unlink()
    assert oxe("upgrade", out).err.startswith(f"oxe: {out / name}: is missing; run 'oxe verify'")


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    assert "not a dataset" in oxe("upgrade", tmp_path).err
    assert list(tmp_path.iterdir()) == []


def test_an_upgraded_dataset_can_be_appended_to_and_an_old_one_says_what_to_run(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i) for i in range(3)])
    assert toy.convert().code == 0
    before = downgrade(toy.out).digest
    make_toy(tmp_path, [columns(i) for i in range(5)], splits={"train": 3, "val": 2})
    done = toy.convert("--append")
    assert (done.code, done.err) == (2, f"oxe: {toy.out}: has schema version 2; run 'oxe upgrade {toy.out}' first\n")
    assert oxe("upgrade", toy.out).code == 0
    assert toy.convert("--append").code == 0
    grown = open_dataset(toy.out)
    assert (len(grown), "upgraded_from" in grown.manifest, grown.digest == before) == (5, False, False)
    assert toy.verify().code == 0


def test_a_finished_conversion_of_version_2_is_finished(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i) for i in range(3)])
    assert toy.convert().code == 0
    downgrade(toy.out)
    assert toy.convert().code == 0
    assert open_dataset(toy.out).version == 2


# --- killed ---

KILL = """
import sys

order["arguments"] = ["upgrade", {out!r}]
seen = 0

def count(event, arguments):
    global seen
    changes = event in {{"os.rename", "os.remove", "os.rmdir", "os.mkdir"}}
    if changes or event == "open" and "w" in str(arguments[1]):
        seen += str(arguments[0]).startswith({out!r})
        if seen == {number}:
            os.kill(os.getpid(), 9)

sys.addaudithook(count)
"""


def settled(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(out).items() if name != "meta/runs.jsonl"}


def test_killed_at_any_step_the_dataset_can_be_read_and_the_upgrade_goes_on(
    out: Path, tmp_path: Path, forks: Forks
) -> None:
    expected = list(content(open_dataset(out)))
    undisturbed = written(tmp_path / "undisturbed")
    assert oxe("upgrade", undisturbed).code == 0
    versions = set()
    for number in range(1, 200):
        copy = written(tmp_path / f"kill {number}")
        forks.start(Toy(folder=tmp_path), fault=KILL.format(out=str(copy), number=number))
        if forks.wait() == 0:
            break
        opened = open_dataset(copy)
        versions.add(opened.version)
        assert list(content(opened)) == expected, number
        if number % 3 == 0:  # it takes longer than the rest
            assert oxe("verify", copy, "--source", tmp_path / "source").code in {0, 2}
            assert oxe("verify", copy).code == 0, oxe("verify", copy).err
            (copy / "meta/verification.json").unlink()
        assert oxe("upgrade", copy).code == 0
        assert settled(copy) == settled(undisturbed)
        shutil.rmtree(copy.parent)
    else:
        pytest.fail("it did not end")
    assert versions == {2, 3}
    assert number > 10


def test_an_upgrade_goes_on_without_reading_a_file_twice(out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        name = str(out / "meta/pending/index/val-00000-of-00001.idx")
        original = durable.adopt

        def adopt(temporary: Path, path: Path, **options: Any) -> None:
            if str(path) == name:
                raise KeyboardInterrupt
            original(temporary, path, **options)

        patch.setattr(durable, "adopt", adopt)
        with pytest.raises(KeyboardInterrupt):
            upgrade(out)
    assert open_dataset(out).version == 2
    report = oxe("upgrade", out, "--json").json()
    assert (report["files"], report["read"]) == (2, 1)


@pytest.mark.parametrize("damage", ["flip", "cut", "record"])
def test_what_an_interrupted_upgrade_prepared_is_used_only_if_it_is_intact(out: Path, damage: str) -> None:
    undisturbed = settled_upgrade(out)
    pending = out / "meta/pending/index"
    pending.mkdir(parents=True)
    entries = json.loads(undisturbed["meta/manifest.json"])["files"]
    for entry in entries:
        name = Path(entry["path"]).stem
        (pending / f"{name}.idx").write_bytes(undisturbed[f"index/{name}.idx"])
        (pending / f"{name}.json").write_text(json.dumps(entry))
    path = pending / ("train-00000-of-00001.json" if damage == "record" else "train-00000-of-00001.idx")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    path.write_bytes(data[:-9] if damage != "flip" else data)
    report = oxe("upgrade", out, "--json").json()
    assert (report["files"], report["read"]) == (2, 1)
    assert settled(out) == undisturbed


def settled_upgrade(out: Path) -> dict[str, bytes]:
    """Return the files of the dataset after an upgrade, which is made in a copy."""
    copy = shutil.copytree(out, out.with_name("upgraded"))
    assert oxe("upgrade", copy).code == 0
    return settled(Path(copy))
