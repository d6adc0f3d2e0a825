"""Read and convert HDF5 with raw and with encoded frames, against h5py and simplejpeg alone.

The plain loops handle one frame at a time, as scripts do: raw frames are read and encoded as JPEG; encoded frames are
read and written to one file.
"""

import argparse
import shutil
from pathlib import Path

from harness import HERE, Side, Trial, arguments, at_least, compare, publish, run_side, table

EPISODES, STEPS, SIZE, QUALITY = 8, 600, 256, 95
GOAL = 0.8  # frames per second of CPU time, relative to the plain loop
SETS = {"raw": "raw frames, encoded as JPEG", "encoded": "JPEG in padded rows, copied"}


def plain(data: Path, name: str) -> Trial:
    """Read each frame and encode it or write it to a file; returns the total size."""
    import h5py
    import numpy as np
    import simplejpeg

    def work() -> int:
        total = 0
        with h5py.File(source(data, name) / "demos.hdf5") as file, (data / "hdf5_plain.bin").open("wb") as out:
            for demo in file["data"].values():
                demo["actions"][:]
                for frame in demo["obs/image"]:
                    if name == "raw":
                        total += len(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=QUALITY))
                    else:
                        total += out.write(frame.tobytes().rstrip(b"\0"))
        return total

    return Trial(work=work)


def read(data: Path, name: str) -> Trial:
    """Read every episode through the reader."""
    from pipelines.readers.reader import plan
    from pipelines.readers.registry import open_source
    from schemas.declarations import catalog

    reader = open_source(str(source(data, name)), catalog.dataset(str(HERE / "hdf5.toml")).source)

    def work() -> int:
        episodes = (raw for ref in plan(reader.files()) for raw in reader.read(ref))
        return sum(len(image) for raw in episodes for image in raw.steps["obs.image"])

    return Trial(work=work)


def convert(data: Path, name: str) -> Trial:
    """Convert the source: images, numbers, index, digests, statistics and manifest."""
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog
    from schemas.store.index import Index

    spec, out = catalog.dataset(str(HERE / "hdf5.toml")), data / "hdf5_out"

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        convert(spec, out, source=str(source(data, name)))

    def answer(_: None) -> int:
        return sum(int(Index(file.read_bytes(), file.name).lengths.sum()) for file in out.glob("index/*"))

    return Trial(work=work, answer=answer)


def source(data: Path, name: str) -> Path:
    """Return the folder of a set."""
    return data / f"hdf5_{name}"


def generate(data: Path) -> None:
    """Write moving gradients with some noise in chunks of one frame, and the same frames encoded to the other set."""
    import h5py
    import numpy as np
    import simplejpeg

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    for name in SETS:
        file = source(data, name) / "demos.hdf5"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file.with_suffix(".part"), "w") as made:
            for number in range(EPISODES):
                demo = made.create_group(f"data/demo_{number}")
                demo["actions"] = rng.normal(size=(STEPS, 7))
                drawn = (
                    np.stack([x + step, y + 2 * step, x * y // SIZE + step], -1).astype(np.uint8)
                    + rng.integers(0, 8, (SIZE, SIZE, 3), np.uint8)
                    for step in range(STEPS)
                )
                if name == "raw":
                    shape = (STEPS, SIZE, SIZE, 3)
                    frames = demo.create_dataset("obs/image", shape, np.uint8, chunks=(1, *shape[1:]))
                    for step, frame in enumerate(drawn):
                        frames[step] = frame
                else:
                    encoded = [simplejpeg.encode_jpeg(frame, quality=QUALITY) for frame in drawn]
                    longest = max(map(len, encoded))
                    rows = np.stack([np.frombuffer(image.ljust(longest, b"\0"), np.uint8) for image in encoded])
                    demo.create_dataset("obs/image", data=rows, chunks=(1, longest))
        file.with_suffix(".part").rename(file)


def ratios(args: argparse.Namespace, name: str) -> str:
    """Run the sides on one set and return its table."""
    results = compare(__file__, args, name, sides=list(SIDES))
    assert len({side.answer for side in results.values()}) == 1, "the sides made different images"
    frames = EPISODES * STEPS
    ratio = {side: results["plain"].cpu_s / cost.cpu_s for side, cost in results.items()}
    goals = {"convert": at_least(ratio["convert"], GOAL)} if name == "raw" else {}
    rows = [
        [side, f"{frames / cost.cpu_s:,.0f}", f"{ratio[side]:.2f}", f"{cost.rss_mb:.0f}", goals.get(side, "")]
        for side, cost in results.items()
    ]
    header = ["side", "frames per second of CPU", "of the plain loop", "memory, MB", "goal"]
    size = (source(args.data, name) / "demos.hdf5").stat().st_size >> 20
    return f"{frames} frames of {SIZE}x{SIZE} in one file of {size} MB: {SETS[name]}.\n\n{table(header, rows)}"


SIDES: dict[str, Side] = {"plain": plain, "read": read, "convert": convert}

if __name__ == "__main__":
    args = arguments(__doc__ or "")
    if args.side:
        run_side(args, SIDES)
    else:
        generate(args.data)
        parts = [ratios(args, name) for name in SETS]
        publish("hdf5", args, "# HDF5\n", *parts, packages=["h5py", "numpy", "simplejpeg", "oxe-tools"])
