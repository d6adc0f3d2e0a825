"""Writes docs/reliability.md from promises.toml and the counts in benchmarks/results/torture."""

import json
import tomllib
from pathlib import Path
from typing import Any

from tests.torture.results import ROOT, SUMMARIES

PROMISES = Path(__file__).with_name("promises.toml")
PAGE = ROOT / "docs" / "reliability.md"


def page() -> str:
    """Return the text of the page."""
    table = tomllib.loads(PROMISES.read_text())
    return table["before"] + "".join(map(_row, table["promise"])) + table["after"]


def _row(promise: dict[str, Any]) -> str:
    counts = promise
    if name := promise.get("results"):
        counts = json.loads((SUMMARIES / f"{name}.json").read_text())
    date = f" of {counts['planned']:,} planned ({counts['date']})" if "date" in counts else ""
    how = f"{promise['how']} `{promise['tests']}`"
    return f"| {promise['promise']} | {how} | {int(counts['trials']):,}{date} | {int(counts['failures']):,} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
