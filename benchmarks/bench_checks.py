"""What it costs the loader and `open_dataset` to compare what they read with its CRC-32C.

Both sides run in one process and take turns, batch by batch, because the difference is smaller than that of two runs.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from harness import Trial, arguments, at_most, fresh, publish, run_side, table

BATCH, WARM, ROUNDS = 16, 40, 200
GOAL = 1.03
LOADERS: Mapping[str, Mapping[str, Any]] = {
    "loader, images to 224x224": {},
    "loader, images as stored": {"size": None},
    "loader, chunks of 8 actions, images to 224x224": {"chunk": 8},
    "loader, numbers alone": {"cameras": ()},
    "loader, numbers alone, chunks of 8 actions": {"cameras": (), "chunk": 8},
    "loader, numbers alone, batches of 256": {"cameras": (), "batch_size": 256},
}


def prepare(data: Path, _: str) -> Trial:
    """Write the dataset and its lock."""
    from loader_sets import single

    return Trial(work=lambda: str(single(data)))


@contextmanager
def unchecked() -> Iterator[None]:
    """Read without comparing: images, records, and images of `open_dataset`."""
    from finetune.data.records import RecordSums
    from finetune.data.sources import File
    from schemas.store import data_file

    def image(self: Any, row: int, column: int) -> bytes | None:
        start, length, _ = self.index.images.item(row, column)
        return self.content[start : start + length] if length else None

    with (
        patch.object(RecordSums, "damaged", lambda *_: None),
        patch.object(File, "image", lambda self, start, length, _: self.images.read(start, length)),
        patch.object(data_file.DataFile, "image", image),
    ):
        yield


def turns(work: Callable[[], Any], count: int) -> dict[str, float]:
    """Return the CPU seconds of one call with and without checks, and the median ratio of neighbouring calls."""
    with_checks, without = [], []
    for _ in range(count):
        began = time.process_time_ns()
        work()
        with_checks.append(time.process_time_ns() - began)
        with unchecked():
            began = time.process_time_ns()
            work()
            without.append(time.process_time_ns() - began)
    ratio = median(with_checks) / median(without)
    return {"checked": median(with_checks) / 1e9, "unchecked": median(without) / 1e9, "ratio": ratio}


def loader(data: Path, _: str) -> Trial:
    """Draw batches from each loader in turn."""
    from finetune.data.loader import Loader, LoaderOptions
    from finetune.data.preprocessing import Preprocessing

    def work() -> dict[str, dict[str, float]]:
        found = {}
        for name, asked in LOADERS.items():
            options: dict[str, Any] = dict(asked)
            batch = options.pop("batch_size", BATCH)
            size = {"size": options.pop("size")} if "size" in options else {}
            reading = LoaderOptions(preprocessing=Preprocessing(**size), **options)
            lock = data / "loader/single.lock"
            batches = iter(Loader(lock, reading, batch_size=batch, cache=data / "loader/cache_checks"))
            for _ in range(WARM):
                next(batches)
            costs = turns(lambda batches=batches: next(batches), ROUNDS)  # type: ignore[misc]
            found[name] = costs | {side: costs[side] * BATCH / batch for side in ("checked", "unchecked")}
        return found

    return Trial(work=work)


def frames(data: Path, _: str) -> Trial:
    """Read encoded frames at random."""
    import numpy as np

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(data / "loader/single")
    rng = np.random.default_rng(0)

    def work() -> dict[str, float]:
        def read() -> None:
            for i in picks:
                dataset.frame(i, 3)

        picks = rng.integers(0, len(dataset), BATCH).tolist()
        for _ in range(WARM):
            read()
        return turns(read, ROUNDS)

    return Trial(work=work)


def main() -> None:
    """Run the sides, and print the table."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, {"prepare": prepare, "loader": loader, "frames": frames}, rounds=1)
    args.data.mkdir(parents=True, exist_ok=True)
    if not (args.data / "loader/single.lock").exists():
        fresh(__file__, args.data, "L", side="prepare")
    runs = [fresh(__file__, args.data, "L", side="loader").answer for _ in range(args.runs)]
    raw = [fresh(__file__, args.data, "L", side="frames").answer for _ in range(args.runs)]
    found = {name: [run[name] for run in runs] for name in LOADERS} | {"`Dataset.frame`, encoded images": raw}
    rows = []
    for name, costs in found.items():
        checked, without, ratio = (median(cost[key] for cost in costs) for key in ("checked", "unchecked", "ratio"))
        each = [f"{seconds / BATCH * 1e6:.1f}" for seconds in (checked, without)]
        goal = at_most(ratio, GOAL) if "images to" in name or "as stored" in name else ""
        rows.append((name, *each, f"{(ratio - 1) * 100:+.1f}%", goal))
    publish(
        "checks",
        args,
        "# What the checks cost\n",
        table(("reads", "CPU us a sample", "without checks", "more", "goal"), rows),
        NOTES.format(batch=BATCH, rounds=ROUNDS),
        packages=("numpy", "crc32c", "simplejpeg"),
        how="processes, each with both sides in turn",
    )
    return None


NOTES = """\
Set L: 8960 JPEGs of 256x256, 22 kB each, one camera. Batches of {batch}; in each process {rounds} batches with
checks and {rounds} without, in turn. A ratio is that of the medians of a process.

- With checks: the CRC-32C of each image, and the checksums of the cached records of a batch.
- Without: the same code, but no checksum of images and records is computed.
"""

if __name__ == "__main__":
    main()
