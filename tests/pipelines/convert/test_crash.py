"""A conversion that was killed, ran out of space or met another one: the next run ends with the same bytes.

Finished shards are not converted again. All processes are real and are really killed. Most are forked from a process
that has imported Beam, which takes a second.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.pipelines.toy import Toy, columns, command, files, jpeg, make_toy, oxe_process
from tests.waiting import PATIENCE, wait_until

FORK = """
import json, os, sys
import pipelines.beam.run, pipelines.convert.convert
from oxe_tools.cli.main import main

for line in sys.stdin:
    order = json.loads(line)
    if not (child := os.fork()):
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        exec(order["fault"])
        main(order["arguments"])
    print(child, flush=True)
    sys.stdin.readline()  # until it is waited for, its id is its own
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILL_AT = """
import fnmatch, itertools

seen, original = itertools.count(1), os.{call}

def {call}(path, *rest, **named):
    matches = fnmatch.fnmatch(os.fspath((path, *rest)[{argument}]), {pattern!r})
    last = matches and next(seen) == {number}
    if last and {when!r} == "before":
        os.kill(os.getpid(), 9)
    original(path, *rest, **named)
    if last:
        os.kill(os.getpid(), 9)

os.{call} = {call}
"""
SHARDS = 12
BALANCE = {
    "source": 36,
    "kept": 29,
    "dropped": {"zero_steps": 2},
    "quarantined": {"missing_shard": 3, "truncated": 1, "wrong_crc": 1},
}


def make_damaged(folder: Path) -> Toy:
    """Write twelve shards: one is missing, one truncated, one damaged, and two episodes have no steps."""
    episodes = [columns(seed, steps=0 if seed in {13, 32} else 40) for seed in range(3 * SHARDS)]
    toy = make_toy(folder, episodes, splits={f"s{number:02d}": 3 for number in range(SHARDS)})
    shards = sorted(toy.source.glob("*.tfrecord-*"))
    shards[3].unlink()
    shards[5].write_bytes(shards[5].read_bytes()[:-100])
    data = bytearray(shards[8].read_bytes())
    data[50] ^= 1
    shards[8].write_bytes(data)
    return toy


def published(toy: Toy) -> dict[str, bytes]:
    return {name: data for name, data in files(toy.out).items() if name != "meta/runs.jsonl"}


def finished_shards(toy: Toy) -> dict[Path, tuple[int, int]]:
    """List the files of the shards with a record, with what would change if they were written again."""
    names = [path.stem for path in (toy.out / "meta/ledger").glob("*-of-*.parquet")]
    paths = [path for name in names for path in toy.out.glob(f"[di]*/{name}.*")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def assert_kept(shards: dict[Path, tuple[int, int]]) -> None:
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards} == shards


def assert_same(toy: Toy, expected: dict[str, bytes]) -> None:
    """Assert that the folder has exactly the files of an uninterrupted run."""
    found = published(toy)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert toy.balance() == BALANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """A process that forks conversions."""

    server: subprocess.Popen[str]

    def start(self, toy: Toy, *, fault: str = "") -> int:
        """Start a conversion and return its process id."""
        assert self.server.stdin
        assert self.server.stdout
        arguments = ["convert", str(toy.spec), "--source", str(toy.source), "--out", str(toy.out)]
        order = {"arguments": arguments, "fault": fault, "log": str(toy.folder / "log")}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self) -> int:
        """Return its exit code, or the negative signal number if it was killed."""
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def finish(self, toy: Toy) -> None:
        """Convert until the end."""
        self.start(toy)
        assert self.wait() == 1, (toy.folder / "log").read_text()  # 1: some episodes are quarantined

    def kill(self, toy: Toy, *, after: float) -> bool:
        """Convert for some seconds; returns whether it was killed before its end."""
        child = self.start(toy)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORK], stdin=pipe, stdout=pipe, text=True) as server:
        yield Forks(server=server)
        assert server.stdin
        server.stdin.close()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_damaged(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    toy = make_damaged(tmp_path_factory.mktemp("whole"))
    assert oxe_process("convert", toy.spec, "--source", toy.source, "--out", toy.out).code == 1
    dataset = published(toy)
    assert toy.verify().code == 0
    return dataset


# --- killed at any moment ---


def kill_at_random(forks: Forks, folder: Path, *, seed: int, kills: int, expected: dict[str, bytes]) -> None:
    """Kill each conversion again and again until it finishes; then compare."""
    chance, killed, outputs = random.Random(seed), 0, 0  # noqa: S311 - not a secret
    began = time.monotonic()
    forks.finish(make_damaged(folder / "measured"))
    usual = time.monotonic() - began
    while killed < kills:
        outputs += 1
        toy = make_damaged(folder / f"{outputs}")
        while forks.kill(toy, after=chance.uniform(0, usual)):
            killed += 1
            done = finished_shards(toy)
            if killed == kills or chance.random() < 0.3:
                forks.finish(toy)
                assert_kept(done)
                break
        assert_same(toy, expected)
        assert toy.verify().code == 0


def test_killed_ten_times_it_ends_as_if_it_had_not_been(
    forks: Forks, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    kill_at_random(forks, tmp_path, seed=0, kills=10, expected=expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_a_hundred_times_it_ends_as_if_it_had_not_been(
    forks: Forks, tmp_path: Path, seed: int, expected: dict[str, bytes]
) -> None:
    kill_at_random(forks, tmp_path, seed=seed, kills=20, expected=expected)


def test_a_run_killed_again_and_again_does_no_finished_shard_twice(
    forks: Forks, toy: Toy, expected: dict[str, bytes]
) -> None:
    fault = KILL_AT.format(call="rename", argument=1, pattern="*/s??-?????-of-?????.*", number=4, when="after")
    counts, done = [], finished_shards(toy)
    while forks.start(toy, fault=fault) and forks.wait() == -signal.SIGKILL:  # one shard and part of the next
        assert_kept(done)
        done = finished_shards(toy)
        counts.append(len(done) // 2)
    assert counts == list(range(1, len(counts) + 1))
    assert len(counts) >= SHARDS - 3  # one shard has no file
    assert_kept(done)
    assert_same(toy, expected)


# --- killed at every step ---

STEPS = {
    "before anything is entered": ("rename", "*/meta/ledger/identity.json", 1, "before"),
    "when the output is ours": ("rename", "*/meta/ledger/identity.json", 1, "after"),
    "between the two folders": ("mkdir", "*/out/data", 1, "after"),
    "with the data written, in the index": ("rename", "*/index/s0?-*", 4, "before"),
    "between the index and the data": ("rename", "*/index/s0?-*", 4, "after"),
    "before the data has its name": ("rename", "*/data/s0?-*", 4, "before"),
    "between the file and its record": ("rename", "*/data/s0?-*", 4, "after"),
    "in the record": ("rename", "*/ledger/s0?-*", 4, "before"),
    "after a record": ("rename", "*/ledger/s0?-*", 4, "after"),
    "in the record of a shard without a file": ("rename", "*/ledger/s03-*", 1, "before"),
    "after the last record": ("rename", "*/ledger/s*", SHARDS, "after"),
    "in the episode table": ("rename", "*/meta/episodes.parquet", 1, "before"),
    "between episodes and quarantine": ("rename", "*/meta/episodes.parquet", 1, "after"),
    "between quarantine and manifest": ("rename", "*/meta/quarantine.parquet", 1, "after"),
    "in the manifest": ("rename", "*/meta/manifest.json", 1, "before"),
    "between the manifest and the end of the ledger": ("rename", "*/meta/manifest.json", 1, "after"),
    "with half of the ledger removed": ("unlink", "s*-of-*.parquet", 6, "after"),
    "with the ledger removed": ("rmdir", "*ledger", 1, "after"),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on(forks: Forks, toy: Toy, step: str, expected: dict[str, bytes]) -> None:
    call, pattern, number, when = STEPS[step]
    fault = KILL_AT.format(call=call, argument=int(call == "rename"), pattern=pattern, number=number, when=when)
    forks.start(toy, fault=fault)
    assert forks.wait() == -signal.SIGKILL, (toy.folder / "log").read_text()
    done = finished_shards(toy)
    forks.finish(toy)
    assert_kept(done)
    assert_same(toy, expected)


@pytest.mark.parametrize(
    ("call", "pattern", "number"),
    [
        ("rename", "*/ledger/identity.json", 1),
        ("unlink", "*/meta/manifest.json", 1),
        ("unlink", "s*-of-*.parquet", 5),
        ("unlink", "s*-of-*.idx", 5),
        ("unlink", "*/meta/episodes.parquet", 1),
        ("unlink", "identity.json", 1),
    ],
)
def test_killed_while_it_removes_an_old_dataset_it_never_passes_for_whole(
    forks: Forks, toy: Toy, expected: dict[str, bytes], call: str, pattern: str, number: int
) -> None:
    forks.finish(toy)
    fault = KILL_AT.format(call=call, argument=int(call == "rename"), pattern=pattern, number=number, when="after")
    forks.start(toy, fault=fault + "order['arguments'].append('--overwrite')")
    assert forks.wait() == -signal.SIGKILL, (toy.folder / "log").read_text()
    plain = toy.convert()
    assert plain.code in {1, 2}
    if plain.code == 2:
        assert "--overwrite" in plain.err
        assert toy.convert("--overwrite").code == 1
    assert_same(toy, expected)


# --- other disasters ---


def start(toy: Toy, *more: str) -> subprocess.Popen[str]:
    arguments = command("convert", toy.spec, "--source", toy.source, "--out", toy.out, *more)
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(toy: Toy, pattern: str, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: bool(list(toy.out.glob(pattern))) or process.poll() is not None)


def test_of_two_conversions_into_one_output_one_is_refused(toy: Toy, expected: dict[str, bytes]) -> None:
    with start(toy) as first, start(toy) as second:
        said = {run.communicate(timeout=PATIENCE)[1]: run.returncode for run in (first, second)}
    assert sorted(said.values()) == [1, 2]
    assert said[f"oxe: {toy.out}: another process is writing to this folder\n"] == 2
    assert_same(toy, expected)


def test_ctrl_c_is_one_line_and_the_run_can_go_on(forks: Forks, toy: Toy, expected: dict[str, bytes]) -> None:
    with start(toy) as process:
        wait_for(toy, "meta/ledger/s*", process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "oxe: interrupted\n")
    assert not [name for name in files(toy.out) if "tmp-" in name or "manifest" in name]
    done = finished_shards(toy)
    assert done
    forks.finish(toy)
    assert_kept(done)
    assert_same(toy, expected)


def test_a_full_disk_leaves_what_is_done(tmp_path: Path) -> None:
    episodes = [columns(seed, steps=80 if seed == 1 else 3) for seed in range(3)]
    toy = make_toy(tmp_path, episodes, splits={"small": 1, "large": 1, "last": 1})
    assert toy.convert().code == 0
    expected = published(toy)
    shutil.rmtree(toy.out)
    limit = max(map(len, expected.values())) - 1
    failed = oxe_process(
        *("convert", toy.spec, "--source", toy.source, "--out", toy.out),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert "run the command again to continue" in failed.err
    assert "File too large" in failed.err
    assert not [name for name in files(toy.out) if "tmp-" in name or "manifest" in name]
    done = finished_shards(toy)
    assert len(done) == 4  # the data and the index of two shards
    assert toy.convert().code == 0
    assert_kept(done)
    assert published(toy) == expected


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MB; skips the test without the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_at_once(tmp_path: Path, tiny_disk: Path) -> None:
    episodes = [columns(seed, image=[jpeg(seed, size=1024 if seed == 1 else 32)] * 3) for seed in range(3)]
    toy = make_toy(tmp_path, episodes, splits={"first": 1, "large": 1, "last": 1})
    words = ("convert", toy.spec, "--source", toy.source, "--out", tiny_disk / "out")
    failed = oxe_process(*words)
    note, error = failed.err.splitlines()
    assert failed.code == 2
    assert note.startswith("note: ")  # that the disk may be too small
    assert error.startswith("oxe: 1 of 3 shards failed, first large-00000-of-00001: ")
    assert "No space left on device" in error
    first = tiny_disk / "out/data/first-00000-of-00001.parquet"
    assert list((tiny_disk / "out/data").iterdir()) == [first]  # the last shard would have fitted, but was not started
    written = first.stat().st_mtime_ns

    subprocess.run(["mount", "-o", "remount,size=20m", tiny_disk], check=True)
    assert oxe_process(*words).code == 0
    assert first.stat().st_mtime_ns == written
    assert len(list((tiny_disk / "out/data").iterdir())) == len(episodes)


@pytest.mark.slow
def test_a_killed_worker_does_not_fail_the_run(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    episodes = [columns(seed, steps=100, size=64) for seed in range(60)]
    toy = make_toy(tmp_path, episodes, splits={f"s{number:02d}": 5 for number in range(12)})
    assert toy.convert().code == 0
    expected = published(toy)
    toy = Toy(folder=tmp_path / "again")
    make_toy(toy.folder, episodes, splits={f"s{number:02d}": 5 for number in range(12)})
    with start(toy, "--workers", "2") as process:
        wait_for(toy, "meta/ledger/s*", process)
        workers_of(process)[0].kill()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert published(toy) == expected


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """List the worker processes of a run: forks of one of its children."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child for child in below if child.ppid() != process.pid]


@pytest.mark.slow
def test_workers_end_with_the_run_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    toy = make_toy(tmp_path, [columns(seed, steps=100, size=64) for seed in range(60)], splits={"a": 30, "b": 30})
    with start(toy, "--workers", "2") as process:
        wait_for(toy, "data/tmp-*", process)
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
        assert not [worker for worker in alive if worker.status() != "zombie"]
    assert toy.convert().code == 0


def test_a_disk_that_may_be_too_small_is_said_before_the_run_starts(tmp_path: Path, tiny_disk: Path) -> None:
    episodes = [columns(seed, image=[jpeg(seed, size=700)] * 3) for seed in range(3)]
    toy = make_toy(tmp_path, episodes, splits={"first": 1, "second": 1, "third": 1})
    warned = oxe_process("convert", toy.spec, "--source", toy.source, "--out", tiny_disk / "out")
    note, _, error = warned.err.partition("\n")
    assert note.startswith(f"note: {tiny_disk / 'out'}: about 0.00")
    assert note.endswith("if the disk is full, the run ends, and the same command continues it")
    assert warned.code == 2
    assert "No space left on device" in error
    assert toy.convert().err == ""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Make a folder for temporary files with a short path, since the path of a socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="oxe", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_sigterm_is_one_line_and_leaves_no_temporary_file(
    forks: Forks, toy: Toy, temporary: Path, expected: dict[str, bytes]
) -> None:
    arguments = command("convert", toy.spec, "--source", toy.source, "--out", toy.out, "--workers", "2")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        wait_for(toy, "meta/ledger/s*", process)
        assert list(temporary.iterdir())
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (143, "oxe: terminated\n")
    assert list(temporary.iterdir()) == []
    assert not [name for name in files(toy.out) if "tmp-" in name or "manifest" in name]
    forks.finish(toy)
    assert_same(toy, expected)


@pytest.mark.parametrize("more", [(), pytest.param(("--workers", "2"), marks=pytest.mark.slow)])
def test_a_finished_run_leaves_no_temporary_file(tmp_path: Path, temporary: Path, more: tuple[str, ...]) -> None:
    toy = make_toy(tmp_path)
    words = ("convert", toy.spec, "--source", toy.source, "--out", toy.out, *more)
    assert oxe_process(*words, env={**os.environ, "TMPDIR": str(temporary)}).code == 0
    assert list(temporary.iterdir()) == []
