"""One conversion on every engine that runs on this machine: in memory, Dask, and a portable job service."""

import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from pipelines.beam.run import _one_line
from tests.pipelines.toy import ROOT, Run, Toy, columns, files, jpeg, make_toy, oxe_process
from tests.waiting import PATIENCE, wait_until

MEMORY: list[str] = []
WORKERS = ["--workers", "2"]
ENGINES = ["memory", pytest.param("dask", marks=pytest.mark.slow), "portable"]
POOL = pytest.param("pool", marks=pytest.mark.slow)  # the job service, with the work in a third process
LARGE = 1024  # pixels per side; a frame has 1 MB
LIMIT = 1 << 20  # bytes

Arguments = Callable[[str], list[str]]  # the options that select an engine


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start Beam's job service in another process; yields its port."""
    folder = tmp_path_factory.mktemp("service")
    module = "apache_beam.runners.portability.local_job_service_main"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--port_file", folder / "port", "--staging_dir", folder / "staging"],
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: (folder / "port").exists() or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield int((folder / "port").read_text())
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a worker pool in another directory, as on a node of a cluster; yields its port."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    words = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the pool calls `python`
    folder = tmp_path_factory.mktemp("pool")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=os.environ | {"PATH": path})
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


@pytest.fixture(scope="module")
def arguments(request: pytest.FixtureRequest) -> Arguments:
    def choose(engine: str) -> list[str]:
        if engine in {"memory", "dask"}:
            return {"memory": MEMORY, "dask": WORKERS}[engine]
        where = "--environment_type=LOOPBACK"
        if engine == "pool":
            where = f"--environment_type=EXTERNAL --environment_config=localhost:{request.getfixturevalue('pool')}"
        endpoint = f"--job_endpoint=localhost:{request.getfixturevalue('service')}"
        return ["--runner", "PortableRunner", "--beam-options", f"{endpoint} {where}"]

    return choose


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Write five splits, one of them large enough for three shards, with unreadable and empty episodes."""
    large = [columns(seed, steps=4, image=[jpeg(seed % 2, size=LARGE)] * 4) for seed in range(12)]
    small = [columns(seed) for seed in range(12, 20)]
    small[1] = columns(13, image=[b"?"] * 3)
    small[2] = columns(14, steps=0)
    small[6] = columns(18, image=[b"?"] * 3)
    large[9] = columns(9, steps=0)
    return make_toy(
        tmp_path_factory.mktemp("source"), [*large, *small], splits={"large": 12, "val": 3, "a": 1, "b": 3, "c": 1}
    )


Converted = tuple[Path, Run]


@pytest.fixture(scope="module")
def on(source: Toy, arguments: Arguments) -> Callable[[str], Converted]:
    """Convert the source with one engine, once per test run."""
    done: dict[str, Converted] = {}

    def convert(engine: str) -> Converted:
        if engine not in done:
            out = source.folder / engine
            words = ("convert", source.spec, "--source", source.source, "--out", out, "--json", *arguments(engine))
            done[engine] = out, oxe_process(*words)
        return done[engine]

    return convert


def dataset_files(out: Path) -> dict[str, bytes]:
    """Read the files that must be the same on every engine."""
    return {name: data for name, data in files(out).items() if name != "meta/runs.jsonl"}


def test_the_source_makes_several_shards_and_leaves_some_episodes_out(on: Callable[[str], Converted]) -> None:
    out, done = on("memory")
    assert done.code == 1
    assert done.json()["episodes"] == {
        "source": 20,
        "kept": 16,
        "dropped": {"zero_steps": 2},
        "quarantined": {"bad_image": 2},
    }
    assert sorted(path.stem for path in (out / "data").iterdir()) == [
        "a-00000-of-00001",
        "b-00000-of-00001",
        "c-00000-of-00001",
        "large-00000-of-00003",
        "large-00001-of-00003",
        "large-00002-of-00003",
        "val-00000-of-00001",
    ]


@pytest.mark.parametrize("engine", [*ENGINES[1:], POOL])
def test_every_engine_writes_the_same_bytes(engine: str, on: Callable[[str], Converted]) -> None:
    (expected, in_memory), (out, done) = on("memory"), on(engine)
    assert dataset_files(out) == dataset_files(expected)
    assert done.code == in_memory.code
    assert done.json() | {"out": "", "seconds": 0} == in_memory.json() | {"out": "", "seconds": 0}


@pytest.mark.slow
def test_workers_that_are_no_forks_as_elsewhere_than_on_linux_write_the_same_bytes(
    on: Callable[[str], Converted], source: Toy
) -> None:
    (expected, _), out = on("memory"), source.folder / "spawned"
    words = ["convert", source.spec, "--source", source.source, "--out", out, *WORKERS]
    code = (
        "import sys; sys.platform = 'darwin'\nimport pipelines.beam.workers\nsys.platform = 'linux'\n"
        f"assert pipelines.beam.workers.METHOD == 'spawn'\n"
        f"from oxe_tools.cli.main import main; main({list(map(str, words))!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr  # some episodes are quarantined
    assert dataset_files(out) == dataset_files(expected)


@pytest.mark.parametrize("engine", [*ENGINES, POOL])
def test_an_engine_says_nothing_of_its_own(engine: str, on: Callable[[str], Converted], source: Toy) -> None:
    out, done = on(engine)
    assert done.out.count("\n") == 1
    *quarantined, last = done.err.splitlines()
    assert last == f"oxe: {out}: quarantined 2 bad_image; see meta/quarantine.parquet"
    assert [line[:32] for line in quarantined] == [f"quarantined: episode {index}: bad_ima" for index in (13, 18)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shard_that_fails_is_named_and_the_others_are_done(engine: str, arguments: Arguments, tmp_path: Path) -> None:
    frame = jpeg(0, size=LARGE)
    assert len(frame) > LIMIT // 2
    episodes = [columns(0), columns(1), columns(2, image=[frame] * 3), columns(3)]
    toy = make_toy(tmp_path, episodes, splits=dict.fromkeys(("a", "b", "large", "z"), 1))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))  # a full disk for one of four shards
    words = ("convert", toy.spec, "--source", toy.source, "--out", toy.out, *arguments(engine))
    done = oxe_process(*words, preexec_fn=limit)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert done.err.startswith("oxe: 1 of 4 shards failed, first large-00000-of-00001: ")
    small = [toy.out / f"data/{name}-00000-of-00001.parquet" for name in ("a", "b", "z")]
    assert sorted((toy.out / "data").iterdir()) == small
    before = [path.stat().st_mtime_ns for path in small]

    assert oxe_process(*words).code == 0
    assert [path.stat().st_mtime_ns for path in small] == before
    assert toy.balance()["kept"] == 4


@pytest.mark.slow
def test_workers_start_quietly_where_the_port_of_dasks_dashboard_is_taken(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    with socket.socket() as taken:
        with suppress(OSError):  # another program has the port already
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        done = oxe_process("convert", toy.spec, "--source", toy.source, "--out", toy.out, *WORKERS)
    assert (done.code, done.err) == (0, "")


def broken(toy: Toy, *words: str) -> str:
    """Convert with an engine that fails; returns the line on stderr."""
    done = oxe_process("convert", toy.spec, "--source", toy.source, "--out", toy.out, *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    return done.err


def test_a_runner_that_beam_does_not_know_is_an_error(tmp_path: Path) -> None:
    assert broken(make_toy(tmp_path), "--runner", "FlincRunner").startswith(
        "oxe: Beam cannot create the runner 'FlincRunner': Unexpected pipeline runner: FlincRunner. Valid values are "
    )


def test_options_that_the_runner_refuses_are_an_error(tmp_path: Path) -> None:
    options = ["--runner", "PortableRunner", "--beam-options", "--job_endpoint=localhost:1 --environment_type=HERE"]
    assert broken(make_toy(tmp_path), *options) == (
        "oxe: PortableRunner broke down: Unknown environment type: HERE; run the command again to continue\n"
    )


def test_an_output_of_a_runner_that_broke_down_goes_on_with_another(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    broken(toy, "--runner", "PortableRunner", "--beam-options", "--job_endpoint=localhost:1 --environment_type=HERE")
    assert toy.convert().code == 0
    assert toy.balance()["kept"] == 3


def test_several_workers_without_the_extra_say_what_to_install(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    words = ["convert", str(toy.spec), "--source", str(toy.source), "--out", str(toy.out), *WORKERS]
    without = (
        "import sys; sys.modules.update(dask=None, distributed=None); from oxe_tools.cli.main import main; main({!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", without.format(words)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "oxe: this needs the package 'dask': pip install 'oxe-tools[dask]'\n"


def test_beam_is_imported_under_pipelines_beam_alone() -> None:
    found = {
        path.relative_to(ROOT).parent.as_posix()
        for package in ("schemas", "stats", "pipelines", "finetune", "oxe_tools")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(?:import|from) apache_beam", path.read_text(), re.MULTILINE)
    }
    assert found == {"pipelines/beam"}


def test_a_finished_conversion_needs_no_beam(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    assert toy.convert().code == 0
    words = ["convert", str(toy.spec), "--source", str(toy.source), "--out", str(toy.out)]
    program = (
        f"import sys; from oxe_tools.cli.main import app; app({words}, standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert not {"apache_beam", "dask"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "ValueError()"),
        ("two\n  lines", "two lines"),
        ("failed: Traceback (most recent call last):\n  File x\nKeyError: 'a'\n", "KeyError: 'a'"),
    ],
)
def test_what_a_runner_says_becomes_one_line(message: str, said: str) -> None:
    assert _one_line(ValueError(message) if message else ValueError()) == said
