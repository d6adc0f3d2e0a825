"""The loader against OpenVLA's steps in tf.data and against simplejpeg alone, and eight datasets against one.

Set L has JPEGs of 256x256 from one camera, as RLDS for tf.data and converted for our loader, with the same bytes.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness import Side, Trial, arguments, at_least, at_most, compare, fresh, publish, run_side, table

BATCH, WARM, SHUFFLE = 16, 20, 2_000  # SHUFFLE is tf.data's buffer; our loader has none
PARALLEL = 4  # tf.data's parallel calls: of 1, 2, 4, 16 and AUTOTUNE, this takes the least CPU
OURS, THEIRS = 200, 100  # batches per run
CHECKED = 32  # frames compared between the sides
PEERS = {"tfdata": "ours", "tfdata_augment": "ours_augment"}
GOAL, LIMIT, MIXED = 2.5, 0.85, 1.05


def prepare(data: Path, _: str) -> Trial:
    """Write the datasets and locks."""
    from loader_sets import frames

    return Trial(work=lambda: frames(data), answer=lambda _: None)


def ours(data: Path, _: str, *, lock: str = "one", batches: int = OURS, **options: Any) -> Trial:
    """Read a mixture of one dataset: decode, resize to 224x224, normalize, chunks of one action."""
    return _pulled(_loader(data, lock, **options), batches)


def decode(data: Path, _: str) -> Trial:
    """Only decode the same frames with simplejpeg from memory into one buffer."""
    import numpy as np
    import simplejpeg

    from schemas.store.dataset import open_dataset

    dataset = open_dataset(data / "loader/whole")
    camera, episodes = dataset.cameras[0], np.random.default_rng(0).permutation(len(dataset))
    encoded = [dataset.frame(int(i), t, [camera])[camera] for t in range(dataset.where(0)[2]) for i in episodes]
    buffer, count = np.empty((256, 256, 3), np.uint8), OURS * BATCH

    def work() -> int:
        for jpeg in encoded[:count]:
            simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=False, buffer=buffer)
        return count

    return Trial(work=work)


def tfdata(data: Path, _: str, *, augment: bool = False) -> Trial:
    """Read the same frames with OpenVLA's steps in tf.data."""
    batches = _tfdata(data, augment=augment, shuffle=SHUFFLE)
    return _pulled(({"draw": batch["action"]} for batch in batches), THEIRS)


def _loader(data: Path, lock: str, **options: Any) -> Any:
    from finetune.data.augment import Augmentation
    from finetune.data.loader import Loader, LoaderOptions
    from finetune.data.preprocessing import Preprocessing

    augment = Augmentation() if options.pop("augment", False) else None
    reading = LoaderOptions(preprocessing=Preprocessing(augment=augment, **options))
    return Loader(data / f"loader/{lock}.lock", reading, batch_size=BATCH, cache=data / "loader/cache")


def _tfdata(data: Path, *, augment: bool, shuffle: int) -> Iterator[dict[str, Any]]:
    from peers.openvla_tfdata import frames

    from schemas.mixture.lock import read

    lock, _ = read(data / "loader/one.lock")
    dataset = frames(
        data / "bench_l/1.0.0",
        lock.statistics["whole"]["vectors"],
        augment=augment,
        batch=BATCH,
        shuffle=shuffle,
        parallel=PARALLEL,
    )
    return iter(dataset.as_numpy_iterator())


def _pulled(batches: Iterable[Any], count: int) -> Trial:
    """Take some batches to open all files and fill all buffers, then measure the following ones."""
    source = iter(batches)
    for _ in range(WARM):
        next(source)

    def work() -> int:
        return sum(_size(next(source)) for _ in range(count))

    return Trial(work=work)


def _size(batch: Any) -> int:
    return len(batch["draw"] if isinstance(batch, dict) else batch.draw)


def agree(data: Path, _: str) -> Trial:
    """Compare frames of the first episodes of both sides: equal actions, few pixel values that differ by one level."""
    return Trial(work=lambda: _compared(data))


def _compared(data: Path) -> dict[str, float]:
    import numpy as np

    theirs: dict[tuple[int, int], tuple[Any, Any]] = {}
    for batch in _tfdata(data, augment=False, shuffle=0):
        steps = batch["observation"]["timestep"][:, 0] + 1  # the view drops the first step
        images = batch["observation"]["image_primary"][:, 0]
        numbers = zip(batch["episode"].tolist(), steps.tolist(), strict=True)
        theirs |= dict(zip(numbers, zip(batch["action"], images, strict=True), strict=True))
        if len(theirs) > 10 * CHECKED:
            break
    seen, off, far = 0, [], 0.0
    for batch in _loader(data, "one"):
        for i, key in enumerate(zip(batch.episode.tolist(), batch.step.tolist(), strict=True)):
            if key in theirs:
                seen += 1
                far = max(far, float(np.abs(theirs[key][0] - batch.action[i]).max()))
                off.append(np.abs(theirs[key][1].astype(int) - batch.images["primary"][i, 0]))
        if seen >= CHECKED:
            break
    levels = np.stack(off)
    assert far < 1e-6, f"the actions differ by {far}"
    assert levels.max() <= 1, f"the images differ by {levels.max()} levels"
    return {"frames": seen, "off": float((levels > 0).mean())}


SIDES: dict[str, Side] = {
    "ours": ours,
    "tfdata": tfdata,
    "ours_augment": partial(ours, augment=True),
    "tfdata_augment": partial(tfdata, augment=True),
    "ours_eight": partial(ours, lock="eight"),
    "decode": decode,
    "ours_whole": partial(ours, size=None),
}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, {**SIDES, "prepare": prepare, "agree": agree})
    args.data.mkdir(parents=True, exist_ok=True)
    fresh(__file__, args.data, "L", side="prepare")
    same = fresh(__file__, args.data, "L", side="agree").answer
    costs = compare(__file__, args, "L", sides=list(SIDES))
    each = {side: cost.cpu_s / cost.answer * 1e3 for side, cost in costs.items()}
    against = {
        side: (f"{each[side] / each[mine]:.2f} of {mine}", at_least(each[side] / each[mine], GOAL))
        for side, mine in PEERS.items()
    }
    limit, mixed = each["decode"] / each["ours_whole"], each["ours_eight"] / each["ours"]
    against["ours_whole"] = f"{limit:.2f} of decode's frames", at_least(limit, LIMIT)
    against["ours_eight"] = f"{mixed:.3f} of ours", at_most(mixed, MIXED)
    rows = [
        (side, f"{ms:.3f}", f"{1e3 / ms:,.0f}", f"{costs[side].rss_mb:.0f}", *against.get(side, ("", "")))
        for side, ms in each.items()
    ]
    publish(
        "loader",
        args,
        "# The loader: frames a second of CPU\n",
        table(("side", "CPU ms a frame", "frames a CPU second", "peak RSS MB", "CPU", "goal"), rows),
        NOTES.format(batch=BATCH, shuffle=SHUFFLE, parallel=PARALLEL, **same, part=same["off"] * 1e6),
        packages=("numpy", "simplejpeg", "tensorflow-cpu", "tensorflow-datasets"),
    )
    return None


NOTES = """\
Set L: 8960 JPEGs of 256x256, 22 kB each, one camera; a mixture of one dataset in OpenVLA's view of BridgeData (8512
steps). Batches of {batch}, image to 224x224 with TensorFlow's lanczos3, action normalized by q01 and q99, window and
chunk of one.

- ours: `Loader`, one process, no threads. _augment: with OpenVLA's augmentation. _eight: the same frames as eight
  datasets. _whole: without the resize.
- tfdata: OpenVLA's steps without the relabelling of goals (peers/openvla_tfdata.py): RLDS through tensorflow-datasets
  with undecoded images, its transform of BridgeData, normalization, windows, flat frames, a shuffle of {shuffle}
  frames, decode_jpeg, lanczos3, batches. {parallel} parallel calls, with which it needs least CPU; all threads count.
- decode: simplejpeg with the same settings, into one buffer, from bytes in memory.

Both sides' actions and images were compared on {frames} frames: actions equal to 1e-6, images up to one level in
{part:.0f} of a million numbers.
"""

if __name__ == "__main__":
    main()
