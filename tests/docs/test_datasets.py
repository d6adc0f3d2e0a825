"""docs/datasets.md is what the declarations say; `UPDATE_GOLDEN=1 pytest tests/docs` writes it anew."""

import os

from oxe_tools.datasets import all_specs, page
from schemas.declarations import catalog
from tests.docs.toy import ROOT

PAGE = ROOT / "docs/datasets.md"


def test_the_page_is_what_the_declarations_say() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "UPDATE_GOLDEN=1 pytest tests/docs"


def test_every_dataset_has_a_row_and_a_section() -> None:
    text = PAGE.read_text()
    for name in catalog.dataset_names():
        assert f"\n## {name}\n" in text
        assert f"[{name}](#{name.lower()})" in text


def test_the_index_lists_every_dataset_once_under_its_robot() -> None:
    index = PAGE.read_text().partition("| dataset |")[0]
    for declared in all_specs():
        (line,) = (line for line in index.splitlines() if f"[{declared.name}](#{declared.name.lower()})" in line)
        assert line.startswith(f"- **{declared.embodiment.robot}**: ")


def test_the_demos_are_listed_last() -> None:
    names = [declared.name for declared in all_specs()]
    assert names[-3:] == ["demo_bench", "demo_cell", "demo_kitchen"]
    assert sorted(names) == list(catalog.dataset_names())
