"""Read random frames of one 256x256 camera as torch tensors: `torch_dataset` against only decoding the same JPEGs."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import HERE, Side, Trial, arguments, compare, fresh, generate, publish, run_side, table

SEED, COUNT = 3, 3_000
CHUNK = 8  # actions per chunk


def prepare(data: Path, letter: str) -> Trial:
    """Convert the set."""
    from pipelines.convert.convert import convert
    from schemas.declarations import catalog

    root = _root(data, letter)

    def work() -> None:
        shutil.rmtree(root, ignore_errors=True)
        source = data / f"bench_{letter.lower()}" / "1.0.0"
        convert(catalog.dataset(str(HERE / f"set_{letter.lower()}.toml")), root, source=str(source))

    return Trial(work=work, answer=lambda _: None)


def decode(data: Path, letter: str) -> Trial:
    """Only find the images in the index and decode them with simplejpeg."""
    import simplejpeg

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(_root(data, letter))
    camera = dataset.cameras[0]
    steps = [(i, step) for i in range(len(dataset)) for step in range(dataset.where(i)[2])]
    encoded = [dataset.frame(*steps[pick], [camera])[camera] for pick in _picks(len(steps))]
    return Trial(work=lambda: sum(int(simplejpeg.decode_jpeg(image).shape[0]) for image in encoded))


def ours(data: Path, letter: str) -> Trial:
    """Read items with the default options."""
    return _items(data, letter)


def ours_uint8(data: Path, letter: str) -> Trial:
    """Read items with undecoded images."""
    return _items(data, letter, image_type="uint8")


def ours_chunk(data: Path, letter: str) -> Trial:
    """Read items with a chunk of actions each."""
    return _items(data, letter, delta_timestamps={"action": [i / 5 for i in range(CHUNK)]}, tolerance_s=float("inf"))


def _items(data: Path, letter: str, **options: Any) -> Trial:
    import torch

    from oxe_tools import open_dataset, torch_dataset

    torch.set_num_threads(1)  # as in a DataLoader's worker
    camera = open_dataset(_root(data, letter)).cameras[0]
    frames = torch_dataset(_root(data, letter), cameras=[camera], **options)
    key, picks = frames.cameras[0], _picks(len(frames))
    return Trial(work=lambda: sum(int(frames[pick][key].shape[-1]) for pick in picks))  # type: ignore[union-attr]


def _picks(count: int) -> Sequence[int]:
    rng = random.Random(SEED)  # noqa: S311 - not for security
    return [rng.randrange(count) for _ in range(COUNT)]


def _root(data: Path, letter: str) -> Path:
    return data / f"torch_{letter.lower()}"


SIDES: dict[str, Side] = {"decode": decode, "ours": ours, "ours_uint8": ours_uint8, "ours_chunk": ours_chunk}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, {**SIDES, "prepare": prepare})
    generate(args.data)
    fresh(__file__, args.data, "B", side="prepare")
    costs = compare(__file__, args, "B", sides=list(SIDES))
    rows = [
        (
            side,
            f"{cost.cpu_s / COUNT * 1e3:.3f}",
            f"{COUNT / cost.cpu_s:,.0f}",
            f"{cost.cpu_s / costs['decode'].cpu_s:.2f}",
        )
        for side, cost in costs.items()
    ]
    publish(
        "torch",
        args,
        "# Random frames as torch tensors, one camera of 256x256 (set B), one process\n",
        table(("side", "CPU ms", "frames a CPU second", "CPU over decode"), rows),
        "decode: simplejpeg alone, from bytes in memory. ours: items of torch_dataset, images float32; _uint8: images\n"
        f"uint8; _chunk: with {CHUNK} actions for each frame.\n",
        packages=("numpy", "torch", "simplejpeg"),
    )
    return None


if __name__ == "__main__":
    main()
