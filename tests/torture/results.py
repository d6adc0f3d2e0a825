"""The counts of the long-running tests: a log of trials, from which a run continues, and a committed summary."""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUMMARIES = ROOT / "benchmarks" / "results" / "torture"
LOGS = ROOT / ".torture"  # not committed
PACKAGES = ("schemas", "stats", "pipelines", "oxe_tools")  # what a conversion imports


def code_digest() -> str:
    """Hash the syntax trees of the code under trial, and its declarations. Trials count for one state of the code."""
    files = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in {".py", ".toml"})
    texts = [(path, path.read_text()) for path in files]
    parts = [(path, ast.dump(ast.parse(text)) if path.suffix == ".py" else text) for path, text in texts]
    content = json.dumps([(path.relative_to(ROOT).as_posix(), part) for path, part in parts])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(slots=True)
class Trials:
    """The trials of one kind, such as `faults`. Finished trials are in a log, so that a later run skips them.

    Each state of the code has its own log: after a change, all trials run again.
    """

    kind: str
    code: str = field(default_factory=code_digest)
    done: dict[str, str] = field(default_factory=dict)  # name of a trial -> what was wrong, or ''

    def __post_init__(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists():
            self.done = dict(json.loads(line) for line in self._log.read_text().splitlines())

    @property
    def _log(self) -> Path:
        return LOGS / self.code / f"{self.kind}.jsonl"

    def add(self, name: str, wrong: str) -> None:
        """Record a finished trial."""
        self.done[name] = wrong
        with self._log.open("a") as file:
            file.write(json.dumps([name, wrong]) + "\n")

    def summarize(self, planned: int, *, each: int = 1) -> None:
        """Write the counts, and what was wrong, to the committed file.

        `planned` is the number of all trials; each counts as `each`.
        """
        failures = {name: wrong for name, wrong in self.done.items() if wrong}
        groups: dict[str, int] = {}
        for name in self.done:
            groups[name.rpartition("/")[0]] = groups.get(name.rpartition("/")[0], 0) + 1
        summary = {
            "date": datetime.now(UTC).date().isoformat(),
            "trials": each * len(self.done),
            "code": self.code,
            "planned": each * planned,
            "failures": len(failures),
            "by_group": dict(sorted(groups.items())),
            "first_failures": dict(list(failures.items())[:20]),
        }
        SUMMARIES.mkdir(parents=True, exist_ok=True)
        (SUMMARIES / f"{self.kind}.json").write_text(json.dumps(summary, indent=1) + "\n")


def todo(trials: Trials, names: Iterable[str]) -> list[str]:
    """Return the trials that are not finished."""
    return [name for name in names if name not in trials.done]
