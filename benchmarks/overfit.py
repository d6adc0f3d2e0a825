"""`tiny-oft-cpu` and `tiny-cpu` learn the debug set of BridgeData V2 by heart, with the same CPU time.

    OXE_TOOLS_REALDATA=... python benchmarks/overfit.py --data DIR

Each run is kept in DIR, so a run that was stopped continues. The error is that of open-loop predictions on all steps of
the training part, relative to the range from q01 to q99 of each dimension.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import HERE, at_most, table

SEEDS, BUDGET, GOAL = (0, 1, 2), 1200, 0.02  # CPU seconds; share of the range
TRIED = 60  # steps of the other recipe, from which its steps for the same CPU time are computed
MIX = """
name = "bridge_debug"
view = "openvla"
weighting = "relative"
filter = "split == 'train'"
[weights]
bridge_dataset = 1.0
[sources]
bridge_dataset = { uri = "bridge" }
"""


def oxe(*words: str | Path) -> tuple[Any, float]:
    """Run a command with one thread; returns its JSON and its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "oxe_tools", *map(str, words), "--json"]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    run = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(run.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepared(folder: Path) -> Path:
    """Convert the set and lock the mixture; returns the lock."""
    lock = folder / "mix.lock"
    if not lock.exists():
        source = Path(os.environ["OXE_TOOLS_REALDATA"]) / "rlds/octo_debug_bridge"
        folder.mkdir(parents=True, exist_ok=True)
        oxe("convert", "bridge_dataset", "--source", source, "--out", folder / "bridge", "--overwrite")
        (folder / "mix.toml").write_text(MIX)
        oxe("mix", "lock", folder / "mix.toml")
    return lock


def trained(folder: Path, recipe: str, *, seed: int, steps: int | None) -> dict[str, Any]:
    """Train once, and predict all steps; returns CPU seconds, steps, and the error of each dimension."""
    kept = folder / f"{recipe}-{seed}-{steps or 'all'}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    out, lock = kept.with_suffix(""), prepared(folder)
    changes = [
        f"seed={seed}",
        "eval.every=0",
        *([f"train.steps={steps}", f"train.save_every={steps}"] if steps else []),
    ]
    words = ["train", recipe, "--lock", lock, "--out", out, *(word for one in changes for word in ("--set", one))]
    report, cpu = oxe(*words)
    scores, _ = oxe(
        "eval",
        "--open-loop",
        "--model",
        report["checkpoint"],
        "--lock",
        lock,
        "--part",
        "train",
        "--out",
        f"{out}-eval",
    )
    result = {"cpu_s": cpu, "steps": report["step"], "l1": errors(scores)}
    kept.write_text(json.dumps(result))
    return result


def errors(scores: Any) -> dict[str, float]:
    """Return the absolute error of each dimension relative to its range: -1 to 1, and 0 to 1 for a gripper."""
    dims = scores["sources"]["bridge_dataset"]["dims"]
    return {name: dim["l1"] / (1 if name == "gripper" else 2) for name, dim in dims.items()}


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "oxe-tools-overfit")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="train only these seeds")
    args = parser.parse_args()
    rows = []
    for seed in args.seed or SEEDS:
        ours = trained(args.data, "tiny-oft-cpu", seed=seed, steps=None)
        rows.append(_row("tiny-oft-cpu", seed, ours))
        tried = trained(args.data, "tiny-cpu", seed=seed, steps=TRIED)
        more = trained(args.data, "tiny-cpu", seed=seed, steps=2 * TRIED)
        per_step = (more["cpu_s"] - tried["cpu_s"]) / TRIED
        steps = round((ours["cpu_s"] - tried["cpu_s"]) / per_step) + TRIED
        rows.append(_row("tiny-cpu", seed, trained(args.data, "tiny-cpu", seed=seed, steps=steps)))
    header = ("recipe", "seed", "steps", "CPU s", "largest error", "mean error", f"all below {GOAL:.0%}", "budget")
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    text = f"# Overfitting\n\n{(__doc__ or '').splitlines()[0]}\n\n{table(header, rows)}\nOne thread each. {machine}.\n"
    (HERE / "results" / "overfit.md").write_text(text, encoding="utf-8")
    print(text)


def _row(recipe: str, seed: int, result: dict[str, Any]) -> tuple[str, ...]:
    worst = max(result["l1"], key=lambda name: result["l1"][name])
    mean = sum(result["l1"].values()) / len(result["l1"])
    return (
        recipe, str(seed), str(result["steps"]), f"{result['cpu_s']:.0f}", f"{result['l1'][worst]:.2%} ({worst})",
        f"{mean:.2%}", at_most(result["l1"][worst], GOAL), at_most(result["cpu_s"], BUDGET),
    )  # fmt: skip


if __name__ == "__main__":
    main()
