"""`meta/stats.json`: statistics that were computed once, each with the content and the view that it belongs to."""

import json
import os

from pipelines.folders import write_atomically
from pipelines.numbers import Selection
from schemas import layout
from schemas.errors import StatsError
from schemas.store import Dataset
from stats.record import FORMAT, Statistics


def kept(dataset: Dataset, selection: Selection) -> Statistics | None:
    """Find statistics in `meta/stats.json`: those of this very content and view, or None."""
    digest = dataset.view(selection.view).digest if selection.view else None
    key = (selection.view or "", selection.split or "", selection.filters or "", selection.chunk)
    for found in read_kept(dataset):
        member = found.members[0]
        is_current = (member.manifest, member.view_digest) == (dataset.manifest["xxh3_128"], digest)
        if is_current and found.key == key:
            return found
    return None


def read_kept(dataset: Dataset) -> list[Statistics]:
    """Read all of `meta/stats.json`; a damaged one is a StatsError."""
    path = dataset.path / layout.STATS
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_bytes())["statistics"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StatsError(f"{path}: cannot be read ({error!r}); remove it, it will be computed again") from error
    return [Statistics.from_json(entry, where=str(path)) for entry in entries]


def keep(dataset: Dataset, computed: Statistics) -> None:
    """Add statistics to `meta/stats.json`, where it can be written; those of an earlier content go."""
    path = dataset.path / layout.STATS
    if not os.access(path.parent, os.W_OK):
        return
    current = dataset.manifest["xxh3_128"]
    found = {other.key: other for other in read_kept(dataset) if other.members[0].manifest == current}
    found[computed.key] = computed
    entries = [found[key].to_json() for key in sorted(found)]
    write_atomically(path, json.dumps({"format": FORMAT, "statistics": entries}).encode() + b"\n")
