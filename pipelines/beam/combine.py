"""What is counted part by part and merged by key: on an engine, or here in a plain loop.

What is counted can be merged in any order without changing a digit, so every engine gives the same.
"""

import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.beam.counts import FAILED, Work, results
from pipelines.beam.engine import Engine
from schemas.errors import UsageError
from schemas.files.folder import Folder, absolute, open_folder
from schemas.store import layout


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
