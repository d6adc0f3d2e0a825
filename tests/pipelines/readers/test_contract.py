"""What every reader promises, whatever the format: the same episodes, written in each of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.readers import reader as source
from pipelines.readers.history import History
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.declarations.formats import OURS
from schemas.source import Column, RawEpisode, Unreadable
from tests.makers import nested
from tests.pipelines.readers.writers import EPISODES, WRITERS
from tests.pipelines.toy import FIELDS


@pytest.fixture(params=WRITERS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    return open_source(str(tmp_path / "source"), WRITERS[request.param](tmp_path / "source"))


def read(reader: Reader, wanted: set[str] | None = None, **arguments: Any) -> list[RawEpisode | Unreadable]:
    return [value for ref in plan(reader.files(), **arguments) for value in reader.read(ref, wanted)]


def listed(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else [bytes(item) for item in nested(column)]


def plain(episode: RawEpisode | Unreadable) -> tuple[Any, ...]:
    assert isinstance(episode, RawEpisode)
    paths = {field.path for field in FIELDS}
    steps = {path: listed(c) for path, c in episode.steps.items() if path in paths}
    return episode.index, steps, {path: v for path, v in episode.metadata.items() if path in paths}


def test_every_declared_episode_is_one_value_in_order_with_the_values_that_were_written(opened: Reader) -> None:
    assert sum(part.count for parts in opened.files().values() for part in parts) == len(EPISODES)
    for i, (value, made) in enumerate(zip(read(opened), EPISODES, strict=True)):
        index, steps, metadata = plain(value)
        wanted = {f.path: listed(made[f.path]) for f in FIELDS if f.per_step}
        assert (index, steps) == (i, wanted)
        assert metadata == {"episode_metadata.file_path": f"e{i}.hdf5"}


def test_the_fields_say_what_the_values_are(opened: Reader) -> None:
    known = {field.path: field for field in opened.fields}
    for field in FIELDS:
        found = known[field.path]
        assert (found.kind, found.per_step, found.ragged) == (field.kind, field.per_step, 0)
        if field.kind == "number":
            assert (found.dtype, found.shape) == (field.dtype, field.shape)


def test_ranges_read_like_the_whole(opened: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [plain(value) for value in read(opened)]
    monkeypatch.setattr(source, "SMALL", 100)
    monkeypatch.setattr(source, "LARGE", 100)
    assert len(plan(opened.files())) == len(EPISODES)
    assert [plain(value) for value in read(opened)] == whole


def test_only_the_columns_asked_for_are_read_and_they_are_the_same(opened: Reader) -> None:
    wanted = {"action", "episode_metadata.file_path"}
    for part, whole in zip(read(opened, wanted), read(opened), strict=True):
        assert isinstance(part, RawEpisode)
        assert {*part.steps, *part.metadata} == wanted
        assert np.array_equal(np.asarray(part.steps["action"]), plain(whole)[1]["action"])


@pytest.mark.parametrize("limit", [0, 2, 4])
def test_a_limit_reads_the_first_episodes(opened: Reader, limit: int) -> None:
    assert [value.index for value in read(opened, limit=limit)] == list(range(limit))


def test_a_file_that_vanished_loses_what_it_held(opened: Reader, tmp_path: Path) -> None:
    parts = [part for parts in opened.files().values() for part in parts]
    (tmp_path / "source" / parts[0].name).unlink()
    values = read(opened)
    assert [value.index for value in values] == list(range(len(EPISODES)))
    lost = [value for value in values if isinstance(value, Unreadable)]
    assert len(lost) == parts[0].count
    assert {value.reason for value in lost} <= {"missing_file", "missing_shard"}


def test_the_history_is_the_same_every_time(opened: Reader) -> None:
    assert History.of(opened) == History.of(opened)
    assert all(file.tail_xxh3_64 and file.bytes for file in History.of(opened).files)


def test_the_layout_that_a_reader_names_opens_the_source_the_same_way(opened: Reader) -> None:
    told = OURS[opened.format](format=opened.format, **opened.layout())
    again = open_source(opened.uri, told)
    assert (again.fields, again.files(), again.layout()) == (opened.fields, opened.files(), opened.layout())


def test_a_sound_source_has_nothing_to_note(opened: Reader) -> None:
    assert list(opened.notes()) == []
