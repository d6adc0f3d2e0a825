"""Whatever a power cut leaves of a conversion, the next run ends with the same bytes, or says that it cannot.

The system calls of real conversions are recorded with strace. Each state of the disk that a power cut could have left
is restored, and the conversion is run again.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.pipelines.toy import Run, columns, command, files, make_toy, oxe, write_source
from tests.power import record, restore

RANDOM = 1000
REPLACING = ("overwrite", "append")
Words = list[str | Path]


class Scenario:
    """A conversion in a folder `disk`, what it is recorded as, and what must be there at its end."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Record a new conversion, one with `--overwrite` over other episodes, or an append."""
        toy = make_toy(folder, [columns(seed, steps=10) for seed in range(2)], splits={"s0": 1, "s1": 1})
        self.disk, self.more = folder / "disk", {"new": [], "overwrite": ["--overwrite"], "append": ["--append"]}[kind]
        self.disk.mkdir()
        self.words: Words = ["convert", toy.spec, "--source", toy.source, "--out", self.disk / "out"]
        if kind == "append":
            assert oxe(*self.words).code == 0
            write_source(toy.source, [columns(seed, steps=10) for seed in range(3)], splits={"s0": 1, "s1": 1, "s2": 1})
        if kind == "overwrite":
            write_source(toy.source, [columns(seed, steps=10) for seed in (5, 6)], splits={"s0": 1, "s1": 1})
            assert oxe(*self.words).code == 0
            write_source(toy.source, [columns(seed, steps=10) for seed in range(2)], splits={"s0": 1, "s1": 1})
        self.recording = record(command(*self.words, *self.more), self.disk, folder / "log")
        self.expected = self.published()

    def published(self) -> dict[str, bytes]:
        return {name: data for name, data in files(self.disk).items() if name != "out/meta/runs.jsonl"}

    def resume(self, state: dict[str, bytes | None]) -> str:
        """Run the conversion on a state; returns what was wrong, or ''."""
        restore(state, self.disk)
        run: Run = oxe(*self.words, *(self.more if "--append" in self.more else []))
        if run.code == 2 and run.err.count("\n") == 1:  # it says that it cannot go on
            run = oxe(*self.words, "--overwrite")
        if run.code:
            return f"exit code {run.code}: {run.err}"
        found = self.published()
        return ", ".join(name for name in self.expected.keys() | found if self.expected.get(name) != found.get(name))

    def wrong(self, states: Iterable[set[int]]) -> dict[str, str]:
        """Resume each different state; returns those that ended wrong, with why."""
        seen, failures = set[int](), dict[str, str]()
        for kept in states:
            state = self.recording.state(kept)
            key = hash(tuple(sorted((path, content or b"") for path, content in state.items())))
            if key not in seen and (why := self.resume(state)):
                lost = sorted(set(range(max(kept, default=0))) - kept)
                failures[f"until {max(kept, default=0)}, without {lost}"] = why
            seen.add(key)
        return failures


@pytest.fixture(scope="module")
def make_scenario() -> Iterator[Callable[[str], Scenario]]:
    """Make each scenario once, in memory where that is possible."""
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield cache(lambda kind: Scenario(Path(folder) / kind, kind))


def test_the_recording_is_complete(make_scenario: Callable[[str], Scenario]) -> None:
    scenario = make_scenario("new")
    recording = scenario.recording
    state = recording.state(set(range(len(recording.ops))))
    assert {path: content for path, content in state.items() if content is not None and "runs" not in path} == (
        scenario.expected
    )
    assert [op for op in recording.ops if op.kind == "sync_names"]


def test_at_the_end_all_is_synced(make_scenario: Callable[[str], Scenario]) -> None:
    scenario = make_scenario("new")
    end = len(scenario.recording.ops)
    least = scenario.recording.state(set(range(end)) - set(scenario.recording.optional(end)))
    assert {path: least[path] for path in scenario.expected} == scenario.expected


@pytest.mark.parametrize("kind", ["new", *(pytest.param(kind, marks=pytest.mark.slow) for kind in REPLACING)])
def test_a_run_that_lost_one_rename_or_removal_ends_the_same(
    make_scenario: Callable[[str], Scenario], kind: str
) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.single_losses()) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", *REPLACING])
def test_a_run_that_was_cut_at_any_call_ends_the_same(make_scenario: Callable[[str], Scenario], kind: str) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.prefixes()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("new", RANDOM), ("overwrite", RANDOM // 4), ("append", RANDOM // 4)])
def test_a_run_that_lost_any_part_that_was_not_synced_ends_the_same(
    make_scenario: Callable[[str], Scenario], kind: str, count: int
) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.random_losses(count, seed=len(kind))) == {}
