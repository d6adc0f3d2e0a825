"""The table of docs/checks.md is what the rules say; `UPDATE_GOLDEN=1 pytest tests/docs` writes it anew."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.checks.rules import RULES
from pipelines.checks.settings import load
from pipelines.checks.thresholds import Thresholds
from tests.docs.toy import ROOT, blocks

PAGE = ROOT / "docs/checks.md"
START, END = "<!-- rules -->\n", "<!-- /rules -->"


def rows() -> Iterator[str]:
    """Write the table of the rules."""
    yield "| rule | severity | what it finds | thresholds |"
    yield "|---|---|---|---|"
    for rule in RULES.values():
        settings = Thresholds.model_fields[rule.id].default
        named = [f"`{name}` {value:g}" for name, value in settings if name != "severity" and value is not None]
        yield f"| `{rule.id}` | {rule.severity} | {rule.finds} | {', '.join(named)} |"


def test_the_table_is_what_the_rules_say() -> None:
    before, rest = PAGE.read_text().split(START)
    _, after = rest.split(END)
    page = before + START + "".join(f"{row}\n" for row in rows()) + END + after
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "UPDATE_GOLDEN=1 pytest tests/docs"


def test_the_rules_file_of_the_page_is_valid(tmp_path: Path) -> None:
    (example, *_) = blocks("docs/checks.md", "toml")
    (tmp_path / "rules.toml").write_text(example)
    settings = load(tmp_path / "rules.toml")
    assert settings.severity("outcome_unknown") == "off"
    assert settings.accept[0].episodes == (3, 17)
