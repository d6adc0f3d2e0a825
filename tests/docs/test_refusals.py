"""docs/refusals.md lists what a policy refuses, with the messages that the commands print.

`UPDATE_GOLDEN=1 pytest tests/docs` rewrites its table; review the difference like code.
"""

import os
import re
from pathlib import Path

import pytest

from tests.docs.toy import ROOT

pytest.importorskip("torch", reason="the models need the extra finetune")

from tests.docs.policy_cases import Case, Lab, cases

PAGE = ROOT / "docs/refusals.md"
HEAD = "| case | exit code | message |\n|---|---|---|\n"
KNOWN = ("oxe: ", "note: ", "warning: ")
CASES = {case.what: case for case in cases()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("refusals"))


def shown(text: str, folder: Path) -> str:
    """Write a message without what differs between machines: folders and digests."""
    text = re.sub(rf"{re.escape(str(folder))}/\d+/", "", text)
    text = text.replace(f"{ROOT}/", "").replace("|", "\\|")
    return re.sub(r"\b[0-9a-f]{32}\b", "...", text)


def row(case: Case, lab: Lab) -> str:
    """Run a case, and return its row of the table. A message is one line, without a traceback."""
    done = case.run(lab)
    lines = [line for line in done.err.splitlines() if line.startswith((*KNOWN, "all: "))]
    if not lines:  # printed as a result
        lines = [line for line in done.out.splitlines() if "held out" in line or "not actions" in line]
    assert "Traceback" not in done.err
    return f"| {case.what} | {done.code} | {'<br>'.join(f'`{shown(line, lab.folder)}`' for line in lines)} |\n"


@pytest.mark.parametrize("what", [pytest.param(c.what, marks=[pytest.mark.slow] * c.is_slow) for c in CASES.values()])
def test_each_row_is_what_the_command_prints(what: str, lab: Lab) -> None:
    text, expected = PAGE.read_text(), row(CASES[what], lab)
    if os.environ.get("UPDATE_GOLDEN"):
        head, _, rows = text.partition(HEAD)
        others = {line.split(" | ")[0].removeprefix("| "): f"{line}\n" for line in rows.splitlines() if line[:1] == "|"}
        after = rows[sum(map(len, others.values())) :]
        others[what] = expected
        PAGE.write_text(head + HEAD + "".join(others[name] for name in CASES if name in others) + after)
    assert expected in PAGE.read_text(), "if this is meant: UPDATE_GOLDEN=1 pytest tests/docs"


def test_the_table_has_no_other_rows() -> None:
    rows = PAGE.read_text().partition(HEAD)[2].splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows if line.startswith("|")] == list(CASES)
