"""Every command has help with an example that parses, a section in docs/cli/ that names its options, and a golden.

`UPDATE_GOLDEN=1 pytest tests/docs` rewrites tests/golden/cli; review the difference like code.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from oxe_tools.cli.main import app
from schemas.store.dataset import Dataset
from tests.docs.toy import ROOT

PAGES = [ROOT / "docs/cli.md", *sorted((ROOT / "docs/cli").glob("*.md"))]
PAGE = "".join(page.read_text() for page in PAGES)
GOLDEN = ROOT / "tests/golden/cli"
WIDTH = 100


def walk(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """List the commands that do something, with their full names; groups only lead to them."""
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for word, child in children.items():
        yield from walk(child, f"{name} {word}".strip())


ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = dict(walk(ROOT_COMMAND))
each = pytest.mark.parametrize("name", list(COMMANDS))


def options(name: str) -> set[str]:
    """Name all options of a command."""
    parameters = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    return {word for p in parameters for word in (*p.opts, *p.secondary_opts)}


def section(name: str) -> str:
    """Take a command's section out of the page."""
    match = re.search(rf"^## oxe {re.escape(name)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match, f"docs/cli/ has no section '## oxe {name}'"
    return match[1]


def example(name: str) -> str:
    """Find the example in a command's help."""
    match = re.search(r"^Example: (oxe .*)$", COMMANDS[name].help or "", re.MULTILINE)
    assert match, f"oxe {name}: its help has no line 'Example: oxe ...'"
    return match[1]


@each
def test_every_command_has_help_that_begins_with_a_sentence(name: str) -> None:
    first = (COMMANDS[name].help or "").splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", first)


@each
def test_every_option_and_argument_has_help(name: str) -> None:
    assert [p.name for p in COMMANDS[name].params if not p.help] == []


@each
def test_the_example_in_the_help_parses_and_stands_in_the_docs(name: str) -> None:
    words = shlex.split(example(name))[1:]
    command_words = name.split()
    assert words[: len(command_words)] == command_words
    with COMMANDS[name].make_context(name, words[len(command_words) :]) as context:
        assert {p.name for p in COMMANDS[name].params if p.required} <= {k for k, v in context.params.items() if v}
    assert f"    {example(name)}\n" in section(name)


@each
def test_the_docs_name_every_option_and_no_other(name: str) -> None:
    rows = re.findall(r"^\| (`.*?`) \|", section(name), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"--[\w-]+", row)}
    assert named == options(name)


@each
def test_the_docs_say_what_json_is_printed_and_the_exit_codes(name: str) -> None:
    assert ("```json" in section(name)) == ("--json" in options(name))
    assert "Exit codes: 0" in section(name)


def keys(value: Any) -> dict[str, Any]:
    """Name the keys of an object and of one entry of those that hold data."""
    inner = {key: value[key] for key in ("splits", "features") if key in value}
    episodes = value.get("episodes")
    return {
        "": set(value),
        **{key: set(next(iter(entries.values()))) for key, entries in inner.items()},
        "episodes": set(episodes) if isinstance(episodes, dict) else None,
    }


def several(recordings: Path, folder: Path) -> Path:
    """Put two sources into one folder."""
    for version in ("1.0.0", "1.1.0"):
        shutil.copytree(recordings, folder / "several" / version)
    return folder / "several"


@pytest.mark.parametrize("name", ["inspect", "convert", "verify", "stats", "export rlds"])
def test_the_json_in_the_docs_has_the_keys_that_are_printed(
    name: str, recordings: Path, converted: Dataset, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "out")]
    calls = {
        "inspect": [[str(recordings)], [str(recordings), "--draft", "-"], [str(several(recordings, tmp_path))]],
        "convert": [["my_lab.toml", "--source", str(recordings), *out, *more] for more in ([], ["--dry-run"])],
        "verify": [[str(converted.path)]],
        "stats": [[str(converted.path), "--diff", str(converted.path)]],
        "export rlds": [[str(converted.path), *out]],
    }
    shown = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", section(name), re.MULTILINE | re.DOTALL)]
    shutil.copy(converted.path.parent / "my_lab.toml", tmp_path)
    for call, example_json in zip(calls[name], shown, strict=True):
        with contextlib.chdir(tmp_path):
            result = CliRunner().invoke(app, [*name.split(), *call, "--json"])
        assert result.exit_code == 0, result.output
        assert keys(json.loads(result.stdout)) == keys(example_json)


def test_the_docs_have_no_section_for_a_command_that_is_not_there() -> None:
    assert re.findall(r"^## oxe (.+)$", PAGE, re.MULTILINE) == sorted(
        COMMANDS, key=lambda name: PAGE.index(f"## oxe {name}\n")
    )


def helped(name: str) -> str:
    """Run `oxe NAME --help` with a fixed width and no colours."""
    environment = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(app, [*name.split(), "--help"], env=environment, prog_name="oxe", color=False)
    assert result.exit_code == 0, result.output
    return result.output


def all_names() -> list[str]:
    groups = {" ".join(name.split()[:n]) for name in COMMANDS for n in range(len(name.split()))}
    return sorted(groups | set(COMMANDS))


@pytest.mark.parametrize("name", all_names(), ids=lambda name: name or "oxe")
def test_help_is_as_users_know_it(name: str) -> None:
    golden = GOLDEN / f"{name.replace(' ', '_') or 'oxe'}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(helped(name))
    assert golden.is_file(), f"{golden} is missing; write it with: UPDATE_GOLDEN=1 pytest tests/docs"
    assert helped(name) == golden.read_text(), "if this is meant: UPDATE_GOLDEN=1 pytest tests/docs"


def test_the_options_of_all_commands_are_in_the_docs() -> None:
    for parameter in ROOT_COMMAND.params:
        assert f"`{parameter.opts[0]}`" in PAGE


def test_there_is_no_golden_of_a_command_that_is_gone() -> None:
    known = {f"{name.replace(' ', '_') or 'oxe'}.txt" for name in all_names()}
    assert {Path(path).name for path in GOLDEN.glob("*.txt")} == known
