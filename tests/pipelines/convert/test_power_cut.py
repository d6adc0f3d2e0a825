"""Whatever a power cut leaves of a conversion or an export, the next run ends with the same bytes, or says why not.

The system calls of real runs are recorded with strace. Each state of the disk that a power cut could have left is
restored, and the command is run again.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.pipelines.toy import Columns, Run, columns, command, files, make_toy, oxe, write_source
from tests.power import State, record, restore

STATES = {  # how many random states of each kind of run are resumed; `make torture` resumes 1,000 others of each
    "convert": 1000,
    "convert overwrite": 250,
    "convert append": 250,
    "export rlds": 250,
    "export rlds overwrite": 250,
    "export lerobot": 100,
    "export lerobot overwrite": 20,
}
Words = list[str | Path]


def episodes(*seeds: int) -> list[Columns]:
    return [columns(seed, steps=10) for seed in seeds]


class RecordedRun:
    """A command that writes to `disk/out`, what it is recorded as, and what must be there at its end."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Record a conversion or an export: a new one, one with `--overwrite` over other episodes, or an append."""
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


@pytest.fixture(scope="module")
def recorded() -> Iterator[Callable[[str], RecordedRun]]:
    """Record each kind of run once, in memory where that is possible."""
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield cache(lambda kind: RecordedRun(Path(folder) / kind.replace(" ", "-"), kind))


@pytest.mark.parametrize("kind", ["convert", pytest.param("export lerobot", marks=pytest.mark.slow)])
def test_the_recording_is_complete(recorded: Callable[[str], RecordedRun], kind: str) -> None:
    run = recorded(kind)
    state = run.recording.state({*range(len(run.recording.ops))})
    assert {path: content for path, content in state.items() if content is not None and "runs" not in path} == (
        run.expected
    )
    assert [op for op in run.recording.ops if op.kind == "sync" and op.file in run.recording.folders]


@pytest.mark.parametrize("kind", ["convert", pytest.param("export lerobot", marks=pytest.mark.slow)])
def test_at_the_end_all_is_synced(recorded: Callable[[str], RecordedRun], kind: str) -> None:
    run = recorded(kind)
    end = len(run.recording.ops)
    least = run.recording.state({*range(end)} - {*run.recording.optional(end)})
    assert {path: least[path] for path in run.expected} == run.expected


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "convert")) for kind in STATES]
)
def test_a_run_that_lost_one_rename_or_removal_ends_the_same(recorded: Callable[[str], RecordedRun], kind: str) -> None:
    run = recorded(kind)
    assert run.recording.wrong(run.recording.single_losses(), run.resume) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STATES)
def test_a_run_that_was_cut_at_any_call_ends_the_same(recorded: Callable[[str], RecordedRun], kind: str) -> None:
    run = recorded(kind)
    assert run.recording.wrong(run.recording.prefixes(), run.resume) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STATES)
def test_a_run_that_lost_any_part_that_was_not_synced_ends_the_same(
    recorded: Callable[[str], RecordedRun], kind: str
) -> None:
    run = recorded(kind)
    assert run.recording.wrong(run.recording.random_losses(STATES[kind], seed=len(kind)), run.resume) == {}
