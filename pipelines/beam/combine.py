"""The statistics' Beam graph: Create(parts) -> ParDo(count one part) -> CombinePerKey(merge) -> one file per key.

What is counted can be merged in any order without changing a digit, so every engine gives the same files.
"""

import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

from pipelines.beam.run import run_graph  # before Beam, which it imports without its warnings

# isort: split
import apache_beam as beam

from pipelines.beam.engine import Engine
from schemas.errors import OxeError, UsageError
from schemas.files.folder import Folder, absolute, open_folder
from schemas.store import layout

FAILED = "failed"


class Mergeable(Protocol):
    """An aggregate."""

    def merge(self, other: Self) -> Self:
        """Join two."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Give the form that travels."""
        ...


class Work(Protocol):
    """What is done with one part; picklable."""

    def __call__(self, part: Any) -> Iterable[tuple[str, Mergeable]]:
        """Count; each result has the key under which it is merged."""
        ...


def combine(work: Work, parts: Sequence[Any], *, engine: Engine, shared: Folder) -> dict[str, dict[str, Any]]:
    """Do `work` on each part and merge the results by key; returns their JSON.

    Results come back as files: in `shared`, a folder that other machines see too, if another runner is named. An error
    of ours on a worker is raised here.
    """
    with _scratch(shared if engine.runner else None) as scratch:

        def graph(pipeline: beam.Pipeline, *, spread: bool) -> None:
            counted = pipeline | "parts" >> beam.Create(list(parts), reshuffle=spread) | beam.ParDo(Count(work))
            merged = counted | "merge" >> beam.CombinePerKey(Merge())
            _ = merged | "write" >> beam.ParDo(Write(scratch.uri))

        run_graph(graph, engine=engine, elements=len(parts))
        files = scratch.read_many(scratch.names())
    found = {name.removesuffix(".json"): json.loads(content) for name, content in sorted(files.items())}
    if FAILED in found:
        raise UsageError(found[FAILED]["message"])
    return found


@contextmanager
def _scratch(shared: Folder | None) -> Iterator[Folder]:
    """Give a folder of its own, here or in `shared`, and remove it in the end."""
    try:
        if shared is None:
            with tempfile.TemporaryDirectory(prefix="oxe-tools-") as here:
                yield open_folder(here)
            return
        inside = open_folder(f"{absolute(shared.uri)}/{layout.META}", for_writing=True).child(
            f"{layout.SCRATCH}{uuid.uuid4().hex}"
        )
        try:
            yield inside
        finally:
            inside.remove("")
    except OSError as error:
        where = shared.uri if shared else tempfile.gettempdir()
        raise UsageError(f"{where}: cannot be written ({error})") from error


class Failure:
    """An error of ours, as a value; of several the first in the alphabet counts, so that all engines say the same."""

    def __init__(self, message: str) -> None:
        """Keep the message."""
        self.message = message

    def merge(self, other: "Failure") -> "Failure":
        """Keep one."""
        return min(self, other, key=lambda failure: failure.message)

    def to_json(self) -> dict[str, Any]:
        """Give the message."""
        return {"message": self.message}


class Count(beam.DoFn):
    """Does the work on one part."""

    def __init__(self, work: Work) -> None:
        """Keep the work."""
        self.work = work

    def process(self, part: Any) -> Iterator[tuple[str, Mergeable]]:
        """Count one part."""
        try:
            yield from self.work(part)
        except OxeError as error:
            yield FAILED, Failure(str(error))


class Merge(beam.CombineFn):
    """Merges what was counted under one key."""

    def create_accumulator(self) -> Mergeable | None:
        """Begin with nothing."""
        return None

    def add_input(self, accumulator: Mergeable | None, element: Mergeable) -> Mergeable:
        """Add one."""
        return element if accumulator is None else accumulator.merge(element)

    def merge_accumulators(self, accumulators: Iterable[Mergeable | None]) -> Mergeable | None:
        """Join several."""
        total: Mergeable | None = None
        for accumulator in accumulators:
            if accumulator is not None:
                total = self.add_input(total, accumulator)
        return total

    def extract_output(self, accumulator: Mergeable | None) -> Mergeable | None:
        """Give the sum."""
        return accumulator


class Write(beam.DoFn):
    """Writes each key's result to a file of its own."""

    def __init__(self, folder: str) -> None:
        """Keep the folder."""
        self.folder = folder

    def process(self, merged: tuple[str, Mergeable]) -> None:
        """Write one."""
        key, value = merged
        open_folder(self.folder, for_writing=True).write(f"{key}.json", json.dumps(value.to_json()).encode())
