"""Statistics: against numpy's quantiles, the bytes read of a large dataset, and the cost for 1 to 100 M steps.

python benchmarks/bench_stats.py
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from generate import BenchSet, ensure
from harness import Trial

from pipelines.convert.convert import convert
from pipelines.convert.publish import encode_manifest
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from schemas.declarations import catalog
from schemas.source import Array
from schemas.store import layout
from schemas.store.dataset import open_dataset
from stats.moments import Moments
from stats.quantiles import ALL, Histogram, Search, interpolated, quantiles, ranks
from stats.summary import QUANTILES

HERE = Path(__file__).parent
ROWS, DIMS = 10_000_000, 7
TWO, SEVEN = [0.01, 0.99], list(QUANTILES.values())
LARGE = BenchSet(name="bench_c", seed=3, shards=8, episodes=94, steps=60, cameras=2, pixels=256, grain=3.0)
LONG = BenchSet(name="bench_d", seed=4, shards=1, episodes=100, steps=1000, cameras=0, pixels=0, grain=0.0)


def numbers(_: Path) -> Array:
    """Draw normal, small, binary and constant columns, like those of actions."""
    x = np.random.default_rng(0).normal(size=(ROWS, DIMS)).astype(np.float32)
    x[:, 3:5] *= np.float32(0.01)
    x[:, 5] = 0
    x[:, 6] = x[:, 6] > 0
    return x


def with_numpy(data: Path, _: str) -> Trial:
    """Compute two quantiles in two calls, as trainers do."""
    x = numbers(data)
    return Trial(work=lambda: [np.quantile(x, q, axis=0) for q in TWO], answer=lambda _: "")


def with_ours(wanted: list[float]) -> Callable[[Path, str], Trial]:
    """Compute quantiles; the answer is the size of the largest state and the number of values unlike numpy's."""

    def side(data: Path, _: str) -> Trial:
        x = numbers(data)
        return Trial(work=lambda: quantiles(x, wanted), answer=lambda found: _judged(x, wanted, found))

    return side


def everything(data: Path, _: str) -> Trial:
    """Compute the seven quantiles, mean, std, min and max."""
    x = numbers(data)
    return Trial(work=lambda: (Moments.of(x), quantiles(x, SEVEN)), answer=lambda _: "")


def _judged(x: Array, wanted: list[float], found: Array) -> dict[str, Any]:
    search, state, passes = Search.of(ranks(wanted, len(x)), dims=DIMS), 0, 0
    while search.bits < ALL:
        counted = Histogram.of(x, search)
        state, passes = max(state, counted.keys.nbytes + counted.counts.nbytes), passes + 1
        search = search.narrowed(counted)
    ordered = np.sort(np.ascontiguousarray(x.T), axis=1)
    wrong = int((search.values != ordered[:, ranks(wanted, len(x))]).sum())
    assert np.array_equal(interpolated(search, wanted, len(x)), found)
    exact = np.quantile(ordered.astype(np.float64), wanted, axis=1)
    return {"state_mb": state / 1e6, "passes": passes, "wrong": wrong, "unequal": int((exact != found).sum())}


# Bytes


def large(data: Path) -> Path:
    """Convert a set of about 2 GB, if that is not done yet."""
    out = data / "large"
    if not (out / layout.MANIFEST).is_file():
        source = ensure(LARGE, data)
        spec = catalog.dataset(str(HERE / "set_b.toml"))
        convert(spec, out, source=str(source), overwrite=out.exists())
        shutil.rmtree(source)
    return out


def reading(data: Path, view: str) -> Trial:
    """Compute the statistics of a dataset that is not in the page cache, and count the bytes read."""
    out = large(data)
    chosen = Selection(view=view or None)
    statistics(open_dataset(out), selection=chosen, recompute=True)  # imports
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    for path in (path for path in out.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def work() -> dict[str, Any]:
        before = _io()
        found = statistics(open_dataset(out), selection=chosen, recompute=True)
        after = _io()
        counted = {name: (after[name] - before[name]) / size for name in ("rchar", "read_bytes")}
        return {**counted, "steps": found.steps, "gb": size / 1e9}

    return Trial(work=work)


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


# Growth


def prepare(data: Path, _: str) -> Trial:
    """Make the datasets."""
    large(data)
    for millions in (1, 10, 100):
        long(data, millions)
    return Trial(work=lambda: None)


def long(data: Path, millions: int) -> Path:
    """Make a dataset of many millions of steps from one file of 100,000 steps, linked under many names."""
    out = data / f"long_{millions}"
    if not (out / layout.MANIFEST).is_file():
        first = data / "long"
        convert(
            catalog.dataset(str(HERE / "set_d.toml")), first, source=str(ensure(LONG, data)), overwrite=first.exists()
        )
        _multiplied(first, out, times=10 * millions)
    return out


def _multiplied(first: Path, out: Path, *, times: int) -> None:
    manifest = json.loads((first / layout.MANIFEST).read_bytes())
    (entry,) = manifest["files"]
    episodes = pq.read_table(first / layout.EPISODES)
    for folder in (layout.DATA, layout.META):
        (out / folder).mkdir(parents=True, exist_ok=True)
    files, tables = [], []
    for i in range(times):
        name = layout.data_file(f"train-{i:05d}-of-{times:05d}")
        (out / name).unlink(missing_ok=True)
        (out / name).hardlink_to(first / entry["path"])
        files.append({**entry, "path": name})
        column = pa.array([name] * len(episodes))
        tables.append(episodes.set_column(episodes.schema.get_field_index("file"), "file", column))
    pq.write_table(pa.concat_tables(tables), out / layout.EPISODES)
    count, steps = times * len(episodes), times * manifest["steps"]
    splits = {"train": {"episodes": count, "steps": steps}}
    balance = {**manifest["balance"], "source": count, "kept": count}
    changed = {**manifest, "files": files, "steps": steps, "splits": splits, "balance": balance}
    changed.pop("xxh3_128")
    (out / layout.MANIFEST).write_bytes(encode_manifest(changed))


def growing(data: Path, millions: str) -> Trial:
    """Compute the statistics of many steps."""
    out = long(data, int(millions))
    statistics(open_dataset(long(data, 1)), recompute=True)  # imports
    return Trial(work=lambda: statistics(open_dataset(out), recompute=True).steps)


SIDES = {
    "prepare": prepare,
    "numpy": with_numpy,
    "two": with_ours(TWO),
    "seven": with_ours(SEVEN),
    "everything": everything,
    "reading": reading,
    "growing": growing,
}
