"""`Lock`: a mixture with the digests of its datasets, so that another machine draws the same steps.

The file `NAME.lock` is canonical JSON with a digest of its other keys. `NAME.lock.parquet`, in the same folder, lists
the episodes with their hashes and the ranges of steps that are kept. While a lock is replaced, the new table is in
`NAME.lock.DIGEST.parquet`.
"""

import glob
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import ValidationError

from schemas.declarations.tables import Model
from schemas.errors import MixtureError
from schemas.files import durable
from schemas.mixture.sampling import Law
from schemas.source import Array
from schemas.spaces import Space

VERSION = 1
DIGEST = "[0-9a-f]{32}"
TRAIN, VALIDATION = "train", "val"
EPISODES = pa.schema(
    [
        ("source", pa.string()),
        ("stratum", pa.string()),
        ("part", pa.string()),
        ("position", pa.int64()),  # position in the dataset
        ("id", pa.string()),
        ("split", pa.string()),
        ("instruction", pa.string()),
        ("content_hash", pa.string()),
        ("motion_hash", pa.string()),
        ("length", pa.int64()),  # number of stored steps
        ("ranges", pa.list_(pa.int32())),  # ranges of kept steps: start, end, start, end, ...
        ("steps", pa.int64()),  # number of kept steps
    ]
)


class Stage(Model):
    """The number of episodes and steps that are left after one stage of selection."""

    episodes: int
    steps: int


class Stratum(Model):
    """A group of steps with its own share of the draws: a whole source, or one value of the balanced column."""

    steps: int
    share: float  # share of all draws
    repeats: float  # expected draws of each step per epoch


class LockedSource(Model):
    """One source, as it was when the mixture was locked."""

    uri: str  # may be relative to the lock's folder
    dataset: str
    manifest: str  # xxh3-128 of the manifest
    embodiment: str
    robot: str
    controller: str
    control_hz: float | None
    license: str | None
    view_digest: str | None
    space: dict[str, Any]
    filter: str | None
    stages: dict[str, Stage]  # by name: source, filtered, viewed, train, val
    nominal: float
    share: float
    repeats: float
    strata: dict[str, Stratum]
    statistics: str  # key in `Lock.statistics`


class Lock(Model):
    """A locked mixture."""

    version: int
    name: str
    spec: dict[str, Any]
    spec_digest: str
    seed: int
    view: str | None
    dims: tuple[str, ...]  # dimensions of a drawn action
    method: Literal["bounds_q99", "bounds", "normal"]  # normalization method
    constant: Literal["keep", "zero"] = "zero"  # as in `Normalize`; locks of earlier versions do not have it
    grippers: Literal["keep", "normalize"] = "keep"  # as in `Normalize`; locks of earlier versions do not have it
    epoch: int  # number of draws
    sources: dict[str, LockedSource]
    differences: tuple[str, ...]  # differences between the Spaces of the sources
    left_out: dict[str, str]  # source -> reason
    statistics: dict[str, Any]  # key -> JSON form of a `stats.record.Statistics`
    episodes: str  # xxh3-128 of the table of episodes
    paraphrases_digest: str | None = None  # SHA-256 of `paraphrases`; locks without them do not have the key
    digest: str | None = None  # hash of all other keys, which `encoded` computes; locks of earlier versions have none

    def law(self, seed: int | None = None) -> Law:
        """Return the order of draws; its sources are the strata. If `seed` is None, the mixture's seed is used."""
        strata = self.strata
        return Law(
            seed=self.seed if seed is None else seed,
            names=tuple("/".join(key) if key[1] else key[0] for key in strata),
            shares=tuple(stratum.share for stratum in strata.values()),
            sizes=tuple(stratum.steps for stratum in strata.values()),
        )

    @cached_property
    def strata(self) -> dict[tuple[str, str], Stratum]:
        """The strata by source name and stratum name, in order."""
        return {(name, key): part for name, source in self.sources.items() for key, part in source.strata.items()}

    @property
    def paraphrases(self) -> dict[str, tuple[str, ...]]:
        """The paraphrases of each instruction that has some."""
        return {instruction: tuple(texts) for instruction, texts in self.spec.get("paraphrases", {}).items()}

    def places(self, source: str) -> Array:
        """Return where each dimension of a drawn action is in a source's action, [D] int64; -1 if it is not there.

        Dimensions are matched by name, or by index if the mixture has no `dims`.
        """
        known = [dim.name for dim in Space.from_json(self.sources[source].space).dims]
        if not self.spec.get("dims"):
            return np.arange(len(self.dims))
        return np.array([known.index(name) if name in known else -1 for name in self.dims])

    def encoded(self, *, has_digest: bool = True) -> bytes:
        """Return the bytes of the lock file, which depend only on the lock's content."""
        content = self.model_dump(mode="json", exclude_unset=True, exclude={"digest"})
        if has_digest:
            content["digest"] = digest(content)
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def digest(content: Mapping[str, Any]) -> str:
    """Hash JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def paraphrases_digest(spec: Mapping[str, Any]) -> str | None:
    """Hash the paraphrases of a mixture's declaration; None if it has none."""
    return digest(spec["paraphrases"]) if "paraphrases" in spec else None


def side_file(lock: Path) -> Path:
    """Return the path of a lock's table of episodes."""
    return lock.with_name(f"{lock.name}.parquet")


def write(path: Path, lock: Lock, table: pa.Table) -> None:
    """Write a lock and its table of episodes, in one commit.

    The table is written under a name with its digest, then the lock, then the table gets its usual name. `read` takes a
    table under either name, so a lock that is replaced is readable at any moment, as the old one or the new one.
    """
    _write(path, lock.encoded(), encoded_table(table), digest=lock.episodes)


def copy(path: Path, target: Path) -> None:
    """Copy a lock and its table of episodes. Raises MixtureError if they cannot be read."""
    lock, content, table = _read(path)
    _write(target, content, table, digest=lock.episodes)


def _write(path: Path, content: bytes, table: bytes, *, digest: str) -> None:
    pending = _pending(path, digest)
    durable.write(pending, table)
    durable.write(path, content)
    pending.rename(side_file(path))
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.parquet"):
        if re.fullmatch(rf".*\.{DIGEST}\.parquet", left.name):  # by a killed process
            left.unlink(missing_ok=True)
    durable.sync_folder(path.parent)


def _pending(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.name}.{digest}.parquet")


def encoded_table(table: pa.Table) -> bytes:
    """Return the bytes of a table of episodes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read(path: Path) -> tuple[Lock, pa.Table]:
    """Read a lock and its table of episodes. Raises MixtureError if a file is damaged or the two do not match."""
    lock, _, table = _read(path)
    # `read_table` would import pandas, which takes longer than all else that a loader does before its first sample.
    return lock, pq.ParquetFile(pa.py_buffer(table)).read(use_threads=False)


def _read(path: Path) -> tuple[Lock, bytes, bytes]:
    """Return a lock, its bytes, and the bytes of its table."""
    try:
        content = path.read_bytes()
        lock = Lock.model_validate_json(content)
        table = _table(path, lock.episodes)
    except FileNotFoundError as error:
        raise MixtureError(f"{error.filename}: no such file; 'oxe mix lock' writes a lock") from error
    except (OSError, ValidationError) as error:
        raise MixtureError(f"{path}: cannot be read as a lock ({_first_line(error)})") from error
    if lock.version != VERSION:
        raise MixtureError(f"{path}: has version {lock.version}, expected {VERSION}; run 'oxe mix lock' again")
    is_whole = lock.encoded(has_digest=lock.digest is not None) == content
    if not is_whole or lock.paraphrases_digest != paraphrases_digest(lock.spec):
        raise MixtureError(f"{path}: is damaged or was edited by hand; run 'oxe mix lock' again")
    content_digest = xxhash.xxh3_128_hexdigest(table)
    if content_digest != lock.episodes:
        if path.read_bytes() != content:  # it was replaced between the two reads
            return _read(path)
        raise MixtureError(f"{side_file(path)}: has digest {content_digest}, expected {lock.episodes} as in the lock")
    return lock, content, table


def _table(path: Path, digest: str) -> bytes:
    if re.fullmatch(DIGEST, digest):
        with suppress(FileNotFoundError):
            return _pending(path, digest).read_bytes()
    return side_file(path).read_bytes()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
