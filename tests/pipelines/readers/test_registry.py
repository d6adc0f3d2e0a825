"""Formats by name: ours, those of other packages, and unknown ones."""

import sys
from pathlib import Path

import pytest

from schemas.declarations import catalog
from schemas.errors import SpecError
from schemas.store.dataset import open_dataset
from tests.pipelines.toy import Toy, make_toy, oxe_process, write_spec

PLUGIN = """
from pipelines.readers.rlds.reader import RldsReader

class LabReader(RldsReader):
    format = "labformat"

    def __init__(self, uri, *, session):
        super().__init__(f"{uri}/{session}")
        self.uri = uri  # as it was opened: workers open it again
"""


@pytest.fixture
def lab(tmp_path: Path) -> Toy:
    """Install a package with a reader, and declare a source of its format."""
    site = tmp_path / "site"
    info = site / "lab_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[oxe_tools.readers]\nlabformat = lab_package:LabReader\n")
    (site / "lab_package.py").write_text(PLUGIN)
    toy = make_toy(tmp_path)
    toy.source.rename(tmp_path / "moved")
    toy.source.mkdir()
    (tmp_path / "moved").rename(toy.source / "monday")
    return toy


def declare(lab: Toy, options: str) -> None:
    source = f'source = {{ format = "labformat", options = {options} }}\n'
    write_spec(lab.folder, replace={'name       = "toy"': f'{source}name = "toy"'})


def convert(lab: Toy) -> tuple[int, str]:
    words = ["convert", str(lab.spec), "--source", str(lab.source), "--out", str(lab.out)]
    run = oxe_process(*words, env={"PYTHONPATH": ":".join([str(lab.folder / "site"), *sys.path])})
    return run.code, run.err


def test_another_packages_reader_converts_by_its_entry_point(lab: Toy) -> None:
    declare(lab, '{ session = "monday" }')
    code, _ = convert(lab)
    assert code == 0
    assert open_dataset(lab.out).manifest["source"]["format"] == "labformat"
    assert lab.balance()["kept"] == 3


def test_options_that_a_reader_does_not_take_are_an_error_that_says_so(lab: Toy) -> None:
    declare(lab, "{ sesion = 1 }")
    code, message = convert(lab)
    assert code == 2
    assert "the reader of 'labformat' does not take these source.options" in message
    assert "sesion" in message


def test_a_format_whose_package_is_gone_is_an_unknown_one(lab: Toy) -> None:
    declare(lab, '{ session = "monday" }')
    with pytest.raises(SpecError, match="unknown format 'labformat'"):
        catalog.dataset(str(lab.spec))
