"""Read both sets completely with undecoded images: our reader against `tensorflow-datasets` with SkipDecoding."""

from pathlib import Path
from typing import Any

from harness import Side, Trial, arguments, at_least, at_most, compare, generate, publish, run_side, table

GOALS = {"A": 8, "B": 10}
RSS_GOAL = 60  # MB


def ours(data: Path, letter: str) -> Trial:
    """Read with our reader."""
    from pipelines.readers.reader import plan
    from pipelines.readers.rlds.reader import RldsReader

    reader = RldsReader(str(_source(data, letter)))
    refs = plan(reader.files())

    def work() -> list[int]:
        episodes = size = 0
        for ref in refs:
            for raw in reader.read(ref):
                episodes += 1
                size += sum(map(len, raw.steps["observation.image_0"]))
        return [episodes, size]

    return Trial(work=work)


def tfds_default(data: Path, letter: str) -> Trial:
    """Read with the defaults of `tensorflow-datasets`, which caches sets under 250 MB in memory."""
    return _tfds(data, letter)


def tfds_lean(data: Path, letter: str) -> Trial:
    """Read without that cache and file by file, which takes the least CPU."""
    return _tfds(data, letter, try_autocache=False, interleave_cycle_length=1)


def _tfds(data: Path, letter: str, **config: Any) -> Trial:
    import tensorflow_datasets as tfds

    dataset = tfds.builder_from_directory(_source(data, letter)).as_dataset(
        split="train", decoders={"steps": tfds.decode.SkipDecoding()}, read_config=tfds.ReadConfig(**config)
    )

    def work() -> list[int]:
        episodes = size = 0
        for episode in tfds.as_numpy(dataset):
            episodes += 1
            size += sum(map(len, episode["steps"]["observation"]["image_0"]))
        return [episodes, size]

    return Trial(work=work)


def _source(data: Path, letter: str) -> Path:
    return data / f"bench_{letter.lower()}" / "1.0.0"


SIDES: dict[str, Side] = {"ours": ours, "tfds_default": tfds_default, "tfds_lean": tfds_lean}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    generate(args.data)
    rows = []
    for letter, goal in GOALS.items():
        costs = compare(__file__, args, letter, sides=list(SIDES))
        mine = costs["ours"]
        assert all(cost.answer == mine.answer for cost in costs.values()), "the sides read different things"
        for side, cost in costs.items():
            ratio = cost.cpu_s / mine.cpu_s
            verdict = "RSS " + at_most(cost.rss_mb, RSS_GOAL) if side == "ours" else at_least(ratio, goal)
            figures = (f"{cost.cpu_s:.3f}", f"{cost.wall_s:.3f}", f"{cost.rss_mb:.0f}", f"{ratio:.1f}")
            rows.append((letter, side, *figures, verdict))
    publish(
        "read",
        args,
        "# Reading RLDS, images undecoded\n",
        table(("set", "side", "CPU s", "wall s", "peak RSS MB", "CPU over ours", "goal"), rows),
        "tfds_default: SkipDecoding on the steps, otherwise the defaults, which keep a set under 250 MB in memory.\n"
        "tfds_lean: the same without that copy, one file at a time, as for a large set. Imports and opening\n"
        "are not counted.\n",
        packages=("numpy", "crc32c", "tensorflow-datasets", "tensorflow-cpu"),
    )
    return None


if __name__ == "__main__":
    main()
