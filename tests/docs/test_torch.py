"""The code of docs/torch.md, run on a recording of the demo."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oxe_tools import torch_dataset
from oxe_tools.demo.recorder import record
from pipelines.convert.convert import convert
from schemas.declarations import catalog
from tests.docs.toy import ROOT, blocks

pytest.importorskip("torch", reason="needs the extra 'finetune'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kitchen")
    record("demo_kitchen", folder / "source")
    convert(catalog.dataset("demo_kitchen"), folder / "kitchen", source=str(folder / "source"))
    return folder


def test_the_code_prints_what_the_page_shows(folder: Path) -> None:
    [code] = blocks("docs/torch.md", "python")
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_every_key_of_an_item_is_explained(folder: Path) -> None:
    page = (ROOT / "docs/torch.md").read_text()
    for key in torch_dataset(folder / "kitchen")[0]:
        assert f"| `{re.sub(r'^observation.images.*', 'observation.images.<name>', key)}` |" in page, key
