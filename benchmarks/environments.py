"""Run the tests in the environments that CI does not have, and write what they printed to results/environments.md.

    python benchmarks/environments.py [NAME ...]

All of them by default; a section whose environment is not run stays as it is. The exit code is 1 if one failed.
"""

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "benchmarks/results/environments.md"
HEAD = """# Environments beside that of CI

Written by `make environments`. CI runs everything on Python 3.11 with the versions of `constraints.txt`; what is here
was run by hand, on Linux x86-64. Other packages than those named are as pip or the named file of constraints has them.
"""
RUNS = {  # name: its title, the `make` target, the environment
    "3.12": ("Python 3.12", ["test", "PYTHON=python3.12"], ".venv-3.12"),
    "3.13": ("Python 3.13", ["test", "PYTHON=python3.13"], ".venv-3.13"),
    "lowest": ("The oldest versions that pyproject.toml allows", ["test-lowest"], ".venv-lowest"),
    "lerobot": ("Beside LeRobot 0.6.1", ["test-lerobot"], ".venv-lerobot"),
}
SHOWN = re.compile(r"^(== .*|=+ .*(passed|failed|error).* =+)$")  # the interpreter, and pytest's last lines
PACKAGES = ("apache-beam", "datasets", "lerobot", "numpy", "polars", "pyarrow", "torch", "transformers")
VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


def main(names: list[str]) -> int:
    """Run what is named, and write the page after each."""
    failed = 0
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text(), re.MULTILINE | re.DOTALL))
    for title, target, venv in (RUNS[name] for name in names or RUNS):
        code, sections[title] = section(target, ROOT / venv / "bin/python")
        failed |= code != 0
        ordered = [title for title, *_ in RUNS.values() if title in sections]
        PAGE.write_text(HEAD + "".join(f"\n## {title}\n{sections[title].rstrip()}\n" for title in ordered))
    return failed


def text() -> str:
    """Read the page as it is."""
    return PAGE.read_text() if PAGE.exists() else ""


def section(target: list[str], python: Path) -> tuple[int, str]:
    """Run a target; its exit code, and what the page says of it."""
    command, began = ["make", "--no-print-directory", *target], time.monotonic()
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    seconds, code = time.monotonic() - began, run.returncode
    versions = subprocess.run(
        [python, "-c", VERSIONS, *PACKAGES], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    shown = "\n".join(line.strip("= ") for line in lines if SHOWN.match(line))
    cores = f"{os.cpu_count()} cores"
    about = f"`make {' '.join(target)}`: {'passed' if code == 0 else 'FAILED'} on {datetime.now(UTC):%Y-%m-%d}"
    return code, (
        f"\n{about}, commit {commit()}, {seconds / 60:.0f} minutes on {cores}, installing included.\n"
        f"\n```text\n{shown}\n```\n\nWith {', '.join(versions)}.\n"
    )


def commit() -> str:
    """Name the commit that was tested, and say so if files differ from it."""
    name = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    changed = subprocess.check_output(["git", "status", "--porcelain", "--", "*.py", "*.toml"], cwd=ROOT, text=True)
    return name + (" with changes" if changed else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
