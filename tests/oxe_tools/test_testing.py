"""`check_reader` reports each violation of the contract of a reader."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxe_tools.testing import check_reader
from pipelines.readers.reader import FilePart, ShardRef
from pipelines.readers.rlds.reader import RldsReader
from schemas.source import Field, RawEpisode, Unreadable
from tests.pipelines.readers.test_contract import RECORDED
from tests.pipelines.readers.writers import EPISODES
from tests.pipelines.toy import write_source

Values = Iterator[RawEpisode | Unreadable]


class Faulty(RldsReader):
    """A reader of another package that is correct until a test changes it."""

    format = "faulty"

    def changed(self, value: RawEpisode) -> RawEpisode | None:
        return value

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Values:
        for value in super().read(ref, columns):
            changed = self.changed(value) if isinstance(value, RawEpisode) else value
            if changed is not None:
                yield changed


class Forgetful(Faulty):
    def changed(self, value: RawEpisode) -> RawEpisode | None:
        return None if value.index == 2 else value


class Retyped(Faulty):
    def changed(self, value: RawEpisode) -> RawEpisode:
        wide = {path: np.float64(value.steps[path]) for path in value.steps if path == "action"}
        return replace(value, steps={**value.steps, **wide})


class Restless(Faulty):
    numbers = itertools.count()

    def changed(self, value: RawEpisode) -> RawEpisode:
        metadata = {path: str(next(self.numbers)) for path in value.metadata}
        return replace(value, metadata=metadata)


class Greedy(Faulty):
    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Values:
        yield from super().read(ref, {*(columns or ()), "episode_metadata.file_path"} if columns else None)


class Quiet(Faulty):
    """Skips episodes that cannot be read without a report."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Values:
        yield from (value for value in super().read(ref, columns) if isinstance(value, RawEpisode))


class Raising(Faulty):
    """Raises an error instead of yielding an `Unreadable`."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Values:
        for value in super().read(ref, columns):
            if isinstance(value, Unreadable):
                raise value.error()
            yield value


class Deaf(Faulty):
    """Ignores the range and reads from the start of the file."""

    def read(self, ref: ShardRef, columns: Collection[str] | None = None) -> Values:
        yield from super().read(replace(ref, parts=tuple(replace(part, skip=0) for part in ref.parts)), columns)


class Secretive(Faulty):
    def layout(self) -> dict[str, Any]:
        return {"session": 3}


class Miscounting(Faulty):
    def parts(self) -> dict[str, list[FilePart]]:
        return {split: [replace(part, count=1) for part in parts] for split, parts in super().parts().items()}


class Twofold(Faulty):
    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.fields: tuple[Field, ...] = (*self.fields, self.fields[0])


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_source(tmp_path / "source", EPISODES, splits={"train": [3, 2]}))


def test_a_reader_that_keeps_its_promises_passes(source: str) -> None:
    check_reader(Faulty(source), RECORDED)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, r"yields the episodes \[0, 1, 3, 4\], expected \[0, 1, 2, 3, 4\]"),
        (Retyped, r"episode 0: action: contains float64 \[4\] per step, its field declares float32 \[4\]"),
        (Greedy, r"`metadata` has \['episode_metadata\.file_path'\], the requested fields are \[\]"),
        (Quiet, "must yield an `Unreadable` for a planned episode that is missing"),
        (Raising, r"`read` raises SourceError\(.*must be yielded as an `Unreadable`"),
        (Deaf, "episode 1 differs when it is read alone"),
        (Secretive, r"it cannot be opened with `layout\(\)`: .*does not take these source.options"),
        (Miscounting, r"`files\(\)` has 2 episodes, expected 5"),
        (Twofold, "`fields` contains .* twice"),
    ],
)
def test_a_broken_promise_is_named(source: str, kind: type[Faulty], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reader(kind(source), RECORDED)


def test_values_that_change_from_one_reading_to_the_next_are_found(source: str) -> None:
    with pytest.raises(AssertionError, match="reading twice returns different values"):
        check_reader(Restless(source), [{"action": episode["action"]} for episode in RECORDED])


def test_another_value_than_was_recorded_is_found(source: str) -> None:
    wrong = [*RECORDED[:4], {**RECORDED[4], "language_instruction": ["open"] * 5}]
    with pytest.raises(AssertionError, match=r"episode 4: language_instruction is .*, expected \['open', 'open'"):
        check_reader(Faulty(source), wrong)


def test_a_type_and_a_field_that_are_not_there_are_found(source: str) -> None:
    doubles = [{**episode, "action": np.float64(episode["action"])} for episode in RECORDED]
    with pytest.raises(AssertionError, match="episode 0: action is float32, expected float64"):
        check_reader(Faulty(source), doubles)
    with pytest.raises(AssertionError, match="`fields` does not contain the expected force"):
        check_reader(Faulty(source), [{"force": 1}] * 5)
