"""Worker processes on this machine."""

import os
from pathlib import Path

import pytest

from pipelines.beam.engine import Engine
from pipelines.beam.workers import running_workers
from tests.pipelines.toy import make_toy, oxe_process


@pytest.mark.slow
def test_the_environment_of_this_process_stays_as_it_was() -> None:
    before = dict(os.environ)
    with running_workers(Engine(workers=2)) as engine:
        assert engine.cluster
    assert dict(os.environ) == before


def test_a_folder_for_temporary_files_with_a_long_path_is_named(tmp_path: Path) -> None:
    temporary = tmp_path / ("x" * 100)  # a socket's path has at most 107 characters
    temporary.mkdir()
    toy = make_toy(tmp_path)
    words = ("convert", toy.spec, "--source", toy.source, "--out", toy.out, "--workers", "2")
    done = oxe_process(*words, env={**os.environ, "TMPDIR": str(temporary)})
    assert done.code == 2
    assert f"{temporary}: --workers cannot create a socket there (AF_UNIX path too long); set TMPDIR to a" in done.err
