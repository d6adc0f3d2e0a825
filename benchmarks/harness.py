"""Run each side of a comparison in a fresh process, alternating, and write down the medians.

A script names its sides: functions that import and open what they need and return a Trial. The parent imports nothing
large, because Linux counts the parent's memory into the peak of a process that it starts.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).parent
CACHE = "OXE_TOOLS_BENCH_DATA"  # the variable that may name the folder for generated data

# Every process does its work this often, and the last time counts. By then all that is imported on first use has been
# (pyarrow: pandas), and memory is at hand: a virtual machine gives idle pages back to its host, and whoever gets one
# next pays for fetching it. Without this a copy of 224 MB took 0.08 to 0.4 s of CPU, with it always 0.08.
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is measured, and how to tell afterwards whether two sides found the same."""

    work: Callable[[], Any]
    answer: Callable[[Any], Any] = lambda found: found  # from what `work` returns, to JSON


Side = Callable[[Path, str], Trial]  # gets the data folder and the letter of the set


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took, and what it found."""

    cpu_s: float  # user + system, all threads
    wall_s: float
    rss_mb: float  # peak of the whole process
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Medians:
    """The medians over several runs of one side."""

    cpu_s: float
    wall_s: float
    rss_mb: float
    answer: Any


def arguments(description: str) -> argparse.Namespace:
    """Read the command line that all benchmarks share; the last two are the harness's own."""
    default = os.environ.get(CACHE) or Path(tempfile.gettempdir()) / "oxe-tools-bench"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, default=Path(default), help=f"generated data (default: ${CACHE} or {default})"
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--set", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(trial: Trial) -> Cost:
    """Run a trial once in this process; imports and opening have happened before."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    found = trial.work()
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - wall
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    per_mb = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return Cost(cpu_s=cpu, wall_s=wall, rss_mb=after.ru_maxrss / per_mb, answer=trial.answer(found))


def run_side(args: argparse.Namespace, sides: Mapping[str, Side], *, rounds: int = ROUNDS) -> None:
    """Be the fresh process: run the side that `--side` names and print the cost of its last round."""
    costs = [measure(sides[args.side](args.data, args.set)) for _ in range(rounds)]
    print(json.dumps(asdict(costs[-1])))


def compare(
    script: str,
    args: argparse.Namespace,
    letter: str,
    *,
    sides: Sequence[str],
    pythons: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Medians]:
    """Run all sides in turn, `--runs` times after one round that warms the page cache.

    `pythons` names the interpreter of sides that need another environment.
    """

    def once(side: str) -> Cost:
        return fresh(script, args.data, letter, side=side, python=pythons.get(side, sys.executable))

    rounds = [[once(side) for side in sides] for _ in range(args.runs + 1)][1:]
    return {side: _medians([costs[i] for costs in rounds]) for i, side in enumerate(sides)}


def fresh(script: str, data: Path, letter: str, *, side: str, python: str = sys.executable) -> Cost:
    """Run one side once in a process of its own."""
    command = [python, script, "--data", str(data), "--set", letter, "--side", side]
    # One BLAS thread: a second one spins for 50 ms after the import of numpy, and would count as work.
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} --side {side} failed:\n{done.stderr[-4000:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _medians(costs: Sequence[Cost]) -> Medians:
    assert all(cost.answer == costs[0].answer for cost in costs), "two runs of one side found different things"
    return Medians(
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        wall_s=statistics.median(cost.wall_s for cost in costs),
        rss_mb=statistics.median(cost.rss_mb for cost in costs),
        answer=costs[0].answer,
    )


def generate(data: Path) -> None:
    """Write the sets where they are missing, in a process of its own."""
    subprocess.run([sys.executable, str(HERE / "generate.py"), "--data", str(data)], check=True)


def at_least(value: float, goal: float) -> str:
    """Judge a figure that should be large."""
    return f">= {goal:g}: {'met' if value >= goal else 'missed'}"


def at_most(value: float, goal: float) -> str:
    """Judge a figure that should be small."""
    return f"<= {goal:g}: {'met' if value <= goal else 'missed'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align a Markdown table."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, rule, *rows)
    )
    return "".join(f"| {line} |\n" for line in lines)


def publish(
    name: str,
    args: argparse.Namespace,
    *parts: str,
    packages: Sequence[str],
    how: str = "alternating runs, the second of two rounds in each process",
) -> None:
    """Print the result and keep it as `results/<name>.md`."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    text = "\n".join((*parts, f"Medians of {args.runs} {how}. {machine}, {versions}.\n"))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
