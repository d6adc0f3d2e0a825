import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.convert.ledger import Ledger, begin, clear, locked, read_all_records, sweep
from pipelines.convert.parquet import FileRecord
from pipelines.convert.records import ShardRecord
from schemas.errors import UsageError
from schemas.files import durable
from schemas.files.folder import LocalFolder
from schemas.source import Unreadable
from schemas.store import layout

NAME = "train-00000-of-00002"
TMP = f"tmp-oxe-{32 * '0'}"
IDENTITY: dict[str, Any] = {
    "schema_version": 1,
    "spec_digest": "d",
    "source": {"name": "toy", "files": {"a": 7, "b": None}},
    "options": {"split": None, "materialize": ["late"]},
}
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "instructions": pa.list_(pa.string()),
        "length": pa.int64(),
        "metadata.number": pa.float32(),
        "metadata.blob": pa.binary(),
        "metadata.flags": pa.list_(pa.bool_()),
        "metadata.nested": pa.list_(pa.list_(pa.int64())),
    }
)


def make_episode(name: str = "e0", **metadata: Any) -> dict[str, Any]:
    about = {"number": 0.5, "blob": b"\x00\xff", "flags": [True, False], "nested": [[1], []], **metadata}
    return {"id": name, "instructions": ["ta ☂", ""], "length": 3, **{f"metadata.{k}": v for k, v in about.items()}}


def make_record(out: Path, name: str = NAME, *, episodes: int = 1) -> ShardRecord:
    """Write a record and the files that it names."""
    path = layout.data_file(name)
    for below in (layout.DATA, layout.INDEX):
        (out / below).mkdir(exist_ok=True)
    (out / path).write_bytes(b"data")
    (out / layout.index_file(path)).write_bytes(b"index")
    sizes = {"bytes": 4, "index_bytes": 5, "index_start": 0}
    file = FileRecord(path=path, split="train", rows=3, episodes=episodes, **sizes, xxh3_128="x", index_xxh3_128="y")
    rows = tuple(make_episode(f"{name}-{number}") for number in range(episodes))
    return ShardRecord(file=file, episodes=rows, dropped=(), quarantined=())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / layout.META).mkdir()
    assert not begin(LocalFolder(tmp_path), IDENTITY)
    return tmp_path


@pytest.fixture
def ledger(out: Path) -> Ledger:
    return Ledger(LocalFolder(out), SCHEMA)


def path_of(ledger: Ledger) -> Path:
    assert ledger.out.local
    return ledger.out.local


def finish(out: Path) -> None:
    """Write the manifest, as publishing does last."""
    (out / layout.MANIFEST).write_text(json.dumps({"dataset": "toy", **IDENTITY, "balance": {}}))


# --- records ---


def test_a_record_is_read_as_it_was_written(ledger: Ledger) -> None:
    nothing = dict.fromkeys(("number", "blob", "flags", "nested"))
    record = ShardRecord(
        file=make_record(path_of(ledger)).file,
        episodes=(make_episode(), make_episode("e1", **nothing), make_episode("e2", blob=b"", flags=[], nested=[])),
        dropped=((3, "zero_steps"), (5, "zero_steps")),
        quarantined=(
            Unreadable(index=4, split="train", file="f", reason="bad_image", detail="ä\n", offset=7),
            Unreadable(index=None, split="train", file="f", reason="undeclared_record", detail=""),
        ),
    )
    ledger.write(NAME, record)
    assert ledger.read([NAME]) == {NAME: record}


def test_a_shard_of_which_nothing_is_kept_has_a_record_without_a_file(ledger: Ledger) -> None:
    record = ShardRecord(file=None, episodes=(), dropped=((0, "zero_steps"),), quarantined=())
    ledger.write(NAME, record)
    assert ledger.read([NAME]) == {NAME: record}


def test_a_shard_without_a_record_is_not_done(ledger: Ledger) -> None:
    make_record(path_of(ledger))
    assert ledger.read([NAME]) == {}
    assert ledger.finished() == set()


@pytest.mark.parametrize("name", [f"data/{NAME}.parquet", f"index/{NAME}.idx"])
@pytest.mark.parametrize("content", [None, b"", b"longer than it was"], ids=["missing", "empty", "longer"])
def test_a_record_whose_files_are_not_what_it_says_is_not_done(
    ledger: Ledger, name: str, content: bytes | None
) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    assert ledger.read([NAME])
    (path_of(ledger) / name).unlink()
    if content is not None:
        (path_of(ledger) / name).write_bytes(content)
    assert ledger.read([NAME]) == {}


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_record_is_not_done(ledger: Ledger, kept: int) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    path = path_of(ledger) / layout.LEDGER / f"{NAME}.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    assert ledger.read([NAME]) == {}


def test_the_records_come_in_the_order_of_the_plan(ledger: Ledger) -> None:
    names = ["train-00001-of-00002", NAME]
    records = [make_record(path_of(ledger), name) for name in names]
    for name, record in reversed(list(zip(names, records, strict=True))):
        ledger.write(name, record)
    assert read_all_records(ledger, names) == records
    assert ledger.finished() == set(names)


def test_a_record_that_is_lost_in_mid_run_is_named(ledger: Ledger) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    with pytest.raises(UsageError, match="the record of val-00000-of-00001 is missing; run the conversion again"):
        read_all_records(ledger, [NAME, "val-00000-of-00001"])


# --- failures ---


def test_a_failure_is_kept_until_its_shard_is_done(ledger: Ledger) -> None:
    ledger.fail("train-00001-of-00002", "later")
    ledger.fail(NAME, "disk full ☂")
    assert list(ledger.failures().items()) == [(NAME, "disk full ☂"), ("train-00001-of-00002", "later")]
    ledger.write(NAME, make_record(path_of(ledger)))
    assert ledger.failures() == {"train-00001-of-00002": "later"}


def test_a_stop_says_why(ledger: Ledger) -> None:
    assert ledger.stop_reason() is None
    ledger.stop("too many")
    assert ledger.stop_reason() == "too many"


def test_a_new_start_forgets_failures_and_a_stop_but_no_record(ledger: Ledger) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    ledger.fail("train-00001-of-00002", "later")
    ledger.stop("too many")
    assert not begin(ledger.out, IDENTITY)
    assert (ledger.failures(), ledger.stop_reason(), ledger.finished()) == ({}, None, {NAME})


def test_sweeping_takes_what_was_being_written_and_no_split_called_tmp(ledger: Ledger) -> None:
    folders = [layout.DATA, layout.INDEX, layout.META, layout.LEDGER]
    for name in folders:
        (path_of(ledger) / name).mkdir(exist_ok=True)
        (path_of(ledger) / name / TMP).write_text("half")
    ledger.write("tmp-a-00000-of-00001", make_record(path_of(ledger), "tmp-a-00000-of-00001"))
    sweep(ledger.out)
    assert not [name for name in folders if (path_of(ledger) / name / TMP).exists()]
    assert ledger.read(["tmp-a-00000-of-00001"])


def test_a_folder_for_results_of_other_machines_is_no_hindrance(ledger: Ledger) -> None:
    (path_of(ledger) / layout.META / f"{layout.SCRATCH}{32 * '0'}").mkdir()
    sweep(ledger.out)
    finish(path_of(ledger))
    assert begin(ledger.out, IDENTITY)


def test_closing_leaves_no_ledger(ledger: Ledger) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    ledger.close()
    assert not (path_of(ledger) / layout.LEDGER).exists()


# --- the identity ---


def test_the_same_conversion_goes_on(out: Path) -> None:
    assert not begin(LocalFolder(out), IDENTITY)
    assert {path.name for path in out.iterdir()} == {"meta"}


def test_a_finished_conversion_is_known_by_its_manifest(ledger: Ledger) -> None:
    finish(path_of(ledger))
    ledger.close()
    assert begin(ledger.out, IDENTITY)


def test_what_a_process_killed_behind_the_manifest_left_is_removed(out: Path) -> None:
    finish(out)
    (out / layout.META / TMP).write_text("half")
    assert begin(LocalFolder(out), IDENTITY)
    assert not (out / layout.LEDGER).exists()
    assert not (out / layout.META / TMP).exists()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("key", IDENTITY)
def test_another_conversion_is_refused_and_what_differs_is_named(out: Path, key: str, *, finished: bool) -> None:
    if finished:
        finish(out)
    with pytest.raises(
        UsageError, match=rf"contains a conversion with different {key}; pass --overwrite to replace it, or another"
    ):
        begin(LocalFolder(out), {**IDENTITY, key: "other"})
    assert bool(begin(LocalFolder(out), IDENTITY)) is finished


@pytest.mark.parametrize("name", [layout.IDENTITY, layout.MANIFEST])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff", b"3", b'{"source": 1}'])
def test_a_damaged_identity_asks_for_overwrite(out: Path, name: str, content: bytes) -> None:
    (out / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"meta is damaged \(.*\); pass --overwrite to replace the dataset"):
        begin(LocalFolder(out), IDENTITY)
    clear(LocalFolder(out))
    assert not begin(LocalFolder(out), IDENTITY)


@pytest.mark.parametrize("name", ["thesis.tex", "data/a.parquet", "index/a", "meta/info.json", "meta/runs.jsonl"])
def test_a_folder_with_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / layout.META).mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(UsageError, match="exists and is not a converted dataset"):
        begin(LocalFolder(tmp_path), IDENTITY)
    with pytest.raises(UsageError, match="exists and is not a converted dataset"):
        clear(LocalFolder(tmp_path))
    assert (tmp_path / name).read_text() == "years of work"


# --- clearing ---


@pytest.mark.parametrize("finished", [True, False])
def test_clearing_removes_all_but_the_lock(ledger: Ledger, *, finished: bool) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    if finished:
        finish(path_of(ledger))
        ledger.close()
    for name in (layout.LOCK, "meta/tmp-0", *(file.place for file in layout.META_FILES)):
        (path_of(ledger) / name).write_text("")
    clear(ledger.out)
    assert [path.relative_to(path_of(ledger)) for path in path_of(ledger).rglob("*") if path.is_file()] == [
        Path(layout.LOCK)
    ]
    assert not begin(ledger.out, IDENTITY)


@pytest.mark.parametrize("name", ["thesis.tex", "meta/thesis.json"])
def test_clearing_removes_nothing_if_one_thing_is_not_ours(ledger: Ledger, name: str) -> None:
    ledger.write(NAME, make_record(path_of(ledger)))
    (path_of(ledger) / name).write_text("years of work")
    with pytest.raises(UsageError, match=rf"contains '{name}', which is not part of a dataset"):
        clear(ledger.out)
    assert ledger.read([NAME])


# --- the lock ---

HOLD = """
import sys, time
from pathlib import Path
from pipelines.convert.ledger import locked
from schemas.files.folder import LocalFolder
with locked(LocalFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with (
        pytest.raises(UsageError, match="another process is writing to this folder"),
        locked(LocalFolder(tmp_path / "out")),
    ):
        pass
    assert (tmp_path / "out" / layout.LOCK).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    with locked(LocalFolder(tmp_path / "out")):
        assert (tmp_path / "out" / layout.LOCK).exists()
    assert not (tmp_path / "out" / layout.LOCK).exists()


def test_a_lock_that_its_holder_has_just_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(file: Any, operation: int) -> None:
        (
            tmp_path / layout.LOCK
        ).unlink()  # the process that had the lock removes it; then another process may create a new one
        (tmp_path / layout.LOCK).touch()
        flock(file, operation)

    flock = durable.fcntl.flock
    monkeypatch.setattr(durable.fcntl, "flock", slow)
    with pytest.raises(UsageError, match="another process is writing to this folder"), locked(LocalFolder(tmp_path)):
        pass
    assert (tmp_path / layout.LOCK).exists()


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not a converted dataset"), locked(LocalFolder(tmp_path)):
        begin(LocalFolder(tmp_path), IDENTITY)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis.tex"]
