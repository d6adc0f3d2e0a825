"""The cache of computed statistics, `meta/stats.json`.

Each entry contains the digests of the dataset's content and of the view from which it was computed.
"""

import json
import os
from contextlib import suppress

from pipelines.statistics.numbers import Selection
from schemas.errors import StatsError, UnreachableError
from schemas.parsing import parse_json
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.views.digests import outdated
from stats.record import FORMAT, Statistics


def cached(dataset: Dataset, selection: Selection) -> Statistics | None:
    """Return the cached statistics of a selection.

    Returns None if there are none, or if the dataset's content or the view has changed since they were computed.
    """
    digest = dataset.view(selection.view).digest if selection.view else None
    key = (selection.view or "", selection.split or "", selection.filters or "", selection.chunk)
    for record in _readable(dataset):
        member = record.members[0]
        is_current = (member.manifest, member.view_digest) == (dataset.digest, digest)
        if is_current and record.key == key:
            return record
    return None


def read_cache(dataset: Dataset) -> list[Statistics]:
    """Read all statistics in `meta/stats.json`; raises StatsError if the file is damaged."""
    content = dataset.folder.read_many([layout.STATS]).get(layout.STATS)
    if content is None:
        return []
    where = dataset.folder.place(layout.STATS)
    try:
        entries = parse_json(content)["statistics"]
    except (ValueError, LookupError, TypeError) as error:
        raise StatsError(
            f"{where}: cannot be read ({error!r}); remove it, and 'oxe stats' computes it again"
        ) from error
    return [Statistics.from_json(entry, where=where) for entry in entries]


def _readable(dataset: Dataset) -> list[Statistics]:
    """Read the cache. A damaged cache counts as empty and is replaced; only `oxe verify` reports the damage."""
    try:
        return read_cache(dataset)
    except StatsError:
        return []


def why_outdated(dataset: Dataset, record: Statistics) -> str | None:
    """Return why cached statistics are outdated, or None if they are not."""
    member = record.members[0]
    if member.manifest != dataset.digest:
        return f"{record.key} was computed from another content; 'oxe stats' computes it again"
    what, fix = f"a record of the view '{record.view}'", f"run 'oxe stats {dataset.uri} --view {record.view}'"
    return outdated(member.view_digest, what, fix=fix)


def store(dataset: Dataset, computed: Statistics) -> None:
    """Add statistics to `meta/stats.json` and remove outdated ones; does nothing if the folder is read-only."""
    local = dataset.folder.local
    if local and not os.access(local / layout.META, os.W_OK):
        return
    if Dataset(dataset.folder).digest != dataset.digest:
        return  # episodes were appended while the statistics were computed
    records = {record.key: record for record in _readable(dataset) if not why_outdated(dataset, record)}
    records[computed.key] = computed
    entries = [records[key].to_json() for key in sorted(records)]
    with suppress(UnreachableError):  # the folder is read-only
        dataset.folder.write(layout.STATS, json.dumps({"format": FORMAT, "statistics": entries}).encode() + b"\n")
