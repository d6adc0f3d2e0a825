"""Find what has changed since a mixture was locked, and what differs between two locks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash

from pipelines.mix.make import make_lock
from pipelines.statistics.cache import read_cache
from schemas.declarations.spec import validated
from schemas.errors import OxeError, UnreachableError
from schemas.files.folder import Folder
from schemas.mixture import lock as locks
from schemas.mixture.drift import cannot_compare, changes, place
from schemas.mixture.lock import Lock, LockedSource
from schemas.mixture.spec import MixtureSpec
from schemas.store.dataset import open_dataset

BLOCK = 1 << 20


def drift(lock: Lock, *, beside: Path, spec: MixtureSpec | None = None, deep: bool = False) -> list[str]:
    """List everything that has changed since the lock.

    `beside` is the folder of the lock. `spec` is the current mixture file; if None, only the datasets are compared.
    Manifests, views and cached statistics are compared by their digests. With `deep`, every data file is read, and the
    mixture is locked again and compared.
    """
    differences = []
    if spec and locks.digest(spec.to_json()) != lock.spec_digest:
        changed = sorted(key for key in {*spec.to_json(), *lock.spec} if spec.to_json().get(key) != lock.spec.get(key))
        differences.append(f"the mixture file has changed: {', '.join(changed)}")
    if why := cannot_compare(lock):
        return [*differences, why]
    for name, source in lock.sources.items():
        try:
            differences += [f"{name}: {what}" for what in _source_drift(lock, source, beside=beside, deep=deep)]
        except UnreachableError:
            raise
        except OxeError as error:
            differences.append(f"{name}: {error}")
    if deep and not differences:
        again, _ = make_lock(validated(MixtureSpec, lock.spec, "lock"), beside=beside, located_by=lock)
        differences += [f"locked again, {what}" for what in lock_differences(lock, again)]
    return differences


def _source_drift(lock: Lock, source: LockedSource, *, beside: Path, deep: bool) -> Iterator[str]:
    dataset = open_dataset(place(source.uri, beside))
    differences = list(changes(lock, source, dataset))
    yield from differences
    if dataset.digest != source.manifest:
        return
    locked = lock.statistics[source.statistics]
    for cached in read_cache(dataset):
        record = cached.to_json()
        same = all(record[key] == locked[key] for key in ("members", "view", "split", "filters"))
        if same and record["xxh3_128"] != locked["xxh3_128"]:
            yield "its cached statistics have changed"
    for file in dataset.manifest["files"] if deep and not differences else ():
        if _digest(dataset.folder, file["path"]) != file["xxh3_128"]:
            yield f"{file['path']} has changed"


def _digest(folder: Folder, name: str) -> str:
    digest = xxhash.xxh3_128()
    with folder.open(name) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def lock_differences(ours: Lock, theirs: Lock, *, tables: tuple[pa.Table, pa.Table] | None = None) -> list[str]:
    """List the differences between two locks; if `tables` has their episodes, these are compared too."""
    differences = [
        f"{key} is {getattr(ours, key)!r} and {getattr(theirs, key)!r}"
        for key in ("name", "seed", "view", "dims", "method", "constant", "grippers", "epoch", "left_out")
        if getattr(ours, key) != getattr(theirs, key)
    ]
    keys = sorted(key for key in {*ours.spec, *theirs.spec} if ours.spec.get(key) != theirs.spec.get(key))
    differences += [f"the mixture file differs in {', '.join(keys)}"] if keys else []
    old = {which: why for which, lock in (("first", ours), ("second", theirs)) if (why := cannot_compare(lock))}
    if len(old) == 1:
        return [*differences, *(f"the {which} lock: {why}" for which, why in old.items())]
    for name in sorted({*ours.sources, *theirs.sources}):
        if name not in ours.sources or name not in theirs.sources:
            differences.append(f"{name} is only in the {'first' if name in ours.sources else 'second'} lock")
            continue
        differences += [f"{name}: {what}" for what in _source_differences(ours.sources[name], theirs.sources[name])]
        if _statistics_digest(ours, name) != _statistics_digest(theirs, name):
            differences.append(f"{name}: its statistics differ")
    if tables and ours.episodes != theirs.episodes:
        differences += _episode_differences(*tables)
    elif ours.episodes != theirs.episodes:
        differences.append("the episodes differ")
    return differences


def _source_differences(ours: LockedSource, theirs: LockedSource) -> Iterator[str]:
    words = {"manifest": "its dataset", "view_digest": "its view", "filter": "its filter", "license": "its licence"}
    for key, word in words.items():
        if getattr(ours, key) != getattr(theirs, key):
            yield f"{word} differs"
    for key in ("share", "repeats"):
        if getattr(ours, key) != getattr(theirs, key):
            yield f"{key} is {getattr(ours, key):.6g} and {getattr(theirs, key):.6g}"
    for stage, count in ours.stages.items():
        if count != theirs.stages[stage]:
            yield f"{stage}: {count.episodes} and {theirs.stages[stage].episodes} episodes"


def _statistics_digest(lock: Lock, name: str) -> Any:
    return lock.statistics[lock.sources[name].statistics]["xxh3_128"]


def _episode_differences(ours: pa.Table, theirs: pa.Table) -> list[str]:
    """List how many episodes are only in one of the locks, and how many differ between them."""
    keys = ["source", "id"]
    frames = [
        pl.DataFrame(table.to_pydict(), schema_overrides={"ranges": pl.List(pl.Int32)}) for table in (ours, theirs)
    ]
    only = [a.join(b, on=keys, how="anti").height for a, b in (frames, frames[::-1])]
    both = frames[0].join(frames[1], on=keys, suffix="_other")
    compared = [("content", "content_hash"), ("part", "part"), ("kept steps", "ranges"), ("stratum", "stratum")]
    changed = [(word, both.filter(pl.col(key) != pl.col(f"{key}_other")).height) for word, key in compared]
    out = [
        f"{count} episodes are only in the {which} lock"
        for which, count in zip(("first", "second"), only, strict=True)
        if count
    ]
    return out + [f"{count} episodes have another {word}" for word, count in changed if count]
