"""Count a dataset part by part and merge the results by key, on an engine or in a plain loop.

Merging in any order gives exactly the same numbers, so every engine returns the same result.
"""

import json
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.beam.counts import FAILED, CountFunction, count_part
from pipelines.beam.engine import Engine
from schemas.errors import UsageError
from schemas.files import durable
from schemas.files.folder import Folder, absolute, open_folder
from schemas.store import layout


def ignore(_part: Any) -> None:
    """Do nothing with a part that was counted."""


def combine(
    count: CountFunction,
    parts: Sequence[Any],
    *,
    engine: Engine,
    shared: Folder,
    done: Callable[[Any], object] = ignore,
) -> dict[str, dict[str, Any]]:
    """Call `count` on each part, merge the results by key, and return the totals as JSON.

    Worker processes return their results as files. If the engine names a runner, they write these files to `shared`,
    which must be a folder that all machines of the runner can access. Otherwise the files are written to a temporary
    folder on this machine. `done` is called with each part that this process counted, or with all of them when
    the workers have ended. Raises UsageError if counting a part raises an OxeError.
    """
    if engine.is_this_process:
        totals: dict[str, Any] = {}
        for part in parts:
            for key, result in count_part(count, part):
                totals[key] = totals[key].merge(result) if key in totals else result
            done(part)
        merged = {key: total.to_json() for key, total in sorted(totals.items())}
    else:
        from pipelines.beam.run import run_merging  # noqa: PLC0415 - Beam takes seconds to import

        with _scratch(shared if engine.runner else None) as scratch:
            run_merging(count, parts, engine=engine, into=scratch.uri)
            files = scratch.read_many(scratch.names())
        for part in parts:
            done(part)
        merged = {name.removesuffix(".json"): json.loads(content) for name, content in sorted(files.items())}
    if FAILED in merged:
        raise UsageError(merged[FAILED]["message"])
    return merged


@contextmanager
def _scratch(shared: Folder | None) -> Iterator[Folder]:
    """Create a temporary folder in `shared`, or on this machine if `shared` is None; remove it at the end."""
    try:
        if shared is None:
            with durable.scratch_folder() as directory:
                yield open_folder(directory)
            return
        scratch = open_folder(f"{absolute(shared.uri)}/{layout.META}", for_writing=True).child(
            f"{layout.SCRATCH}{uuid.uuid4().hex}"
        )
        try:
            yield scratch
        finally:
            scratch.remove("")
    except OSError as error:
        where = shared.uri if shared else tempfile.gettempdir()
        raise UsageError(f"{where}: cannot be written ({error})") from error
