"""The command line: exit codes, stdout, stderr and help. Results are tested in `tests/pipelines`."""

import os
import platform
import pty
import subprocess
import termios
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from oxe_tools import open_dataset
from oxe_tools.cli import main
from oxe_tools.cli.console import print_table
from pipelines.convert.convert import _log_run, convert
from schemas.declarations import catalog
from schemas.errors import DatasetError
from schemas.files import network
from schemas.files.folder import LocalFolder
from tests.pipelines.toy import Toy, columns, command, make_toy, oxe, oxe_process, write_spec


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def test_success_is_exit_0_with_the_result_on_stdout_alone(toy: Toy) -> None:
    done = oxe_process("convert", toy.spec, "--source", toy.source, "--out", toy.out)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].startswith(f"{toy.out}: 9 steps in 1 file, ")
    assert done.out.splitlines()[1] == ("episodes: 3 in the source = 3 kept + dropped (none) + quarantined (none)")


def test_an_error_is_exit_2_and_one_line_on_stderr(toy: Toy) -> None:
    done = oxe_process("convert", "toyy", "--out", toy.out)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("oxe: unknown dataset 'toyy'")


def test_wrong_usage_is_exit_2(toy: Toy) -> None:
    for arguments in (["convert"], ["convert", "toy"], ["convrt"], ["inspect", "x", "--limit", "0"], ["export", "csv"]):
        done = oxe(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert "Traceback" not in done.err


def test_json_is_one_object_and_nothing_else(toy: Toy) -> None:
    rlds = toy.folder / "rlds"
    keys = {
        ("inspect", toy.source): {"format", "splits", "episodes", "steps", "features"},
        ("convert", toy.spec, "--source", toy.source, "--out", toy.out): {
            "out",
            "episodes",
            "steps",
            "files",
            "seconds",
        },
        ("verify", toy.out): {"ok", "source", "differences", "first", "episodes", "steps", "numbers", "images"},
        ("export", "rlds", toy.out, "--out", rlds): {"out", "episodes", "steps", "files", "view"},
        ("convert", rlds, "--out", toy.folder / "back", "--dry-run"): {"dataset", "episodes", "files", "columns"},
    }
    for arguments, expected in keys.items():
        done = oxe(*arguments, "--json")
        assert (done.code, done.err, done.out.count("\n")) == (0, "", 1), arguments
        assert expected <= done.json().keys()


def test_messages_go_to_stderr_beside_the_json(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1, image=[b"?"] * 3)])
    done = oxe("convert", toy.spec, "--source", toy.source, "--out", toy.out, "--json")
    assert (done.code, done.json()["episodes"]["quarantined"]) == (1, {"bad_image": 1})
    assert done.err.splitlines()[-1] == f"oxe: {toy.out}: quarantined 1 bad_image; see meta/quarantine.parquet"


def test_unknown_conventions_are_printed(toy: Toy) -> None:
    write_spec(toy.folder, replace={'frame   = "base"': 'frame   = "unknown"'})
    done = oxe("convert", toy.spec, "--source", toy.source, "--out", toy.out)
    assert (done.code, done.err) == (0, "toy: action: not known: frame\n")


def test_debug_shows_the_traceback(toy: Toy) -> None:
    done = oxe_process("verify", toy.out, "--debug")
    assert done.code == 1
    assert "Traceback (most recent call last)" in done.err
    assert "schemas.errors.DatasetError: " in done.err


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_may_stand_anywhere(toy: Toy, place: int) -> None:
    arguments = ["verify", str(toy.out)]
    arguments.insert(place, "--debug")
    with pytest.raises(DatasetError):
        oxe(*arguments)


def test_the_bare_command_prints_help() -> None:
    for arguments in ([], ["--help"], ["export"]):
        done = oxe(*arguments)
        assert done.code in {0, 2}
        assert "Usage: " in done.out + done.err
    everything = oxe("--help").out
    for name in ("inspect", "convert", "verify", "export", "demo", "Exit codes: 0"):
        assert name in everything


def test_the_versions_are_those_that_are_installed() -> None:
    done = oxe("--version")
    assert (done.code, done.err) == (0, "")
    known = dict(line.split() for line in done.out.splitlines())
    assert list(known)[:5] == ["oxe-tools", "Python", "apache-beam", "pyarrow", "polars"]
    assert known.pop("Python") == platform.python_version()
    assert known == {name: metadata.version(name) for name in known}
    assert ("torch" in known) == (find_spec("torch") is not None)


def test_a_library_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "LIBRARIES", ("pyarrow", "no-such-library"))
    assert [line.split()[0] for line in oxe("--version").out.splitlines()] == ["oxe-tools", "Python", "pyarrow"]


def test_progress_is_shown_on_a_terminal_only(toy: Toy) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    arguments = command("convert", toy.spec, "--source", toy.source, "--out", toy.out, "--json")
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # closes the reading end
        pass
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 1
    assert b"3/3" in shown


def test_a_closed_pipe_is_no_traceback(toy: Toy) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("inspect", toy.source), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr


def test_the_python_api_reads_what_the_command_wrote(toy: Toy) -> None:
    assert toy.convert().code == 0
    dataset = open_dataset(toy.out)
    assert (len(dataset), len(dataset.episode(1)), dataset.episode(1).instruction) == (3, 3, "task 1 ☂")
    assert len(dataset.episode(1, "late")) == 2


def test_datasets_list_and_show_print_what_is_declared() -> None:
    listed = oxe("datasets", "list", "--json")
    rows = {row["name"]: row for row in listed.json()["datasets"]}
    assert rows["taco_play"] == {
        "name": "taco_play",
        "robot": "Franka Panda",
        "control_hz": 15.0,
        "episodes": 3603,
        "cameras": ["primary", "wrist"],
        "views": ["octo", "openvla"],
    }
    shown = oxe("datasets", "show", "rt1", "--json").json()
    assert shown["name"] == shown["spec"]["name"] == "fractal20220817_data"
    assert {name for name, view in shown["views"].items() if "space" in view} == {"eef_delta", "octo", "openvla"}
    assert "unavailable views: octo: Octo has no transform for it" in oxe("datasets", "show", "droid").out
    assert "- maker: TheRobotStudio" in oxe("datasets", "show", "so101_travel").out
    assert oxe("datasets", "show", "so101_travel", "--json").json()["recorded"]["control_hz"] == [30]
    wrong = oxe("datasets", "show", "drod")
    assert wrong.code == 2
    assert "unknown dataset 'drod'; did you mean 'droid'?" in wrong.err


FOREIGN = "pick \x1b[31mred\x07 \x1b]0;owned\x1b\\ [bold]up[/bold]\u202e\n\rand café"
SHOWN = r"pick \x1b[31mred\x07 \x1b]0;owned\x1b\\ [bold]up[/bold]\u202e\n\rand café"


def test_foreign_text_cannot_change_the_terminal(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i, language_instruction=[FOREIGN.encode()] * 3) for i in range(2)])
    damaged = toy.source / "toy-train.tfrecord-00000-of-00001"
    for words in (
        ("inspect", toy.source),
        ("inspect", toy.source, "--draft", "-"),
        ("convert", toy.spec, "--source", toy.source, "--out", toy.out),
        ("datasets", "check", toy.spec, "--source", toy.source),
        ("inspect", tmp_path / "no\x1b[2J\u202e"),
        ("convert", "no\x1b[2J\ntoy", "--out", toy.out),
    ):
        done = oxe(*words)
        assert all(char.isprintable() or char == "\n" for char in done.out + done.err), (words, done)
    assert "pick \\x1b[31mred\\x07 " in oxe("inspect", toy.source).out
    assert damaged.exists()


def test_a_name_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [("[red]x[/red]",), ("[/]",), (SHOWN,)], width=200)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == ["[red]x[/red]", "[/]", SHOWN]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://me:SECRET@bucket/data",
        "https://SECRETTOKEN@host.invalid/data",
        "https://host.invalid/data?sig=SECRET&part=1",
        "https://host.invalid/data?part=1&X-Amz-Signature=SECRET&X-Amz-Credential=SECRET",
        "sftp://me:SECRET@host.invalid/data",
    ],
)
def test_a_password_is_not_printed(toy: Toy, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TRIES", 1)
    for words in (["inspect", uri], ["convert", toy.spec, "--source", uri, "--out", toy.out, "--json"]):
        done = oxe(*words)
        assert done.code == 2
        assert "SECRET" not in done.out + done.err
        assert "***" in done.err


def test_a_password_is_not_logged(toy: Toy) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem()
    store.put(str(toy.source), "/box/source", recursive=True)
    uri = "memory://me:SECRET@x/../box/source?token=SECRET"
    report = convert(catalog.dataset(str(toy.spec)), str(toy.out), source=str(toy.source))
    _log_run(LocalFolder(toy.out), uri, report)
    assert "SECRET" not in "".join(file.read_text(errors="replace") for file in toy.out.rglob("*.json*"))
    done = oxe("verify", toy.out)
    assert "does not keep the password of its source" in done.out


def test_a_fault_of_ours_is_exit_3_and_one_line(monkeypatch: pytest.MonkeyPatch, toy: Toy) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("no \x1b[31msuch\nthing")

    monkeypatch.setattr("pipelines.inspect.inspect.inspect", broken)
    done = oxe("inspect", toy.source)
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(
        "oxe: a fault of oxe-tools, not of your input: TypeError: no \\x1b[31msuch at oxe_tools/"
    )
    assert "please report" in done.err
    shown = oxe("inspect", toy.source, "--debug")
    assert shown.code == 3
    assert "Traceback (most recent call last)" in shown.err


def test_an_ascii_terminal_shows_every_command(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(i, language_instruction=["café \u202e 木".encode()] * 3) for i in range(2)])
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (
        ("inspect", toy.source),
        ("convert", toy.spec, "--source", toy.source, "--out", toy.out),
        ("stats", toy.out),
        ("convert", "café", "--out", toy.out),
        ("datasets", "list"),
        ("datasets", "show", "bridge_dataset"),
        ("--help",),
    ):
        done = subprocess.run(command(*arguments), capture_output=True, env=ascii_only, check=False, cwd=tmp_path)
        assert done.returncode in {0, 2}, done.stderr.decode()
        assert (done.stdout + done.stderr).isascii()
