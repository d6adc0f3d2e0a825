"""Read and convert LeRobot videos to JPEG, against sequential decoding with PyAV and encoding with simplejpeg alone.

All sides encode JPEG of quality 95 with 4:2:0 subsampling, like the video.
"""

import shutil
import sys
from pathlib import Path

from harness import HERE, Side, Trial, arguments, at_least, compare, fresh, publish, run_side, table

EPISODES, STEPS, SIZE, QUALITY, PER_FILE = 16, 300, 256, 95, 4
GOAL = 1.0  # frames per second of CPU time, relative to PyAV


def pyav(data: Path, _: str) -> Trial:
    """Decode each file from start to end to RGB with PyAV's defaults and encode each frame, without numeric columns."""
    return sequential(data, threads=0)


def pyav_one(data: Path, _: str) -> Trial:
    """Do the same with one thread to decode and one to convert to RGB, like our reader."""
    return sequential(data, threads=1)


def sequential(data: Path, *, threads: int) -> Trial:
    """Decode and encode with this number of threads (0: FFmpeg's default)."""
    import av
    import simplejpeg

    def work() -> int:
        frames = 0
        for file in sorted((data / "lerobot").rglob("*.mp4")):
            with av.open(str(file)) as container:
                container.streams.video[0].codec_context.thread_count = threads
                for frame in container.decode(video=0):
                    pixels = frame.reformat(format="rgb24", threads=threads).to_ndarray()
                    frames += len(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="420")) > 0
        return frames

    return Trial(work=work)


def read(data: Path, _: str) -> Trial:
    """Read every episode through the reader: frames, numbers, tasks and checks."""
    from pipelines.readers.reader import plan
    from pipelines.readers.registry import open_source
    from schemas.declarations import catalog

    reader = open_source(str(data / "lerobot"), catalog.dataset(str(HERE / "lerobot.toml")).source)

    def work() -> int:
        episodes = (raw for ref in plan(reader.files()) for raw in reader.read(ref))
        return sum(len(raw.steps["observation.images.front"]) for raw in episodes)

    return Trial(work=work)


def convert(data: Path, _: str) -> Trial:
    """Convert the source: images, numbers, index, digests, statistics and manifest."""
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog
    from schemas.store.dataset import open_dataset

    spec, out = catalog.dataset(str(HERE / "lerobot.toml")), data / "lerobot_out"

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        convert(spec, out, source=str(data / "lerobot"))

    def answer(_: None) -> int:
        dataset = open_dataset(out)
        return sum(len(dataset.episode(i).images["front"]) for i in range(len(dataset)))

    return Trial(work=work, answer=answer)


def drawn(data: Path, _: str) -> Trial:
    """Write the source in a separate process, because the frames' memory would count for the sides."""
    return Trial(work=lambda: generate(data))


def generate(data: Path) -> None:
    """Write moving gradients with a little noise as H.264, 4:2:0, with every second frame a key frame, like LeRobot."""
    sys.path.insert(0, str(HERE.parent))
    import numpy as np

    from tests.lerobot import write_lerobot

    if (data / "lerobot").exists():
        return
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]

    def gradient(step: int) -> "np.ndarray":
        frame = np.stack([x + step, y + 2 * step, x * y // SIZE + step], -1).astype(np.uint8)
        return frame + rng.integers(0, 8, frame.shape, np.uint8)

    episodes = [
        {
            "action": rng.normal(size=(STEPS, 7)).astype(np.float32),
            "observation.images.front": np.stack([gradient(step) for step in range(STEPS)]),
            "task": ["move"] * STEPS,
        }
        for _ in range(EPISODES)
    ]
    part = data / "lerobot.part"
    shutil.rmtree(part, ignore_errors=True)
    write_lerobot(part, episodes, version="v3.0", per_file=PER_FILE, options={"g": "2", "crf": "23"})
    part.rename(data / "lerobot")


SIDES: dict[str, Side] = {"pyav": pyav, "pyav, one thread": pyav_one, "read": read, "convert": convert}

if __name__ == "__main__":
    args = arguments(__doc__ or "")
    if args.side:
        run_side(args, {**SIDES, "drawn": drawn})
    else:
        fresh(__file__, args.data, "-", side="drawn")
        results = compare(__file__, args, "-", sides=list(SIDES))
        frames = EPISODES * STEPS
        assert {side.answer for side in results.values()} == {frames}, "the sides made different numbers of frames"
        ratios = {name: results["pyav"].cpu_s / side.cpu_s for name, side in results.items()}
        least = {name: results["pyav, one thread"].cpu_s / side.cpu_s for name, side in results.items()}
        goals = {name: at_least(min(ratios[name], least[name]), GOAL) for name in ("read", "convert")}
        rows = [
            [
                name,
                f"{frames / side.cpu_s:,.0f}",
                f"{ratios[name]:.2f}",
                f"{least[name]:.2f}",
                f"{side.rss_mb:.0f}",
                goals.get(name, ""),
            ]
            for name, side in results.items()
        ]
        header = ["side", "frames per second of CPU", "of PyAV", "of it with one thread", "memory, MB", "goal, of both"]
        size = sum(file.stat().st_size for file in (args.data / "lerobot").rglob("*.mp4")) >> 20
        what = (
            f"{frames} frames of {SIZE}x{SIZE} in {EPISODES // PER_FILE} h264 files of {size} MB together, v3.0, "
            f"{PER_FILE} episodes a file.\nAll sides encode JPEG of quality {QUALITY}, 4:2:0. PyAV decodes from start "
            "to end, by way of RGB, and stores nothing; `read` also reads the\nnumbers and checks counts and times; "
            "`convert` also writes, indexes and hashes everything.\n"
        )
        title = "# LeRobot videos to JPEG\n"
        publish("lerobot", args, title, what, table(header, rows), packages=["av", "numpy", "simplejpeg", "oxe-tools"])
