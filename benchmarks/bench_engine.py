"""The cost of the engine: Beam against a plain loop, two workers against one, memory by size, and resuming."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import (
    HERE,
    Medians,
    Side,
    Trial,
    arguments,
    at_least,
    at_most,
    compare,
    fresh,
    generate,
    publish,
    run_side,
    table,
)

if TYPE_CHECKING:
    from pipelines.convert.job import ConversionJob
    from pipelines.readers.reader import ShardRef

SHARDS = 1000  # number of shards in set K
TIMES = {"B": 1, "B10": 10, "B40": 40}  # number of copies of the files of set B in each set
SOON = 0.05  # seconds between two measurements of the workers
BEAM_GOAL, WORKERS_GOAL, FLAT_GOAL, RESUME_GOAL = 1.05, 1.7, 1.1, 2.0
SOURCES = {"B": "bench_b", "B10": "bench_b10", "B40": "bench_b40", "K": "bench_k"}


def prepare(data: Path, letter: str) -> Trial:
    """Write one of the sets of this benchmark, if it is missing."""
    return Trial(work=lambda: _many_shards(data) if letter == "K" else _copies(data, letter))


def _many_shards(data: Path) -> None:
    """Write set K, in which every episode is a split and thus a shard."""
    from generate import SET_B, ensure

    which = replace(SET_B, name="bench_k", shards=SHARDS, episodes=1, steps=3, pixels=64)
    if (folder := which.source(data)).is_dir():
        return
    ensure(which, data)
    splits = [f"s{number:04d}" for number in range(SHARDS)]
    for number, split in enumerate(splits):
        (folder / which.shard(number)).rename(folder / f"{which.name}-{split}.tfrecord-00000-of-00001")
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    one = info["splits"][0] | {"shardLengths": ["1"]}
    path.write_text(json.dumps(info | {"splits": [one | {"name": split} for split in splits]}))


def _copies(data: Path, letter: str) -> None:
    """Write set B10 or B40, the files of set B under many names."""
    source, folder = _source(data, "B"), _source(data, letter)
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    shutil.copyfile(source / "features.json", folder / "features.json")
    files = sorted(source.glob("*.tfrecord-*"))
    for number in range(count := len(files) * TIMES[letter]):
        name = f"{SOURCES[letter]}-train.tfrecord-{number:05d}-of-{count:05d}"
        (folder / name).hardlink_to(files[number % len(files)])
    info = json.loads((source / "dataset_info.json").read_text())
    split = info["splits"][0]
    split |= {"shardLengths": split["shardLengths"] * TIMES[letter]}
    split |= {"numBytes": str(int(split["numBytes"]) * TIMES[letter])}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"name": SOURCES[letter], "splits": [split]}))


def loop(data: Path, letter: str) -> Trial:
    """Write every shard in a plain loop, with the function that Beam calls."""
    job, refs = _begun(data, letter)

    def work() -> None:
        opened = job.open()
        for ref in refs:
            assert opened.shard(ref) is None

    return Trial(work=work, answer=lambda _: _digests(data))


def beam(data: Path, letter: str) -> Trial:
    """Write every shard on Beam's in-memory runner."""
    from pipelines.beam.engine import Engine
    from pipelines.beam.run import run

    job, refs = _begun(data, letter)
    ledger = job.open().ledger
    return Trial(work=lambda: run(job, refs, ledger, engine=Engine()), answer=lambda _: _digests(data))


def again(data: Path, letter: str) -> Trial:
    """Run the conversion of a dataset that is already converted."""
    _convert(data, letter).work()
    return _convert(data, letter, empty=False)


def all_but_manifest(data: Path, letter: str) -> Trial:
    """Resume a conversion with all shards but no manifest."""
    loop(data, letter).work()
    return _convert(data, letter, empty=False)


def _convert(data: Path, letter: str, *, empty: bool = True) -> Trial:
    from pipelines.beam import run  # noqa: F401 - so that the import is not measured
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog

    spec = catalog.dataset(str(HERE / "set_b.toml"))
    out = _emptied(data) if empty else data / "out"
    source = str(_source(data, letter))
    return Trial(work=lambda: convert(spec, out, source=source), answer=lambda _: _digests(data))


def _begun(data: Path, letter: str) -> "tuple[ConversionJob, Sequence[ShardRef]]":
    """Plan a conversion and start its ledger."""
    from pipelines.convert.convert import Conversion
    from pipelines.convert.job import ConversionJob
    from pipelines.convert.ledger import begin
    from pipelines.convert.records import Options
    from schemas.declarations import catalog
    from schemas.files.folder import LocalFolder

    spec, options, out = catalog.dataset(str(HERE / "set_b.toml")), Options(), LocalFolder(_emptied(data))
    work = Conversion.of(spec, out, source=str(_source(data, letter)), options=options)
    begin(out, work.identity)
    job = ConversionJob(declaration=spec.to_json(), source=work.reader.uri, out=out.uri, options=options)
    return job, work.refs


def _source(data: Path, letter: str) -> Path:
    return data / SOURCES[letter] / "1.0.0"


def _emptied(data: Path) -> Path:
    out = data / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def _digests(data: Path) -> str:
    """Hash the output, file by file."""
    import xxhash

    digest = xxhash.xxh3_128()
    for path in sorted((data / "out/data").iterdir()):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The cost of one `oxe convert`, from start to end."""

    wall_s: float
    cpu_s: float  # CPU time of the main process, including imports
    rss_mb: float  # its peak memory
    workers: tuple[tuple[float, float], ...]  # CPU seconds and peak memory in MB of each worker process
    manifest: bytes  # contains the digests of all output


def oxe_convert(data: Path, letter: str, *, workers: int) -> Command:
    """Run `oxe convert` and measure its workers while it runs."""
    words = (HERE / "set_b.toml", "--source", _source(data, letter), "--out", _emptied(data), "--workers", str(workers))
    began, seen = time.perf_counter(), dict[int, tuple[float, float]]()
    with (data / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "oxe_tools", "convert", *words], stdout=log, stderr=log)
    while not (done := os.wait4(process.pid, os.WNOHANG))[0]:
        seen |= {child: usage for child in _below(process.pid) if (usage := _used(child))}
        time.sleep(SOON)
    wall, usage = time.perf_counter() - began, done[2]
    process.returncode = os.waitstatus_to_exitcode(done[1])
    assert process.returncode == 0, (data / "log").read_text()
    return Command(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        rss_mb=usage.ru_maxrss * 1024 / 1e6,
        workers=tuple(seen.values()),
        manifest=(data / "out/meta/manifest.json").read_bytes(),
    )


def _below(process: int) -> list[int]:
    """Return the grandchildren of a process; its children are the fork server of the workers and a helper."""
    return [below for child in _children(process) for below in _children(child)]


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(c) for path in Path(f"/proc/{process}/task").glob("*/children") for c in path.read_text().split()]
    return []


def _used(process: int) -> tuple[float, float] | None:
    """Return the CPU seconds and peak memory in MB of a process, or None if it has ended."""
    with suppress(OSError, StopIteration):
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), peak * 1024 / 1e6
    return None


SIDES: dict[str, Side] = {side.__name__: side for side in (prepare, loop, beam, again, all_but_manifest)}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    generate(args.data)
    load = os.getloadavg()[0]
    for letter in ("K", "B10", "B40"):
        fresh(__file__, args.data, letter, side="prepare")
    many = compare(__file__, args, "K", sides=["loop", "beam", "again", "all_but_manifest"])
    assert len({cost.answer for cost in many.values()}) == 1, "the files written differ"
    sizes = {letter: _alternating(args.data, letter, runs=args.runs) for letter in TIMES}
    for name in ("out", "log", SOURCES["B10"], SOURCES["B40"]):
        shutil.rmtree(args.data / name) if (args.data / name).is_dir() else (args.data / name).unlink()
    where = "in memory (tmpfs)" if args.data.is_relative_to("/dev/shm") else "on disk"  # noqa: S108 - only a comparison
    busy = "; the cores were not idle, so two workers could be faster" if load > 0.5 else ""
    publish(
        "engine",
        args,
        "# The engine\n",
        table(("what", "figure", "goal"), _verdicts(many, sizes)),
        "## In one process, set K\n",
        table(("side", "CPU s", "wall s", "peak RSS MB"), _costs(many)),
        "## `oxe convert`, from the call to the end\n",
        table(("set", "workers", "wall s", "CPU s", "peak RSS MB", "CPU s of each worker"), _commands(sizes)),
        NOTES.format(where=where, load=load, busy=busy, shards=SHARDS),
        packages=("apache-beam", "distributed", "numpy", "pyarrow"),
    )
    return None


def _alternating(data: Path, letter: str, *, runs: int) -> dict[int, list[Command]]:
    """Run with one worker and with two, alternating, and check that their output is equal."""
    results: dict[int, list[Command]] = {1: [], 2: []}
    for _ in range(runs):
        for workers, commands in results.items():
            commands.append(oxe_convert(data, letter, workers=workers))
    assert len({command.manifest for commands in results.values() for command in commands}) == 1, (
        "the files written differ"
    )
    return results


def _costs(many: dict[str, Medians]) -> list[tuple[str, ...]]:
    return [(side, f"{c.cpu_s:.3f}", f"{c.wall_s:.3f}", f"{c.rss_mb:.0f}") for side, c in many.items()]


def _commands(sizes: dict[str, dict[int, list[Command]]]) -> list[tuple[str, ...]]:
    rows = []
    for letter, results in sizes.items():
        for workers, commands in results.items():
            each = [f"{min(cpus):.1f} + {max(cpus):.1f}" for cpus in map(_cpus, commands) if cpus]
            figures = (_median(commands, key) for key in ("wall_s", "cpu_s", "rss_mb"))
            wall, cpu, memory = figures
            rows.append((letter, str(workers), f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}", "; ".join(each)))
    return rows


def _cpus(command: Command) -> list[float]:
    return [cpu for cpu, _ in command.workers]


def _median(commands: Sequence[Command], name: str) -> float:
    return statistics.median(getattr(command, name) for command in commands)


def _verdicts(many: dict[str, Medians], sizes: dict[str, dict[int, list[Command]]]) -> list[tuple[str, str, str]]:
    wall = {letter: [_median(results[workers], "wall_s") for workers in (1, 2)] for letter, results in sizes.items()}
    small, large = wall["B"], wall["B40"]
    over_loop = many["beam"].cpu_s / many["loop"].cpu_s
    memory = _median(sizes["B10"][1], "rss_mb") / _median(sizes["B"][1], "rss_mb")
    two = max(peak for command in sizes["B40"][2] for _, peak in command.workers)
    rest = (large[0] - small[0]) / (large[1] - small[1])
    shared = {
        letter: statistics.median(sum(cpus) / max(cpus) for cpus in map(_cpus, results[2]))
        for letter, results in sizes.items()
    }
    rows: list[tuple[str, float, str]] = [
        ("CPU of Beam in memory over a plain loop, set K", over_loop, at_most(over_loop, BEAM_GOAL)),
        *(
            (f"wall time of 1 worker over 2, set {letter}", one / both, at_least(one / both, WORKERS_GOAL))
            for letter, (one, both) in wall.items()
        ),
        ("the same, set B40 less set B: without starting", rest, at_least(rest, WORKERS_GOAL)),
        *(
            (f"CPU of both workers over that of the busier one, set {letter}", figure, at_least(figure, WORKERS_GOAL))
            for letter, figure in shared.items()
        ),
        ("peak memory, set B10 over set B", memory, at_most(memory, FLAT_GOAL)),
        ("peak memory of the largest worker, set B40, MB", two, ""),
        *(
            (what, many[side].wall_s, at_most(many[side].wall_s, RESUME_GOAL))
            for what, side in (
                ("seconds to find set K finished", "again"),
                ("seconds to finish set K when only the manifest is missing", "all_but_manifest"),
            )
        ),
    ]
    return [(what, f"{value:.2f}", verdict) for what, value, verdict in rows]


NOTES = """\
Set K: {shards} shards, each one episode of 3 steps and 2 cameras of 64x64. Set B: 230 MB in 8 shards (see convert.md).
Sets B10 and B40: its files 10 and 40 times, 2.3 and 9.2 GB.
loop: the function that converts one shard, called in a loop; beam: the same shards on FnApiRunner. Both write the
files and the ledger, but no manifest. again: `convert` of a finished dataset; all_but_manifest: every shard is in
the ledger and the manifest is missing. Imports are not counted.
`oxe convert`: a separate process, including all imports (about 2 s) and, with two workers, the start and end of Dask's
processes. CPU and memory are those of the calling process. The last column lists the workers' CPU, run by run, without
imports, because workers are forks of a process that has imported everything.
The data was {where}. Load average before the runs: {load:.2f}{busy}.
"""

if __name__ == "__main__":
    main()
