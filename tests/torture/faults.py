"""Faults at every system call of a conversion, and kills at random moments: the next run ends with the same bytes.

A trial forks a conversion from a process that has imported Beam. For a fault, strace attaches to the fork and injects
an error or a kill at one call on the output folder. Run with `make torture`, or
`python -m tests.torture.faults --seconds 600 --kills 1000`. A run that is stopped continues where it was.
"""

import argparse
import gc
import multiprocessing.synchronize
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.dataset

import oxe_tools.drafts
import pipelines.beam.run
import pipelines.convert.convert
import pipelines.readers.rlds.reader
import pipelines.statistics.statistics
from oxe_tools.cli.main import main as oxe_main
from tests.pipelines.toy import columns, files, make_toy
from tests.torture.results import Trials, todo

IMPORTED = (  # so that forks start fast
    multiprocessing.synchronize,
    oxe_tools.drafts,
    pipelines.beam.run,
    pipelines.convert.convert,
    pipelines.readers.rlds.reader,
    pipelines.statistics.statistics,
    pl,
    pyarrow.dataset,
)
ERRORS = {
    "openat": ("EMFILE", "EIO"),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC"),
    "mkdir": ("ENOSPC",),
    "unlink": ("EIO",),
    "unlinkat": ("EIO",),
    "flock": ("EINTR", "ENOLCK"),
}
CALL = re.compile(r"(?:\d+ +)?(\w+)\(")


@dataclass(frozen=True, slots=True)
class Conversion:
    """A small conversion that is run again and again in one folder."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, *, stopped: bool) -> int:
        """Fork the conversion; returns its process id. If `stopped`, it waits for SIGCONT."""
        child = os.fork()
        if child:
            return child
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code: object = 70
        try:
            if stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            oxe_main(
                ["convert", f"{self.folder}/toy.toml", "--source", f"{self.folder}/source", "--out", str(self.out)]
            )
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code if isinstance(code, int) else 70)

    def finish(self) -> int:
        """Run it to its end; returns the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(stopped=False), 0)[1])

    def traced(self, *options: str) -> tuple[int, list[str]]:
        """Run it under strace; returns the exit code, and strace's lines on the main thread."""
        child = self.start(stopped=True)
        os.waitpid(child, os.WUNTRACED)
        log = self.folder / "strace"
        calls = f"trace={','.join(ERRORS)}"
        strace = subprocess.Popen(
            ["strace", "-y", "-p", str(child), "-e", calls, *options, "-o", str(log)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert strace.stderr
        attached = strace.stderr.readline()
        assert "attached" in attached, attached
        os.kill(child, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        strace.communicate()
        return code, log.read_text().splitlines()

    def published(self) -> dict[str, bytes]:
        return {name: data for name, data in files(self.out).items() if name != "meta/runs.jsonl"}

    def calls(self) -> Iterator[tuple[str, int]]:
        """Yield each call on the output: its name, and which call of this name it is."""
        shutil.rmtree(self.out, ignore_errors=True)
        code, lines = self.traced()
        assert code == 0, (self.folder / "log").read_text()
        counts: dict[str, int] = {}
        for line in lines:
            if match := CALL.match(line):
                counts[match[1]] = counts.get(match[1], 0) + 1
                if str(self.out) in line:
                    yield match[1], counts[match[1]]

    def is_hit(self, lines: list[str]) -> bool:
        """Whether the injected error or kill was at a call on the output."""
        injected = [line for line in lines if line.endswith("(INJECTED)")] or lines[-2:-1]
        return any(str(self.out) in line for line in injected)

    def wrong_after(self, code: int, expected: dict[str, bytes]) -> str:
        """Check how a disturbed run ended, and that the next run completes it; returns what was wrong, or ''."""
        said = (self.folder / "log").read_text()
        if code not in {0, 2, -signal.SIGKILL} or "Traceback" in said:
            return f"ended with {code}: {said[-300:]}"
        if code == 2 and len(said.splitlines()) != 1:
            return f"the message is not one line: {said[-300:]}"
        if code == 0 and (differing := self._differing(expected)):
            return f"said that it succeeded, but differs: {differing}"
        if self.finish() != 0:
            return f"did not continue: {(self.folder / 'log').read_text()[-300:]}"
        return self._differing(expected)

    def _differing(self, expected: dict[str, bytes]) -> str:
        found = self.published()
        return ", ".join(sorted(name for name in expected.keys() | found if expected.get(name) != found.get(name)))


def faults(conversion: Conversion, expected: dict[str, bytes], *, until: float) -> None:
    """Inject each fault at each call on the output folder."""
    trials = Trials("faults")
    names = []
    for call, number in conversion.calls():
        names += [f"{call}/{what}/{number:04d}" for what in (*ERRORS[call], "KILL")]
    random.Random(0).shuffle(names)  # noqa: S311 - so that a part of the trials is spread over the whole conversion
    for name in todo(trials, names):
        if time.monotonic() > until:
            break
        call, what, number = name.split("/")
        fault = "signal=KILL" if what == "KILL" else f"error={what}"
        shutil.rmtree(conversion.out, ignore_errors=True)
        code, lines = conversion.traced("-e", f"inject={call}:{fault}:when={int(number)}")
        if conversion.is_hit(lines):
            trials.add(name, conversion.wrong_after(code, expected))
        else:
            print(f"faults: {name}: hit another file; run again")  # noqa: T201
    trials.summarize(len(names))
    print(f"faults: {len(trials.done)} of {len(names)} trials done")  # noqa: T201


def kills(conversion: Conversion, expected: dict[str, bytes], *, count: int, until: float) -> None:
    """Kill the conversion at random moments; after some kills, the next run is killed too."""
    trials = Trials("kills")
    shutil.rmtree(conversion.out, ignore_errors=True)
    began = time.monotonic()
    conversion.finish()
    usual = time.monotonic() - began
    for name in todo(trials, [f"random/{number:04d}" for number in range(count)]):
        if time.monotonic() > until:
            break
        chance = random.Random(name)  # noqa: S311 - not a secret
        if chance.random() < 0.7:
            shutil.rmtree(conversion.out, ignore_errors=True)
        child = conversion.start(stopped=False)
        time.sleep(chance.uniform(0, usual))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        trials.add(name, conversion.wrong_after(code, expected))
    trials.summarize(count)
    print(f"kills: {len(trials.done)} of {count} trials done")  # noqa: T201


def run() -> None:
    """Run the trials that are not finished, for a limited time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="time for each of the two kinds of trials")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--only", choices=("faults", "kills"), help="run only these trials")
    options = parser.parse_args()
    memory = "/dev/shm"  # noqa: S108 - a new folder is created in it
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        toy = make_toy(Path(folder), [columns(seed, steps=10) for seed in range(2)], splits={"s0": 1, "s1": 1})
        conversion = Conversion(toy.folder)
        assert conversion.finish() == 0, (conversion.folder / "log").read_text()
        expected = conversion.published()
        gc.freeze()  # a fork that collects garbage would copy all memory
        if options.only != "kills":
            faults(conversion, expected, until=time.monotonic() + options.seconds)
        if options.only != "faults":
            kills(conversion, expected, count=options.kills, until=time.monotonic() + options.seconds)


if __name__ == "__main__":
    run()
