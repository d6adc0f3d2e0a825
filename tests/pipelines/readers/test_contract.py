"""The contract of all readers, checked on the same episodes written in every format."""

from pathlib import Path
from typing import Any

import pytest

from oxe_tools.testing import check_reader
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.source import RawEpisode
from tests.pipelines.readers.writers import EPISODES, WRITERS
from tests.pipelines.toy import FIELDS

ONCE = "episode_metadata.file_path"
RECORDED: list[dict[str, Any]] = [{**made, ONCE: bytes(made[ONCE][0]).decode()} for made in EPISODES]  # type: ignore[arg-type,index]


@pytest.fixture(params=WRITERS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    return open_source(str(tmp_path / "source"), WRITERS[request.param](tmp_path / "source"))


def test_every_reader_keeps_what_readers_promise(opened: Reader) -> None:
    check_reader(opened, RECORDED)


def test_the_fields_say_what_was_written(opened: Reader) -> None:
    known = {field.path: field for field in opened.fields}
    for field in FIELDS:
        found = known[field.path]
        assert (found.kind, found.per_step, found.ragged) == (field.kind, field.per_step, 0)
        if field.kind == "number":
            assert (found.dtype, found.shape) == (field.dtype, field.shape)


@pytest.mark.parametrize("limit", [0, 2, 4])
def test_a_limit_reads_the_first_episodes(opened: Reader, limit: int) -> None:
    values = [value for ref in plan(opened.files(), limit=limit) for value in opened.read(ref)]
    assert [value.index for value in values] == list(range(limit))
    assert all(isinstance(value, RawEpisode) for value in values)
