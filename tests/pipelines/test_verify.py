"""`oxe verify` finds every kind of damage, names the file, and never fails with a traceback."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

from oxe_tools import open_dataset
from schemas.files import durable
from schemas.store.manifest import encode_manifest
from tests.pipelines.toy import Run, Toy, columns, files, jpeg, make_toy, oxe, oxe_process, write_source

DATA, VAL = "data/train-00000-of-00001.parquet", "data/val-00000-of-00001.parquet"
INDEX = "index/train-00000-of-00001.idx"
EPISODES = [columns(0), columns(1), columns(2), columns(3, steps=0), columns(4, image=[b"?"] * 3)]
KEYS = [
    "ok",
    "source",
    "files",
    "episodes",
    "steps",
    "images",
    "image_bytes",
    "numbers",
    "differences",
    "first",
    "notes",
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("pristine"), EPISODES, splits={"train": 2, "val": 3})
    assert toy.convert("--materialize", "late").code == 1  # one episode is quarantined
    return toy


@pytest.fixture
def toy(pristine: Toy, tmp_path: Path) -> Toy:
    copy = Toy(folder=tmp_path / "copy")
    shutil.copytree(pristine.folder, copy.folder)
    return copy


def flip(path: Path, at: int, *, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def values_of(path: Path, name: str) -> int:
    """Return the offset of the middle of a column's first chunk."""
    group = pq.read_metadata(path).row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith(name))
    return int((chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size // 2)


def edit_manifest(toy: Toy, change: Callable[[Any], Any]) -> None:
    """Change the manifest and update its digest."""
    path = toy.out / "meta/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["xxh3_128"]
    change(manifest)
    path.write_bytes(encode_manifest(manifest))


def forge_checksums(toy: Toy) -> None:
    """Forge the digests, so that only the contents differ."""

    def change(manifest: Any) -> None:
        for file in manifest["files"]:
            file["xxh3_128"] = xxhash.xxh3_128_hexdigest((toy.out / file["path"]).read_bytes())
        manifest["episodes_xxh3_128"] = xxhash.xxh3_128_hexdigest((toy.out / "meta/episodes.parquet").read_bytes())

    edit_manifest(toy, change)


def assert_found(done: Run, *words: str) -> None:
    assert (done.code, "Traceback" in done.err) == (1, False), done
    for word in words:
        assert word in done.err


# --- an undamaged dataset ---


def test_a_sound_dataset_is_compared_in_full(pristine: Toy) -> None:
    done = oxe_process("verify", pristine.out, "--json")
    assert (done.code, done.err) == (0, "")
    found = done.json()
    assert list(found) == KEYS
    sizes = sum(len(jpeg(100 * seed + step)) for seed in range(3) for step in range(3))
    expected = {"ok": True, "source": "compared", "episodes": 3, "steps": 9, "images": 9, "image_bytes": sizes}
    assert {key: found[key] for key in expected} == expected
    assert (found["files"], found["differences"], found["first"]) == (7, 0, [])
    assert json.loads((pristine.out / "meta/verification.json").read_text()) == found


def test_the_real_set_is_compared_in_full(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    assert oxe("convert", "bridge_dataset", "--source", source, "--out", tmp_path / "o").code == 0
    found = oxe("verify", tmp_path / "o", "--json").json()
    assert (found["ok"], found["source"]) == (True, "compared")
    assert (found["episodes"], found["steps"], found["images"]) == (50, 500, 2000)
    # Per step: action 7, state 7, timestamp, instruction, five RLDS flags; in raw 7 + 7 + 512 and six scalars.
    assert found["numbers"] == 500 * (7 + 7 + 1 + 1 + 4 + 7 + 7 + 512 + 5)


def test_verifying_again_finds_nothing_new(toy: Toy) -> None:
    assert toy.verify().code == 0
    before = files(toy.out)
    assert toy.verify().code == 0
    assert files(toy.out) == before


def test_the_summary_says_what_was_compared(toy: Toy) -> None:
    assert toy.verify().out.startswith(f"{toy.out}: 3 episodes, 9 steps, ")
    assert "source compared" in toy.verify().out


# --- a damaged dataset ---


def test_a_byte_of_an_image_is_found(toy: Toy) -> None:
    offset = open_dataset(toy.out).file(DATA).index.offsets.item(4, 0)
    flip(toy.out / DATA, offset + 100)
    place = "episode toy-000001: observation.images.image: step 1: "
    assert_found(toy.verify(), f"{DATA}: digest", "episode 1 (toy-000001): its content does not match its hash", place)


def test_a_byte_of_the_numbers_is_found(toy: Toy) -> None:
    flip(toy.out / DATA, values_of(toy.out / DATA, "raw.observation.torque"))
    assert_found(toy.verify(), f"{DATA}: digest", "episode 0")


def test_a_byte_of_a_materialized_view_is_found(toy: Toy) -> None:
    table = pq.read_table(toy.out / DATA)
    assert table["action.late"].to_pylist()[0] is None
    flip(toy.out / DATA, values_of(toy.out / DATA, "action.late"))
    assert_found(toy.verify(), f"{DATA}: digest")


def test_a_wrong_checksum_in_the_index_is_found(toy: Toy) -> None:
    (file, _) = json.loads((toy.out / "meta/manifest.json").read_text())["files"]
    flip(toy.out / INDEX, file["index_start"] + 16 * 5 + 12)
    assert_found(
        toy.verify(), f"{INDEX}: digest", f"{DATA}: row 5: observation.images.image: the index has another CRC"
    )


def test_an_episode_index_that_differs_from_the_episode_table_is_found(toy: Toy) -> None:
    path = toy.out / "meta/episodes.idx"
    flip(path, len(path.read_bytes()) - 4 - 24)

    def forged(manifest: Any) -> None:
        manifest["episodes_index_xxh3_128"] = xxhash.xxh3_128_hexdigest(path.read_bytes())

    edit_manifest(toy, forged)
    assert_found(toy.verify(), "meta/episodes.idx: does not have the episodes of meta/episodes.parquet")


def test_a_byte_of_the_index_is_found(toy: Toy) -> None:
    (file, _) = json.loads((toy.out / "meta/manifest.json").read_text())["files"]
    flip(toy.out / INDEX, file["index_start"] + 16 * 5)
    assert_found(
        toy.verify(), f"{INDEX}: digest", f"{DATA}: row 5: observation.images.image: the index points to other bytes"
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_byte_of_the_episode_table_is_found(toy: Toy, share: float) -> None:
    path = toy.out / "meta/episodes.parquet"
    flip(path, int(share * len(path.read_bytes())), bits=255)
    assert_found(toy.verify(), "meta/episodes.parquet: digest")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["balance"].update(kept=4), "balance: 5 episodes in the source, 4 kept, 2 left out"),
        (lambda m: m["balance"].update(kept=2, source=4), "balance: 2 episodes kept, meta/episodes.parquet has 3"),
        (lambda m: m["balance"]["dropped"].update(zero_steps=2), "balance: "),
        (lambda m: m["balance"].update(quarantined={}, source=4), "meta/quarantine.parquet: 1 rows"),
        (lambda m: m.update(steps=10), "manifest: 10 steps, the episodes have 9"),
        (lambda m: m["splits"]["val"].update(steps=4), "splits: the manifest has"),
        (lambda m: m["files"][0].update(rows=7), f"{DATA}: 7 rows, its episodes have 6 steps"),
    ],
)
def test_a_wrong_count_in_the_manifest_is_found(toy: Toy, change: Callable[[Any], Any], words: str) -> None:
    edit_manifest(toy, change)
    assert_found(toy.verify(), words)


def test_any_edit_of_the_manifest_breaks_its_digest(toy: Toy) -> None:
    path = toy.out / "meta/manifest.json"
    path.write_text(path.read_text().replace('"robot": "toy"', '"robot": "tou"'))
    assert_found(toy.verify(), "meta/manifest.json: its digest does not match its content")


@pytest.mark.parametrize("name", [DATA, INDEX, "meta/episodes.parquet", "meta/quarantine.parquet"])
def test_a_deleted_file_is_found(toy: Toy, name: str) -> None:
    (toy.out / name).unlink()
    assert_found(toy.verify(), f"{name}: digest no file")


def test_a_deleted_folder_is_found(toy: Toy) -> None:
    shutil.rmtree(toy.out / "index")
    assert_found(toy.verify(), f"{INDEX}: digest no file")


@pytest.mark.parametrize("name", ["data/train-00001-of-00002.parquet", "index/x", "meta/notes.txt", "data/tmp-1"])
def test_a_foreign_file_is_found(toy: Toy, name: str) -> None:
    (toy.out / name).write_bytes(b"")
    assert_found(toy.verify(), f"{name}: the manifest does not list this file")


def test_two_files_that_changed_places_are_found(toy: Toy) -> None:
    (toy.out / DATA).rename(toy.out / "swap")
    (toy.out / VAL).rename(toy.out / DATA)
    (toy.out / "swap").rename(toy.out / VAL)
    assert_found(toy.verify(), f"{DATA}: digest", f"{VAL}: digest")


def test_forged_checksums_do_not_hide_a_changed_number(toy: Toy) -> None:
    table = pq.read_table(toy.out / DATA)
    name = "reward" if table["reward"].null_count == 0 else "timestamp"
    changed = table[name].to_numpy().copy()
    changed[2] += 1
    table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), [changed])
    pq.write_table(table, toy.out / DATA, compression="none", use_dictionary=False)
    forge_checksums(toy)
    done = toy.verify()
    assert_found(done, "episode 0 (toy-000000): its content", f"episode toy-000000: {name}: [2] is 1.2")
    assert "digest" not in done.err


def test_a_dataset_without_a_manifest_is_none(toy: Toy) -> None:
    (toy.out / "meta/manifest.json").unlink()
    done = toy.verify()
    assert (done.code, done.out) == (2, "")
    assert done.err == (f"oxe: {toy.out}: no meta/manifest.json: not a dataset, or its conversion did not finish\n")


def test_differences_are_in_the_json_and_on_stderr(toy: Toy) -> None:
    for name in ("a", "b"):
        (toy.out / "meta" / name).write_bytes(b"")
    done = oxe_process("verify", toy.out, "--json")
    found = done.json()
    assert (done.code, found["ok"], found["differences"]) == (1, False, 2)
    assert found["first"] == [f"meta/{name}: the manifest does not list this file" for name in ("a", "b")]
    assert done.err.splitlines() == [*found["first"], f"oxe: {toy.out}: 2 differences"]
    assert json.loads((toy.out / "meta/verification.json").read_text()) == found


def test_only_the_first_differences_are_told(toy: Toy) -> None:
    for i in range(30):
        (toy.out / "meta" / f"{i:02d}").write_bytes(b"")
    found = toy.verify("--json").json()
    assert (found["differences"], len(found["first"])) == (30, 20)


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_byte_is_missed_or_ends_in_a_traceback(pristine: Toy, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    shutil.copytree(pristine.out, out)
    (out / "meta/verification.json").unlink(missing_ok=True)
    names = [name for name in files(out) if name != "meta/runs.jsonl"]
    rng = random.Random(seed)  # noqa: S311 - not a secret
    for _ in range(25):
        path = out / rng.choice(names)
        data = path.read_bytes()
        at, bits = rng.randrange(len(data)), rng.randrange(1, 256)
        flip(path, at, bits=bits)
        done = oxe("verify", out)  # an exception of another kind would be raised
        assert done.code in {1, 2}, (path.name, at, bits)
        assert done.err, (path.name, at, bits)
        path.write_bytes(data)
    assert oxe("verify", out).code == 0


def test_a_damaged_log_is_no_traceback(toy: Toy) -> None:
    path = toy.out / "meta/runs.jsonl"
    for text in (b"\xff\n", b"{\n", b"7\n", b'"source"\n'):
        path.write_bytes(text)
        assert_found(toy.verify(), "meta/runs.jsonl: cannot be read")
        assert "not compared" in toy.verify().out


# --- a changed source ---


def with_column(seed: int, name: str, step: int, value: Any) -> list[Any]:
    """Create the source's episodes with one value changed."""
    changed = dict(EPISODES[seed])
    column = changed[name]
    changed[name] = column.copy() if isinstance(column, np.ndarray) else list(column)  # type: ignore[arg-type]
    changed[name][step] = value  # type: ignore[index]
    return [changed if i == seed else episode for i, episode in enumerate(EPISODES)]


def flipped_image() -> bytes:
    data = bytearray(jpeg(101))
    data[100] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("episodes", "words"),
    [
        (with_column(1, "observation.torque", 2, [0, 1]), "episode toy-000001: raw.observation.torque: [2, 0] is "),
        (with_column(0, "action", 1, [1, 2, 3, 0]), "episode toy-000000: action: [1, 0] is "),
        (
            with_column(1, "observation.image", 1, flipped_image()),
            "episode toy-000001: observation.images.image: step 1: ",
        ),
        (with_column(1, "language_instruction", 0, b"other"), "episode toy-000001: instructions is "),
        (with_column(0, "episode_metadata.file_path", 0, b"e9.hdf5"), "episode toy-000000: metadata is "),
        (with_column(0, "observation.image", 0, b""), "episode toy-000000: observation.images.image: step 0: "),
        (with_column(2, "action", 0, [np.nan] * 4), "episode 2: in the dataset, not in the source"),
        ([EPISODES[0], EPISODES[1], EPISODES[2], columns(3), EPISODES[4]], "toy-000003: in the source, not in the"),
        ([EPISODES[0], EPISODES[1], columns(2, steps=2), *EPISODES[3:]], "the source has float32 [2, 4]"),
    ],
)
def test_a_changed_source_is_found(toy: Toy, episodes: list[Any], words: str) -> None:
    write_source(toy.source, episodes, splits={"train": 2, "val": 3})
    assert_found(toy.verify("--source", str(toy.source)), words)


@pytest.mark.parametrize(
    ("count", "words"), [(4, "source: left out {'zero_steps': 1}"), (6, "episode toy-000005: in the source")]
)
def test_an_episode_less_or_more_is_found(toy: Toy, count: int, words: str) -> None:
    write_source(toy.source, [*EPISODES, columns(5)][:count], splits={"train": 2, "val": count - 2})
    assert_found(
        toy.verify("--source", str(toy.source)),
        "source: since the conversion changed: toy-val.tfrecord-00000-of-00001",
        words,
    )


def test_a_source_that_is_gone_is_said_and_no_error(toy: Toy, pristine: Toy) -> None:
    pristine.source.rename(pristine.folder / "moved")
    try:
        done = toy.verify()
    finally:
        (pristine.folder / "moved").rename(pristine.source)
    assert (done.code, done.err) == (0, "")
    assert f"source not compared: {pristine.source}: no RLDS dataset here" in done.out


def test_a_source_that_is_given_must_be_there(toy: Toy) -> None:
    done = oxe_process("verify", toy.out, "--source", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert done.err == "oxe: nowhere: no RLDS dataset here (no features.json, no *.tfrecord-* shards)\n"


def test_without_a_log_nothing_is_compared(toy: Toy) -> None:
    (toy.out / "meta/runs.jsonl").unlink()
    done = toy.verify()
    assert done.code == 0
    assert "source not compared: meta/runs.jsonl names no source; pass --source" in done.out


# --- a quick look ---


def test_only_digests_are_checked_and_the_last_full_result_stays(toy: Toy) -> None:
    assert toy.verify().code == 0
    full = (toy.out / "meta/verification.json").read_bytes()
    shutil.rmtree(toy.source)
    done = toy.verify("--digests-only", "--json")
    found = done.json()
    assert (done.code, found["ok"], found["files"], found["episodes"], found["images"]) == (0, True, 7, 0, 0)
    assert found["source"] == "not compared: only the digests were checked"
    assert (toy.out / "meta/verification.json").read_bytes() == full


@pytest.mark.parametrize(
    "name", [DATA, INDEX, "meta/episodes.parquet", "meta/quarantine.parquet", "meta/manifest.json"]
)
def test_digests_alone_find_a_byte_of_any_file(toy: Toy, name: str) -> None:
    flip(toy.out / name, (toy.out / name).stat().st_size // 2)
    assert toy.verify("--digests-only").code in {1, 2}


def test_a_sample_reads_and_compares_some_episodes(tmp_path: Path) -> None:
    changed = [columns(seed, torque=np.zeros((3, 2))) if seed in {2, 6} else columns(seed) for seed in range(9)]
    toy = make_toy(tmp_path, changed, splits={"train": 5, "val": 4})
    assert toy.convert().code == 0
    found = toy.verify("--sample", "3", "--json").json()
    assert (found["ok"], found["source"], found["episodes"], found["steps"], found["images"]) == (
        *(True, "compared"),
        *(3, 9, 9),
    )
    write_source(toy.source, [columns(seed) for seed in range(9)], splits={"train": 5, "val": 4})
    first = toy.verify("--sample", "3", "--json").json()["first"]
    assert not [line for line in first if "in the source" in line]
    assert toy.verify("--sample", "9", "--json").json()["differences"] == toy.verify("--json").json()["differences"]


def test_a_sample_finds_a_damaged_episode_and_a_file_of_another_size(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(seed) for seed in range(3)])
    assert toy.convert().code == 0
    path = toy.out / DATA
    flip(path, path.read_bytes().index(jpeg(101)) + 5)
    assert_found(toy.verify("--sample", "1"), "episode 1 (toy-000001)")
    path.write_bytes(path.read_bytes() + b"x")
    assert_found(toy.verify("--sample", "1"), f"{DATA}: {path.stat().st_size} bytes, the manifest has")


def test_the_two_options_exclude_each_other(toy: Toy) -> None:
    done = toy.verify("--digests-only", "--sample", "2")
    assert (done.code, done.err) == (2, "oxe: --digests-only and --sample: pass only one of them\n")


def test_a_read_only_dataset_is_verified_and_a_note_says_that_the_result_is_not_stored(toy: Toy) -> None:
    (toy.out / "meta/verification.json").unlink(missing_ok=True)
    mount = ["mount", "--bind", str(toy.out), str(toy.out)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(toy.out)], check=True)
        done = toy.verify()
    finally:
        subprocess.run(["umount", "--lazy", str(toy.out)], check=True)  # a reader may still hold a file
    assert done.code == 0
    assert "3 episodes, 9 steps" in done.out
    assert done.err == "note: meta/verification.json was not written (Read-only file system)\n"
    assert not (toy.out / "meta/verification.json").exists()


def test_what_a_kill_leaves_between_writing_and_renaming_is_no_difference(toy: Toy) -> None:
    for below in ("data", "index", "meta"):
        (toy.out / below / durable.temporary_name()).write_bytes(b"half")
    assert toy.verify().code == 0
    assert not list((toy.out / "meta").glob("tmp-*"))  # `verify` wrote there, and removed it
    assert toy.convert("--materialize", "late").code == 1  # it is finished, with one quarantined episode
    assert not list(toy.out.rglob("tmp-*"))
