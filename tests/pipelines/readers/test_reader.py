from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.reader import MAX_SHARD, MIN_SHARD, FilePart, ShardRef, plan

MB = 1 << 20


@dataclass
class FakeReader:
    """A source that is only a list of files."""

    splits: dict[str, tuple[FilePart, ...]]
    format: str = "fake"
    uri: str = "fake://"
    fields: tuple[Any, ...] = field(default=())

    def files(self) -> dict[str, tuple[FilePart, ...]]:
        return self.splits

    def read(self, ref: ShardRef, columns: Any = None) -> Iterator[Any]:
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        raise NotImplementedError

    def tails(self, names: Any, count: int) -> dict[str, bytes]:
        raise NotImplementedError

    def layout(self) -> dict[str, Any]:
        return {}

    def declaration(self) -> str | None:
        raise NotImplementedError


def make_reader(**splits: list[tuple[int | None, int]]) -> FakeReader:
    """Make a reader from the files of each split, given as (bytes, episodes)."""
    first, made = 0, {}
    for split, files in splits.items():
        parts = []
        for number, (size, count) in enumerate(files):
            parts.append(FilePart(name=f"{split}-{number}", size=size, first=first, count=count))
            first += count
        made[split] = tuple(parts)
    return FakeReader(made)


FILES = st.lists(st.tuples(st.none() | st.integers(0, 2000 * MB), st.integers(0, 50)), max_size=12)
READERS = st.fixed_dictionaries({"train": FILES, "val": FILES}).map(lambda splits: make_reader(**splits))


def planned(refs: tuple[ShardRef, ...]) -> list[tuple[str, str, int, int]]:
    """List every planned episode as (split, file, number in the file, index)."""
    return [
        (ref.split, part.name, part.skip + i, part.first + i)
        for ref in refs
        for part in ref.parts
        for i in range(part.count)
    ]


def declared(reader: FakeReader, split: str | None = None) -> list[tuple[str, str, int, int]]:
    return [
        (name, part.name, i, part.first + i)
        for name, parts in reader.files().items()
        if split in {None, name}
        for part in parts
        for i in range(part.count)
    ]


@given(READERS, st.none() | st.sampled_from(["train", "val", "none"]), st.none() | st.integers(0, 200))
def test_every_declared_episode_is_planned_once_and_in_order(
    reader: FakeReader, split: str | None, limit: int | None
) -> None:
    assert planned(plan(reader.files(), split=split, limit=limit)) == declared(reader, split)[:limit]


@given(READERS, st.none() | st.integers(0, 200))
def test_the_plan_is_the_same_every_time(reader: FakeReader, limit: int | None) -> None:
    assert plan(reader.files(), limit=limit) == plan(replace(reader).files(), limit=limit)


@given(READERS)
def test_every_file_is_read_to_its_end_by_exactly_one_part(reader: FakeReader) -> None:
    tails = [part.name for ref in plan(reader.files()) for part in ref.parts if part.is_tail]
    assert tails == [part.name for parts in reader.files().values() for part in parts]


@given(READERS)
def test_shards_are_numbered_within_their_split(reader: FakeReader) -> None:
    refs = plan(reader.files())
    for split in ("train", "val"):
        names = [ref.name for ref in refs if ref.split == split]
        assert names == [f"{split}-{i:05d}-of-{len(names):05d}" for i in range(len(names))]
    assert sum(ref.episodes for ref in refs) == len(declared(reader))


@given(READERS)
def test_a_shard_of_several_parts_stays_below_the_size(reader: FakeReader) -> None:
    for ref in plan(reader.files()):
        assert len(ref.parts) == 1 or sum(part.size or 0 for part in ref.parts) <= MAX_SHARD


def test_a_large_file_is_split_by_episodes() -> None:
    refs = plan(make_reader(train=[(2048 * MB, 80)]).files())
    assert [[(p.first, p.skip, p.count, p.is_tail) for p in ref.parts] for ref in refs] == [
        [(10 * i, 10 * i, 10, i == 7)] for i in range(8)
    ]


def test_small_files_are_grouped() -> None:
    refs = plan(make_reader(train=[(MB, 2)] * 40).files())
    assert [len(ref.parts) for ref in refs] == [32, 8]
    assert MIN_SHARD == 32 * MB


def test_a_file_of_one_huge_episode_is_one_part() -> None:
    assert [ref.episodes for ref in plan(make_reader(train=[(5000 * MB, 1)]).files())] == [1]


@pytest.mark.parametrize("limit", [3, 4])
def test_a_limit_ends_inside_a_file_and_continues_after_an_empty_one(limit: int) -> None:
    refs = plan(make_reader(train=[(MB, 3), (MB, 0), (MB, 5)]).files(), limit=limit)
    assert [part.count for ref in refs for part in ref.parts if part.count] == [3, 1][: limit - 2]
    assert [part.is_tail for ref in refs for part in ref.parts if part.name == "train-2"] == [False] * (limit - 3)


def test_shards_are_cut_by_what_videos_become() -> None:
    parts = tuple(FilePart(name=f"{i}", size=MB, first=i, count=1, becomes=100 * MB) for i in range(10))
    assert len(plan({"train": parts})) == 10
    (part, *_) = parts
    many = replace(part, count=10, becomes=1000 * MB, is_tail=False)
    refs = plan({"train": (many,)})
    assert sum(ref.episodes for ref in refs) == 10
    assert len(refs) == 8
    assert not any(piece.is_tail for ref in refs for piece in ref.parts)  # another split has the rest of the file
