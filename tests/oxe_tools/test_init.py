"""Importing the package: which neighbours it refuses, and which heavy libraries it does not import."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.toy import ROOT, Run, command, make_toy

HEAVY = ["apache_beam", "datasets", "fsspec", "huggingface_hub", "pandas", "polars", "pyarrow", "scipy"]
HEAVY += ["tensorflow", "tensorflow_datasets", "torch", "transformers"]
READING = [
    "PIL",
    "h5py",
    "numpy",
    "rich",
    "simplejpeg",
    "tqdm",
]  # libraries that a command which reads a source may need


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
    assert last.startswith(f"ImportError: package '{name}' is at {tmp_path / name}, expected {ROOT / name}: ")
    assert last.endswith("run in another folder or rename it")


def test_a_foreign_module_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "stats.py").write_text("")
    done = python("import oxe_tools", cwd=tmp_path)
    assert f"ImportError: package 'stats' is at {tmp_path}, expected {ROOT / 'stats'}: " in done.err


def test_a_mere_folder_of_that_name_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "stats").mkdir()
    done = python("import oxe_tools, stats; print(stats.__file__)", cwd=tmp_path)
    assert (done.code, done.out.strip()) == (0, str(ROOT / "stats/__init__.py"))


def loaded(heavy: list[str], arguments: list[str]) -> str:
    """Run the command line in a new process and return which modules of `heavy` it has imported."""
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
    assert (done.code, bool(done.out)) == (0, True), done.err
    return done.err.strip()


def test_importing_pulls_in_no_heavy_library() -> None:
    heavy = [*HEAVY, *READING, "pydantic", "typer"]
    done = python(f"import sys, oxe_tools; print([name for name in {heavy} if name in sys.modules])")
    assert (done.out.strip(), done.err) == ("[]", "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_versions_pull_in_no_heavy_library(option: str) -> None:
    assert loaded([*HEAVY, *READING, "pydantic"], [option]) == "[]"


@pytest.mark.parametrize("command", ["convert", "stats", "train"])
def test_help_of_a_command_pulls_in_no_heavy_library(command: str) -> None:
    assert loaded([*HEAVY, *READING], [command, "--help"]) == "[]"


def make_rlds(folder: Path) -> Path:
    return make_toy(folder).source


def make_hdf5(folder: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "two.hdf5", "w") as file:
        for episode in range(2):
            file[f"data/demo_{episode}/actions"] = np.zeros((3, 7))
            file[f"data/demo_{episode}/obs/image"] = np.zeros((3, 8, 8, 3), np.uint8)
    return folder / "two.hdf5"


def make_csv(folder: Path) -> Path:
    (folder / "steps.csv").write_text("t,x\n0,1.5\n1,2.5\n")
    return folder / "steps.csv"


@pytest.mark.parametrize("make", [make_rlds, make_hdf5, make_csv])
def test_inspecting_a_small_source_pulls_in_what_reads_it_alone(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert loaded(HEAVY, ["inspect", str(make(tmp_path))]) == "[]"


def test_the_command_is_installed() -> None:
    assert Path(command()[0]).is_file()
