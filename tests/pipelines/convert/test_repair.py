"""`oxe convert` repairs a finished dataset: it writes what is missing or damaged again, with the same bytes."""

import json
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.convert import parquet
from tests.pipelines.convert.test_append import grow
from tests.pipelines.convert.test_crash import KILL_AT, Forks, forks
from tests.pipelines.toy import Toy, columns, files, jpeg, make_toy, oxe
from tests.version2 import downgrade

__all__ = ["forks"]  # a fixture

KINDS = ("missing", "shorter", "longer", "empty", "flipped")
TABLES = ("meta/episodes.parquet", "meta/episodes.idx", "meta/quarantine.parquet")
LOGS = {"meta/runs.jsonl", "meta/verification.json"}


def seeded(seed: str | int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - not a secret


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Damage a file in one of the `KINDS`."""
    data = bytearray(path.read_bytes())
    if kind == "missing":
        return path.unlink()
    if kind == "flipped":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes({"shorter": data[: len(data) // 2], "longer": data + b"x", "empty": b""}.get(kind, data))
    return None


def content(toy: Toy) -> dict[str, bytes]:
    """Read all files of the dataset that are the same after every conversion."""
    return {name: data for name, data in files(toy.out).items() if name not in LOGS}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Convert five episodes in three shards; one of them is quarantined, and one dropped."""
    broken = columns(3, image=[jpeg(300), b"no image", jpeg(302)])
    episodes = [columns(0), columns(1, steps=0), columns(2), broken, columns(4)]
    toy = make_toy(tmp_path, episodes, splits={"train": 2, "val": 2, "test": 1})
    assert toy.convert().code == 1  # an episode was quarantined
    return toy


@pytest.fixture
def sound(tmp_path: Path) -> Toy:
    """Convert four episodes in two shards."""
    toy = make_toy(tmp_path, [columns(i) for i in range(4)], splits={"train": 2, "val": 2})
    assert toy.convert().code == 0
    return toy


def damageable(toy: Toy) -> list[str]:
    return [name for name in content(toy) if name.startswith(("data/", "index/")) or name in TABLES]


def stamps(toy: Toy) -> dict[str, int]:
    return {name: (toy.out / name).stat().st_ino for name in content(toy)}


@pytest.mark.parametrize("kind", ["missing", "longer", "flipped"])
def test_each_file_that_is_damaged_is_written_again(toy: Toy, kind: str) -> None:
    expected, rng = content(toy), seeded(kind)
    for name in damageable(toy):
        damage(toy.out / name, kind, rng)
        done = toy.convert("--json")
        assert (done.code, done.json()["repaired"], done.json()["added"]) == (1, [name], 0), done.err
        assert f"{toy.out}: repairs {name}" in done.err
        assert content(toy) == expected
    assert toy.convert("--json").json()["repaired"] == []
    assert toy.verify().code == 0


def test_any_set_of_damaged_files_is_repaired_at_once(toy: Toy) -> None:
    expected, rng = content(toy), seeded(0)
    for _ in range(6):
        names = sorted(rng.sample(damageable(toy), rng.randrange(1, 7)))
        for name in names:
            damage(toy.out / name, rng.choice(KINDS), rng)
        done = toy.convert("--json")
        assert done.json()["repaired"] == names
        assert content(toy) == expected


def test_only_the_shards_with_damage_are_converted(sound: Toy) -> None:
    before = stamps(sound)
    damage(sound.out / "data/val-00000-of-00001.parquet", "flipped", seeded(0))
    assert sound.convert().code == 0
    written = {name for name, inode in stamps(sound).items() if inode != before[name]}
    assert written == {"data/val-00000-of-00001.parquet", "index/val-00000-of-00001.idx"}


def test_a_table_that_follows_from_the_others_needs_no_shard(sound: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(sound)
    for name in ("meta/episodes.idx", "meta/quarantine.parquet"):  # the latter has no rows
        (sound.out / name).unlink()
    monkeypatch.setattr(parquet, "ParquetShard", None)
    assert sound.convert("--json").json()["repaired"] == ["meta/episodes.idx", "meta/quarantine.parquet"]
    assert content(sound) == expected


def test_a_repair_is_logged_and_removes_the_result_of_verify(sound: Toy) -> None:
    damage(sound.out / "data/train-00000-of-00001.parquet", "flipped", seeded(1))
    assert sound.verify().code == 1
    assert sound.convert().code == 0
    assert not (sound.out / "meta/verification.json").exists()
    last = json.loads((sound.out / "meta/runs.jsonl").read_text().splitlines()[-1])
    assert (last["command"], last["repaired"]) == ("convert", ["data/train-00000-of-00001.parquet"])


def test_several_processes_repair_the_same_bytes(toy: Toy) -> None:
    expected = content(toy)
    for name in damageable(toy):
        (toy.out / name).unlink()
    assert toy.convert("--workers", "2").code == 1
    assert content(toy) == expected


# --- with --append ---


@pytest.fixture
def grown(tmp_path: Path) -> Toy:
    """Convert a source, append new files, and add more new files to the source."""
    toy = make_toy(tmp_path, [])
    grow(toy, {"train": (2, 1), "val": (1,)})
    assert toy.convert().code == 0
    grow(toy, {"train": (2, 1, 2), "val": (1,)})
    assert toy.convert("--append").code == 0
    return toy


@pytest.mark.parametrize("kind", ["missing", "flipped"])
def test_shards_of_every_append_are_repaired(grown: Toy, kind: str) -> None:
    expected, rng = content(grown), seeded(kind)
    for number, name in enumerate(damageable(grown)):
        damage(grown.out / name, kind, rng)
        done = grown.convert("--json", *(["--append"] if number % 2 else []))
        assert (done.code, done.json()["repaired"]) == (0, [name]), done.err
        assert content(grown) == expected


def test_what_is_damaged_is_repaired_before_more_is_appended(grown: Toy) -> None:
    grow(grown, {"train": (2, 1, 2), "val": (1, 1), "test": (1,)})
    for name in damageable(grown):
        (grown.out / name).unlink()
    refused = grown.convert()
    assert (refused.code, "pass --append to add them" in refused.err) == (2, True)
    done = grown.convert("--append", "--json")
    assert (done.code, done.json()["added"], len(done.json()["repaired"])) == (0, 2, 9), done.err
    assert grown.verify().code == 0


# --- what cannot be repaired ---


def test_another_source_or_other_options_are_refused_as_before(sound: Toy) -> None:
    (sound.out / "data/train-00000-of-00001.parquet").unlink()
    for more in (["--no-keep-raw"], ["--limit", "1"]):
        assert "contains a conversion with different options; pass --overwrite" in sound.convert(*more).err
    shard = sound.source / "toy-val.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = sound.convert()
    assert (done.code, "contains a conversion with different source (changed: " in done.err) == (2, True)


@pytest.mark.parametrize("lost", [("data/train-00000-of-00001.parquet",), ("meta/episodes.parquet",)])
def test_files_that_would_differ_are_not_written(
    sound: Toy, lost: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(sound.out / "data/val-00000-of-00001.parquet", "flipped", seeded(0))
    for name in lost:
        (sound.out / name).unlink()
    before = files(sound.out)
    monkeypatch.setattr(parquet, "ROW_GROUP", 1)  # as another version of oxe-tools might
    done = sound.convert()
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        f"oxe: {sound.out}/data/train-00000-of-00001.parquet: is missing or damaged, and cannot be repaired, because "
        "converting it again gives other bytes: the source, oxe-tools or a library has changed; restore it from a "
        "copy, or pass --overwrite to convert everything again"
    )
    assert files(sound.out) == before
    assert sound.convert("--overwrite").code == 0
    assert sound.verify().code == 0


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_dataset_of_an_older_version_says_what_to_do(sound: Toy, *, upgraded: bool) -> None:
    downgrade(sound.out)
    if upgraded:
        assert oxe("upgrade", sound.out).code == 0
    (sound.out / "data/val-00000-of-00001.parquet").unlink()
    done = sound.convert()
    assert done.code == 2
    assert "because the dataset was written by an older version of oxe-tools; restore it from a copy, or" in done.err


def test_a_damaged_manifest_says_what_to_do(sound: Toy) -> None:
    manifest = sound.out / "meta/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"steps": 12', b'"steps": 13', 1))
    done = sound.convert()
    assert (done.code, "restore it from a copy, or convert again with --overwrite" in done.err) == (2, True)
    assert sound.convert("--overwrite").code == 0


# --- interrupted ---


@pytest.mark.parametrize(
    ("pattern", "number", "when"),
    [
        ("*/index/*", 1, "after"),
        ("*/data/*", 1, "before"),
        ("*/data/*", 2, "after"),
        ("*/ledger/*", 2, "after"),
        ("*/meta/episodes.*", 1, "after"),
        ("*/meta/quarantine.parquet", 1, "after"),
    ],
)
def test_a_repair_that_is_killed_is_completed_by_the_next_run(
    forks: Forks, toy: Toy, pattern: str, number: int, when: str
) -> None:
    expected = content(toy)
    for name in damageable(toy):
        (toy.out / name).unlink()
    forks.start(toy, fault=KILL_AT.format(call="rename", argument=1, pattern=pattern, number=number, when=when))
    assert forks.wait() == -signal.SIGKILL, (toy.folder / "log").read_text()
    forks.finish(toy)
    assert content(toy) == expected
