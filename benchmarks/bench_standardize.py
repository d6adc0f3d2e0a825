"""Steps per second that `standardize` converts to OpenVLA's actions, on one core.

The goals are absolute (1,000,000 steps/s for a plain delta dataset, 200,000 for gripper scans). There is no other side,
because the cost of OpenVLA's TensorFlow graph cannot be separated from that of its loader.
"""

import statistics
import time
from collections.abc import Callable

from harness import arguments, at_least, publish, table

SECONDS, LENGTHS = 0.5, (20, 50, 100, 200, 1000)
TYPICAL = 100  # episode length for the goals; the datasets' means are 30 to 800 steps


def makers() -> dict[str, tuple[str, float, Callable[[int], dict]]]:
    """List the measurements: dataset, goal, and a maker of raw episodes."""
    import numpy as np

    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    def rt1(steps: int) -> dict:
        arm = {"world_vector": floats(steps, 3), "rotation_delta": floats(steps, 3)}
        return {"action": {**arm, "gripper_closedness_action": np.round(floats(steps, 1))}}

    hydra = "stanford_hydra_dataset_converted_externally_to_rlds"
    return {
        "plain deltas": (hydra, 1e6, lambda n: {"action": floats(n, 7), "observation": {"state": floats(n, 27)}}),
        "events into gripper states": ("fractal20220817_data", 2e5, rt1),
        "binarized gripper, relabelled": (
            "bridge_dataset",
            2e5,
            lambda n: {"action": floats(n, 7), "observation": {"state": floats(n, 7)}},
        ),
        "quaternions": (
            "furniture_bench_dataset_converted_externally_to_rlds",
            2e5,
            lambda n: {"action": floats(n, 8)},
        ),
    }


def rate(dataset: str, make: Callable[[int], dict], steps: int) -> float:
    """Measure steps per second of CPU time."""
    from oxe_tools import standardize

    episodes = [make(steps) for _ in range(20)]
    standardize(dataset, episodes[0], view="openvla")
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        for episode in episodes:
            standardize(dataset, episode, view="openvla")
        done += steps * len(episodes)
    return done / spent


if __name__ == "__main__":
    args = arguments(__doc__ or "")
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.runs):
        for name, (dataset, _, make) in makers().items():
            for steps in LENGTHS:
                rates.setdefault((name, steps), []).append(rate(dataset, make, steps))
    rows = []
    for name, (dataset, goal, _) in makers().items():
        medians = {steps: statistics.median(rates[name, steps]) for steps in LENGTHS}
        cells = [f"{medians[steps] / 1e6:.2f}" for steps in LENGTHS]
        rows.append([name, dataset, *cells, at_least(medians[TYPICAL] / 1e6, goal / 1e6)])
    header = ["what", "dataset", *(f"{steps} steps" for steps in LENGTHS), f"goal, at {TYPICAL}"]
    title = "# Standardizing and the view openvla\n"
    what = "Millions of steps per second of CPU time, by the length of the episode.\n"
    publish(
        "standardize",
        args,
        title,
        what,
        table(header, rows),
        packages=["numpy", "oxe-tools"],
        how="runs in turn in one process",
    )
