"""docs/reliability.md is what the promises and the counts say; `UPDATE_GOLDEN=1 pytest tests/docs` writes it."""

import os

from tests.torture.report import PAGE, page


def test_the_page_is_what_the_promises_and_counts_say() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "UPDATE_GOLDEN=1 pytest tests/docs"


def test_no_promise_has_failures_and_each_was_tried() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 3
    assert [row[0] for row in rows if row[3] != "0 |" or row[2].startswith("0")] == []
