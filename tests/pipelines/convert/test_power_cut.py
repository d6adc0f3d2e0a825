"""Whatever a power cut leaves of a conversion or an export, the next run ends with the same bytes, or says why not.

The system calls of real runs are recorded with strace. Each state of the disk that a power cut could have left is
restored, and the command is run again.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.pipelines.toy import Columns, Run, columns, command, files, make_toy, oxe, write_source
from tests.power import State, record, restore

RANDOM = 1000
OTHERS = (
    "convert overwrite",
    "convert append",
    "export rlds",
    "export rlds overwrite",
    "export lerobot",
    "export lerobot overwrite",
)
Words = list[str | Path]


def episodes(*seeds: int) -> list[Columns]:
    return [columns(seed, steps=10) for seed in seeds]


class Scenario:
    """A command that writes to `disk/out`, what it is recorded as, and what must be there at its end."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Record a new run, one with `--overwrite` over other episodes, or an append; of a conversion or an export."""
        toy = make_toy(folder, episodes(0, 1), splits={"s0": 1, "s1": 1})
        self.disk = folder / "disk"
        self.disk.mkdir()
        words = kind.split(" ")
        how = words[-1] if words[-1] in {"overwrite", "append"} else ""
        self.more = [f"--{how}"] if how else []
        if words[0] == "convert":
            self.words: Words = ["convert", toy.spec, "--source", toy.source, "--out", self.disk / "out"]
            if how == "append":
                assert oxe(*self.words).code == 0
                write_source(toy.source, episodes(0, 1, 2), splits={"s0": 1, "s1": 1, "s2": 1})
            if how == "overwrite":
                write_source(toy.source, episodes(5, 6), splits={"s0": 1, "s1": 1})
                assert oxe(*self.words).code == 0
                write_source(toy.source, episodes(0, 1), splits={"s0": 1, "s1": 1})
        else:
            self.words = ["export", words[1], toy.out, "--out", self.disk / "out"]
            if how == "overwrite":
                write_source(toy.source, episodes(5, 6), splits={"s0": 1, "s1": 1})
                assert toy.convert().code == 0
                assert oxe(*self.words).code == 0
                write_source(toy.source, episodes(0, 1), splits={"s0": 1, "s1": 1})
            assert toy.convert("--overwrite").code == 0
        self.recording = record(command(*self.words, *self.more), self.disk, folder / "log")
        self.expected = self.published()

    def published(self) -> dict[str, bytes]:
        return {name: data for name, data in files(self.disk).items() if not name.endswith("runs.jsonl")}

    def resume(self, state: State) -> str:
        """Run the command on a state; returns what was wrong, or ''."""
        restore(state, self.disk)
        run: Run = oxe(*self.words, *(self.more if "--append" in self.more else []))
        if run.code == 2 and run.err.count("\n") == 1:  # it says that it cannot go on
            run = oxe(*self.words, "--overwrite")
        if run.code:
            return f"exit code {run.code}: {run.err}"
        found = self.published()
        return ", ".join(name for name in self.expected.keys() | found if self.expected.get(name) != found.get(name))

    def wrong(self, states: Iterable[set[int]]) -> dict[str, str]:
        return self.recording.wrong(states, self.resume)


@pytest.fixture(scope="module")
def make_scenario() -> Iterator[Callable[[str], Scenario]]:
    """Make each scenario once, in memory where that is possible."""
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield cache(lambda kind: Scenario(Path(folder) / kind.replace(" ", "-"), kind))


def test_the_recording_is_complete(make_scenario: Callable[[str], Scenario]) -> None:
    scenario = make_scenario("convert")
    recording = scenario.recording
    state = recording.state(set(range(len(recording.ops))))
    assert {path: content for path, content in state.items() if content is not None and "runs" not in path} == (
        scenario.expected
    )
    assert [op for op in recording.ops if op.kind == "sync" and op.file in recording.folders]


def test_at_the_end_all_is_synced(make_scenario: Callable[[str], Scenario]) -> None:
    scenario = make_scenario("convert")
    end = len(scenario.recording.ops)
    least = scenario.recording.state(set(range(end)) - set(scenario.recording.optional(end)))
    assert {path: least[path] for path in scenario.expected} == scenario.expected


@pytest.mark.parametrize("kind", ["convert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_a_run_that_lost_one_rename_or_removal_ends_the_same(
    make_scenario: Callable[[str], Scenario], kind: str
) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.single_losses()) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convert", *OTHERS])
def test_a_run_that_was_cut_at_any_call_ends_the_same(make_scenario: Callable[[str], Scenario], kind: str) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.prefixes()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("convert", RANDOM), *((kind, RANDOM // 4) for kind in OTHERS)])
def test_a_run_that_lost_any_part_that_was_not_synced_ends_the_same(
    make_scenario: Callable[[str], Scenario], kind: str, count: int
) -> None:
    scenario = make_scenario(kind)
    assert scenario.wrong(scenario.recording.random_losses(count, seed=len(kind))) == {}
