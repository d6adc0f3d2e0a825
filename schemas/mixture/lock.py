"""A locked mixture: what it was drawn from, to the digest, so that another machine draws the same.

`NAME.lock` is canonical JSON; `NAME.lock.parquet` beside it lists the episodes with their hashes and kept ranges.
"""

import hashlib
import json
from collections.abc import Mapping
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
from schemas.files.folder import LocalFolder
from schemas.mixture.sampling import Law
from schemas.source import Array
from schemas.spaces import Space

VERSION = 1
TRAIN, VALIDATION = "train", "val"
EPISODES = pa.schema(
    [
        ("source", pa.string()),
        ("stratum", pa.string()),
        ("part", pa.string()),
        ("position", pa.int64()),  # in the dataset
        ("id", pa.string()),
        ("split", pa.string()),
        ("instruction", pa.string()),
        ("content_hash", pa.string()),
        ("motion_hash", pa.string()),
        ("length", pa.int64()),  # stored steps
        ("ranges", pa.list_(pa.int32())),  # kept steps: start, end, start, end, ...
        ("steps", pa.int64()),  # kept
    ]
)


class Stage(Model):
    """How much is left at one stage."""

    episodes: int
    steps: int


class Stratum(Model):
    """A group of a source that is drawn from by itself: the whole source, or one value of the balanced column."""

    steps: int
    share: float  # of all draws
    repeats: float  # expected draws of each step in an epoch


class LockedSource(Model):
    """One source as it was."""

    uri: str  # a relative one from the lock's folder
    dataset: str
    manifest: str  # its xxh3-128
    embodiment: str
    robot: str
    controller: str
    control_hz: float | None
    license: str | None
    view_digest: str | None
    space: dict[str, Any]
    filter: str | None
    stages: dict[str, Stage]  # source, filtered, viewed, train, val: each of those before
    nominal: float
    share: float
    repeats: float
    strata: dict[str, Stratum]
    statistics: str  # a key of the lock's `statistics`


class Lock(Model):
    """A mixture as it was locked."""

    version: int
    name: str
    spec: dict[str, Any]
    spec_digest: str
    seed: int
    view: str | None
    dims: tuple[str, ...]  # of a drawn action
    method: Literal["bounds_q99", "bounds", "normal"]  # of normalization
    epoch: int  # draws
    sources: dict[str, LockedSource]
    differences: tuple[str, ...]  # between the Spaces of the sources
    left_out: dict[str, str]
    statistics: dict[str, Any]  # records of stats/record.py
    episodes: str  # xxh3-128 of the side file

    def law(self, seed: int | None = None) -> Law:
        """Give the order of its draws; the law's sources are the strata."""
        strata = self.strata
        return Law(
            seed=self.seed if seed is None else seed,
            names=tuple("/".join(key) if key[1] else key[0] for key in strata),
            shares=tuple(stratum.share for stratum in strata.values()),
            sizes=tuple(stratum.steps for stratum in strata.values()),
        )

    @cached_property
    def strata(self) -> dict[tuple[str, str], Stratum]:
        """All that is drawn from, by source and stratum, in order."""
        return {(name, key): part for name, source in self.sources.items() for key, part in source.strata.items()}

    def places(self, source: str) -> Array:
        """Say where each dimension of a drawn action is in a source's own, [D] int64; -1 where it has none.

        They are matched by name; where the mixture names no dims, by place.
        """
        known = [dim.name for dim in Space.from_json(self.sources[source].space).dims]
        if not self.spec.get("dims"):
            return np.arange(len(self.dims))
        return np.array([known.index(name) if name in known else -1 for name in self.dims])

    def encoded(self) -> bytes:
        """Give the file's bytes, which depend on its content alone."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def digest(content: Mapping[str, Any]) -> str:
    """Hash what JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def side_file(lock: Path) -> Path:
    """Name the table of episodes that belongs to a lock."""
    return lock.with_name(f"{lock.name}.parquet")


def write(path: Path, lock: Lock, table: pa.Table) -> None:
    """Write a lock and its table; the lock last."""
    folder = LocalFolder(path.parent)
    folder.write(side_file(path).name, encoded_table(table))
    folder.write(path.name, lock.encoded())


def encoded_table(table: pa.Table) -> bytes:
    """Give the side file's bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read(path: Path) -> tuple[Lock, pa.Table]:
    """Read a lock and its table; what is damaged or does not belong together is a MixtureError."""
    try:
        content = path.read_bytes()
        lock = Lock.model_validate_json(content)
        table = side_file(path).read_bytes()
    except FileNotFoundError as error:
        raise MixtureError(f"{error.filename}: no such file; 'oxe mix lock' writes a lock") from error
    except (OSError, ValidationError) as error:
        raise MixtureError(f"{path}: cannot be read as a lock ({_first_line(error)})") from error
    if lock.version != VERSION:
        raise MixtureError(f"{path}: version {lock.version}, this oxe-tools reads {VERSION}: lock it again")
    if lock.encoded() != content:
        raise MixtureError(f"{path}: was edited by hand; lock the mixture again")
    found = xxhash.xxh3_128_hexdigest(table)
    if found != lock.episodes:
        raise MixtureError(f"{side_file(path)}: has digest {found}, the lock says {lock.episodes}")
    # Not `read_table`: it imports pandas, which takes longer than all else a loader does before its first sample.
    return lock, pq.ParquetFile(pa.py_buffer(table)).read(use_threads=False)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
