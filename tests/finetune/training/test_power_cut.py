"""Whatever a power cut leaves of a training, checkpoints under their names are whole, and the next run ends the same.

The system calls of real trainings are recorded with strace. Each state of the disk that a power cut could have left is
restored, and the training is run again.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.finetune.runs import ADAPTERS, arguments, logged, make_lock, run
from tests.pipelines.toy import command, files
from tests.power import State, record, restore

pytest.importorskip("torch", reason="training needs the extra finetune")

TRAININGS = ("train", "train overwrite")
SETTINGS = (*ADAPTERS, "train.steps=2", "train.save_every=1", "train.keep=1", "eval.every=0")


class RecordedTraining:
    """A training in `disk/run`, what it is recorded as, and what must be there at its end."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Record a new run, or one with `--overwrite` over a run of another recipe."""
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        self.lock, self.out = make_lock(folder), self.disk / "run"
        more = []
        if kind == "train overwrite":
            run(self.lock, self.out, *SETTINGS, "seed=5")
            more = ["--overwrite"]
        words = arguments(self.lock, self.out, *SETTINGS)
        self.recording = record(command(*words, *more), self.disk, folder / "log")
        self.expected = self.result()
        self.whole = [*models(self.recording.state(set())).items()]
        for end, op in enumerate(self.recording.ops, start=1):
            if op.kind == "rename":
                self.whole += models(self.recording.state(set(range(end)))).items()

    def result(self) -> dict[str, Any]:
        """Return the log without its times, and all other files."""
        return {**files(self.disk), "run/log.jsonl": logged(self.out)}

    def damaged(self, state: State) -> list[str]:
        """List the checkpoints and bases of a state that are not as they were written."""
        return [name for name, content in models(state).items() if (name, content) not in self.whole]

    def resume(self, state: State) -> str:
        """Run the command on a state; returns what was wrong, or ''."""
        if damaged := self.damaged(state):
            return f"not whole: {', '.join(damaged)}"
        restore(state, self.disk)
        try:
            run(self.lock, self.out, *SETTINGS)
        except UsageError:  # it is still the other run
            run(self.lock, self.out, *SETTINGS, overwrite=True)
        found = self.result()
        return ", ".join(name for name in self.expected.keys() | found if self.expected.get(name) != found.get(name))


def models(state: State) -> dict[str, dict[str, bytes]]:
    """Return the files of each checkpoint, and of the base of adapters."""
    result: dict[str, dict[str, bytes]] = {}
    for path, content in state.items():
        name, _, below = path.removeprefix("run/").partition("/")
        if name == "base" or name.startswith("step-"):
            result.setdefault(name, {}).update({below: content} if content is not None else {})
    return result


@pytest.fixture(scope="module")
def recorded() -> Iterator[RecordedTraining]:
    """Record a training, in memory where that is possible."""
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield RecordedTraining(Path(folder) / "train", "train")


@pytest.mark.slow
def test_checkpoints_are_whole_and_at_the_end_all_is_synced(recorded: RecordedTraining) -> None:
    recording, end = recorded.recording, len(recorded.recording.ops)
    for kept in [*recording.prefixes(), *recording.single_losses(), *recording.random_losses(300, seed=0)]:
        assert recorded.damaged(recording.state(kept)) == []
    restore(recording.state({*range(end)} - {*recording.optional(end)}), recorded.disk)
    result = recorded.result()
    assert {name: result.get(name) for name in recorded.expected} == recorded.expected


@pytest.mark.slow
def test_a_run_that_lost_one_rename_or_removal_ends_the_same(recorded: RecordedTraining) -> None:
    assert recorded.recording.wrong(recorded.recording.single_losses(), recorded.resume) == {}
