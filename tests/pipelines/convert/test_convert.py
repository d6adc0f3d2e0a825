"""`oxe convert` on real recordings and on every kind of bad input."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from oxe_tools import open_dataset
from schemas.source import Array, Column, Field
from tests.pipelines.toy import (
    FIELDS,
    Columns,
    Run,
    Toy,
    columns,
    command,
    files,
    jpeg,
    make_toy,
    oxe,
    oxe_process,
    write_spec,
)
from tests.waiting import PATIENCE, wait_until

SHARD = "toy-train.tfrecord-00000-of-00001"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


@pytest.fixture(scope="module")
def bridge(realdata: Path) -> Path:
    return realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"


@pytest.fixture(scope="module")
def converted(bridge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bridge") / "out"
    assert oxe("convert", "bridge_dataset", "--source", bridge, "--out", out, "--materialize", "openvla").code == 0
    return out


def dataset_files(out: Path) -> dict[str, bytes]:
    """Read the files that must be the same in every run."""
    return {name: data for name, data in files(out).items() if name != "meta/runs.jsonl"}


def assert_failed_cleanly(done: Run, out: Path, *words: str) -> None:
    """Assert exit code 2, one line on stderr, and neither a manifest nor a temporary file."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("oxe: ")
    assert (done.err.count("\n"), done.err.count("Traceback")) == (1, 0)
    for word in words:
        assert word in done.err
    left = files(out) if out.is_dir() else {}
    assert not [name for name in left if "tmp-" in name or name.endswith("manifest.json")]


def assert_quarantined(toy: Toy, done: Run, reasons: Mapping[int | None, str], *words: str) -> None:
    """Assert exit code 1, the balance, and the reason of each episode in the table and on stderr."""
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert {row["episode_index"]: row["reason"] for row in toy.quarantine()} == reasons
    counted: dict[str, int] = {}
    for reason in reasons.values():
        counted[reason] = counted.get(reason, 0) + 1
    assert toy.balance()["quarantined"] == counted
    assert "see meta/quarantine.parquet" in done.err
    for word in words:
        assert word in done.err
        assert any(word in row["detail"] for row in toy.quarantine())
    assert toy.verify().code == 0


# --- real recordings ---


def test_the_real_set_converts_and_counts(bridge: Path, tmp_path: Path) -> None:
    done = oxe_process("convert", "bridge_dataset", "--source", bridge, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    report = done.json()
    assert report.pop("seconds") > 0
    assert report == {
        "out": str(tmp_path / "out"),
        "episodes": {"source": 50, "kept": 50, "dropped": {}, "quarantined": {}},
        "added": 50,
        "steps": 500,
        "files": 2,
        "repaired": [],
        "notes": [],
        "contradictions": [],
    }


def test_converting_twice_gives_the_same_bytes(bridge: Path, converted: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(bridge, tmp_path / "copy")
    for source in (f"{bridge}/", f"file://{elsewhere}"):
        out = tmp_path / "out"
        arguments = ("--source", source, "--out", out, "--materialize", "openvla", "--overwrite")
        assert oxe("convert", "bridge_dataset", *arguments).code == 0
        assert dataset_files(out) == dataset_files(converted)


def test_meta_holds_no_path_clock_or_host(converted: Path, bridge: Path) -> None:
    text = b"".join(data for name, data in dataset_files(converted).items() if name.startswith("meta/"))
    for word in (str(bridge), str(converted), os.uname().nodename):
        assert word.encode() not in text


def test_no_keep_raw_leaves_the_raw_columns_out(bridge: Path, converted: Path, tmp_path: Path) -> None:
    assert oxe("convert", "bridge_dataset", "--source", bridge, "--out", tmp_path / "o", "--no-keep-raw").code == 0
    lean, full = open_dataset(tmp_path / "o"), open_dataset(converted)
    assert sorted(full.episode(0).raw) == [
        "action",
        "discount",
        "is_first",
        "is_last",
        "is_terminal",
        "language_embedding",
        "observation.state",
        "reward",
    ]
    assert not lean.episode(0).raw
    for stored, lossless in zip(lean, full, strict=True):
        np.testing.assert_array_equal(stored.action, lossless.action)
        assert stored.images == lossless.images
    assert oxe("verify", tmp_path / "o").code == 0


def test_a_split_keeps_its_indices(bridge: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    done = oxe("convert", "bridge_dataset", "--source", bridge, "--out", out, "--split", "val", "--json")
    assert done.json()["episodes"]["source"] == 25
    table = open_dataset(out).episodes.collect()
    assert table["episode_index"].to_list() == list(range(25, 50))
    assert set(table["split"]) == {"val"}
    assert sorted(path.name for path in (out / "data").iterdir()) == ["val-00000-of-00001.parquet"]
    assert oxe("verify", out).code == 0


def test_a_limit_takes_the_first_episodes(bridge: Path, converted: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert oxe("convert", "bridge_dataset", "--source", bridge, "--out", out, "--limit", "7").code == 0
    limited, full = open_dataset(out), open_dataset(converted)
    assert [episode.content_hash() for episode in limited] == [full.episode(i).content_hash() for i in range(7)]
    assert limited.manifest["balance"]["source"] == 7
    assert oxe("verify", out).code == 0


def test_a_dry_run_plans_and_writes_nothing(bridge: Path, tmp_path: Path) -> None:
    arguments = ("convert", "bridge_dataset", "--source", bridge, "--out", tmp_path / "o", "--dry-run")
    planned = oxe(*arguments, "--json").json()
    assert (planned["episodes"], planned["files"], planned["missing_files"]) == (50, 2, [])
    assert planned["action"][0] == "x [m, delta]"
    assert planned["cameras"][:2] == ["image_0 (primary)", "image_1 (secondary)"]
    assert planned["views"] == ["eef_delta", "octo", "openvla"]
    assert "nothing was written" in oxe(*arguments).out
    assert not (tmp_path / "o").exists()


def binarized(gripper: Array) -> Array:
    """OpenVLA's `binarize_gripper_actions` as a loop from the end."""
    out, carry = np.zeros_like(gripper), gripper[-1]
    for t in reversed(range(len(gripper))):
        if gripper[t] > np.float32(0.95):
            carry = np.float32(1)
        elif gripper[t] < np.float32(0.05):
            carry = np.float32(0)
        out[t] = carry
    return out


def test_the_openvla_view_is_what_openvla_computes(converted: Path) -> None:
    """OpenVLA's `bridge_orig_dataset_transform` and `relabel_bridge_actions` as a loop."""
    dataset = open_dataset(converted)
    column = pl.read_parquet(
        converted / "data" / "*.parquet", columns=["episode_index", "step_index", "action.openvla"]
    )
    for i in range(len(dataset)):
        stored, viewed = dataset.episode(i), dataset.episode(i, "openvla")
        action, state = np.asarray(stored.raw["action"])[1:], np.asarray(stored.raw["observation.state"])[1:]
        gripper = binarized(action[:, 6])
        expected = [[*(state[t + 1, :6] - state[t, :6]), gripper[t]] for t in range(len(action) - 1)]
        np.testing.assert_array_equal(viewed.action, np.array(expected, np.float32))
        assert viewed.images["image_0"] == stored.images["image_0"][1:-1]
        cells = column.filter(pl.col("episode_index") == i).sort("step_index")["action.openvla"].to_list()
        assert (cells[0], cells[-1]) == (None, None)
        np.testing.assert_array_equal(np.array(cells[1:-1], np.float32), viewed.action)


def test_real_descriptions_without_their_shards_balance(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "rlds_malformed/franka_missing_shards/franka/1.0.0"
    declared = json.loads((folder / "dataset_info.json").read_text())["splits"]
    episodes = sum(int(n) for split in declared for n in split["shardLengths"])
    spec = write_spec(
        tmp_path,
        replace={
            '"observation.state"': '"observation.state[:3]"',
            '"action[3:]"': '"action[6:7]"',
            'primary = "observation.image"': "",
        },
    )
    done = oxe("convert", spec, "--source", folder, "--out", tmp_path / "out")
    assert done.code == 1, done.err
    balance = Toy(folder=tmp_path).balance()
    assert (balance["kept"], balance["quarantined"]) == (0, {"missing_shard": episodes})


# --- damaged files ---


def damage(toy: Toy, change: Callable[[bytes], bytes]) -> None:
    path = toy.source / SHARD
    path.write_bytes(change(path.read_bytes()))


def test_a_truncated_record_is_quarantined(toy: Toy) -> None:
    damage(toy, lambda data: data[:-100])
    done = toy.convert()
    assert_quarantined(toy, done, {2: "truncated"}, "the file ends before that")
    assert f"oxe: {toy.out}: quarantined 1 truncated; see meta/quarantine.parquet" in done.err
    assert toy.quarantine()[0]["file"] == SHARD


def test_the_real_process_exits_1_when_episodes_are_quarantined(toy: Toy) -> None:
    damage(toy, lambda data: data[:-100])
    done = oxe_process(*["convert", toy.spec, "--source", toy.source, "--out", toy.out, "--json"])
    assert done.code == 1
    assert done.json()["episodes"] == {"source": 3, "kept": 2, "dropped": {}, "quarantined": {"truncated": 1}}
    assert "quarantined: episode 2: truncated: " in done.err
    assert "Traceback" not in done.err


def test_a_wrong_crc_of_the_length_loses_the_rest_of_the_file(toy: Toy) -> None:
    damage(toy, lambda data: bytes([data[0] ^ 1]) + data[1:])
    assert_quarantined(toy, toy.convert(), dict.fromkeys(range(3), "wrong_crc"), "no record after it can be found")
    assert toy.balance()["kept"] == 0


def test_a_wrong_crc_of_the_data_loses_one_episode(toy: Toy) -> None:
    damage(toy, lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:])
    assert_quarantined(toy, toy.convert(), {0: "wrong_crc"}, "data has a wrong CRC")
    assert open_dataset(toy.out).episodes.collect()["episode_index"].to_list() == [1, 2]


def test_a_missing_shard_quarantines_its_declared_length(toy: Toy) -> None:
    (toy.source / SHARD).unlink()
    assert_quarantined(toy, toy.convert(), dict.fromkeys(range(3), "missing_shard"), "the shard is missing")


def test_a_file_of_no_bytes_is_short_of_all_its_records(toy: Toy) -> None:
    damage(toy, lambda _: b"")
    assert_quarantined(toy, toy.convert(), dict.fromkeys(range(3), "missing_record"), "the file ends after 0")


def test_a_git_lfs_pointer_says_what_to_do(toy: Toy) -> None:
    damage(toy, lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert_quarantined(toy, toy.convert(), dict.fromkeys(range(3), "lfs_pointer"), "git lfs pull")


def test_without_features_json_nothing_is_written(toy: Toy) -> None:
    (toy.source / "features.json").unlink()
    assert_failed_cleanly(toy.convert(), toy.out, "features.json is missing")
    assert not toy.out.exists()


def test_features_that_contradict_the_data_quarantine_every_episode(toy: Toy) -> None:
    path = toy.source / "features.json"
    path.write_text(
        path.read_text().replace('"float64"', '"float32"').replace('"encoding": "bytes"', '"encoding": "none"')
    )
    done = toy.convert()
    assert_quarantined(toy, done, dict.fromkeys(range(3), "contradicts_features"), "observation.torque")


def test_a_split_name_that_leaves_the_output_is_refused(toy: Toy) -> None:
    path = toy.source / "dataset_info.json"
    path.write_text(path.read_text().replace('"name": "train"', '"name": "../../evil"'))
    before = files(toy.folder)
    assert_failed_cleanly(toy.convert(), toy.out, "'../../evil' is not a valid name for a split")
    assert files(toy.folder) == before


# --- damaged episodes ---


def with_bad_episode(folder: Path, **changes: Column) -> Toy:
    """Write three episodes; the middle one is changed."""
    return make_toy(folder, [columns(0), columns(1, **changes), columns(2)])


def test_an_episode_without_steps_is_dropped_and_that_is_no_failure(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1, steps=0), columns(2)])
    done = toy.convert()
    assert (done.code, done.err) == (0, "")
    assert "= 2 kept + dropped (1 zero_steps) + quarantined (none)" in done.out
    assert toy.balance() == {"source": 3, "kept": 2, "dropped": {"zero_steps": 1}, "quarantined": {}}
    assert open_dataset(toy.out).episodes.collect()["episode_index"].to_list() == [0, 2]
    assert toy.verify().code == 0


def test_columns_of_unequal_length_are_quarantined(tmp_path: Path) -> None:
    toy = with_bad_episode(tmp_path, state=np.zeros((2, 3), np.float32))
    assert_quarantined(toy, toy.convert(), {1: "unequal_lengths"}, "observation.state has 2")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_quarantined_by_step_and_dimension(tmp_path: Path, bad: float) -> None:
    action = np.zeros((3, 4), np.float32)
    action[2, 1] = bad
    toy = with_bad_episode(tmp_path, action=action)
    assert_quarantined(toy, toy.convert(), {1: "non_finite_action"}, f"action is {bad} at step 2, dimension 'y'")


def test_a_state_that_is_not_finite_is_quarantined_by_step_and_dimension(tmp_path: Path) -> None:
    state = np.zeros((3, 3), np.float32)
    state[1, 2] = np.nan
    toy = with_bad_episode(tmp_path, state=state)
    assert_quarantined(toy, toy.convert(), {1: "non_finite_state"}, "state is nan at step 1, dimension 'z'")


def test_nan_elsewhere_is_kept_bit_for_bit(tmp_path: Path) -> None:
    torque = np.array([[np.nan, -0.0], [np.inf, 5e-324], [0, 1]])
    torque.view(np.uint64)[0, 0] = 0x7FF8_0000_DEAD_BEEF  # a NaN with a payload
    toy = with_bad_episode(tmp_path, torque=torque)
    assert toy.convert().code == 0
    kept = np.asarray(open_dataset(toy.out).episode(1).raw["observation.torque"])
    assert kept.view(np.uint64).tolist() == torque.view(np.uint64).tolist()
    assert toy.verify().code == 0


def test_an_instruction_that_is_not_utf8_is_quarantined(tmp_path: Path) -> None:
    toy = with_bad_episode(tmp_path, language_instruction=[b"fine", b"caf\xe9", b"fine"])
    assert_quarantined(toy, toy.convert(), {1: "bad_utf8"}, "language_instruction: step 1 is not valid UTF-8")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"garbage", "neither a JPEG nor a PNG"),
        (jpeg(0)[: len(jpeg(0)) // 2], "cannot be decoded"),
        (jpeg(0)[:3], "broken"),
    ],
    ids=["garbage", "half a JPEG", "three bytes"],
)
def test_an_image_that_cannot_be_decoded_is_quarantined(tmp_path: Path, image: bytes, words: str) -> None:
    toy = with_bad_episode(tmp_path, image=[jpeg(1), image, jpeg(2)])
    assert_quarantined(toy, toy.convert(), {1: "bad_image"}, "observation.image: step 1: ", words)


def test_a_missing_frame_is_a_null_and_no_failure(tmp_path: Path) -> None:
    toy = with_bad_episode(tmp_path, image=[b"", jpeg(1), b""])
    assert toy.convert().code == 0
    dataset = open_dataset(toy.out)
    assert dataset.episode(1).images["image"] == [None, jpeg(1), None]
    assert [dataset.frame(1, step)["image"] for step in range(3)] == [None, jpeg(1), None]
    assert toy.verify().code == 0


def test_a_dataset_of_which_nothing_is_left_still_balances(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i, image=[b"x"] * 3) for i in range(3)])
    done = toy.convert("--json")
    assert_quarantined(toy, done, dict.fromkeys(range(3), "bad_image"))
    assert done.json()["episodes"]["kept"] == done.json()["steps"] == done.json()["files"] == 0
    assert len(open_dataset(toy.out)) == 0


# --- a declaration that does not fit ---


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"observation.image"',
            '"observation.imag"',
            "cameras.primary: the source has no 'observation.imag'; did you mean",
        ),
        (
            '"observation.image"',
            '"action"',
            "cameras.primary: 'action' contains numbers of float32 [4]; expected images",
        ),
        ('"action[:3]"', '"actoin[:3]"', "action.xyz: the source has no 'actoin'; did you mean 'action'?"),
        (
            '"action[:3]"',
            '"action[:2]"',
            "action.xyz: 'action[:2]' returns 2 numbers, the embodiment expects 3 (x, y, z)",
        ),
        ('"action[:3]"', '"action | permute(0, 1, 7)"', "permute"),
        ('"action[:3]"', '"language_instruction"', "action.xyz: 'language_instruction' contains texts"),
        ('"language_instruction"', '"action"', "language: 'action' contains numbers of float32 [4]; expected texts"),
        ("control_hz = 10", 'timestamp = "action"', "timestamp: 'action' contains numbers"),
        ("control_hz = 10", 'id = "episode_metadata.path"', "id: the source has no 'episode_metadata.path'"),
        ("control_hz", "control_hertz", "unknown key 'control_hertz'; did you mean 'control_hz'?"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused_before_anything_is_written(
    toy: Toy, old: str, new: str, words: str
) -> None:
    write_spec(toy.folder, replace={old: new})
    assert_failed_cleanly(toy.convert(), toy.out, "toy", words)
    assert not toy.out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bridge_datset"], "unknown dataset 'bridge_datset'; did you mean 'bridge_dataset'?"),
        (["nowhere.toml"], "nowhere.toml: no such file"),
        (["toy.toml", "--split", "trian"], "no split 'trian'; did you mean 'train'?"),
        (["toy.toml", "--materialize", "latte"], "toy has no view 'latte'; did you mean 'late'?"),
        (["toy.toml", "--source", "nowhere"], "nowhere: no RLDS dataset here"),
        (["bridge_dataset"], "action.xyz: the source has no"),
    ],
)
def test_a_wrong_call_says_what_is_known(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(toy.folder)
    source = [] if "--source" in arguments else ["--source", "source"]
    if arguments == ["bridge_dataset"]:
        shutil.copy(make_toy(toy.folder / "other", fields=FIELDS[1:]).source / "features.json", toy.source)
    done = oxe("convert", *arguments, *source, "--out", "out")
    assert_failed_cleanly(done, toy.out, words)
    assert not toy.out.exists()


def test_a_declaration_without_a_source_asks_for_one(toy: Toy) -> None:
    done = oxe("convert", toy.spec, "--out", toy.out)
    assert_failed_cleanly(done, toy.out, "toy: the declaration names no source; pass --source")


# --- a damaged environment ---


def fitted(folder: Path, target: str) -> Toy:
    """Write a source whose conversion makes `target` the largest file."""
    rng = np.random.default_rng(0)
    if target.startswith("index"):
        steps, cameras = 1000, [replace(FIELDS[2], path=f"observation.image_{i}") for i in range(30)]
        still: Columns = columns(0, steps=steps, image=[b""] * steps)
        still |= {name: np.zeros_like(still[name]) for name in ("action", "observation.state", "observation.torque")}
        still |= {camera.path: still["observation.image"] for camera in cameras}
        toy = make_toy(folder, [still], fields=[*FIELDS, *cameras])
        write_spec(folder, replace={"control_hz = 10": ""})
        return toy
    if target == "meta/episodes.parquet":
        few = {f"s{i}": 1 for i in range(4)}  # the table contains all paths, a shard and its record only one
        return make_toy(
            folder, [columns(i, file_path=[rng.bytes(20_000).hex().encode()]) for i in range(4)], splits=few
        )
    toy = make_toy(folder)
    if target == "meta/manifest.json":
        write_spec(folder, replace={"control_hz": f'description = "{rng.bytes(50_000).hex()}"\ncontrol_hz'})
    return toy


@pytest.mark.parametrize(
    ("target", "share"),
    [
        ("data/train-00000-of-00001.parquet", 0.0),
        ("data/train-00000-of-00001.parquet", 0.5),
        ("data/train-00000-of-00001.parquet", 1.0),
        ("index/train-00000-of-00001.idx", 1.0),
        ("meta/episodes.parquet", 0.5),
        ("meta/manifest.json", 1.0),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path, target: str, share: float) -> None:
    toy = fitted(tmp_path, target)
    assert toy.convert().code == 0
    sizes = {name: len(data) for name, data in files(toy.out).items()}
    largest_other = max(size for name, size in sizes.items() if name != target) if share else 0
    if share and target.startswith("data"):
        largest_other = 0
    limit = int(largest_other + share * (sizes[target] - 1 - largest_other))
    assert sizes[target] > limit
    shutil.rmtree(toy.out)
    done = oxe_process(
        *("convert", toy.spec, "--source", toy.source, "--out", toy.out, "--json"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert_failed_cleanly(done, toy.out, "cannot be written", "File too large")
    if share and not target.startswith("data"):
        assert target in done.err
    again = toy.convert("--overwrite")
    assert (again.code, toy.verify().code) == (0, 0)


STRICT_SHARDS = ["s0-00000-of-00001", "s1-00000-of-00001", "s2-00000-of-00001"]


def with_two_bad_episodes(folder: Path) -> Toy:
    """Write three shards; the first is good, each of the others contains one bad episode."""
    good, bad = columns(0), [columns(1, image=[b"x"] * 3), columns(2, action=np.full((3, 4), np.nan, np.float32))]
    return make_toy(folder, [good, *bad], splits={"s0": 1, "s1": 1, "s2": 1})


def shards_with_a_record(toy: Toy) -> list[str]:
    return sorted(path.stem for path in (toy.out / "meta/ledger").glob("*.parquet"))


@pytest.mark.parametrize("flags", [["--strict"], ["--max-quarantine", "0"]])
def test_strict_stops_at_the_first_bad_episode_and_begins_no_more_shards(tmp_path: Path, flags: list[str]) -> None:
    toy = with_two_bad_episodes(tmp_path)
    assert_failed_cleanly(toy.convert(*flags), toy.out, "episode 1: ", "toy-s1.tfrecord", "byte 0", "0 are allowed")
    assert shards_with_a_record(toy) == STRICT_SHARDS[:1]
    assert [path.stem for path in toy.out.glob("data/*")] == STRICT_SHARDS[:1]


def test_strict_says_nothing_of_a_source_without_fault(toy: Toy) -> None:
    assert toy.convert("--strict").code == 0


def test_after_strict_a_plain_run_goes_on(tmp_path: Path) -> None:
    toy = with_two_bad_episodes(tmp_path)
    assert toy.convert("--strict").code == 2
    done = toy.out / f"data/{STRICT_SHARDS[0]}.parquet"
    before = done.stat()
    assert_quarantined(toy, toy.convert(), {1: "bad_image", 2: "non_finite_action"})
    assert (done.stat().st_ino, done.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_as_many_bad_episodes_as_allowed_are_quarantined(tmp_path: Path) -> None:
    toy = with_two_bad_episodes(tmp_path)
    done = toy.convert("--max-quarantine", "2")
    assert_quarantined(toy, done, {1: "bad_image", 2: "non_finite_action"})


def test_one_bad_episode_more_than_allowed_publishes_nothing(tmp_path: Path) -> None:
    toy = with_two_bad_episodes(tmp_path)
    done = toy.convert("--max-quarantine", "1")
    assert_failed_cleanly(done, toy.out, "2 episodes cannot be read, 1 are allowed; episode 2: ")
    assert shards_with_a_record(toy) == STRICT_SHARDS[:2]  # it stops in the shard that exceeds the limit
    assert toy.convert("--max-quarantine", "1").code == 2
    assert toy.convert().code == 1
    assert toy.verify().code == 0


def test_strict_counts_what_an_earlier_run_found(tmp_path: Path) -> None:
    toy = with_two_bad_episodes(tmp_path)
    assert toy.convert("--max-quarantine", "1").code == 2
    assert_failed_cleanly(toy.convert("--strict"), toy.out, "1 episodes cannot be read, 0 are allowed; episode 1: ")
    assert shards_with_a_record(toy) == STRICT_SHARDS[:2]


def test_the_quarantine_says_where_each_episode_lies(tmp_path: Path) -> None:
    toy = with_bad_episode(tmp_path, image=[b"x"] * 3)
    shard = toy.source / SHARD
    first = 16 + int.from_bytes(shard.read_bytes()[:8], "little")  # a record is length, CRC, data, CRC
    assert toy.convert().code == 1
    row = toy.quarantine()[0]
    assert (row["episode_index"], row["split"], row["file"], row["offset"]) == (1, "train", SHARD, first)
    assert row["reason"] == "bad_image"
    assert "observation.image: step 0" in row["detail"]


def test_a_source_that_changed_since_the_interruption_is_refused(tmp_path: Path) -> None:
    toy = with_two_bad_episodes(tmp_path)
    assert toy.convert("--strict").code == 2
    with (toy.source / "toy-s2.tfrecord-00000-of-00001").open("ab") as file:
        file.write(b"more")
    before = files(toy.out)
    assert_failed_cleanly(
        toy.convert(),
        toy.out,
        "contains a conversion with different source (changed: toy-s2.tfrecord-00000-of-00001); pass --overwrite",
    )
    assert files(toy.out) == before


def test_ctrl_c_stops_without_a_manifest(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0, steps=40)])
    copies = 4000
    shard = toy.source / SHARD
    shard.write_bytes(shard.read_bytes() * copies)
    info = toy.source / "dataset_info.json"
    info.write_text(info.read_text().replace('"1"', f'"{copies}"'))
    arguments = command("convert", toy.spec, "--source", toy.source, "--out", toy.out)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: bool(list(toy.out.glob("data/tmp-*"))) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, "Traceback" in err) == (130, "", False)
    assert err == "oxe: interrupted\n"
    assert not [name for name in files(toy.out) if "tmp-" in name or "manifest" in name]


def test_a_run_is_logged_with_what_differs_from_run_to_run(toy: Toy) -> None:
    assert toy.convert().code == 0
    run: dict[str, Any] = json.loads((toy.out / "meta/runs.jsonl").read_text())
    assert (run["command"], run["source"], run["steps"]) == ("convert", str(toy.source), 9)
    assert {"time", "seconds", "oxe_tools"} <= run.keys()


def test_a_view_named_twice_is_refused(toy: Toy) -> None:
    done = toy.convert("--materialize", "late", "--materialize", "late")
    assert (done.code, "a view is named twice" in done.err, toy.out.exists()) == (2, True, False)


def test_overwrite_removes_no_file_that_lies_inside_our_folders(toy: Toy) -> None:
    assert toy.convert().code == 0
    thesis = toy.out / "src/thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    done = toy.convert("--overwrite")
    assert (done.code, "src/thesis.tex" in done.err or "src" in done.err, thesis.is_file()) == (2, True, True)


def test_a_disk_that_fails_to_read_quarantines_what_it_holds(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> memoryview:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pipelines.readers.rlds.tfrecord.RecordFile.data", fail)
    assert toy.convert().code == 1
    assert toy.balance()["quarantined"] == {"unreadable": 3}
    assert toy.quarantine()[0]["detail"] == "cannot be read (Input/output error)"


def test_a_rate_that_recorded_times_contradict_is_said_by_convert_and_export(tmp_path: Path) -> None:
    clock = Field(path="clock", kind="number", dtype="float64")
    toy = make_toy(tmp_path, [{**columns(), "clock": np.arange(3) / 5}], fields=(*FIELDS, clock))
    write_spec(tmp_path, replace={"control_hz = 10": 'control_hz = 15\ntimestamp = "clock"'})
    note = "toy: episode 0: control_hz is 15, but the recorded times have 5 steps per second"
    done = toy.convert("--json")
    assert (done.code, done.json()["notes"], f"note: {note}" in done.err) == (0, [note], True)
    exported = oxe("export", "lerobot", toy.out, "--video", "none", "--out", tmp_path / "lerobot")
    assert (exported.code, f"note: {note}" in exported.err) == (0, True)
