"""Random frames of the same recordings: the loader against LeRobot's dataset with videos in a separate environment.

Create it with `python3.11 -m venv LEROBOT` and `LEROBOT/bin/pip install lerobot==0.4.4`; `--lerobot` is its Python.
torchcodec, LeRobot's decoder, needs FFmpeg's libraries on the linker's path (LD_LIBRARY_PATH).
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Side, Trial, arguments, at_least, compare, fresh, publish, run_side, table

LEROBOT = "OXE_TOOLS_BENCH_LEROBOT"  # environment variable for the other environment's Python
COUNT, WARM, BATCH, SEED = 800, 100, 16, 3
CODECS = ("h264", "av1")
DECODERS = {"pyav": "av", "torchcodec": "torchcodec"}  # decoder -> module to import
GOAL = 3.0


def prepare(data: Path, _: str) -> Trial:
    """Convert set L and export its view to LeRobot v3 with videos."""
    from loader_sets import frames

    from pipelines.export.plan import ExportOptions
    from pipelines.export.run import export
    from schemas.store.dataset import open_dataset

    def work() -> None:
        dataset = open_dataset(frames(data) / "whole")
        for codec in CODECS:
            shutil.rmtree(_video(data, codec), ignore_errors=True)
            export(
                dataset,
                _video(data, codec),
                ExportOptions(format="lerobot", version="3.0", view="openvla", video=codec),
            )

    return Trial(work=work, answer=lambda _: None)


def ours(data: Path, _: str) -> Trial:
    """Read batches from the loader, with images in their original size."""
    from finetune.data.loader import Loader, LoaderOptions
    from finetune.data.preprocessing import Preprocessing

    reading = LoaderOptions(preprocessing=Preprocessing(size=None), state=True)
    loader = Loader(data / "loader/one.lock", reading, batch_size=BATCH, cache=data / "loader/cache")
    batches = iter(loader)
    for _ in range(WARM // BATCH):
        next(batches)
    return Trial(work=lambda: sum(len(next(batches)) for _ in range(COUNT // BATCH)))


def ours_items(data: Path, _: str) -> Trial:
    """Read items from `torch_dataset`, which are like LeRobot's: tensors, with images as float32."""
    import torch

    from oxe_tools import torch_dataset

    torch.set_num_threads(1)
    return _items(torch_dataset(data / "loader/whole", view="openvla"))


def lerobot(data: Path, _: str, *, codec: str, decoder: str) -> Trial:
    """Read items from LeRobot's dataset."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return _items(LeRobotDataset("bench/l", root=_video(data, codec), video_backend=decoder))


def _items(frames: Any) -> Trial:
    rng = random.Random(SEED)  # noqa: S311 - not for security
    picks = [rng.randrange(len(frames)) for _ in range(WARM + COUNT)]
    for pick in picks[:WARM]:
        frames[pick]
    return Trial(work=lambda: sum(len(frames[pick]) > 0 for pick in picks[WARM:]))


def _video(data: Path, codec: str) -> Path:
    return data / f"loader/lerobot_{codec}"


def _side(codec: str, decoder: str) -> Side:
    return lambda data, letter: lerobot(data, letter, codec=codec, decoder=decoder)


PEERS = {f"{codec}, {decoder}": _side(codec, decoder) for codec in CODECS for decoder in DECODERS}
SIDES: dict[str, Side] = {"prepare": prepare, "ours": ours, "ours_items": ours_items, **PEERS}


def _usable(python: str) -> list[str]:
    """List the sides whose decoder is installed there."""
    tried = {name: [python, "-c", f"import {what}"] for name, what in DECODERS.items()}
    runs = {name: subprocess.run(command, capture_output=True, check=False) for name, command in tried.items()}
    found = [name for name, run in runs.items() if not run.returncode]
    return [f"{codec}, {decoder}" for codec in CODECS for decoder in found]


def main() -> None:
    """Compare all sides, or run one of them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--lerobot", default=os.environ.get(LEROBOT))
    known, sys.argv[1:] = parser.parse_known_args()
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    if not known.lerobot:
        raise SystemExit(f"name the Python of LeRobot's environment: --lerobot PYTHON, or {LEROBOT}")
    args.data.mkdir(parents=True, exist_ok=True)
    fresh(__file__, args.data, "L", side="prepare")
    peers = _usable(known.lerobot)
    costs = compare(
        __file__, args, "L", sides=["ours", "ours_items", *peers], pythons=dict.fromkeys(peers, known.lerobot)
    )
    each = {side: cost.cpu_s / COUNT * 1e3 for side, cost in costs.items()}
    rows = [
        (
            side,
            f"{ms:.3f}",
            f"{1e3 / ms:,.0f}",
            f"{ms / each['ours']:.1f}",
            f"{ms / each['ours_items']:.1f}",
            at_least(ms / each["ours"], GOAL) if side in peers else "",
        )
        for side, ms in each.items()
    ]
    listed = subprocess.run([known.lerobot, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    versions = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    theirs = ", ".join(f"{name} {versions.get(name, '-')}" for name in ("lerobot", "torch", "torchcodec", "av"))
    publish(
        "loader_lerobot",
        args,
        "# Random frames: the loader, and LeRobot's dataset with videos\n",
        table(("side", "CPU ms a frame", "frames a CPU second", "over ours", "over ours_items", "goal"), rows),
        NOTES.format(missing="" if len(peers) == len(PEERS) else TORCHCODEC, theirs=theirs),
        packages=("numpy", "simplejpeg", "torch"),
    )
    return None


TORCHCODEC = "torchcodec found no FFmpeg on this machine and is left out.\n"
NOTES = """\
The 8512 steps of set L (see loader.md) in OpenVLA's view: frames of 256x256, one camera, with action, state and task.

- ours: batches of 16 of the loader, uint8, JPEG.
- ours_items: items of `torch_dataset`, float32, JPEG.
- the others: items of LeRobotDataset, float32, from `oxe export lerobot --view openvla --video ...`: a key frame each
  second frame as LeRobot has it. All files are in memory; one process, all its threads count.

{missing}In LeRobot's environment: {theirs}.
"""

if __name__ == "__main__":
    main()
