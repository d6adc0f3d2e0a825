"""Publish finished files as a dataset: write the episode table, the quarantine and, last, the manifest."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.convert.binding import Binding
from pipelines.convert.records import Options, ShardRecord
from pipelines.readers.coverage import Coverage
from pipelines.readers.history import History
from pipelines.readers.reader import Reader
from schemas.errors import SpecError, UsageError
from schemas.files.folder import Folder, absolute
from schemas.store import layout
from schemas.store.arrow import Layout, metadata_schema
from schemas.store.dataset import Dataset
from schemas.store.episode_index import EpisodeIndex
from schemas.store.manifest import SCHEMA_VERSION, encode_manifest
from schemas.views.digests import outdated


def publish(
    out: Folder, reader: Reader, *, binding: Binding, identity: Mapping[str, Any], records: Sequence[ShardRecord]
) -> dict[str, Any]:
    """Write the tables and the manifest, and return the manifest.

    If `out` already contains a dataset, the new rows are added after its rows, so the dataset can be read while this
    function writes. Raises SpecError if two episodes have the same id.
    """
    old = _published(out, binding)
    episodes = pa.concat_tables([old.episodes, episode_table(records, binding)])
    quarantine = pa.concat_tables([old.quarantine, quarantine_table(records, reader)])
    _check_ids(episodes["id"], binding.spec.name)
    dropped = old.dropped + Counter(reason for record in records for _, reason in record.dropped)
    quarantined = Counter(quarantine["reason"].to_pylist())
    balance = {
        "source": len(episodes) + dropped.total() + quarantined.total(),
        "kept": len(episodes),
        "dropped": dict(sorted(dropped.items())),
        "quarantined": dict(sorted(quarantined.items())),
    }
    files = [*old.files, *(record.file.to_json() for record in records if record.file)]
    tables = {
        layout.EPISODES: encode_table(episodes),
        layout.EPISODE_INDEX: encode_index(episodes, files, cameras=len(binding.layout.cameras)),
        layout.QUARANTINE: encode_table(quarantine),
    }
    splits = count_splits(episodes.select(["split", "length"]).to_pylist())
    manifest = {
        "format": "oxe-tools",
        "dataset": binding.spec.name,
        "spec": binding.spec.to_json(),
        **identity,
        **Coverage.of(reader).to_json(),
        "balance": balance,
        "steps": sum(split["steps"] for split in splits.values()),
        "splits": splits,
        "columns": binding.layout.to_json(),
        "files": files,
        "episodes_xxh3_128": xxhash.xxh3_128_hexdigest(tables[layout.EPISODES]),
        "episodes_index_xxh3_128": xxhash.xxh3_128_hexdigest(tables[layout.EPISODE_INDEX]),
        "quarantine_xxh3_128": xxhash.xxh3_128_hexdigest(tables[layout.QUARANTINE]),
    }
    for file in layout.META_FILES:
        if file.of_content:  # it describes the previous content
            out.remove(file.place)
    for name, content in old.content.items():  # until the manifest is replaced, the dataset has the old tables
        out.write(layout.pending(name), content)
    for name, content in tables.items():
        out.write(name, content, sync=False)
    out.sync((layout.DATA, layout.INDEX, layout.META))  # all that the manifest describes is durable before it
    out.write(layout.MANIFEST, encode_manifest(manifest))
    out.remove(layout.PENDING)
    return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The content of a dataset before this run. All fields are empty unless this run appends."""

    episodes: pa.Table
    quarantine: pa.Table
    dropped: Counter[str]
    files: Sequence[Mapping[str, Any]]
    content: Mapping[str, bytes]  # files in `meta/` that this run replaces, by name


def _published(out: Folder, binding: Binding) -> Published:
    schema = episodes_schema(binding.layout)
    if out.size(layout.MANIFEST) is None:
        empty = schema.empty_table()
        return Published(
            episodes=empty, quarantine=QUARANTINE_SCHEMA.empty_table(), dropped=Counter(), files=(), content={}
        )
    dataset = Dataset(out)
    manifest = dataset.manifest
    for view in manifest["columns"]["views"]:
        what = f"the column of the view '{view['name']}'"
        if why := outdated(view["digest"], what, fix="run 'oxe convert' again with --overwrite, without --append"):
            raise UsageError(f"{out.uri}: {why}")
    if manifest["columns"] != json.loads(json.dumps(binding.layout.to_json())):
        raise UsageError(f"{out.uri}: the fields of the source have changed since the conversion; pass another --out")
    content = {name: dataset.read_listed(name) for name in (layout.EPISODES, layout.EPISODE_INDEX, layout.QUARANTINE)}
    return Published(
        episodes=pq.read_table(pa.py_buffer(content[layout.EPISODES])).cast(schema),
        quarantine=pq.read_table(pa.py_buffer(content[layout.QUARANTINE])),
        dropped=Counter(manifest["balance"]["dropped"]),
        files=manifest["files"],
        content=content,
    )


def _check_ids(ids: pa.ChunkedArray, name: str) -> None:
    repeated = [value for value, count in Counter(ids.to_pylist()).items() if count > 1]
    if repeated:
        raise SpecError(f"{name}: id: several episodes have the id '{repeated[0]}'; ids must be unique")


def identity_of(binding: Binding, reader: Reader, *, options: Options, history: History) -> dict[str, Any]:
    """Return the identity of a conversion as JSON; conversions with the same identity produce the same dataset."""
    identity = {
        "schema_version": SCHEMA_VERSION,
        "spec_digest": binding.spec.digest(),
        "source": {**reader.description(), **history.to_json()},
        "options": options.to_json(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def count_splits(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the episodes and steps of each split."""
    splits: dict[str, dict[str, int]] = {}
    for row in rows:
        split = splits.setdefault(row["split"], {"episodes": 0, "steps": 0})
        split["episodes"] += 1
        split["steps"] += row["length"]
    return splits


QUARANTINE_SCHEMA = pa.schema(
    {
        "episode_index": pa.int64(),
        "split": pa.string(),
        "file": pa.string(),
        "offset": pa.int64(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def episodes_schema(columns: Layout) -> pa.Schema:
    """Return the schema of `meta/episodes.parquet`."""
    fixed = {
        "episode_index": pa.int64(),
        "id": pa.string(),
        "split": pa.string(),
        "instructions": pa.list_(pa.string()),
        "outcome": pa.string(),
        "length": pa.int64(),
        "file": pa.string(),
        "row": pa.int64(),
        "content_hash": pa.string(),
    }
    return pa.schema([pa.field(name, kind) for name, kind in fixed.items()] + metadata_schema(columns))


def episode_table(records: Sequence[ShardRecord], binding: Binding) -> pa.Table:
    """Return the rows of `meta/episodes.parquet` that some shards have."""
    rows = [row for record in records for row in record.episodes]
    return pa.Table.from_pylist(rows, episodes_schema(binding.layout))


def encode_index(episodes: pa.Table, files: Sequence[Mapping[str, Any]], *, cameras: int) -> bytes:
    """Return the content of `meta/episodes.idx`, which follows from the episode table and the manifest's files."""
    table = episodes.select(["file", "split", "row", "length"]).to_pydict()
    return EpisodeIndex.of(table, files, cameras=cameras).encode()


def quarantine_table(records: Sequence[ShardRecord], reader: Reader) -> pa.Table:
    """Return the rows of `meta/quarantine.parquet` that some shards have.

    Paths of files are relative to the source, so neither the host nor the folder of the source is published.
    """
    name = next((part.name for parts in reader.files().values() for part in parts), "")
    root = reader.place(name).removesuffix(name)
    roots = (root, f"{absolute(root)}/")  # workers open the source by its absolute path
    rows = [
        {
            "episode_index": problem.index,
            "split": problem.split,
            "file": next((problem.file.removeprefix(r) for r in roots if r and problem.file.startswith(r)), ""),
            "offset": problem.offset,
            "reason": problem.reason,
            "detail": problem.detail,
        }
        for record in records
        for problem in record.quarantined
    ]
    return pa.Table.from_pylist(rows, QUARANTINE_SCHEMA)


def encode_table(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue())
