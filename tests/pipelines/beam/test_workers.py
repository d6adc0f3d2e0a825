"""Worker processes on this machine."""

import os

import pytest

from pipelines.beam.engine import Engine
from pipelines.beam.workers import running_workers


@pytest.mark.slow
def test_the_environment_of_this_process_stays_as_it_was() -> None:
    before = dict(os.environ)
    with running_workers(Engine(workers=2)) as engine:
        assert engine.cluster
    assert dict(os.environ) == before
