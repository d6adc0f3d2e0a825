"""The search of `oxe check` for equal and almost equal episodes, on drawn paths: time, memory and what it finds.

One in a hundred episodes is copied exactly, and one in a hundred with noise of a thousandth.
"""

from pathlib import Path
from typing import Any

from harness import Trial, arguments, compare, publish, run_side, table

COUNTS = (1_000, 10_000, 100_000)
DIMS, TASKS, SEED = 8, 200, 1


def search(count: int) -> Any:
    """Return a side that searches this many episodes."""

    def side(_data: Path, _letter: str) -> Trial:
        import numpy as np

        from pipelines.checks.batch import About
        from pipelines.checks.duplicates import Signed, duplicates
        from pipelines.checks.signature import POINTS
        from pipelines.checks.thresholds import Thresholds
        from schemas.spaces import DELTA, Space

        space = Space(name="x", dims=DELTA, frame="base", rotation="euler_xyz", gripper="none", origin="commanded")
        known = About(
            member=0, name="drawn", control_hz=10, action=space, state=None, ranges={}, cameras=(), is_derived=False,
            is_clock=False, rules=Thresholds(),
        )  # fmt: skip
        rng = np.random.default_rng(SEED)
        goals = rng.normal(size=(TASKS, DIMS))[rng.integers(TASKS, size=count)] + 0.15 * rng.normal(size=(count, DIMS))
        begin, bow = 0.03 * rng.normal(size=(count, DIMS)), 0.3 * rng.normal(size=(count, DIMS))
        phase = np.linspace(0, 1, POINTS)[None, :, None]
        path = begin[:, None] * (1 - phase) + goals[:, None] * phase + bow[:, None] * np.sin(np.pi * phase)
        path, lengths, hashes = path.astype(np.float32), rng.integers(30, 200, count), np.arange(count).astype("S32")
        copies = count // 100
        first, second, third, fourth = np.split(rng.permutation(count)[: 4 * copies], 4)
        path[second] = path[first] + 1e-3 * rng.normal(size=path[first].shape).astype(np.float32)
        path[fourth], hashes[fourth] = path[third], hashes[third]
        lengths[second], lengths[fourth] = lengths[first], lengths[third]
        columns = {"episode": np.arange(count), "hash": hashes, "length": lengths, "path": path}
        signed = Signed(about=known, splits=["train"] * count, columns=columns)
        planted = {
            "near_duplicate": {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)},
            "duplicate": {frozenset(pair) for pair in zip(third.tolist(), fourth.tolist(), strict=True)},
        }

        def answer(found: list[Any]) -> dict[str, list[int]]:
            pairs = {rule: {frozenset((f.episode, f.other[1])) for f in found if f.rule == rule} for rule in planted}
            return {rule: [len(pairs[rule] & planted[rule]), len(pairs[rule] - planted[rule])] for rule in planted}

        return Trial(work=lambda: list(duplicates([signed])), answer=answer)

    return side


def main() -> None:
    """Run the sides, and print the table."""
    args = arguments(__doc__ or "")
    sides = {f"{count:,}": search(count) for count in COUNTS}
    if args.side:
        return run_side(args, sides)
    cost = compare(__file__, args, "A", sides=list(sides))
    rows = [
        (
            name,
            f"{cost[name].cpu_s:.2f}",
            f"{cost[name].rss_mb:.0f}",
            f"{cost[name].answer['duplicate'][0]} of {int(name.replace(',', '')) // 100}",
            f"{cost[name].answer['near_duplicate'][0]} of {int(name.replace(',', '')) // 100}",
            str(sum(extra for _, extra in cost[name].answer.values())),
        )
        for name in sides
    ]
    header = ("episodes", "CPU s", "memory MB", "equal pairs", "almost equal pairs", "other pairs")
    publish("duplicates", args, f"# Duplicates\n\n{__doc__}", table(header, rows), packages=("numpy",))
    return None


if __name__ == "__main__":
    main()
