"""The README's path of 90 seconds, executed line by line in an empty folder."""

import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

from tests.docs.toy import blocks

SECONDS = re.compile(r"\d+\.\d s$")


def test_the_commands_print_what_the_readme_shows_and_the_python_runs(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1"}
    calls = (re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] for text in blocks("README.md", "console"))
    for shown in chain.from_iterable(calls):
        command, *lines = shown.splitlines()
        run = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        printed = [SECONDS.sub("", line.rstrip()) for line in run.stdout.splitlines()]
        assert [line for line in lines if SECONDS.sub("", line.rstrip()) not in printed] == []
    for code in blocks("README.md", "python"):
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        printed = run.stdout.splitlines()
        for comment in re.findall(r"^print\(.*\) +# (?!a )(.*)$", code, re.MULTILINE):
            assert comment in printed


def test_the_demo_prints_the_table_that_the_readme_shows(tmp_path: Path) -> None:
    oxe = str(Path(sys.executable).parent / "oxe")
    run = subprocess.run([oxe, "demo"], cwd=tmp_path, capture_output=True, text=True, check=False)
    printed = [line.rstrip() for line in run.stdout.splitlines()]
    (shown,) = (text for text in blocks("README.md", "text") if text.startswith("Before"))
    assert [line for line in shown.splitlines() if line and line not in printed] == []
