"""A killed export resumes and writes the same bytes, in one process or several."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.export import plan
from schemas.files import durable
from schemas.store.dataset import Dataset
from tests.pipelines.export.makers import converted, episodes, export
from tests.pipelines.toy import files, oxe, oxe_process

pytest.importorskip("av", reason="videos are the extra 'lerobot'")
SPLITS = {"a": 2, "b": 1, "c": 2}  # three shards
KILLED = """
import os, sys
from pathlib import Path
from schemas.files import durable

adopt, seen = durable.adopt, []

def dying(staged, path, **options):
    seen.append(path)
    if len(seen) == {number}:
        {before}
        adopt(staged, path, **options)
        os.kill(os.getpid(), 9)
    adopt(staged, path, **options)

durable.adopt = dying
from oxe_tools.cli.main import main
main(sys.argv[1:])
"""
HOLDER = """
import sys
from pathlib import Path
from pipelines.convert.ledger import locked
from schemas.files.folder import LocalFolder

with locked(LocalFolder(Path(sys.argv[1])), "oxe_ledger/lock"):
    print("held", flush=True)
    sys.stdin.read()
"""
DIES = "os.kill(os.getpid(), 9)"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return converted(tmp_path_factory.mktemp("toy"), episodes(5, steps=3), splits=SPLITS)


def bytes_of(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(out).items() if name != "oxe_runs.jsonl"}


def words(form: str, dataset: Dataset, out: Path) -> list[str]:
    more = {"rlds": ["rlds"], "v30": ["lerobot"], "v21": ["lerobot", "--version", "2.1"]}[form]
    return ["export", *more, str(dataset.path), "--out", str(out)]


@pytest.fixture(scope="module")
def whole(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    for form in ("rlds", "v30", "v21"):
        assert oxe(*words(form, toy, folder / form)).code == 0
    return {form: bytes_of(folder / form) for form in ("rlds", "v30", "v21")}


def killed(form: str, dataset: Dataset, out: Path, *, number: int, before: str = "pass") -> None:
    """Export in a process that dies when the n-th file appears, or just before."""
    script = KILLED.format(number=number, before=before)
    done = subprocess.run([sys.executable, "-c", script, *words(form, dataset, out)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "oxe_export.json" not in files(out)


POINTS = [("rlds", 2), ("rlds", 7), ("v30", 2), ("v30", 3), ("v30", 12), ("v21", 3)]
MORE = [("rlds", 1), ("rlds", 5), ("rlds", 8), ("v30", 1), ("v30", 4), ("v30", 9), ("v30", 14), ("v21", 6), ("v21", 15)]


@pytest.mark.parametrize(
    ("form", "number", "before"),
    [
        *((form, number, "pass") for form, number in POINTS),
        *(pytest.param(form, number, DIES, marks=pytest.mark.slow) for form, number in POINTS),
        *(pytest.param(form, number, "pass", marks=pytest.mark.slow) for form, number in MORE),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    toy: Dataset, whole: dict[str, dict[str, bytes]], tmp_path: Path, *, form: str, number: int, before: str
) -> None:
    out = tmp_path / "out"
    killed(form, toy, out, number=number, before=before)
    done = oxe(*words(form, toy, out))
    assert done.code == 0, done.err
    assert bytes_of(out) == whole[form]


def test_a_shard_that_is_done_is_not_done_again(toy: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed("v30", toy, out, number=5)  # after identity, data, video and record of the first shard
    first = [out / name for name in files(out) if name.endswith(("file-000.parquet", "file-000.mp4"))]
    before = [path.stat().st_mtime_ns for path in first]
    assert len(first) == 2
    assert oxe(*words("v30", toy, out)).code == 0
    assert [path.stat().st_mtime_ns for path in first] == before


def test_a_file_that_was_cut_in_the_meantime_is_written_again(
    toy: Dataset, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed("v30", toy, out, number=7)
    data = out / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:-10])
    assert oxe(*words("v30", toy, out)).code == 0
    assert bytes_of(out) == whole["v30"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rlds", "v30"])
def test_two_workers_write_the_same_bytes(
    toy: Dataset, whole: dict[str, dict[str, bytes]], tmp_path: Path, form: str
) -> None:
    done = oxe_process(*words(form, toy, tmp_path / "out"), "--workers", "2")
    assert done.code == 0, done.err
    assert bytes_of(tmp_path / "out") == whole[form]


def test_another_process_cannot_write_at_the_same_time(toy: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "oxe_ledger").mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    done = oxe(*words("v30", toy, out))
    holder.communicate()
    assert (done.code, "another process is writing to this folder" in done.err) == (2, True)


def test_what_is_no_export_is_not_written_into(toy: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for more in ((), ("--overwrite",)):
        done = oxe("export", "lerobot", toy.path, "--out", tmp_path, *more)
        assert (done.code, files(tmp_path)) == (2, {"mine.txt": b"mine"})


def test_an_export_into_which_something_else_was_written_is_not_removed(toy: Dataset, tmp_path: Path) -> None:
    export(toy, tmp_path / "out")
    (tmp_path / "out/meta/mine.txt").write_text("mine")
    done = oxe("export", "lerobot", toy.path, "--out", tmp_path / "out", "--overwrite")
    assert (done.code, "contains meta/mine.txt" in done.err) == (2, True)


def test_a_large_dataset_is_several_shards(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MIN_BYTES", 1)
    refs = plan.shards_of_size(toy, [3, 4, 5, 6, 7], longest=1e9)
    assert [ref.positions for ref in refs] == [(0,), (1,), (2,), (3,), (4,)]


def test_an_export_of_which_only_the_ledger_is_left_can_be_overwritten(toy: Dataset, tmp_path: Path) -> None:
    ledger = tmp_path / "out" / "oxe_ledger"
    ledger.mkdir(parents=True)
    (ledger / "identity.json").write_text('{"dataset": "another one"}')
    refused = oxe(*words("rlds", toy, tmp_path / "out"))
    assert (refused.code, "pass --overwrite" in refused.err) == (2, True)
    assert oxe(*words("rlds", toy, tmp_path / "out"), "--overwrite").code == 0


def test_what_a_kill_after_the_record_leaves_is_removed(
    toy: Dataset, tmp_path: Path, whole: dict[str, dict[str, bytes]]
) -> None:
    out = tmp_path / "out"
    assert oxe(*words("rlds", toy, out)).code == 0
    (out / "oxe_ledger").mkdir(exist_ok=True)
    (out / "oxe_ledger" / "a-00000-of-00001.json").write_text("{}")
    (out / durable.temporary_name()).touch()
    assert oxe(*words("rlds", toy, out)).code == 0
    assert bytes_of(out) == whole["rlds"]
