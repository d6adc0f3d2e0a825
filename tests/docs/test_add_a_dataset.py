"""docs/add-a-dataset.md runs: its files convert, its commands succeed, its Python prints what it says."""

import contextlib
import io
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oxe_tools.cli.main import app
from schemas.store.dataset import open_dataset
from tests.docs.toy import blocks

PAGE = "docs/add-a-dataset.md"


@pytest.fixture
def lab(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out the page's files beside its recordings, and work there."""
    shutil.copytree(recordings, tmp_path / "data/my_lab/1.0.0")
    for text in blocks(PAGE, "toml"):
        name = text.splitlines()[0].split('"')[1]
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    return result.exit_code, result.output


def commands() -> list[str]:
    lines = [line for text in blocks(PAGE, "console") for line in text.splitlines()]
    return [line.removeprefix("$ ") for line in lines]


def test_the_declaration_has_ten_lines_and_is_that_of_the_other_pages() -> None:
    first = blocks(PAGE, "toml")[0]
    assert len(first.splitlines()) == 10
    assert first in blocks("docs/declarations.md", "toml")


def test_every_command_on_the_page_does_what_it_should(lab: Path) -> None:
    for command in commands():
        code, output = run(command)
        assert code == 0, output
    assert len(open_dataset(lab / "my_lab")) == 3


def test_the_variant_adds_its_view_and_the_python_prints_what_it_says(lab: Path) -> None:
    assert run("oxe convert my_lab_still.toml --out still")[0] == 0
    assert open_dataset(lab / "still").views == ("eef_delta", "trained")
    (code,) = blocks(PAGE, "python")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, PAGE, "exec"), {})  # noqa: S102 - the page's own example
    assert printed.getvalue().strip() == code.splitlines()[-1].rpartition("# ")[2]


def test_a_forgotten_unit_is_found(lab: Path) -> None:
    text = (lab / "my_lab.toml").read_text()
    (lab / "my_lab.toml").write_text(text.replace(" | scale(1/1000)", "").replace(" | deg2rad", ""))
    code, output = run("oxe datasets check my_lab.toml")
    assert code == 1
    assert "too far for metres; are these millimetres?" in output
    assert "too large for radians; are these degrees?" in output


def test_a_misspelt_key_gets_the_nearest(lab: Path) -> None:
    text = (lab / "my_lab.toml").read_text()
    (lab / "my_lab.toml").write_text(text.replace("observation.tcp_mm", "observation.tpc_mm"))
    code, output = run("oxe datasets check my_lab.toml")
    assert code == 1
    assert "the source has no 'observation.tpc_mm'; did you mean 'observation.tcp_mm'?" in output
