"""Datasets of schema version 2: one that the old code wrote, and the old form of a dataset of today."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from schemas.source import Array
from schemas.store.dataset import Dataset, open_dataset
from schemas.store.manifest import encode_manifest
from tests.pipelines.toy import Toy, columns, make_toy

WRITTEN = Path(__file__).parent / "data/version2"  # `one`, and a lock of it, as version 2 wrote them
LENGTHS, SPLITS = (3, 5, 150, 2, 7), {"train": [2, 1], "val": 2}  # steps of its episodes, episodes of its source files


def written(folder: Path) -> Path:
    """Copy the dataset and the lock that version 2 wrote; the dataset is `folder / one`, the lock `toy.lock`."""
    shutil.copytree(WRITTEN, folder, dirs_exist_ok=True)
    return folder / "one"


def source_of_written(folder: Path) -> Toy:
    """Write the source from which that dataset was converted."""
    return make_toy(folder, [columns(i, steps=n) for i, n in enumerate(LENGTHS)], splits=SPLITS)


def encode_version_2(names: Sequence[str], offsets: Array, lengths: Array) -> bytes:
    """Encode an index as version 2 did."""
    header = json.dumps({"rows": len(offsets), "columns": list(names)}).encode()
    header += b" " * (-(12 + len(header)) % 8)
    numbers = offsets.astype("<u8").tobytes() + np.maximum(lengths, 0).astype("<u4").tobytes()
    return b"OXEIDX01" + len(header).to_bytes(4, "little") + header + numbers


def downgrade(out: Path) -> Dataset:
    """Turn a dataset into what version 2 would have written. Its statistics are removed."""
    dataset = open_dataset(out)
    files = []
    for file in dataset.manifest["files"]:
        index = dataset.image_index(file["path"])
        content = encode_version_2(index.columns, index.offsets, index.lengths)
        (out / file["path"].replace("data", "index", 1).replace(".parquet", ".idx")).write_bytes(content)
        kept = {key: value for key, value in file.items() if key not in {"index_bytes", "index_start"}}
        files.append({**kept, "index_xxh3_128": xxhash.xxh3_128_hexdigest(content)})
    manifest = {**dataset.manifest, "schema_version": 2, "files": files}
    for key in ("xxh3_128", "episodes_index_xxh3_128"):
        del manifest[key]
    (out / "meta/manifest.json").write_bytes(encode_manifest(manifest))
    for name in ("episodes.idx", "stats.json"):
        (out / "meta" / name).unlink(missing_ok=True)
    return open_dataset(out)
