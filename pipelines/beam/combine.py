"""What is counted part by part and merged by key: on an engine, or here in a plain loop.

What is counted can be merged in any order without changing a digit, so every engine gives the same.
"""

import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

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


class Failure:
    """An error of ours, as a value; of several the alphabetically first wins, so that all engines say the same."""

    def __init__(self, message: str) -> None:
        """Keep the message."""
        self.message = message

    def merge(self, other: "Failure") -> "Failure":
        """Keep one."""
        return min(self, other, key=lambda failure: failure.message)

    def to_json(self) -> dict[str, Any]:
        """Give the message."""
        return {"message": self.message}


def combine(work: Work, parts: Sequence[Any], *, engine: Engine, shared: Folder) -> dict[str, dict[str, Any]]:
    """Do `work` on each part and merge the results by key; returns their JSON.

    From other processes results come back as files: in `shared`, a folder that other machines see too, if another
    runner is named. An error of ours is a UsageError, wherever it was raised.
    """
    if engine.is_this_process:
        totals: dict[str, Any] = {}
        for part in parts:
            for key, counted in results(work, part):
                totals[key] = totals[key].merge(counted) if key in totals else counted
        found = {key: total.to_json() for key, total in sorted(totals.items())}
    else:
        from pipelines.beam.run import run_merging  # noqa: PLC0415 - Beam takes seconds to import

        with _scratch(shared if engine.runner else None) as scratch:
            run_merging(work, parts, engine=engine, into=scratch.uri)
            files = scratch.read_many(scratch.names())
        found = {name.removesuffix(".json"): json.loads(content) for name, content in sorted(files.items())}
    if FAILED in found:
        raise UsageError(found[FAILED]["message"])
    return found


def results(work: Work, part: Any) -> Iterator[tuple[str, Mergeable]]:
    """Do the work on one part; an error of ours is one more result."""
    try:
        yield from work(part)
    except OxeError as error:
        yield FAILED, Failure(str(error))


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
