"""`--append` adds the new files of a source; existing files stay the same, byte for byte."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.convert import convert
from pipelines.readers.history import History
from pipelines.readers.rlds.reader import RldsReader
from pipelines.statistics.statistics import statistics
from schemas.store import layout
from schemas.store.dataset import open_dataset
from schemas.store.manifest import encode_manifest
from tests.pipelines.convert.test_crash import KILL_AT, Forks, forks, published
from tests.pipelines.toy import FIELDS, Toy, columns, files, make_toy, write_source, write_spec

__all__ = ["forks"]

BEFORE = {"train": (2, 1), "val": (1,)}
AFTER = {"train": (2, 1, 2), "val": (1, 1), "test": (1,)}
SEEDS = {
    "train": [(0, 1), (2,), (10, 11), (14,)],
    "val": [(3,), (12,)],
    "test": [(13,)],
}  # seeds of the episodes of each shard


def grow(toy: Toy, splits: Mapping[str, Sequence[int]] = AFTER) -> None:
    """Write the source again with more shards, which renames the old ones (`-of-`), as in tfds."""
    shutil.rmtree(toy.source)
    seeds = [seed for split, counts in splits.items() for shard in SEEDS[split][: len(counts)] for seed in shard]
    write_source(toy.source, [columns(seed) for seed in seeds], splits=splits)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = make_toy(tmp_path, [])
    grow(toy, BEFORE)
    assert toy.convert().code == 0
    return toy


@pytest.fixture
def grown(toy: Toy) -> Toy:
    grow(toy)
    return toy


def stamps(toy: Toy, kind: str = "[di]*/*") -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in toy.out.glob(kind) if path.is_file()}


def table(toy: Toy) -> list[dict[str, Any]]:
    return list(pq.read_table(toy.out / "meta/episodes.parquet").to_pylist())


def seeds(toy: Toy) -> dict[int, int]:
    """Identify the episodes by their recorded values: index -> seed."""
    return {row["episode_index"]: int(row["instructions"][0].split()[1]) for row in table(toy)}


# --- what it adds ---


def test_new_files_are_added_and_nothing_old_is_written_again(grown: Toy) -> None:
    old, rows = stamps(grown), table(grown)
    done = grown.convert("--append", "--json")
    assert done.code == 0, done.err
    assert (done.json()["added"], done.json()["episodes"]["kept"], done.json()["files"]) == (4, 8, 5)
    assert {path: stamp for path, stamp in stamps(grown).items() if path in old} == old
    assert table(grown)[: len(rows)] == rows


def test_indices_are_stable_and_new_ones_follow(grown: Toy) -> None:
    assert seeds(grown) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert grown.convert("--append").code == 0
    assert seeds(grown) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 10, 5: 11, 6: 12, 7: 13}


def test_new_data_files_go_on_counting_in_their_split(grown: Toy) -> None:
    assert grown.convert("--append").code == 0
    assert [path.stem for path in sorted(grown.out.glob("data/*"))] == [
        "test-00000-of-00001",
        "train-00000-of-00001",
        "train-00001-of-00002",
        "val-00000-of-00001",
        "val-00001-of-00002",
    ]


def test_the_whole_verifies_and_holds_what_one_conversion_would(grown: Toy) -> None:
    assert grown.convert("--append").code == 0
    assert grown.verify().code == 0
    whole = Toy(folder=grown.folder)
    appended = {e.instructions: e for e in open_dataset(grown.out)}
    shutil.rmtree(grown.out)
    assert whole.convert().code == 0
    for episode in open_dataset(whole.out):
        twin = appended[episode.instructions]
        np.testing.assert_array_equal(episode.action, twin.action)
        assert (episode.images, episode.split, episode.metadata) == (twin.images, twin.split, twin.metadata)


def test_appending_again_and_again_is_one_history(toy: Toy) -> None:
    for step in ({"train": (2, 1, 2), "val": (1,)}, {"train": (2, 1, 2), "val": (1, 1)}, AFTER):
        grow(toy, step)
        assert toy.convert("--append").code == 0
        assert toy.verify().code == 0
    manifest = json.loads((toy.out / "meta/manifest.json").read_text())
    assert manifest["source"]["generations"] == [3, 4, 5, 6]
    assert sorted(seeds(toy)) == list(range(8))


def test_with_nothing_new_nothing_happens(grown: Toy) -> None:
    assert grown.convert("--append").code == 0
    before = files(grown.out), stamps(grown, "**/*")
    again = grown.convert("--append", "--json")
    assert (again.code, again.json()["added"]) == (0, 0)
    assert grown.convert().code == 0
    assert (files(grown.out), stamps(grown, "**/*")) == before


def test_a_dry_run_says_what_would_be_added(grown: Toy) -> None:
    before = files(grown.out)
    planned = grown.convert("--append", "--dry-run", "--json").json()
    assert (planned["episodes"], planned["files"]) == (4, 3)
    assert files(grown.out) == before
    assert grown.convert("--append").code == 0
    assert grown.convert("--append", "--dry-run", "--json").json()["episodes"] == 0


@pytest.fixture
def annotated(grown: Toy) -> Toy:
    """Write every optional file of meta/, with content that no command would write."""
    for file in layout.META_FILES:
        path = grown.out / file.place
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b" \n")
    return grown


def test_verify_knows_every_file_of_the_layout(annotated: Toy) -> None:
    found = annotated.verify("--json").json()
    assert not [line for line in found["first"] if "does not know" in line]


def test_an_append_removes_what_says_something_of_the_old_content_and_no_more(annotated: Toy) -> None:
    before = {file: (annotated.out / file.place).read_bytes() for file in layout.META_FILES}
    assert annotated.convert("--append").code == 0
    for file, content in before.items():
        path = annotated.out / file.place
        outlasts = path.exists() and path.read_bytes().startswith(content)
        assert outlasts != file.of_content, file.place


def test_overwriting_replaces_every_file_of_the_layout(annotated: Toy) -> None:
    before = {file: (annotated.out / file.place).read_bytes() for file in layout.META_FILES}
    assert annotated.convert("--overwrite").code == 0
    for file, content in before.items():
        path = annotated.out / file.place
        assert not path.exists() or not path.read_bytes().startswith(content), file.place


def test_quarantine_and_drops_add_up(toy: Toy) -> None:
    write_source(toy.source, [columns(seed, steps=seed % 2 * 3) for seed in range(4)], splits=BEFORE)
    cut = next(toy.source.glob("*train*-00001-of*"))
    cut.write_bytes(cut.read_bytes()[:-20])
    assert toy.convert("--overwrite").code == 1
    damaged = cut.read_bytes()
    write_source(toy.source, [columns(seed, steps=seed % 2 * 3) for seed in range(5)], splits={**BEFORE, "new": 1})
    cut.write_bytes(damaged)
    done = toy.convert("--append")
    assert done.code == 0, done.err  # earlier quarantined episodes are not failures of this run
    assert toy.balance() == {"source": 5, "kept": 2, "dropped": {"zero_steps": 2}, "quarantined": {"truncated": 1}}
    assert toy.verify().code == 0


def test_a_new_file_that_cannot_be_read_is_quarantined(grown: Toy) -> None:
    cut = next(grown.source.glob("*val*-00001-of*"))
    cut.write_bytes(cut.read_bytes()[:-20])
    done = grown.convert("--append")
    assert done.code == 1
    assert "quarantined 1 truncated" in done.err
    assert [row["episode_index"] for row in grown.quarantine()] == [6]
    assert grown.verify().code == 0


def test_a_split_that_was_chosen_stays_chosen(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [])
    grow(toy, BEFORE)
    assert toy.convert("--split", "train").code == 0
    grow(toy)
    assert toy.convert("--split", "train", "--append").code == 0
    assert set(seeds(toy).values()) == {0, 1, 2, 10, 11}
    assert toy.verify().code == 0


def test_an_append_that_another_one_overtakes_adds_nothing_twice(grown: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    check_not_nested = convert.check_not_nested  # called after the append is planned and before it starts

    def overtaken(out: str, source: str | None) -> None:
        monkeypatch.setattr(convert, "check_not_nested", check_not_nested)
        assert grown.convert("--append").code == 0
        grow(grown, {**AFTER, "train": (2, 1, 2, 1)})
        check_not_nested(out, source)

    monkeypatch.setattr(convert, "check_not_nested", overtaken)
    done = grown.convert("--append")
    assert done.code == 2
    assert done.err.endswith("another process has just appended to it; run the command again\n")
    assert grown.convert("--append").code == 0
    assert grown.verify().code == 0
    assert sorted(seeds(grown).values()) == [0, 1, 2, 3, 10, 11, 12, 13, 14]


# --- what it refuses ---


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(("damage", "kind"), [(flip, "changed"), (shorten, "changed"), (Path.unlink, "vanished")])
def test_an_old_file_that_is_not_as_it_was_is_named(grown: Toy, damage: Callable[[Path], None], kind: str) -> None:
    old = next(grown.source.glob("*train*-00001-of*"))
    damage(old)
    before = files(grown.out)
    done = grown.convert("--append")
    assert done.code == 2
    assert done.err.endswith(f"have changed: {kind}: {old.name}\n")
    assert files(grown.out) == before


def test_a_shard_that_is_no_longer_declared_has_vanished(toy: Toy) -> None:
    grow(toy, {"train": (2,), "val": (1,), "test": (1,)})
    done = toy.convert("--append")
    assert done.code == 2
    assert "vanished: toy-train.tfrecord-00001-of-00002" in done.err


def test_another_count_of_episodes_is_a_change(grown: Toy) -> None:
    info = grown.source / "dataset_info.json"
    info.write_text(info.read_text().replace('"2",', '"3",', 1))
    done = grown.convert("--append")
    assert (done.code, "changed: toy-train.tfrecord-00000-of-00003" in done.err) == (2, True)


def test_a_file_that_was_missing_and_is_there_now_is_named(grown: Toy) -> None:
    new = next(grown.source.glob("*train*-00002-of*"))
    content = new.read_bytes()
    new.unlink()
    assert grown.convert("--append").code == 1
    new.write_bytes(content)
    done = grown.convert("--append")
    assert (done.code, f"no longer missing: {new.name}" in done.err) == (2, True)


def test_without_append_a_grown_source_asks_for_it(grown: Toy) -> None:
    done = grown.convert()
    assert done.code == 2
    assert "new: toy-train.tfrecord-00002-of-00003, toy-val.tfrecord-00001-of-00002, toy-test" in done.err
    assert "pass --append to add them" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--limit", "9"), "--append and --limit: pass only one of them"),
        (("--no-keep-raw",), "different options"),
        (("--overwrite",), "--append and --overwrite: pass only one of them"),
    ],
)
def test_what_does_not_go_with_it_is_said(grown: Toy, options: tuple[str, ...], words: str) -> None:
    before = files(grown.out)
    done = grown.convert("--append", *options)
    assert (done.code, words in done.err) == (2, True), done.err
    assert files(grown.out) == before


def test_a_part_of_a_source_cannot_be_appended_to(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [])
    grow(toy, BEFORE)
    assert toy.convert("--limit", "2").code == 0
    grow(toy)
    done = toy.convert("--append", "--limit", "2")
    assert (done.code, "--append and --limit: pass only one of them" in done.err) == (2, True)


def test_another_declaration_is_refused(grown: Toy) -> None:
    write_spec(grown.folder, replace={"control_hz = 10": "control_hz = 5"})
    done = grown.convert("--append")
    assert (done.code, "different spec_digest" in done.err) == (2, True)


def test_other_features_are_refused(toy: Toy) -> None:
    write_source(toy.source, [columns(seed) for seed in range(4)], splits=BEFORE, fields=[*FIELDS[:3], *FIELDS[4:]])
    done = toy.convert("--append")
    assert (done.code, "different source" in done.err) == (2, True)


def test_a_column_from_before_views_had_versions_says_what_to_run(toy: Toy) -> None:
    assert toy.convert("--overwrite", "--materialize", "late").code == 0
    path = toy.out / "meta/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["columns"]["views"][0]["digest"] = "0" * 64
    del manifest["xxh3_128"]
    path.write_bytes(encode_manifest(manifest))
    grow(toy)
    done = toy.convert("--append", "--materialize", "late")
    assert (
        done.code,
        done.err.splitlines()[-1].endswith(
            f"{toy.out}: the column of the view 'late' was made before views had versions and cannot be checked: "
            "run 'oxe convert' again with --overwrite, without --append"
        ),
    ) == (2, True)
    assert toy.convert("--overwrite", "--materialize", "late").code == 0


def test_where_there_is_no_finished_dataset_it_is_refused(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    done = toy.convert("--append")
    assert (done.code, "no finished dataset to append to; run the command without --append" in done.err) == (2, True)
    assert not toy.out.exists()


def test_two_episodes_of_one_id_are_refused_and_the_dataset_stays(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [])
    write_spec(toy.folder, extra="")
    toy.spec.write_text('id = "episode_metadata.file_path"\n' + toy.spec.read_text())
    grow(toy, BEFORE)
    assert toy.convert().code == 0
    before = {name: data for name, data in files(toy.out).items() if name.startswith("meta")}
    write_source(toy.source, [columns(seed) for seed in (0, 1, 2, 3, 0)], splits={**BEFORE, "new": 1})
    done = toy.convert("--append")
    assert (done.code, "several episodes have the id 'e0.hdf5'" in done.err) == (2, True)
    assert {name: files(toy.out)[name] for name in before} == before
    assert len(open_dataset(toy.out)) == 4


# --- killed ---

STEPS = {
    "before anything is entered": ("*/meta/ledger/identity.json", "before"),
    "when it is entered": ("*/meta/ledger/identity.json", "after"),
    "between the index and the data": ("*/index/train-00001-*", "after"),
    "between the file and its record": ("*/data/val-00001-*", "after"),
    "after a record": ("*/ledger/val-00001-*", "after"),
    "in the episode table": ("*/meta/episodes.parquet", "before"),
    "between episodes and quarantine": ("*/meta/episodes.parquet", "after"),
    "in the manifest": ("*/meta/manifest.json", "before"),
    "between the manifest and the end of the ledger": ("*/meta/manifest.json", "after"),
}


def kill(forks: Forks, toy: Toy, step: str) -> None:
    pattern, when = STEPS[step]
    fault = KILL_AT.format(call="rename", argument=1, pattern=pattern, number=1, when=when)
    forks.start(toy, fault=fault + "order['arguments'].append('--append')")
    assert forks.wait() == -signal.SIGKILL, (toy.folder / "log").read_text()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_dataset_can_be_read_and_the_append_goes_on(
    forks: Forks, grown: Toy, tmp_path: Path, step: str
) -> None:
    shutil.copytree(grown.out, tmp_path / "undisturbed")
    old = [episode.action for episode in open_dataset(grown.out)]
    kill(forks, grown, step)
    now = open_dataset(grown.out)
    for i, before in enumerate(old):
        np.testing.assert_array_equal(before, now.episode(i).action)
    assert now.episodes.collect().height == len(now)
    assert statistics(now, recompute=True).steps == now.manifest["steps"]
    recorded = {path.stem for path in grown.out.glob("meta/ledger/*-of-*.parquet")}
    done = {path: stamp for path, stamp in stamps(grown).items() if path.stem in recorded}
    assert grown.convert("--append").code == 0
    assert {path: stamp for path, stamp in stamps(grown).items() if path in done} == done
    found = published(grown)
    shutil.rmtree(grown.out)
    (tmp_path / "undisturbed").rename(grown.out)
    assert grown.convert("--append").code == 0
    assert found == published(grown)


def test_files_that_come_after_an_append_was_killed_are_taken_too(forks: Forks, toy: Toy) -> None:
    grow(toy, {"train": (2, 1, 2), "val": (1,)})
    kill(forks, toy, "between the manifest and the end of the ledger")
    grow(toy, {"train": (2, 1, 2), "val": (1, 1)})
    kill(forks, toy, "after a record")
    grow(toy)
    assert toy.convert("--append").code == 0
    assert toy.verify().code == 0
    assert sorted(seeds(toy).values()) == [0, 1, 2, 3, 10, 11, 12, 13]


# --- the record of the converted files ---


def test_a_source_is_known_again_wherever_it_lies(toy: Toy) -> None:
    here = History.of(RldsReader(str(toy.source)))
    shutil.copytree(toy.source, toy.folder / "elsewhere")
    assert History.of(RldsReader(str(toy.folder / "elsewhere"))) == here
    assert History.from_json(json.loads(json.dumps(here.to_json()))) == here
    assert not here.since(here)
