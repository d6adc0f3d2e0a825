"""What the engine costs: Beam over a plain loop, two workers over one, memory over the size, and going on."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
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
    from pipelines.job import Job
    from pipelines.readers.source import ShardRef

SHARDS, TIMES = 1000, 10  # of set K, and how many copies of set B make set B10
BEAM_GOAL, WORKERS_GOAL, FLAT_GOAL, RESUME_GOAL = 1.05, 1.7, 1.1, 2.0
SOURCES = {"B": "bench_b", "B10": "bench_b10", "K": "bench_k"}


def prepare(data: Path, letter: str) -> Trial:
    """Write a set of our own, if it is missing."""
    return Trial(work={"K": lambda: _many_shards(data), "B10": lambda: _copies(data)}[letter])


def _many_shards(data: Path) -> None:
    """Write set K: every episode is a split, and so a shard, of its own."""
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


def _copies(data: Path) -> None:
    """Write set B10: the files of set B, ten times."""
    source, folder = _source(data, "B"), _source(data, "B10")
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    shutil.copyfile(source / "features.json", folder / "features.json")
    files = sorted(source.glob("*.tfrecord-*"))
    for number in range(count := len(files) * TIMES):
        name = f"bench_b10-train.tfrecord-{number:05d}-of-{count:05d}"
        shutil.copyfile(files[number % len(files)], folder / name)
    info = json.loads((source / "dataset_info.json").read_text())
    split = info["splits"][0]
    split |= {"shardLengths": split["shardLengths"] * TIMES, "numBytes": str(int(split["numBytes"]) * TIMES)}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"name": "bench_b10", "splits": [split]}))


def loop(data: Path, letter: str) -> Trial:
    """Do every shard in a plain loop, with the very function that Beam calls."""
    job, refs = _begun(data, letter)

    def work() -> None:
        opened = job.open()
        for ref in refs:
            assert opened.shard(ref) is None

    return Trial(work=work, answer=lambda _: _digests(data))


def beam(data: Path, letter: str) -> Trial:
    """Do every shard on Beam in memory."""
    from pipelines.beam.run import run
    from pipelines.records import Engine

    job, refs = _begun(data, letter)
    return Trial(work=lambda: run(job, refs, engine=Engine()), answer=lambda _: _digests(data))


def one_worker(data: Path, letter: str) -> Trial:
    """Convert as `oxe convert` does."""
    return _convert(data, letter, workers=1)


def two_workers(data: Path, letter: str) -> Trial:
    """Convert as `oxe convert --workers 2` does; the processes start and end in it."""
    return _convert(data, letter, workers=2)


def again(data: Path, letter: str) -> Trial:
    """Convert what is converted."""
    _convert(data, letter, workers=1).work()
    return _convert(data, letter, workers=1, empty=False)


def all_but_manifest(data: Path, letter: str) -> Trial:
    """Go on where every shard is done and the manifest is not written."""
    loop(data, letter).work()
    return _convert(data, letter, workers=1, empty=False)


def _convert(data: Path, letter: str, *, workers: int, empty: bool = True) -> Trial:
    from pipelines.beam import run  # noqa: F401 - imports are not measured
    from pipelines.convert import convert
    from pipelines.records import Engine
    from schemas import catalog

    spec = catalog.dataset(str(HERE / "set_b.toml"))
    out = _emptied(data) if empty else data / "out"
    source, engine = str(_source(data, letter)), Engine(workers=workers)
    return Trial(work=lambda: convert(spec, out, source=source, engine=engine), answer=lambda _: _digests(data))


def _begun(data: Path, letter: str) -> "tuple[Job, Sequence[ShardRef]]":
    """Plan a conversion and begin its ledger."""
    from pipelines.job import Job
    from pipelines.ledger import begin
    from pipelines.publish import identity_of
    from pipelines.readers.registry import open_source
    from pipelines.readers.source import plan
    from pipelines.records import Options
    from pipelines.standardize import bind
    from schemas import catalog, layout

    spec, options, out = catalog.dataset(str(HERE / "set_b.toml")), Options(), _emptied(data)
    reader = open_source(str(_source(data, letter)), spec.source.format)
    (out / layout.META).mkdir()
    begin(out, identity_of(bind(spec, reader.fields), reader, options))
    return Job(declaration=spec.to_json(), source=reader.uri, out=str(out), options=options), plan(reader)


def _source(data: Path, letter: str) -> Path:
    return data / SOURCES[letter] / "1.0.0"


def _emptied(data: Path) -> Path:
    out = data / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def _digests(data: Path) -> str:
    """Digest what was written, one file after the other."""
    import xxhash

    digest = xxhash.xxh3_128()
    for path in sorted((data / "out/data").iterdir()):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


SIDES: dict[str, Side] = {
    side.__name__: side for side in (prepare, loop, beam, one_worker, two_workers, again, all_but_manifest)
}


def main() -> None:
    """Compare, or be one side."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    generate(args.data)
    load = os.getloadavg()[0]
    for letter in ("K", "B10"):
        fresh(__file__, args.data, letter, side="prepare")
    many = compare(__file__, args, "K", sides=["loop", "beam", "again", "all_but_manifest"])
    sizes = {letter: compare(__file__, args, letter, sides=["one_worker", "two_workers"]) for letter in ("B", "B10")}
    assert len({cost.answer for cost in many.values()}) == 1, "the files written differ"
    for costs in sizes.values():
        assert costs["one_worker"].answer == costs["two_workers"].answer, "the files written differ"
    for name in ("out", SOURCES["B10"]):
        shutil.rmtree(args.data / name)
    where = "in memory (tmpfs)" if args.data.is_relative_to("/dev/shm") else "on disk"  # noqa: S108 - only compared
    busy = "; the cores were not free, so two workers show less than they can" if load > 0.5 else ""
    publish(
        "engine",
        args,
        "# The engine\n",
        table(("set", "side", "CPU s", "wall s", "peak RSS MB"), _costs({"K": many, **sizes})),
        table(("what", "figure", "goal"), _verdicts(many, sizes)),
        NOTES.format(where=where, load=load, busy=busy, shards=SHARDS, times=TIMES),
        packages=("apache-beam", "distributed", "numpy", "pyarrow"),
    )
    return None


def _costs(found: dict[str, dict[str, Medians]]) -> list[tuple[str, ...]]:
    rows = []
    for letter, costs in found.items():
        for side, cost in costs.items():
            cpu, memory = f"{cost.cpu_s:.3f}", f"{cost.rss_mb:.0f}"
            alone = side != "two_workers"
            rows.append((letter, side, cpu if alone else "", f"{cost.wall_s:.3f}", memory if alone else ""))
    return rows


def _verdicts(many: dict[str, Medians], sizes: dict[str, dict[str, Medians]]) -> list[tuple[str, str, str]]:
    over_loop = many["beam"].cpu_s / many["loop"].cpu_s
    small, large = sizes["B"], sizes["B10"]
    two, two_large = (costs["one_worker"].wall_s / costs["two_workers"].wall_s for costs in (small, large))
    one_rest, two_rest = (large[side].wall_s - small[side].wall_s for side in ("one_worker", "two_workers"))
    rest = one_rest / two_rest
    memory = large["one_worker"].rss_mb / small["one_worker"].rss_mb
    rows: list[tuple[str, float, str]] = [
        ("CPU of Beam in memory over a plain loop, set K", over_loop, at_most(over_loop, BEAM_GOAL)),
        ("wall time of 1 worker over 2, set B", two, at_least(two, WORKERS_GOAL)),
        ("the same, set B10", two_large, at_least(two_large, WORKERS_GOAL)),
        ("the same, set B10 less set B: without starting", rest, at_least(rest, WORKERS_GOAL)),
        ("peak memory, set B10 over set B", memory, at_most(memory, FLAT_GOAL)),
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
Set B: 230 MB in 8 shards (see convert.md). Set B10: its files {times} times, 2.3 GB. Set K: {shards} shards, each one
episode of 3 steps and 2 cameras of 64x64.
loop: the function that converts one shard, called in a loop; beam: the same shards on FnApiRunner. Both write the
files and the ledger, but no manifest. Imports are not counted.
one_worker, two_workers: the whole `convert`, for two with starting and ending Dask's processes, whose CPU and memory
are not counted and so not shown.
again: `convert` where all is done; all_but_manifest: where every shard is in the ledger and the manifest is missing.
The data lay {where}. Load average before the runs: {load:.2f}{busy}.
"""

if __name__ == "__main__":
    main()
