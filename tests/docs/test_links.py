"""What README and docs point to is there."""

import re
from pathlib import Path

import pytest

from tests.docs.toy import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools", "docs", "tests", "benchmarks", ".ci")
NOT_THERE = re.compile(r"stats/norm\.py|tests/stats/test_norm\.py")  # CONTRIBUTING's example
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """Name the headings as GitHub does."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each
def test_every_relative_link_leads_to_a_file_and_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not heading or heading in anchors(file), target


@each
def test_every_path_of_the_repository_in_backticks_exists(page: Path) -> None:
    for word in re.findall(r"`([\w./-]+/[\w./-]*)`", page.read_text()):
        if word.startswith(tuple(f"{place}/" for place in PLACES)) and not NOT_THERE.fullmatch(word):
            assert (ROOT / word).exists(), word


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:^ {4}|`)make (\w+)", pages, re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^ {4}make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named <= targets


@each
def test_no_page_names_a_place_outside_the_repository(page: Path) -> None:
    assert not re.search(r"(?<![\w:/.])/(work|home|tmp|root|mnt)/", page.read_text())


def test_no_page_but_the_generated_list_has_more_than_2500_words() -> None:
    long = [page.name for page in PAGES if len(page.read_text().split()) > 2500]
    assert long == ["datasets.md"]
