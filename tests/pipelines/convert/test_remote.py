"""Remote sources and datasets: the same bytes as local ones, whatever the network does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from oxe_tools import open_dataset
from pipelines.beam import progress
from pipelines.readers.rlds.tfrecord import frame
from schemas.files import network, remote
from tests.pipelines.toy import Run, Toy, columns, command, files, make_toy, oxe, oxe_process
from tests.servers import FOREVER, Bucket, Fault, Server
from tests.waiting import PATIENCE, wait_until

SPLITS = {f"s{number}": 2 for number in range(4)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all waiting times, and read in blocks that are smaller than the files."""
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(network, "TRIES", 4)
    monkeypatch.setattr(network, "BLOCK", 1000)
    monkeypatch.setattr(remote, "BLOCK", 1000)
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)
    monkeypatch.setattr(progress, "POLL_REMOTE", 0.1)
    monkeypatch.setattr("pipelines.beam.shards.PAUSES", (0.001, 0.001))


@pytest.fixture
def with_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read private datasets with the credentials of the user."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": False})
    monkeypatch.setenv("FSSPEC_S3", '{"anon": false}')


def make(folder: Path) -> Toy:
    return make_toy(folder, [columns(seed, steps=5, size=16) for seed in range(8)], splits=SPLITS)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make(tmp_path)


def same(dataset: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files that are the same in every run."""
    return {
        name: content for name, content in dataset.items() if name not in {"meta/runs.jsonl", "meta/verification.json"}
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert a local source to a local dataset."""
    toy = make(tmp_path_factory.mktemp("here"))
    assert toy.convert().code == 0
    return toy.out


@pytest.fixture
def dataset(web: Server, here: Path, tmp_path: Path) -> str:
    """Serve a dataset over HTTP."""
    shutil.copytree(here, tmp_path / "dataset")
    return f"{web.url}/dataset"


@pytest.fixture(scope="module")
def expected(here: Path) -> dict[str, bytes]:
    return same(files(here))


def assert_one_line(run: Run, *told: str) -> None:
    """Assert that a command failed with one line on stderr."""
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1), run.err
    assert run.err.startswith("oxe: ")
    for text in told:
        assert text in run.err


# --- the same as local ---


def assert_source(toy: Toy, source: str, expected: dict[str, bytes]) -> None:
    """Assert that a remote source is read like a local one."""
    run = oxe("convert", toy.spec, "--source", source, "--out", toy.out)
    assert run.code == 0, run.err
    assert same(files(toy.out)) == expected
    verified = toy.verify("--json").json()  # against the source that meta/runs.jsonl names
    assert (verified["source"], verified["differences"]) == ("compared", 0)
    assert oxe("inspect", source, "--json").json() == oxe("inspect", toy.source, "--json").json()


def test_a_source_on_a_web_server_gives_the_same_dataset(toy: Toy, web: Server, expected: dict[str, bytes]) -> None:
    assert_source(toy, f"{web.url}/source", expected)


def test_a_source_in_a_store_gives_the_same_dataset_without_credentials(
    toy: Toy, bucket: Bucket, expected: dict[str, bytes]
) -> None:
    source = bucket.upload(toy.source, "source", public=True)
    before = len(bucket.server.requests)
    assert_source(toy, source, expected)
    asked = bucket.server.requests[before:]
    assert asked
    assert [r for r in asked if r.authorization] == []


def test_a_dataset_in_a_store_is_the_same_dataset(
    toy: Toy, bucket: Bucket, with_credentials: None, here: Path, expected: dict[str, bytes]
) -> None:
    out = bucket.uri("out")
    run = oxe("convert", toy.spec, "--source", toy.source, "--out", out, "--json")
    assert (run.code, run.json()["out"]) == (0, out), run.err
    assert same(bucket.files("out")) == expected
    verified = oxe("verify", out, "--json")
    assert (verified.code, verified.json()["source"]) == (0, "compared"), verified.err
    local, there = open_dataset(here), open_dataset(out)
    assert repr(there) == f"Dataset('{out}': toy, 8 episodes, 40 steps)"
    assert [there.episode(i).content_hash() for i in range(8)] == [local.episode(i).content_hash() for i in range(8)]
    assert [there.frame(i, 3) for i in range(8)] == [local.frame(i, 3) for i in range(8)]
    assert there.episode(2, view="late").action.tolist() == local.episode(2, view="late").action.tolist()
    assert there.episodes.collect().equals(local.episodes.collect())
    for dataset, name in ((out, "exported"), (str(here), "exported from here")):
        assert oxe("export", "rlds", dataset, "--out", toy.folder / name).code == 0
    exports = [files(toy.folder / name) for name in ("exported", "exported from here")]
    assert [runs.pop("oxe_runs.jsonl") for runs in exports]  # files with places and times
    assert exports[0] == exports[1]


def test_a_dataset_on_a_web_server_can_be_read(dataset: str, here: Path, tmp_path: Path) -> None:
    verified = oxe("verify", dataset, "--json")
    assert (verified.code, verified.json()["source"]) == (0, "compared"), verified.err
    assert open_dataset(dataset).frame(0, 2) == open_dataset(here).frame(0, 2)
    assert oxe("export", "rlds", dataset, "--out", tmp_path / "exported").code == 0


def test_a_frame_costs_its_own_bytes(web: Server, dataset: str) -> None:
    opened = open_dataset(dataset)
    opened.frame(0, 0)
    before = len(web.requests)
    (image,) = opened.frame(0, 2).values()
    assert image
    (asked,) = web.requests[before:]
    start, end = map(int, str(asked.range).removeprefix("bytes=").split("-"))
    assert end + 1 - start == len(image)


def test_threads_may_share_a_dataset(dataset: str, here: Path) -> None:
    local, there = open_dataset(here), open_dataset(dataset)
    steps = [(i, step) for i in range(8) for step in range(5)] * 5
    with ThreadPoolExecutor(8) as pool:
        frames = pool.map(lambda place: there.frame(*place), steps)
        episodes = pool.map(lambda i: there.episode(i).content_hash(), range(8))
        assert list(frames) == [local.frame(*place) for place in steps]
        assert list(episodes) == [local.content_hash(i) for i in range(8)]


def test_an_output_inside_its_source_is_refused_in_a_store_too(toy: Toy, bucket: Bucket) -> None:
    source = bucket.upload(toy.source, "source", public=True)
    assert_one_line(oxe("convert", toy.spec, "--source", source, "--out", f"{source}/out"), "overlap")


def test_a_web_server_is_no_place_for_a_dataset(toy: Toy, web: Server) -> None:
    run = oxe("convert", toy.spec, "--source", toy.source, "--out", f"{web.url}/out")
    assert_one_line(run, "a web server cannot be written to")


def test_a_source_that_is_not_public_says_how_to_give_credentials(toy: Toy, bucket: Bucket) -> None:
    run = oxe("convert", toy.spec, "--source", bucket.upload(toy.source, "source"), "--out", toy.out)
    assert_one_line(run, "features.json: cannot be reached", "to use your credentials", "FSSPEC_S3=", '"anon": false')


@pytest.mark.slow
def test_two_processes_write_the_same_dataset_into_a_store(
    toy: Toy, bucket: Bucket, with_credentials: None, expected: dict[str, bytes]
) -> None:
    pytest.importorskip("distributed")
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", bucket.uri("out"), "--workers", "2")
    run = oxe_process(*arguments)
    assert run.code == 0, run.err
    assert same(bucket.files("out")) == expected


# --- a network that fails for a while ---

SHARD = "*.tfrecord-*"


@pytest.mark.parametrize("kind", ["cut", "503", "drop", "stall", "short"])
def test_a_fault_that_passes_is_not_seen_in_the_dataset(
    toy: Toy, web: Server, kind: str, expected: dict[str, bytes]
) -> None:
    for path, after in (("*features.json", 0), ("*dataset_info.json", 1), (SHARD, 0), (SHARD, 9), (SHARD, 20)):
        web.faults.append(Fault(kind, path=path, times=2, after=after, methods=("HEAD", "GET")))
    run = oxe("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    assert run.code == 0, run.err
    assert same(files(toy.out)) == expected


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5])
def test_a_page_to_log_in_is_never_taken_for_a_file(
    toy: Toy, web: Server, expected: dict[str, bytes], after: int
) -> None:
    """Whichever request about a shard gets the page, the dataset is as without it, or there is none."""
    web.faults.append(Fault("login", path="*tfrecord*", times=1, after=after, methods=("HEAD", "GET")))
    run = oxe("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    if run.code != 0:
        assert run.code == 2
        assert "a web page, not the file" in run.err
        assert not (toy.out / "meta/manifest.json").exists()
        assert oxe("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out).code == 0
    assert same(files(toy.out)) == expected


def test_a_page_to_log_in_in_place_of_each_file_is_one_line(toy: Toy, web: Server) -> None:
    web.faults.append(Fault("login", path="*.*", methods=("HEAD", "GET")))
    run = oxe("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    assert_one_line(run, "features.json: the server sends a web page, not the file")
    assert not toy.out.exists()


def test_a_server_without_ranges_gives_the_same_dataset(toy: Toy, web: Server, expected: dict[str, bytes]) -> None:
    web.faults.append(Fault("no range"))
    run = oxe("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    assert run.code == 0, run.err
    assert same(files(toy.out)) == expected


def test_from_a_store_that_is_busy_at_times_into_it_gives_the_same_dataset(
    toy: Toy, bucket: Bucket, with_credentials: None, expected: dict[str, bytes]
) -> None:
    source = bucket.upload(toy.source, "source")
    for after in range(0, 400, 7):
        every = ("GET", "HEAD", "PUT", "POST", "DELETE")
        bucket.server.faults.append(Fault("503", path=f"/{bucket.name}*", times=1, after=after, methods=every))
    run = oxe("convert", toy.spec, "--source", source, "--out", bucket.uri("out"))
    assert run.code == 0, run.err
    bucket.server.faults.clear()
    assert same(bucket.files("out")) == expected


# --- a network that fails for good ---


@pytest.mark.parametrize("kind", ["cut", "503", "drop", "stall", "403"])
def test_a_shard_that_cannot_be_fetched_fails_and_the_next_run_does_it(
    toy: Toy, web: Server, kind: str, expected: dict[str, bytes]
) -> None:
    web.faults.append(
        Fault(kind, path="*toy-s2.tfrecord*", after=2 if kind == "403" else 1)
    )  # after the shards are planned
    arguments = ("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    assert_one_line(
        oxe(*arguments),
        "1 of 4 shards failed, first s2-00000-of-00001: ",
        f"{web.url}/source/toy-s2.tfrecord-00000-of-00001: cannot be reached: ",
    )
    assert not (toy.out / "meta/manifest.json").exists()
    done = {path: path.stat().st_ino for path in (toy.out / "data").iterdir()}
    assert len(done) == 3
    web.faults.clear()
    assert oxe(*arguments).code == 0
    assert same(files(toy.out)) == expected
    assert {path: path.stat().st_ino for path in done} == done


@pytest.mark.parametrize(
    ("kind", "after"), [("503", 0), ("drop", 1), ("403", 2), ("503", 4), ("drop", 5), ("403", 5), ("503", 8)]
)
def test_a_server_that_goes_away_is_one_line_and_the_next_run_goes_on(
    toy: Toy, web: Server, kind: str, after: int, expected: dict[str, bytes]
) -> None:
    web.faults.append(Fault(kind, path="/source*", after=after, methods=("HEAD", "GET")))
    arguments = ("convert", toy.spec, "--source", f"{web.url}/source", "--out", toy.out)
    assert_one_line(oxe(*arguments), f"{web.url}/source/", "cannot be reached")
    web.faults.clear()
    run = oxe(*arguments)
    assert run.code == 0, run.err
    assert same(files(toy.out)) == expected


def test_a_store_that_goes_away_while_it_is_written_to_can_be_gone_on_with(
    toy: Toy, bucket: Bucket, with_credentials: None, expected: dict[str, bytes]
) -> None:
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", bucket.uri("out"))
    every = ("GET", "HEAD", "PUT", "POST", "DELETE")
    for after in (0, 12, 30):
        bucket.server.faults.append(Fault("503", path=f"/{bucket.name}*", after=after, methods=every))
        assert_one_line(oxe(*arguments), bucket.uri("out"), "Service Unavailable; try again later")
        bucket.server.faults.clear()
    assert oxe(*arguments).code == 0
    assert same(bucket.files("out")) == expected


def test_inspect_and_verify_do_not_take_the_network_for_damage(toy: Toy, web: Server, here: Path, dataset: str) -> None:
    web.faults.append(Fault("503", path="*toy-s2.tfrecord*"))
    assert_one_line(oxe("inspect", f"{web.url}/source"), "toy-s2.tfrecord-00000-of-00001: cannot be reached", "503")
    verify = oxe("verify", here, "--source", f"{web.url}/source")
    assert_one_line(verify, "toy-s2.tfrecord-00000-of-00001: cannot be reached", "503")
    web.faults.append(Fault("503", path="*/data/s1-*"))
    assert_one_line(oxe("verify", dataset), "data/s1-00000-of-00001.parquet: cannot be reached", "503")


# --- a source that is really damaged ---


def test_damage_and_missing_files_are_what_they_are_on_a_disk(toy: Toy, web: Server, bucket: Bucket) -> None:
    shards = sorted(toy.source.glob(SHARD))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-10])
    data = bytearray(shards[2].read_bytes())
    data[50] ^= 1
    shards[2].write_bytes(data)
    assert toy.convert().code == 1
    reasons = {"missing_shard": 2, "truncated": 1, "wrong_crc": 1}
    assert toy.balance()["quarantined"] == reasons
    here = same(files(toy.out))
    for source in (f"{web.url}/source", bucket.upload(toy.source, "source", public=True)):
        run = oxe("convert", toy.spec, "--source", source, "--out", toy.out, "--overwrite")
        assert run.code == 1, run.err
        assert same(files(toy.out)) == here


@pytest.mark.parametrize("place", ["web", "bucket"])
def test_a_source_that_is_not_there_is_one_line(toy: Toy, place: str, request: pytest.FixtureRequest) -> None:
    at: Any = request.getfixturevalue(place)
    source = f"{at.url}/nothing" if place == "web" else at.uri("nothing")
    if place == "bucket":
        request.getfixturevalue("with_credentials")
    run = oxe("convert", toy.spec, "--source", source, "--out", toy.out)
    assert_one_line(run, f"{source}: no RLDS dataset here")


def test_the_only_dataset_below_a_page_of_links_is_found(toy: Toy, web: Server, expected: dict[str, bytes]) -> None:
    (toy.folder / "lab").mkdir()
    toy.source.rename(toy.folder / "lab" / "1.0.0")
    run = oxe("convert", toy.spec, "--source", f"{web.url}/lab", "--out", toy.out)
    assert run.code == 0, run.err
    assert same(files(toy.out)) == expected


# --- continuing, appending, replacing ---

THIRD = "data/s2-00000-of-00001.parquet"


def start(toy: Toy, out: str) -> subprocess.Popen[str]:
    arguments = command("convert", toy.spec, "--source", toy.source, "--out", out)
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def slow_shard(bucket: Bucket) -> Iterator[None]:
    """Slow down the store for the third shard."""
    bucket.server.faults.append(Fault("20 s", path="*/data/s2-*", times=1, methods=("PUT",)))
    bucket.server.halt.clear()
    yield
    bucket.server.halt.set()
    bucket.server.halt.clear()


def test_a_killed_conversion_goes_on_and_uploads_no_finished_shard_again(
    toy: Toy, bucket: Bucket, slow_shard: None, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy.folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(toy.folder / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(toy.folder / "tmp"))
    out = bucket.uri("out")
    with start(toy, out) as process:
        wait_until(lambda: THIRD in bucket.written("out", since=0) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = len(bucket.server.requests)
    assert f"{bucket.name}/out/meta/lock" in bucket.fs.find(f"{bucket.name}/out")
    run = oxe("convert", toy.spec, "--source", toy.source, "--out", out)  # takes over the lock of the killed process
    assert run.code == 0, run.err
    again = [name for name in bucket.written("out", since=before) if name.startswith(("data/", "index/"))]
    assert {name.partition("-")[0] for name in again} == {"data/s2", "data/s3", "index/s2", "index/s3"}
    assert same(bucket.files("out")) == expected
    assert not list((toy.folder / "tmp").glob("oxe-tools-????*[0-9a-f]"))  # its staged files are gone


def test_a_second_conversion_into_one_output_is_refused(
    toy: Toy, bucket: Bucket, slow_shard: None, expected: dict[str, bytes]
) -> None:
    out = bucket.uri("out")
    with start(toy, out) as process:
        wait_until(lambda: THIRD in bucket.written("out", since=0) or process.poll() is not None)
        second = oxe("convert", toy.spec, "--source", toy.source, "--out", out)
        assert_one_line(
            second,
            f"{out}: another process is writing to this folder ({out}/meta/lock is locked by process {process.pid} of "
            f"{socket.gethostname()}; remove it if that process has ended)",
        )
        bucket.server.halt.set()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert same(bucket.files("out")) == expected


def test_a_lock_of_another_machine_is_respected_until_it_is_removed(toy: Toy, bucket: Bucket) -> None:
    bucket.put("out/meta/lock", b"elsewhere 7 abc")
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", bucket.uri("out"))
    assert_one_line(oxe(*arguments), "locked by process 7 of elsewhere; remove it if that process has ended")
    assert list(bucket.files("out")) == ["meta/lock"]
    bucket.fs.rm(f"{bucket.name}/out/meta/lock")
    assert oxe(*arguments).code == 0


def test_appending_in_a_store_writes_only_what_is_new(tmp_path: Path, bucket: Bucket, with_credentials: None) -> None:
    episodes = [columns(seed, steps=5, size=16) for seed in range(8)]
    toy = make_toy(tmp_path, episodes[:4], splits={"s0": 2, "s1": 2})
    arguments = ("convert", toy.spec, "--source", toy.source, "--out")
    assert oxe(*arguments, bucket.uri("out")).code == 0
    assert oxe(*arguments, toy.out).code == 0
    make_toy(tmp_path, episodes, splits=SPLITS)
    before = len(bucket.server.requests)
    run = oxe(*arguments, bucket.uri("out"), "--append", "--json")
    assert (run.code, run.json()["added"]) == (0, 4), run.err
    written = bucket.written("out", since=before)
    assert [name for name in written if name.startswith(("data/s0", "data/s1", "index/s0", "index/s1"))] == []
    assert oxe(*arguments, toy.out, "--append").code == 0
    assert same(bucket.files("out")) == same(files(toy.out))
    assert oxe("verify", bucket.uri("out")).code == 0


def test_overwriting_in_a_store_replaces_ours_and_nothing_else(
    toy: Toy, bucket: Bucket, expected: dict[str, bytes]
) -> None:
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", bucket.uri("out"))
    assert oxe(*arguments, "--limit", "3").code == 0
    bucket.put("output/thesis.tex", b"years of work")
    assert_one_line(oxe(*arguments), "contains a conversion with different options; pass --overwrite")
    assert oxe(*arguments, "--overwrite").code == 0
    assert same(bucket.files("out")) == expected
    assert bucket.files("output") == {"thesis.tex": b"years of work"}


def test_a_folder_of_somebody_else_is_left_alone(toy: Toy, bucket: Bucket) -> None:
    bucket.put("out/thesis.tex", b"years of work")
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", bucket.uri("out"))
    for more in ((), ("--overwrite",)):
        assert_one_line(oxe(*arguments, *more), "not a converted dataset (thesis.tex)")
    assert bucket.files("out") == {"thesis.tex": b"years of work"}


# --- memory ---

READ = """
import sys
from pipelines.readers.folder import SourceFolder
from pipelines.readers.rlds.tfrecord import RecordFile

with SourceFolder.at(sys.argv[1]).open(sys.argv[2]) as file:
    records = RecordFile(file, "file")
    read = 0
    while (length := records.next_length()) is not None:
        read += len(records.data(length))
with open("/proc/self/status") as status:  # getrusage would count what the parent had, too
    print(read, *(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def peak(server: Server, folder: Path, *, megabytes: int) -> int:
    """Read a large file record by record in a new process; returns its peak memory in MB."""
    record = frame(os.urandom(1 << 20))
    with (folder / "large").open("wb") as file:
        for _ in range(megabytes):
            file.write(record)
    arguments = [sys.executable, "-c", READ, server.url, "large"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    read, kilobytes = map(int, done.stdout.split())
    assert read == megabytes << 20
    return kilobytes >> 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "no range"])
def test_memory_does_not_grow_with_the_file(web: Server, tmp_path: Path, kind: str | None) -> None:
    if kind:
        web.faults.append(Fault(kind, times=FOREVER))
    small, large = peak(web, tmp_path, megabytes=30), peak(web, tmp_path, megabytes=300)
    assert large - small < 60
    assert small < 150
