"""How many faults `oxe check` finds in demonstrations of simulators, and how many sound episodes it flags.

    make sim && .venv/bin/python benchmarks/faultbench/bench.py

Thresholds were set on the development tasks and arms. The others are scored with `--held-out`, once.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faults import EPISODE_FAULTS, FAULTS, MIXED  # noqa: E402
from harness import table  # noqa: E402
from recordings import Group, Recording, groups  # noqa: E402

from pipelines.checks.batch import About, DimRanges, NumberBatch  # noqa: E402
from pipelines.checks.duplicates import Signed, duplicates  # noqa: E402
from pipelines.checks.findings import RuleFinding  # noqa: E402
from pipelines.checks.numbers import CHECKS, mixed  # noqa: E402
from pipelines.checks.rules import RULES  # noqa: E402
from pipelines.checks.signature import measures as signature  # noqa: E402
from pipelines.checks.thresholds import Thresholds  # noqa: E402
from pipelines.conventions.check import conventions  # noqa: E402
from pipelines.conventions.trajectories import Trajectories  # noqa: E402
from schemas.source import Array  # noqa: E402

EPISODES, TRIALS = 20, 200  # episodes of a trial of conventions; trials of each fault
SEEDS = 3  # faults are put into other episodes this often
GOALS = {"error": (0.98, 0.99), "warning": (0.9, 0.9)}  # recall, precision
Rows = list[tuple[str, ...]]


def wilson(count: float, total: int) -> str:
    """Format a share with its 95% Wilson interval."""
    if not total:
        return "-"
    z, share = 1.96, count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return f"{share:.1%} ({max(0, middle - half):.1%} to {min(1, middle + half):.1%})"


def judged(group: Group, recordings: Sequence[Recording]) -> dict[str, str]:
    """Return the verdict about each aspect."""
    steps = Trajectories.of([one.action for one in recordings], [one.state for one in recordings])
    return {a: one.verdict for a, one in conventions(group.action, group.state, steps, hz=group.hz).items()}


def conventions_table(chosen: Sequence[Group], *, trials: int) -> str:
    """Judge datasets of 20 episodes, sound ones and such with one fault."""
    rows: Rows = []
    for name, (aspect, fault, fits) in {"none": (None, None, lambda _: True), **FAULTS}.items():
        fitting = [group for group in chosen if fits(group)]
        outcomes: Counter[str] = Counter()
        for trial in range(trials if fitting else 0):
            rng = np.random.default_rng([trial, len(rows)])
            group = fitting[trial % len(fitting)]
            drawn = [group.recordings[i] for i in rng.choice(len(group.recordings), EPISODES, replace=False)]
            inject: Callable[[Recording], Recording] = fault(group, rng) if fault else lambda one: one
            verdicts = judged(group, [inject(one) for one in drawn])
            others = any(word == "contradicts" for key, word in verdicts.items() if key != aspect)
            outcomes["wrong"] += others or (aspect is not None and verdicts[aspect] == "pass")
            outcomes["named"] += aspect is not None and verdicts[aspect] == "contradicts"
        total = trials if fitting else 0
        named = wilson(outcomes["named"], total) if aspect else "-"
        rows.append((name, aspect or "-", str(len(fitting)), str(total), named, wilson(outcomes["wrong"], total)))
    return table(("fault", "aspect", "tasks and arms", "trials", "named", "confidently wrong"), rows)


def batch_of(group: Group, recordings: Sequence[Recording]) -> NumberBatch:
    """Put recordings into one batch, with what the rules know and learn of the whole dataset."""
    lengths = np.array([len(one) for one in recordings])
    columns = {
        "action": np.concatenate([one.action for one in recordings]).astype(np.float32),
        "observation.state": np.concatenate([one.state for one in recordings]).astype(np.float32),
    }
    known = About(
        member=0,
        name=group.name,
        control_hz=group.hz,
        action=group.action,
        state=group.state,
        ranges={name: _ranges(columns[key]) for name, key in zip(("action", "state"), columns, strict=True)},
        cameras=(),
        is_derived=False,
        is_clock=False,
        rules=Thresholds(),
    )
    starts = np.cumsum(lengths) - lengths
    batch = NumberBatch(about=known, episodes=np.arange(len(lengths)), starts=starts, lengths=lengths, columns=columns)
    usual: dict[str, Array] = {}
    for check in CHECKS:
        usual |= check.learn(batch) if not check.why_not(known) else {}
    return replace(batch, about=replace(known, usual=usual))


def _ranges(values: Array) -> DimRanges:
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    return DimRanges(low=values.min(axis=0), high=values.max(axis=0), q01=q01, q99=q99, std=values.std(axis=0))


def findings(batch: NumberBatch) -> list[RuleFinding]:
    """Apply the rules of numbers and the search for duplicates."""
    measured = {"episode": batch.episodes, **signature(batch)}
    checks = [check for check in CHECKS if not check.why_not(batch.about)]
    found = [finding for check in checks for finding in check.of_episodes(batch)]
    for check in checks:
        measured = {**measured, **check.measures(batch)}
    found += [finding for check in checks for finding in check.of_dataset(batch.about, measured)]
    signed = Signed(about=batch.about, splits=["train"] * len(batch.lengths), columns=measured)
    return [finding for finding in [*found, *duplicates([signed])] if finding.episode >= 0]


def clean_table(chosen: Sequence[Group]) -> str:
    """Count the sound episodes that a rule flags."""
    flagged: Counter[str] = Counter()
    episodes, anything = 0, 0
    for group in chosen:
        own = [one for one in findings(batch_of(group, group.recordings)) if RULES[one.rule].severity in GOALS]
        flagged.update(one.rule for one in own)
        anything += len({one.episode for one in own})
        episodes += len(group.recordings)
    rows = [(rule, RULES[rule].severity, wilson(count, episodes)) for rule, count in sorted(flagged.items())]
    rows.append((f"any rule, of {episodes} episodes (goal: at most 0.5%)", "", wilson(anything, episodes)))
    return table(("rule", "severity", "sound episodes flagged"), rows)


def episodes_table(chosen: Sequence[Group]) -> str:
    """Put a fault into 10% of the episodes of each group, and compare with two baselines: by length, and by chance."""
    rows: Rows = []
    rules = {name: rule for name, (rule, *_) in EPISODE_FAULTS.items()} | dict.fromkeys(MIXED, "mixed_convention")
    for name, rule in rules.items():
        fits = EPISODE_FAULTS[name][2] if name in EPISODE_FAULTS else FAULTS[name][2]
        counts: Counter[str] = Counter()
        for number, group in enumerate(chosen):
            for seed in range(SEEDS if fits(group) else 0):
                counts.update(_scored(group, name, rule=rule, rng=np.random.default_rng([number, seed, len(rows)])))
        recall, precision = GOALS[RULES[rule].severity]
        right, faulty, found = counts["right"], counts["faulty"], counts["found"]
        met = "met" if right >= recall * faulty and right >= precision * found else "missed"
        rows.append(
            (
                name, f"{rule} ({RULES[rule].severity})", wilson(right, faulty), wilson(right, found), met,
                f"{counts['by_length'] / max(1, faulty):.0%}", f"{faulty / max(1, counts['episodes']):.0%}",
            )
        )  # fmt: skip
    header = ("fault", "rule", "found (recall)", "of its findings, faulty", "goal", "by length", "by chance")
    return table(header, rows)


def _scored(group: Group, name: str, *, rule: str, rng: np.random.Generator) -> dict[str, int]:
    total = len(group.recordings)
    faulty = set(rng.choice(total, max(1, total // 10), replace=False).tolist())
    if name in EPISODE_FAULTS:
        inject = EPISODE_FAULTS[name][1]
        made = [inject(group, one, rng) if i in faulty else one for i, one in enumerate(group.recordings)]
    else:
        change = FAULTS[name][1](group, rng)
        made = [change(one) if i in faulty else one for i, one in enumerate(group.recordings)]
    found = {one.episode for one in findings(batch_of(group, made)) if one.rule == rule}
    lengths = np.array([len(one) for one in made])
    longest = set(np.argsort(-np.abs(lengths - np.median(lengths)), kind="stable")[: len(faulty)].tolist())
    return {
        "faulty": len(faulty),
        "found": len(found),
        "right": len(found & faulty),
        "by_length": len(longest & faulty),
        "episodes": total,
    }


def seconds_for(group: Group, episodes: int) -> float:
    """Return the CPU seconds that judging conventions and `mixed_convention` take, without reading files."""
    repeated = [group.recordings[i % len(group.recordings)] for i in range(episodes)]
    batch = batch_of(group, repeated)
    started = time.process_time()
    judged(group, repeated[:64])
    measured = {"episode": batch.episodes, **mixed.CHECK.measures(batch)}
    list(mixed.CHECK.of_dataset(batch.about, measured))
    return time.process_time() - started


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "data", help="what `make sim` wrote")
    parser.add_argument("--held-out", action="store_true", help="score the tasks and arms that were held out")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of each fault of conventions")
    args = parser.parse_args()
    chosen = [group for group in groups(args.data) if group.is_held_out == args.held_out]
    started = time.perf_counter()
    print(f"{len(chosen)} groups, {sum(len(group.recordings) for group in chosen)} episodes\n")
    print(clean_table(chosen))
    print(conventions_table(chosen, trials=args.trials))
    print(episodes_table(chosen))
    for count in (1_000, 10_000):
        group = max(chosen, key=lambda group: len(group.state))
        print(f"{count:,} episodes of {group.name}: {seconds_for(group, count):.1f} CPU s (goal: 30 for 10,000)")
    print(f"\n{time.perf_counter() - started:.0f} s for this page")


if __name__ == "__main__":
    main()
