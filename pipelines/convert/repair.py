"""`repair`: convert the shards of a finished dataset again whose files are missing or damaged.

The manifest is not changed, and no file is written unless it has the digest that the manifest lists.
"""

from collections.abc import Container, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.beam.engine import Engine
from pipelines.beam.progress import Progress
from pipelines.beam.workers import running_workers
from pipelines.convert.files import find_damage
from pipelines.convert.ledger import Ledger, undo_append
from pipelines.convert.plan import Conversion
from pipelines.convert.publish import (
    QUARANTINE_SCHEMA,
    encode_index,
    encode_table,
    episode_table,
    episodes_schema,
    quarantine_table,
)
from pipelines.convert.records import ShardRecord
from pipelines.readers.reader import ShardRef
from schemas.errors import DatasetError
from schemas.files.folder import Folder
from schemas.store import layout
from schemas.store.dataset import Dataset
from schemas.store.manifest import SCHEMA_VERSION, digests

LISTED = 3  # number of files that a message lists
OTHER = "converting it again gives other bytes: the source, oxe-tools or a library has changed"


def repair(out: Folder, plan: Conversion, *, engine: Engine, progress: Progress) -> tuple[str, ...]:
    """Write the files of the finished dataset at `out` again that are missing or damaged, and return their names.

    On this machine, all files are read and compared with their digests. Objects in a store are large to fetch and
    have checksums there, so only their sizes are compared, and the tables. If a table is damaged that does not follow
    from the others, all shards are converted again.

    Raises DatasetError if the manifest is damaged, and if converting again gives other files than those that were
    published, which the dataset then keeps.
    """
    damage = find_damage(out, contents=out.local is not None)
    if not damage:
        return ()
    dataset = Dataset(out)
    if dataset.version < SCHEMA_VERSION or "upgraded_from" in dataset.manifest:
        raise _not_repairable(out, min(damage), "the dataset was written by an older version of oxe-tools")
    names = sorted(damage)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    progress.warn(f"{out.uri}: repairs {', '.join(names[:LISTED])}{more}")
    undo_append(out)  # an unfinished append begins again, because the repair uses the ledger
    tables = _from_other_tables(dataset, damage)
    needs_all = any(name.startswith(layout.META) for name in damage.keys() - tables)
    refs = [ref for ref in plan.published if needs_all or not damage.keys().isdisjoint(layout.files_of(ref.name))]
    if refs:
        records = _convert_again(dataset, plan, refs, engine=engine, progress=progress)
        if needs_all:
            tables |= _tables(dataset, plan, records)
    for name, content in tables.items():
        out.write(name, content)
    out.remove(layout.VERIFICATION)  # it may list the damage
    out.sync((layout.DATA, layout.INDEX, layout.META))
    return tuple(names)


def _from_other_tables(dataset: Dataset, damage: Container[str]) -> dict[str, bytes]:
    """Return the damaged tables that can be computed without the source."""
    tables = {}
    if layout.EPISODE_INDEX in damage and layout.EPISODES not in damage:
        episodes = pq.read_table(pa.py_buffer(dataset.read_listed(layout.EPISODES)))
        cameras = len(dataset.columns.cameras)
        tables[layout.EPISODE_INDEX] = encode_index(episodes, dataset.manifest["files"], cameras=cameras)
    if layout.QUARANTINE in damage and not dataset.manifest["balance"]["quarantined"]:
        tables[layout.QUARANTINE] = encode_table(QUARANTINE_SCHEMA.empty_table())
    return {name: content for name, content in tables.items() if _is_listed(dataset, name, content)}


def _convert_again(
    dataset: Dataset, plan: Conversion, refs: Sequence[ShardRef], *, engine: Engine, progress: Progress
) -> list[ShardRecord]:
    """Convert shards, and return their records; raise DatasetError if one of them is not what was published."""
    entries = {layout.shard_of(file["path"]): file for file in dataset.manifest["files"]}
    ledger = Ledger(dataset.folder, episodes_schema(plan.binding.layout))
    try:
        with running_workers(engine) as running:
            plan.run(refs, ledger, engine=running, progress=progress, published=entries)
        records = ledger.read([ref.name for ref in refs])  # without those whose files were not written
    finally:
        ledger.close()
    for ref in refs:
        record = records.get(ref.name)
        if record is None or (record.file and record.file.to_json()) != entries.get(ref.name):
            raise _not_repairable(dataset.folder, layout.data_file(ref.name), OTHER)
    plan.reader.check_unchanged()
    return [records[ref.name] for ref in refs]


def _tables(dataset: Dataset, plan: Conversion, records: Sequence[ShardRecord]) -> dict[str, bytes]:
    """Return the tables of all shards."""
    episodes, files = episode_table(records, plan.binding), dataset.manifest["files"]
    tables = {
        layout.EPISODES: encode_table(episodes),
        layout.EPISODE_INDEX: encode_index(episodes, files, cameras=len(plan.binding.layout.cameras)),
        layout.QUARANTINE: encode_table(quarantine_table(records, plan.reader)),
    }
    for name, content in tables.items():
        if not _is_listed(dataset, name, content):
            raise _not_repairable(dataset.folder, name, OTHER)
    return tables


def _is_listed(dataset: Dataset, name: str, content: bytes) -> bool:
    return digests(dataset.manifest)[name] == xxhash.xxh3_128_hexdigest(content)


def _not_repairable(out: Folder, name: str, why: str) -> DatasetError:
    return DatasetError(
        f"{out.place(name)}: is missing or damaged, and cannot be repaired, because {why}; restore it from a copy, or "
        "pass --overwrite to convert everything again"
    )
