"""Run each side of a comparison in fresh processes, alternating, and save the medians.

A script lists its sides: functions that import and open what they need and return a Trial. The parent process imports
nothing large, because Linux includes the parent's memory in the peak of a process that it starts.
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
CACHE = "OXE_TOOLS_BENCH_DATA"  # environment variable for the folder of generated data

# Every process repeats its work this often, and the last time counts. By then, lazy imports are done (pyarrow imports
# pandas) and memory is allocated: a virtual machine returns idle pages to its host, and the next use of a page is slow.
# Without this a copy of 224 MB took 0.08 to 0.4 s of CPU, with it always 0.08.
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The work to measure, and how to check whether two sides have the same result."""

    work: Callable[[], Any]
    answer: Callable[[Any], Any] = lambda result: result  # converts the result of `work` to JSON


Side = Callable[[Path, str], Trial]  # (data folder, letter of the set) -> Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost and the result of one run."""

    cpu_s: float  # user + system, all threads
    wall_s: float
    rss_mb: float  # peak memory of the whole process
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Medians:
    """The medians over several runs of one side."""

    cpu_s: float
    wall_s: float
    rss_mb: float
    answer: Any


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line that all benchmarks share; the last two options are for the harness."""
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
    """Run a trial in this process; imports and opened files are not measured."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    result = trial.work()
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - wall
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    per_mb = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return Cost(cpu_s=cpu, wall_s=wall, rss_mb=after.ru_maxrss / per_mb, answer=trial.answer(result))


def run_side(args: argparse.Namespace, sides: Mapping[str, Side], *, rounds: int = ROUNDS) -> None:
    """Run the side `--side` in this fresh process and print the cost of its last round."""
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

    `pythons` has the interpreter of sides that need another environment.
    """

    def once(side: str) -> Cost:
        return fresh(script, args.data, letter, side=side, python=pythons.get(side, sys.executable))

    rounds = [[once(side) for side in sides] for _ in range(args.runs + 1)][1:]
    return {side: _medians([costs[i] for costs in rounds]) for i, side in enumerate(sides)}


def fresh(script: str, data: Path, letter: str, *, side: str, python: str = sys.executable) -> Cost:
    """Run one side once in a separate process."""
    command = [python, script, "--data", str(data), "--set", letter, "--side", side]
    # One BLAS thread: a second one would spin for 50 ms after the import of numpy and count as CPU time.
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} --side {side} failed:\n{done.stderr[-4000:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _medians(costs: Sequence[Cost]) -> Medians:
    assert all(cost.answer == costs[0].answer for cost in costs), "two runs of one side have different results"
    return Medians(
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        wall_s=statistics.median(cost.wall_s for cost in costs),
        rss_mb=statistics.median(cost.rss_mb for cost in costs),
        answer=costs[0].answer,
    )


def generate(data: Path) -> None:
    """Write missing sets in a separate process."""
    subprocess.run([sys.executable, str(HERE / "generate.py"), "--data", str(data)], check=True)


def at_least(value: float, goal: float) -> str:
    """Format a result that should be large, with its goal."""
    return f">= {goal:g}: {'met' if value >= goal else 'missed'}"


def at_most(value: float, goal: float) -> str:
    """Format a result that should be small, with its goal."""
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
    """Print the result and save it as `results/<name>.md`."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    text = "\n".join((*parts, f"Medians of {args.runs} {how}. {machine}, {versions}.\n"))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
