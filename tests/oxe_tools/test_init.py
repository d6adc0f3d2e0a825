"""Importing the package: what it refuses, and what it does not pull in."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.toy import ROOT, Run, command

HEAVY = ["tensorflow", "tensorflow_datasets", "apache_beam", "torch", "polars", "datasets", "pandas", "simplejpeg"]


def python(code: str, *, cwd: Path = ROOT) -> Run:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    return Run(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize("name", ["stats", "schemas", "pipelines", "finetune"])
def test_a_foreign_package_that_hides_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import oxe_tools", cwd=tmp_path)
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith(f"ImportError: '{name}' was found at {tmp_path / name}, not at {ROOT / name}: ")
    assert last.endswith("run from another folder or rename it")


def test_a_foreign_module_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "stats.py").write_text("")
    done = python("import oxe_tools", cwd=tmp_path)
    assert f"ImportError: 'stats' was found at {tmp_path}, not at {ROOT / 'stats'}: " in done.err


def test_a_mere_folder_of_that_name_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "stats").mkdir()
    done = python("import oxe_tools, stats; print(stats.__file__)", cwd=tmp_path)
    assert (done.code, done.out.strip()) == (0, str(ROOT / "stats/__init__.py"))


def test_importing_pulls_in_no_heavy_library() -> None:
    done = python(f"import sys, oxe_tools; print([name for name in {HEAVY} if name in sys.modules])")
    assert (done.out.strip(), done.err) == ("[]", "")


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"]])
def test_help_pulls_in_no_heavy_library(arguments: list[str]) -> None:
    heavy = [*HEAVY, "PIL", "huggingface_hub", "fsspec"]
    code = f"""
import sys
from oxe_tools.cli.main import main
try:
    main({arguments})
except SystemExit as end:
    assert not end.code
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = python(code)
    assert (done.code, done.err.strip()) == (0, "[]")


def test_the_command_is_installed() -> None:
    assert Path(command()[0]).is_file()
