"""docs/robots.md is what the embodiments say; `UPDATE_GOLDEN=1 pytest tests/docs` writes it anew."""

import os

from oxe_tools.robots import page
from schemas.declarations import catalog
from schemas.declarations.robots import by_type
from tests.docs.toy import ROOT, blocks

PAGE = ROOT / "docs/robots.md"


def test_the_page_is_what_the_embodiments_say() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "UPDATE_GOLDEN=1 pytest tests/docs"


def test_every_robot_has_one_row_below_its_maker() -> None:
    sections = {part.partition("\n")[0]: part for part in PAGE.read_text().split("\n## ")}
    for robot in catalog.known_robots():
        assert robot.recorded is not None
        assert sections[robot.recorded.maker].count(f"\n| `{robot.name}` | {robot.embodiment.robot} |") == 1


def test_every_robot_type_of_several_embodiments_is_in_the_table() -> None:
    table = PAGE.read_text().partition("## Robot types of several embodiments")[2]
    rows = {row.split(" | ")[0]: row for row in table.splitlines() if row.startswith("| `")}
    several = {word: names for word, names in by_type(catalog.known_robots()).items() if len(names) > 1}
    assert rows.keys() - {"| `robot_type`"} == {f"| `{word}`" for word in several}
    for word, names in several.items():
        assert all(f"`{name}`" in rows[f"| `{word}`"] for name in names)


def test_the_example_of_the_reference_is_in_the_file() -> None:
    (example,) = (text for text in blocks("docs/reference/embodiments.md", "toml") if text.startswith("[recorded]"))
    lines = (catalog.HERE / "embodiments/so101_travel.toml").read_text()
    squeezed = " ".join(lines.split()).replace("[ ", "[").replace(", ]", "]")
    for line in filter(None, example.splitlines()):
        assert " ".join(line.split()) in squeezed
