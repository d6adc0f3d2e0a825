"""A source that changes while it is read is noticed, on this machine and behind a URI."""

import os
from pathlib import Path

import pytest

from pipelines.convert.convert import convert
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.declarations import catalog
from schemas.errors import UnreachableError
from tests.pipelines.readers.writers import WRITERS
from tests.pipelines.toy import Toy, make_toy
from tests.servers import Server

CHANGED = "it changed while it was read: its"


def touch(file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("form", WRITERS)
def test_each_reader_notices_a_file_that_changes_while_it_is_read(form: str, tmp_path: Path) -> None:
    reader = open_source(str(tmp_path / "source"), WRITERS[form](tmp_path / "source"))
    values = (value for ref in plan(reader.files()) for value in reader.read(ref))
    next(values)
    for file in (tmp_path / "source").rglob("*"):
        touch(file)
    with pytest.raises(UnreachableError, match=f"{CHANGED} time was"):
        list(values)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def grow(shard: Path) -> None:
    with shard.open("ab") as file:
        file.write(b"one more record")


def change_at_the_end(toy: Toy, source: str, shard: Path) -> None:
    """Convert a source, and change a shard after it was read."""

    def progress(*_: int) -> None:
        if shard.exists():
            grow(shard)

    progress.expect = lambda *_, **__: None  # type: ignore[attr-defined]
    convert(catalog.dataset(str(toy.spec)), toy.out, source=source, progress=progress)  # type: ignore[arg-type]


def test_a_conversion_of_files_that_change_is_not_published(toy: Toy) -> None:
    (shard, *_) = sorted(toy.source.glob("*.tfrecord*"))
    with pytest.raises(UnreachableError, match=f"{CHANGED} size was"):
        change_at_the_end(toy, str(toy.source), shard)
    assert not (toy.out / "meta/manifest.json").exists()


def test_a_conversion_of_files_of_a_web_server_that_change_is_not_published(
    toy: Toy, web: Server, tmp_path: Path
) -> None:
    (shard, *_) = sorted(toy.source.glob("*.tfrecord*"))
    with pytest.raises(UnreachableError, match=f"{CHANGED} size was"):
        change_at_the_end(toy, f"{web.url}/{toy.source.relative_to(tmp_path)}", shard)
    assert not (toy.out / "meta/manifest.json").exists()
