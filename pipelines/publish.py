"""What turns finished files into a dataset: the episode table, the quarantine and, last, the manifest."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipelines.folders import write_atomically
from pipelines.readers.source import Reader
from pipelines.records import Options, ShardRecord
from pipelines.standardize import Binding
from schemas import layout
from schemas.arrow import SCHEMA_VERSION, Layout, metadata_schema
from schemas.errors import SpecError
from schemas.source import Unreadable


def publish(
    out: Path, reader: Reader, *, binding: Binding, options: Options, records: Sequence[ShardRecord]
) -> dict[str, Any]:
    """Write the tables and the manifest, and give the manifest; two episodes of one id are a SpecError."""
    rows = [row for record in records for row in record.episodes]
    problems = [problem for record in records for problem in record.quarantined]
    quarantined = Counter(problem.reason for problem in problems)
    dropped = Counter(reason for record in records for _, reason in record.dropped)
    balance = {
        "source": len(rows) + dropped.total() + quarantined.total(),
        "kept": len(rows),
        "dropped": dict(sorted(dropped.items())),
        "quarantined": dict(sorted(quarantined.items())),
    }
    repeated = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if repeated:
        raise SpecError(f"{binding.spec.name}: id: '{repeated[0]}' names several episodes; an id must be unique")
    episodes = _parquet(rows, episodes_schema(binding.layout))
    quarantine = _parquet(_relative(problems, reader), QUARANTINE_SCHEMA)
    write_atomically(out / layout.EPISODES, episodes)
    write_atomically(out / layout.QUARANTINE, quarantine)
    manifest = {
        "format": "oxe-tools",
        "dataset": binding.spec.name,
        "spec": binding.spec.to_json(),
        **identity_of(binding, reader, options),
        "balance": balance,
        "steps": sum(row["length"] for row in rows),
        "splits": counted(rows),
        "columns": binding.layout.to_json(),
        "files": [record.file.to_json() for record in records if record.file],
        "episodes_xxh3_128": xxhash.xxh3_128_hexdigest(episodes),
        "quarantine_xxh3_128": xxhash.xxh3_128_hexdigest(quarantine),
    }
    write_atomically(out / layout.MANIFEST, sealed(manifest))
    return manifest


def identity_of(binding: Binding, reader: Reader, options: Options) -> dict[str, Any]:
    """Say which conversion this is: two with the same identity give the same dataset."""
    return {
        "schema_version": SCHEMA_VERSION,
        "spec_digest": binding.spec.digest(),
        "source": reader.fingerprint(),
        "options": asdict(options),
    }


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the episodes and steps of each split."""
    splits: dict[str, dict[str, int]] = {}
    for row in rows:
        split = splits.setdefault(row["split"], {"episodes": 0, "steps": 0})
        split["episodes"] += 1
        split["steps"] += row["length"]
    return splits


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """Write a manifest whose last entry is the digest of itself without that entry."""
    digest = xxhash.xxh3_128_hexdigest(json.dumps(manifest, indent=1).encode())
    return json.dumps({**manifest, "xxh3_128": digest}, indent=1).encode() + b"\n"


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
    """Give the columns of `meta/episodes.parquet`."""
    ours = {
        "episode_index": pa.int64(),
        "id": pa.string(),
        "split": pa.string(),
        "instructions": pa.list_(pa.string()),
        "length": pa.int64(),
        "file": pa.string(),
        "row": pa.int64(),
        "content_hash": pa.string(),
    }
    return pa.schema([pa.field(name, kind) for name, kind in ours.items()] + metadata_schema(columns))


def _relative(problems: Iterable[Unreadable], reader: Reader) -> list[dict[str, Any]]:
    """Name files relative to the source: meta/ holds no host or path."""
    names = {reader.place(part.name): part.name for parts in reader.files().values() for part in parts}
    return [
        {
            "episode_index": problem.index,
            "split": problem.split,
            "file": names.get(problem.file, ""),
            "offset": problem.offset,
            "reason": problem.reason,
            "detail": problem.detail,
        }
        for problem in problems
    ]


def _parquet(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink, compression="zstd")
    return bytes(sink.getvalue())
