"""The findings of `oxe check` as a column of the episode table, which a condition such as `finding('idle')` reads."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError, did_you_mean
from schemas.store import layout
from schemas.store.dataset import Dataset

# Keys of the metadata of `meta/checks.parquet`: what the result depends on, the digest of the content, and the rules
# that were not switched off.
KEY, MANIFEST, RULES = b"key", b"dataset", b"rules"


def rules_of_episodes(dataset: Dataset, *, wanted: Iterable[str]) -> list[list[str]]:
    """Return the ids of the rules that found something in each episode.

    Raises UsageError if the dataset was not checked by the `wanted` rules, or was checked before its content changed.
    """
    content = dataset.folder.read_many([layout.CHECKS]).get(layout.CHECKS)
    fix = f"run 'oxe check {dataset.uri}' first"
    if content is None:
        raise UsageError(f"{dataset.uri}: has no {layout.CHECKS}, which the condition needs; {fix}")
    try:
        table = pq.ParquetFile(pa.py_buffer(content)).read(["kind", "rule", "episode"], use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{dataset.folder.place(layout.CHECKS)}: cannot be read ({error}); {fix}") from error
    about = table.schema.metadata or {}
    if about.get(MANIFEST) != dataset.digest.encode():
        raise UsageError(f"{dataset.folder.place(layout.CHECKS)}: was made from another content; {fix}")
    applied = about.get(RULES, b"").decode().split()
    for rule in wanted:
        if rule not in applied:
            hint = did_you_mean(rule, applied)
            raise UsageError(f"finding('{rule}'): no such rule was applied to {dataset.uri}{hint}")
    rules_of: list[list[str]] = [[] for _ in range(len(dataset))]
    for row in table.to_pylist():
        if row["kind"] == "finding" and row["episode"] is not None and row["rule"] not in rules_of[row["episode"]]:
            rules_of[row["episode"]].append(row["rule"])
    return rules_of
