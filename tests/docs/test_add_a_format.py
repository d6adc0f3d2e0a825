"""docs/add-a-format.md runs: its package is installed, its test passes, and its recordings are converted."""

import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from oxe_tools.cli.main import app
from oxe_tools.testing import check_reader
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.declarations.formats import PluginSource
from schemas.errors import SpecError
from schemas.source import Unreadable
from schemas.store.dataset import open_dataset
from tests.docs.toy import blocks

PAGE = "docs/add-a-format.md"
READER, TEST = blocks(PAGE, "python")
PROJECT, DECLARATION = blocks(PAGE, "toml")
ENTRY = PROJECT.splitlines()[-1].replace('"', "")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Install the page's package, write the recordings of its test, and work beside them; return the test's names."""
    package, info = tmp_path / "site/lab_package", tmp_path / "site/lab_package-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "reader.py").write_text(READER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[oxe_tools.readers]\n{ENTRY}\n")
    (tmp_path / "test_reader.py").write_text(TEST)
    (tmp_path / "sessions.toml").write_text(DECLARATION)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("lab_package", "lab_package.reader"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(tmp_path / "test_reader.py"))
    Path("data/sessions").mkdir(parents=True)
    names["write"](Path("data/sessions"))
    return names


def test_the_reader_is_about_sixty_lines_of_one_class() -> None:
    assert len(READER.splitlines()) < 70
    assert READER.count("(SourceReader)") == 1


def test_the_pages_own_test_passes(lab: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    tests: list[Callable[[Path], None]] = [run for name, run in lab.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0](tmp_path / "fresh")


def test_every_command_on_the_page_does_what_it_should(lab: dict[str, Any]) -> None:
    for line in "".join(blocks(PAGE, "console")).splitlines():
        result = CliRunner().invoke(app, shlex.split(line.removeprefix("$ "))[1:])
        assert result.exit_code == 0, result.output
    dataset = open_dataset(Path("sessions"))
    episodes = [dataset.episode(i) for i in range(len(dataset))]
    assert [episode.instructions for episode in episodes] == [(episode["task"],) for episode in lab["EPISODES"]]


def test_a_damaged_episode_is_told_with_its_place(lab: dict[str, Any]) -> None:
    file = Path("data/sessions/session_9.jsonl")
    file.write_text(file.read_text().replace('"task": "put it back", ', ""))
    reader = open_source("data/sessions", PluginSource(format="labjson"))
    values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    (lost,) = [value for value in values if isinstance(value, Unreadable)]
    assert (lost.index, lost.reason, lost.detail) == (1, "bad_json", "line 2: not an episode (KeyError('task'))")
    assert lost.file.endswith("session_9.jsonl")


def test_an_option_that_the_source_does_not_have_is_refused_with_the_nearest(lab: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"data/sessions: source\.options: unknown key 'file'; did you mean 'files'\?"):
        open_source("data/sessions", PluginSource(format="labjson", options={"file": "*"}))


def test_a_reader_that_takes_its_options_as_keywords_keeps_working(lab: dict[str, Any]) -> None:
    kind, table = lab["LabReader"], lab["LabSource"]

    class Keywords(kind):  # type: ignore[misc,valid-type]
        Source = None

        def __init__(self, uri: str, *, files: str = "*.jsonl") -> None:
            super().__init__(uri, table(format="labjson", files=files))

    check_reader(Keywords("data/sessions", files="session_*.jsonl"), lab["EPISODES"])
