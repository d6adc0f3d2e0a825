"""Statistics: against numpy's quantiles, the bytes read of a large dataset, and the cost for 1 to 100 M steps.

python benchmarks/bench_stats.py
"""

from harness import arguments, at_most, compare, fresh, publish, run_side, table

MILLIONS = (1, 10, 100)


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        from stats_sides import SIDES

        return run_side(args, SIDES)
    args.data.mkdir(parents=True, exist_ok=True)
    fresh(__file__, args.data, "", side="prepare")
    costs = compare(__file__, args, "", sides=["numpy", "two", "seven", "everything"])
    base = costs["numpy"].cpu_s
    what = {
        "numpy": ("np.quantile(x, 0.01, axis=0) and np.quantile(x, 0.99, axis=0)", None),
        "two": ("ours: the same two", 0.4),
        "seven": ("ours: all seven", 0.4),
        "everything": ("ours: all seven, mean, std, min, max", None),
    }
    rows = []
    for side, (title, goal) in what.items():
        cost, results = costs[side], costs[side].answer or {}
        ratio = cost.cpu_s / base
        state = f"{results['state_mb']:.2f}" if results else ""
        exact = f"{results['wrong']} and {results['unequal']}" if results else ""
        verdict = at_most(ratio, goal) if goal else ""
        rows.append((title, f"{cost.cpu_s:.2f}", f"{ratio:.2f}", state, exact, verdict))
        assert not results or results["state_mb"] <= 4, "the state has grown"
    read = {view or "as stored": fresh(__file__, args.data, view, side="reading").answer for view in ("", "eef_delta")}
    growth = {millions: fresh(__file__, args.data, str(millions), side="growing") for millions in MILLIONS}
    first = growth[MILLIONS[0]]
    publish(
        "stats",
        args,
        "# Statistics\n",
        "Quantiles of 10,000,000 x 7 float32 (normal, small, constant and binary columns):\n",
        table(("what", "CPU s", "CPU of numpy's", "largest state MB", "wrong", "goal"), rows),
        "`wrong` counts order statistics that differ from those of the sorted array, and quantiles that differ from\n"
        "numpy's on the same numbers in float64 in any bit. Goal for the state: 4 MB.\n",
        "Bytes read of a dataset that is not in the kernel's page cache, as a share of its size:\n",
        table(
            ("selection", "size GB", "steps", "asked for", "fetched from the disk", "goal"),
            [
                (
                    name,
                    f"{results['gb']:.2f}",
                    str(results["steps"]),
                    f"{results['rchar']:.2%}",
                    f"{results['read_bytes']:.2%}",
                    at_most(max(results["rchar"], results["read_bytes"]), 0.01),
                )
                for name, results in read.items()
            ],
        ),
        "Growth, one run each (action and state, 7 numbers each; one file of 100,000 steps under many names):\n",
        table(
            ("steps", "CPU s", "CPU µs a step", "of that at 1 M", "peak RSS MB"),
            [
                (
                    f"{millions} M",
                    f"{cost.cpu_s:.1f}",
                    f"{cost.cpu_s / millions:.2f}",
                    f"{cost.cpu_s / millions / first.cpu_s:.2f}",
                    f"{cost.rss_mb:.0f}",
                )
                for millions, cost in growth.items()
            ],
        ),
        "Up to some millions of steps two passes over the numbers are enough; beyond that, three at any size.\n",
        packages=("numpy", "pyarrow", "apache-beam"),
    )
    return None


if __name__ == "__main__":
    main()
