"""What `make release` builds: a wheel and an sdist that hold all that runs; the wheel installs and works alone."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("finetune", "oxe_tools", "pipelines", "schemas", "stats")
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this repository in its path; what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"NO_COLOR": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_git(pattern: str) -> set[str]:
    listed = subprocess.check_output(["git", "ls-files", *PACKAGES], cwd=ROOT, text=True).split()
    return {name for name in listed if name.endswith(pattern)}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both from what git holds, so that what lies about in the folder plays no part."""
    folder = tmp_path_factory.mktemp("release")
    run("git", "clone", "--quiet", ROOT, folder / "source", cwd=folder)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("oxe_tools-*-py3-none-any.whl")
    return found


def test_twine_finds_nothing_wrong(dist: Path) -> None:
    files = sorted(dist.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=dist)


def test_the_wheel_holds_every_module_declaration_and_type_marker_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == of_git(".py") | of_git(".toml") | of_git("py.typed")
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    (found,) = dist.glob("oxe_tools-*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} | of_git(".py") | of_git(".toml") <= names


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not [line for line in needed if line.startswith(("datasets", "torch", "tensorflow", "lerobot"))]
    versions = [line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if ":: Python :: 3." in line]
    assert versions == ["3.11", "3.12", "3.13"]  # those whose whole suite is recorded


def test_in_an_empty_environment_the_wheel_alone_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, oxe = tmp_path / "venv/bin/python", tmp_path / "venv/bin/oxe"
    # CI's versions, if they exist for this Python; the wheel itself allows others.
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    assert "After: the same step" in run(oxe, "demo", "--out", "lab", cwd=tmp_path)
    verified = json.loads(run(oxe, "verify", "lab/datasets/demo_kitchen", "--json", cwd=tmp_path))
    assert (verified["ok"], verified["source"]) == (True, "compared")
    code = "import oxe_tools, sys; print(oxe_tools.__file__, len(oxe_tools.open_dataset('lab/datasets/demo_cell')))"
    printed, episodes = run(python, "-c", code, cwd=tmp_path).split()
    assert Path(printed).is_relative_to(tmp_path / "venv")
    assert episodes == "4"
    assert "openvla" in run(oxe, "datasets", "show", "bridge_dataset", cwd=tmp_path)
