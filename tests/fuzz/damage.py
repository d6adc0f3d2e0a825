"""Damage small valid sources at random and read them: nothing may be raised but our errors, and every episode counts.

    python -m tests.fuzz.damage 10000 --seed 7

prints one JSON object: the trials of each format, how often each reason occurred, and every finding with the number
that repeats it (`--first NUMBER`, with a count of 1).
"""

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.convert.job import ConversionJob, convert_shard
from pipelines.convert.records import Options
from pipelines.inspect.inspect import inspect
from pipelines.readers.reader import ShardRef, plan
from pipelines.readers.registry import open_source
from schemas.declarations.formats import SourceSpec
from schemas.declarations.spec import DatasetSpec, validated
from schemas.declarations.toml import tables
from schemas.errors import OxeError
from tests.fuzz.sources import SOURCES
from tests.pipelines.toy import SPEC

SECONDS, BYTES = 30, 2 << 30  # allowed for one trial: time, and memory above that of the process
SLOW = 8  # seconds after which a trial is listed, although it is allowed
STUCK = 120  # seconds without a finished trial after which a worker is killed
BATCH = 500  # trials of one worker process
EXTREME = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
NUMBER = rb"-?[0-9]+(?:\.[0-9]+)?"
TEXTS = (
    b"1e999",
    b"-1",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 2000,
    b"null",
    b"NaN",
    b"1979-05-27",
    b'"\\ud800"',
    b"\xff",
)


# --- damage ---


def flip(data: bytearray, rng: random.Random) -> None:
    """Flip a few bits."""
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    """Cut the end off."""
    del data[rng.randrange(len(data)) :]


def zero(data: bytearray, rng: random.Random) -> None:
    """Fill a range with zeros or ones."""
    start, size = place(data, rng), rng.choice((1, 8, 64, 512, 4096))
    end = min(len(data), start + size)
    data[start:end] = rng.choice((b"\0", b"\xff")) * (end - start)


def splice(data: bytearray, rng: random.Random) -> None:
    """Copy a range to another place, over what is there or between it; or remove a range."""
    start, size = place(data, rng), rng.choice((1, 4, 16, 256, 4096))
    piece, target = bytes(data[start : start + size]), place(data, rng)
    data[target : target + rng.choice((0, len(piece)))] = rng.choice((piece, piece, b""))


def number(data: bytearray, rng: random.Random) -> None:
    """Write an extreme number over 1, 2, 4 or 8 bytes, as the sizes and counts of headers have them."""
    size = rng.choice((1, 2, 4, 8))
    start = place(data, rng)
    value = (rng.choice(EXTREME) & (256**size - 1)).to_bytes(size, rng.choice(("little", "big")))
    data[start : start + size] = value


def text(data: bytearray, rng: random.Random) -> None:
    """Replace a number in a text, or insert something that a parser may not expect."""
    import re

    numbers = [match.span() for match in re.finditer(NUMBER, bytes(data[:100_000]))]
    start, end = rng.choice(numbers) if numbers else (place(data, rng),) * 2
    data[start:end] = rng.choice(TEXTS)


def noise(data: bytearray, rng: random.Random) -> None:
    """Replace everything by noise, or by nothing."""
    data[:] = rng.choice((b"", rng.randbytes(rng.choice((1, 64, 4096)))))


def place(data: bytearray, rng: random.Random) -> int:
    """Return a position; headers and footers are hit more often than the rest."""
    near = min(len(data), rng.choice((16, 128, 1024)))
    return rng.choice((rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)))


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip,
    flip,
    cut,
    zero,
    splice,
    number,
    number,
    text,
    noise,
)


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one or two files of a source, or their names; return what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    done = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        file = rng.choice(files)
        if not file.exists():
            continue
        kind = rng.random()
        if kind < 0.03:
            file.unlink()
            done.append(f"{file.name}: removed")
        elif kind < 0.06:
            file.rename(file.with_name(f"\udce9{file.name}"))
            done.append(f"{file.name}: renamed")
        elif kind < 0.1:
            other = rng.choice(files)
            shutil.copy(other if other.exists() else file, file.with_name(f"copy_{file.name}"))
            done.append(f"{file.name}: another file beside it")
        else:
            data = bytearray(file.read_bytes() or b"\0")
            change = rng.choice(DAMAGES)
            change(data, rng)
            file.write_bytes(data)
            done.append(f"{file.name}: {change.__name__}")
    return ", ".join(done)


# --- trials ---


class SlowError(BaseException):
    """A trial took too long."""


@contextmanager
def limited() -> Iterator[None]:
    """Limit the time and the address space of what runs inside."""

    def stop(*_: object) -> None:
        raise SlowError

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def convert(uri: str, source: SourceSpec, out: Path) -> Counter[str]:
    """Convert a source in this process; return how often each reason occurred."""
    spec = validated(DatasetSpec, {**tables(SPEC, "toy"), "source": source.model_dump()}, "toy")
    refs = plan(open_source(uri, source).files())
    job = ConversionJob(declaration=spec.to_json(), source=uri, out=str(out), options=Options())
    reasons: Counter[str] = Counter()
    try:
        worker = job.open()
    except OxeError as error:
        reasons[type(error).__name__] += 1
        return read(uri, source, reasons)
    for ref in refs:
        record = convert_shard(worker, ref)
        indices = [episode["episode_index"] for episode in record.episodes] + [index for index, _ in record.dropped]
        indices += [problem.index for problem in record.quarantined if problem.index is not None]
        check_balance(indices, ref)
        reasons.update(problem.reason for problem in record.quarantined)
    return reasons


def read(uri: str, source: SourceSpec, reasons: Counter[str]) -> Counter[str]:
    """Read a source whose fields the declaration does not fit."""
    reader = open_source(uri, source)
    for ref in plan(reader.files()):
        values = list(reader.read(ref))
        check_balance([value.index for value in values if value.index is not None], ref)
        reasons.update(value.reason for value in values if hasattr(value, "reason"))
    return reasons


def check_balance(indices: list[int], ref: ShardRef) -> None:
    planned = [part.first + number for part in ref.parts for number in range(part.count)]
    assert sorted(indices) == planned, f"planned {planned}, accounted for {sorted(indices)}"


class Bench:
    """Undamaged sources, written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = {}
        for name, write in SOURCES.items():
            self.sources[name] = write(folder / name / "source")

    def trial(self, seed: int, number: int, only: str | None = None) -> dict[str, Any]:
        """Damage one source and read it; return what happened."""
        rng = random.Random(f"{seed} {number}")
        name = only or rng.choice(sorted(self.sources))
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            folder = Path(temporary) / "source"
            shutil.copytree(self.folder / name / "source", folder)
            done = damage(folder, rng)
            result: dict[str, Any] = {"number": number, "format": name, "damage": done, "reasons": {}}
            began = time.monotonic()
            for act in (
                lambda: convert(str(folder), self.sources[name], Path(temporary) / "out"),
                lambda: Counter(inspect(str(folder)).unreadable),
            ):
                try:
                    with limited():
                        reasons = act()
                except OxeError as error:
                    reasons = Counter([getattr(error, "reason", type(error).__name__)])
                    if getattr(error, "reason", "") == "unforeseen":
                        result.setdefault("unforeseen", str(error)[-300:])
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    result["finding"] = "".join(traceback.format_exception(error)[-4:])[-1500:]
                    reasons = Counter()
                result["reasons"] = dict(Counter(result["reasons"]) + reasons)
            result["seconds"] = round(time.monotonic() - began, 2)
        return result


def work(first: int, count: int, seed: int, only: str | None) -> None:
    """Run trials and print one JSON object per line, before and after each."""
    import warnings

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary))
        for number in range(first, first + count):
            print(json.dumps({"start": number}), flush=True)
            print(json.dumps(bench.trial(seed, number, only)), flush=True)


def main(count: int, seed: int, *, first: int = 0, only: str | None = None) -> dict[str, Any]:
    """Run trials in worker processes, so that a crash of a library counts as a finding; return the result."""
    trials: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    unforeseen: list[dict[str, Any]] = []
    slow: list[dict[str, Any]] = []
    number, end = first, first + count
    slowest = 0.0
    while number < end:
        last: dict[str, Any] = {}
        size = min(BATCH, end - number)
        words = [sys.executable, "-m", "tests.fuzz.damage", "--work", str(size), "--first", str(number)]
        words += ["--seed", str(seed), *(["--only", only] if only else [])]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
            assert worker.stdout
            for line in watched(worker):
                last = json.loads(line)
                if "start" in last:
                    number = last["start"]
                    continue
                number += 1
                trials[last["format"]] += 1
                reasons.update(last["reasons"])
                slowest = max(slowest, last["seconds"])
                findings += [last] if "finding" in last else []
                unforeseen += [last] if "unforeseen" in last else []
                slow += [last] if last["seconds"] > SLOW else []
        if "start" in last or not last:
            findings.append({"number": number, "finding": f"the process ended with status {worker.returncode}"})
            number += 1
    return {
        "trials": sum(trials.values()),
        "seed": seed,
        "formats": dict(sorted(trials.items())),
        "reasons": dict(reasons.most_common()),
        "slowest_seconds": slowest,
        "slow": slow[:20],
        "unforeseen": unforeseen[:20],
        "findings": findings,
    }


def watched(worker: "subprocess.Popen[str]") -> Iterator[str]:
    """Yield the lines of a worker; kill it if none comes for a while."""
    assert worker.stdout
    while True:
        alarm = threading.Timer(STUCK, worker.kill)
        alarm.start()
        line = worker.stdout.readline()
        alarm.cancel()
        if not line:
            return
        yield line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=sorted(SOURCES))
    parser.add_argument("--work", type=int)
    options = parser.parse_args()
    if options.work:
        work(options.first, options.work, options.seed, options.only)
    else:
        print(json.dumps(main(options.count, options.seed, first=options.first, only=options.only), indent=1))
