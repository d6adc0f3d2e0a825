"""The loader's time to the first of a million steps, and its memory over two million samples, for two dataset sizes.

Images are distinct JPEGs of 16x16, so that the loader is measured and not the decoder.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from harness import Side, Trial, arguments, at_most, compare, fresh, publish, run_side, table

SAMPLES, BATCH, LOOKS = 2_000_000, 50, 20
SETS = ("small", "large")
FIRST_GOAL, GROWTH_GOAL, SIZE_GOAL = 0.5, 1.02, 1.05


def prepare(data: Path, name: str) -> Trial:
    """Write one of the sets and let the loader create its records."""
    import loader_sets

    which = {"small": loader_sets.SMALL, "large": loader_sets.LARGE}[name]

    def work() -> None:
        shutil.rmtree(_cache(data), ignore_errors=True)
        loader_sets.tiny(data, which, name)

    return Trial(work=work, answer=lambda _: None)


def warmed(data: Path, name: str) -> Trial:
    """Draw until the loader has records of all files."""
    loader = _loader(data, name)

    def work() -> None:
        batches = iter(loader)
        for _ in range(2_000 // BATCH):
            next(batches)

    return Trial(work=work, answer=lambda _: len(list(_cache(data).rglob("*.records"))))


def first_cold(data: Path, name: str) -> Trial:
    """Open the lock and draw the first sample, without records from an earlier use."""
    shutil.rmtree(_cache(data), ignore_errors=True)
    return _first(data, name)


def first_forgotten(data: Path, name: str) -> Trial:
    """Do the same with records, but without files in the page cache."""
    for path in (path for path in (data / "loader").rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _first(data, name)


def first_warm(data: Path, name: str) -> Trial:
    """Do the same with records and page cache."""
    return _first(data, name)


def _first(data: Path, name: str) -> Trial:
    from finetune.data import loader as _  # noqa: F401 - so that the import is not measured

    return Trial(work=lambda: len(next(iter(_loader(data, name, batch=1)))))


def soak(data: Path, name: str) -> Trial:
    """Draw samples; the answer is the process's memory at regular intervals."""
    loader = _loader(data, name)

    def work() -> dict[str, Any]:
        batches, total, anonymous = iter(loader), [], []
        for look in range(LOOKS + 1):
            for _ in range(SAMPLES // BATCH // LOOKS if look else 1):
                batch = next(batches)
            about = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            total.append(int(about["VmRSS"].split()[0]) / 1024)
            anonymous.append(int(about["RssAnon"].split()[0]) / 1024)
        return {"samples": batch.end, "steps": loader.steps, "total": total, "anonymous": anonymous}

    return Trial(work=work)


def _loader(data: Path, name: str, batch: int = BATCH) -> Any:
    from finetune.data.loader import Loader, LoaderOptions
    from finetune.data.preprocessing import Preprocessing

    reading = LoaderOptions(preprocessing=Preprocessing(size=None))
    return Loader(data / f"loader/{name}.lock", reading, batch_size=batch, cache=_cache(data))


def _cache(data: Path) -> Path:
    return data / "loader/cache"


FIRSTS: dict[str, Side] = {
    "first_cold": first_cold,
    "warmed": warmed,
    "first_forgotten": first_forgotten,
    "first_warm": first_warm,
}


def main() -> None:
    """Measure all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, {**FIRSTS, "prepare": prepare, "soak": soak}, rounds=1)
    args.data.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        fresh(__file__, args.data, name, side="prepare")
    costs = compare(__file__, args, "large", sides=list(FIRSTS))
    load = os.getloadavg()[1]
    del costs["warmed"]
    firsts = [
        (side, f"{cost.wall_s:.3f}", f"{cost.cpu_s:.3f}", f"{cost.rss_mb:.0f}", at_most(cost.wall_s, FIRST_GOAL))
        for side, cost in costs.items()
    ]
    soaks = {name: fresh(__file__, args.data, name, side="soak") for name in SETS}
    rows, ends = [], {}
    for name, cost in soaks.items():
        results, total = cost.answer, cost.answer["total"]
        settled = total[LOOKS // 10 :]
        ends[name], growth = total[-1], max(settled) / settled[0]
        rows.append((
            name,
            f"{results['steps']:,}",
            f"{results['samples']:,}",
            f"{cost.cpu_s / results['samples'] * 1e6:.1f}",
            *(f"{total[look]:.1f}" for look in (0, LOOKS // 10, LOOKS // 2, LOOKS)),
            f"{results['anonymous'][-1]:.1f}",
            f"{growth:.3f}",
            at_most(growth, GROWTH_GOAL),
        ))  # fmt: skip
    ratio = ends["large"] / ends["small"]
    publish(
        "loader_soak",
        args,
        "# The loader: its first sample, and its memory\n",
        "The first sample of 1,000,000 stored steps, after imports, each time in a new process:\n",
        table(("side", "wall s", "CPU s", "peak RSS MB", "goal"), firsts),
        "cold: the first use of the loader with this dataset. forgotten: its records are cached, and no page of any\n"
        f"file is in memory. warm: both are. The machine's load was {load:.1f}: a load above the number of\n"
        "cores makes wall times longer.\n",
        f"Memory (VmRSS, MB) while {SAMPLES:,} samples are yielded, one process each:\n",
        table(
            (
                "set",
                "steps",
                "samples",
                "CPU µs a sample",
                "first",
                "10 %",
                "50 %",
                "end",
                "anonymous",
                "growth",
                "goal",
            ),
            rows,
        ),
        f"growth: the largest of {LOOKS} readings from 10 % on, divided by the one at 10 %. The large set has 20\n"
        f"times the steps and {ratio:.3f} of the small one's memory: {at_most(ratio, SIZE_GOAL)}.\n",
        "Images are JPEGs of 16x16, all different; batches of 50, no resize, no threads. Both sets are generated\n"
        "RLDS that `oxe convert` converts, in files of the usual size, with episodes of 100 steps.\n",
        packages=("numpy", "polars", "simplejpeg"),
        how="runs of each kind of first sample; one soak each",
    )
    return None


if __name__ == "__main__":
    main()
