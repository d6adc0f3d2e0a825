"""The README's commands: those with output run line by line in an empty folder, and all others are read as typed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from typer.main import get_command

from oxe_tools.cli.main import app
from tests.docs.toy import ROOT, blocks

SECONDS = re.compile(r"\d+\.\d s$")
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1"}
    words = shlex.split(command, comments=True)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def commands(page: str) -> list[str]:
    """List the calls of `oxe` in a page's shell blocks and indented lines."""
    shell = [text for language in ("sh", "console") for text in blocks(page, language)]
    lines = chain.from_iterable(re.sub(r"\\\n *", "", text).splitlines() for text in shell)
    indented = re.findall(r"^ {4}(oxe .*)$", re.sub(r"\\\n *", "", (ROOT / page).read_text()), re.MULTILINE)
    return [line.removeprefix("$ ") for line in (*lines, *indented) if re.match(r"(\$ )?oxe ", line)]


def test_the_commands_print_what_the_readme_shows_and_the_python_runs(tmp_path: Path) -> None:
    calls = (re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] for text in blocks("README.md", "console"))
    for shown in chain.from_iterable(calls):
        command, *lines = shown.splitlines()
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        printed = [SECONDS.sub("", line.rstrip()) for line in done.stdout.splitlines()]
        assert [line for line in lines if SECONDS.sub("", line.rstrip()) not in printed] == []
    for code in blocks("README.md", "python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        for comment in re.findall(r"^print\(.*\) +# (?!a )(.*)$", code, re.MULTILINE):
            assert comment in printed


def test_the_demo_prints_the_table_that_the_readme_shows(tmp_path: Path) -> None:
    printed = [line.rstrip() for line in run("oxe demo", tmp_path).stdout.splitlines()]
    (shown,) = (text for text in blocks("README.md", "text") if text.startswith("Before"))
    assert [line for line in shown.splitlines() if line and line not in printed] == []


def test_the_path_of_own_recordings_runs_from_the_recordings_to_an_export(recordings: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need the extra lerobot")
    shutil.copytree(recordings, tmp_path / "demos")
    path = next(text for text in blocks("README.md", "sh") if "my_arm" in text).splitlines()
    filled_in = blocks("docs/add-a-dataset.md", "toml")[0].replace("data/my_lab/1.0.0", "demos")
    for command in path:
        if command.startswith("$EDITOR"):
            (tmp_path / "my_arm.toml").write_text(filled_in)
            continue
        done = run(command, tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "my_arm_lerobot/meta/info.json").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_every_call_of_oxe_in_the_documentation_has_known_options(page: str) -> None:
    for line in commands(page):
        words = [word for word in shlex.split(line, comments=True)[1:] if word != "--debug"]
        command, context = get_command(app), None
        while True:
            context = command.make_context(command.name, words, parent=context)
            if not hasattr(command, "resolve_command"):
                break
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200
