"""`meta/stats.json`: statistics that were computed once, each with the content and the view that it belongs to."""

import json
import os
from contextlib import suppress

from pipelines.statistics.numbers import Selection
from schemas.errors import StatsError, UnreachableError
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.views.digests import outdated
from stats.record import FORMAT, Statistics


def kept(dataset: Dataset, selection: Selection) -> Statistics | None:
    """Find statistics in `meta/stats.json`: those of this very content and view, or None."""
    digest = dataset.view(selection.view).digest if selection.view else None
    key = (selection.view or "", selection.split or "", selection.filters or "", selection.chunk)
    for found in _usable(dataset):
        member = found.members[0]
        is_current = (member.manifest, member.view_digest) == (dataset.manifest["xxh3_128"], digest)
        if is_current and found.key == key:
            return found
    return None


def read_kept(dataset: Dataset) -> list[Statistics]:
    """Read all of `meta/stats.json`; a damaged one is a StatsError."""
    content = dataset.folder.read_many([layout.STATS]).get(layout.STATS)
    if content is None:
        return []
    where = dataset.folder.place(layout.STATS)
    try:
        entries = json.loads(content)["statistics"]
    except (ValueError, LookupError, TypeError) as error:
        raise StatsError(f"{where}: cannot be read ({error!r}); remove it, it will be computed again") from error
    return [Statistics.from_json(entry, where=where) for entry in entries]


def _usable(dataset: Dataset) -> list[Statistics]:
    """Read what can be read: a damaged cache is computed again, and `oxe verify` says that it was damaged."""
    try:
        return read_kept(dataset)
    except StatsError:
        return []


def unusable(dataset: Dataset, found: Statistics) -> str | None:
    """Why statistics of `meta/stats.json` are of no use any more: of another content, or of views without versions."""
    member = found.members[0]
    if member.manifest != dataset.manifest["xxh3_128"]:
        return f"{found.key} belongs to another content; 'oxe stats' computes it again"
    what, fix = f"a record of the view '{found.view}'", f"run 'oxe stats {dataset.uri} --view {found.view}'"
    return outdated(member.view_digest, what, fix=fix)


def keep(dataset: Dataset, computed: Statistics) -> None:
    """Add statistics to `meta/stats.json`, where it can be written; those of an earlier content or kind go."""
    here = dataset.folder.local
    if here and not os.access(here / layout.META, os.W_OK):
        return
    if Dataset(dataset.folder).manifest["xxh3_128"] != dataset.manifest["xxh3_128"]:
        return  # something was appended while this was counted
    found = {other.key: other for other in _usable(dataset) if not unusable(dataset, other)}
    found[computed.key] = computed
    entries = [found[key].to_json() for key in sorted(found)]
    with suppress(UnreachableError):  # a store that one may only read
        dataset.folder.write(layout.STATS, json.dumps({"format": FORMAT, "statistics": entries}).encode() + b"\n")
