"""HDF5 with raw frames: reading and converting them as JPEG, against h5py and simplejpeg alone, a frame at a time."""

import shutil
from pathlib import Path

from harness import HERE, Side, Trial, arguments, at_least, compare, publish, run_side, table

EPISODES, STEPS, SIZE, QUALITY = 8, 600, 256, 95
GOAL = 0.8  # of the plain loop's frames per second of CPU time


def plain(data: Path, _: str) -> Trial:
    """Read and encode each frame, keep the sum of the sizes."""
    import h5py
    import numpy as np
    import simplejpeg

    def work() -> int:
        total = 0
        with h5py.File(data / "hdf5" / "raw.hdf5") as file:
            for demo in file["data"].values():
                demo["actions"][:]
                for frame in demo["obs/image"]:
                    total += len(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=QUALITY))
        return total

    return Trial(work=work)


def read(data: Path, _: str) -> Trial:
    """Read every episode through the reader."""
    from pipelines.readers.registry import open_source
    from pipelines.readers.source import plan
    from schemas import catalog

    reader = open_source(str(data / "hdf5"), catalog.dataset(str(HERE / "hdf5.toml")).source)

    def work() -> int:
        episodes = (raw for ref in plan(reader.files()) for raw in reader.read(ref))
        return sum(len(image) for raw in episodes for image in raw.steps["obs.image"])

    return Trial(work=work)


def convert(data: Path, _: str) -> Trial:
    """Convert the source: images, numbers, index, digests, statistics and manifest."""
    from pipelines.convert import convert
    from schemas import catalog
    from schemas.store import open_dataset

    spec, out = catalog.dataset(str(HERE / "hdf5.toml")), data / "hdf5_out"

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        convert(spec, out, source=str(data / "hdf5"))

    def answer(_: None) -> int:
        dataset = open_dataset(out)
        return sum(len(f) for i in range(len(dataset)) for f in dataset.episode(i).images["image"] if f is not None)

    return Trial(work=work, answer=answer)


def generate(data: Path) -> None:
    """Draw moving gradients with a little noise, as chunks of one frame."""
    import h5py
    import numpy as np

    file = data / "hdf5" / "raw.hdf5"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    with h5py.File(file.with_suffix(".part"), "w") as made:
        for number in range(EPISODES):
            demo = made.create_group(f"data/demo_{number}")
            demo["actions"] = rng.normal(size=(STEPS, 7))
            shape = (STEPS, SIZE, SIZE, 3)
            frames = demo.create_dataset("obs/image", shape, np.uint8, chunks=(1, *shape[1:]))
            for step in range(STEPS):
                drawn = np.stack([x + step, y + 2 * step, x * y // SIZE + step], -1).astype(np.uint8)
                frames[step] = drawn + rng.integers(0, 8, shape[1:], np.uint8)
    file.with_suffix(".part").rename(file)


SIDES: dict[str, Side] = {"plain": plain, "read": read, "convert": convert}

if __name__ == "__main__":
    args = arguments(__doc__ or "")
    if args.side:
        run_side(args, SIDES)
    else:
        generate(args.data)
        found = compare(__file__, args, "-", sides=list(SIDES))
        assert len({side.answer for side in found.values()}) == 1, "the sides made different images"
        frames = EPISODES * STEPS
        ratios = {name: found["plain"].cpu_s / side.cpu_s for name, side in found.items()}
        goals = {"convert": at_least(ratios["convert"], GOAL)}
        rows = [
            [name, f"{frames / side.cpu_s:,.0f}", f"{ratios[name]:.2f}", f"{side.rss_mb:.0f}", goals.get(name, "")]
            for name, side in found.items()
        ]
        header = ["side", "frames per second of CPU", "of the plain loop", "memory, MB", "goal"]
        what = f"{frames} raw frames of {SIZE}x{SIZE} in one file of {frames * SIZE * SIZE * 3 >> 20} MB.\n"
        title = "# HDF5 with raw frames to JPEG\n"
        publish("hdf5", args, title, what, table(header, rows), packages=["h5py", "numpy", "simplejpeg", "oxe-tools"])
