import json
import multiprocessing
from pathlib import Path

import fsspec
import pytest

from schemas.errors import StatsError, UsageError
from stats.record import Statistics
from stats.registry import fetch, listing, publish
from tests.stats.makers import make_numbers, make_statistics


def test_what_is_published_is_fetched_by_name_digest_or_its_beginning(tmp_path: Path) -> None:
    found = make_statistics()
    name = publish(found, str(tmp_path))
    assert name == f"toy@{found.digest()}"
    for target in ("toy", name, name[:12]):
        assert fetch(target, str(tmp_path)).to_json() == found.to_json()


@pytest.mark.parametrize("uri", ["{}", "file://{}", "memory://registry{}"])
def test_any_file_system_of_fsspec_will_do(uri: str, tmp_path: Path) -> None:
    where = uri.format(tmp_path)
    publish(make_statistics(), where)
    assert fetch("toy", where).name == "toy"
    assert list(listing(where)) == ["toy"]


def test_publishing_twice_changes_nothing(tmp_path: Path) -> None:
    publish(make_statistics(), str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    publish(make_statistics(), str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_two_records_of_one_name_must_be_told_apart(tmp_path: Path) -> None:
    names = [publish(make_statistics(make_numbers(seed)), str(tmp_path)) for seed in (0, 1)]
    with pytest.raises(
        UsageError, match=r"2 records match 'toy'; choose one of: toy@\w{12}, 500 steps; toy@\w{12}, 500"
    ):
        fetch("toy", str(tmp_path))
    assert [fetch(name, str(tmp_path)).digest() for name in names] == [name[4:] for name in names]


@pytest.mark.parametrize("target", ["tyo", "toy@ffff", "toy@../x"])
def test_what_is_not_there_is_named(target: str, tmp_path: Path) -> None:
    publish(make_statistics(), str(tmp_path))
    with pytest.raises(UsageError, match="toy"):
        fetch(target, str(tmp_path))


@pytest.mark.parametrize("damage", ["{", "{}", None])
def test_a_damaged_record_is_refused(damage: str | None, tmp_path: Path) -> None:
    publish(make_statistics(), str(tmp_path))
    (path,) = tmp_path.glob("toy/*.json")
    content = json.loads(path.read_text())
    content["steps"] += 1
    path.write_text(json.dumps(content) if damage is None else damage)
    with pytest.raises(StatsError):
        fetch("toy", str(tmp_path))


def test_a_record_under_another_digest_is_refused(tmp_path: Path) -> None:
    publish(make_statistics(), str(tmp_path))
    (path,) = tmp_path.glob("toy/*.json")
    path.rename(path.with_name("0" * 32 + ".json"))
    with pytest.raises(StatsError, match=r"has the digest .*, which does not match its file name"):
        fetch("toy", str(tmp_path))


def test_files_that_are_no_records_are_not_listed(tmp_path: Path) -> None:
    publish(make_statistics(), str(tmp_path))
    (tmp_path / "toy/notes.json").write_text("{}")
    (tmp_path / "toy/tmp-12").write_text("half a rec")
    assert [len(digests) for digests in listing(str(tmp_path)).values()] == [1]


def test_a_place_that_cannot_be_written_or_does_not_exist_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        publish(make_statistics(), str(tmp_path / "file"))
    with pytest.raises(UsageError, match="is not a registry, or is empty"):
        fetch("toy", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="Protocol not known"):
        fetch("toy", "nosuch://place")


def test_a_name_cannot_leave_the_registry(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match="is not a valid record name"):
        publish(make_statistics(name="../toy"), str(tmp_path / "registry"))


def _publish_many(uri: str) -> None:
    for seed in range(6):
        publish(make_statistics(make_numbers(seed, rows=20)), uri)


def test_writers_at_the_same_time_leave_whole_records_only(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_publish_many, args=(str(tmp_path),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    (digests,) = listing(str(tmp_path)).values()
    assert len(digests) == 6
    assert all(isinstance(fetch(f"toy@{digest}", str(tmp_path)), Statistics) for digest in digests)
    assert len(fsspec.filesystem("file").ls(str(tmp_path / "toy"))) == 6
