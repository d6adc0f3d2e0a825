"""What has changed since a mixture was locked, and what two locks differ in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash

from pipelines.mix.make import make
from pipelines.statistics.kept import read_kept
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
    """Name everything that is not as it was locked; nothing if all is.

    `spec` is the mixture's file as it is now, where there is one. Otherwise manifests, view code and kept statistics
    are compared by their digests; with `deep`, every data file is read, and the mixture is locked again.
    """
    found = []
    if spec and locks.digest(spec.to_json()) != lock.spec_digest:
        changed = sorted(key for key in {*spec.to_json(), *lock.spec} if spec.to_json().get(key) != lock.spec.get(key))
        found.append(f"the mixture's file has changed: {', '.join(changed)}")
    if why := cannot_compare(lock):
        return [*found, why]
    for name, source in lock.sources.items():
        try:
            found += [f"{name}: {what}" for what in _of_source(lock, source, beside=beside, deep=deep)]
        except UnreachableError:
            raise
        except OxeError as error:
            found.append(f"{name}: {error}")
    if deep and not found:
        again, _ = make(validated(MixtureSpec, lock.spec, "lock"), beside=beside, located_by=lock)
        found += [f"locked again, {what}" for what in compared(lock, again)]
    return found


def _of_source(lock: Lock, source: LockedSource, *, beside: Path, deep: bool) -> Iterator[str]:
    dataset = open_dataset(place(source.uri, beside))
    found = list(changes(lock, source, dataset))
    yield from found
    if dataset.manifest["xxh3_128"] != source.manifest:
        return
    wanted = lock.statistics[source.statistics]
    for kept in read_kept(dataset):
        record = kept.to_json()
        same = all(record[key] == wanted[key] for key in ("members", "view", "split", "filters"))
        if same and record["xxh3_128"] != wanted["xxh3_128"]:
            yield "its kept statistics are others"
    for file in dataset.manifest["files"] if deep and not found else ():
        if _digest(dataset.folder, file["path"]) != file["xxh3_128"]:
            yield f"{file['path']} has changed"


def _digest(folder: Folder, name: str) -> str:
    digest = xxhash.xxh3_128()
    with folder.open(name) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def compared(ours: Lock, theirs: Lock, *, tables: tuple[pa.Table, pa.Table] | None = None) -> list[str]:
    """Say in words what two locks differ in; `tables` are their episodes."""
    found = [
        f"{key} is {getattr(ours, key)!r} and {getattr(theirs, key)!r}"
        for key in ("name", "seed", "view", "dims", "method", "epoch", "left_out")
        if getattr(ours, key) != getattr(theirs, key)
    ]
    keys = sorted(key for key in {*ours.spec, *theirs.spec} if ours.spec.get(key) != theirs.spec.get(key))
    found += [f"the mixture's file differs in {', '.join(keys)}"] if keys else []
    old = {which: why for which, lock in (("first", ours), ("second", theirs)) if (why := cannot_compare(lock))}
    if len(old) == 1:
        return [*found, *(f"the {which}: {why}" for which, why in old.items())]
    for name in sorted({*ours.sources, *theirs.sources}):
        if name not in ours.sources or name not in theirs.sources:
            found.append(f"{name} is only in the {'first' if name in ours.sources else 'second'}")
            continue
        found += [f"{name}: {what}" for what in _of_sources(ours.sources[name], theirs.sources[name])]
        if _normalized(ours, name) != _normalized(theirs, name):
            found.append(f"{name}: its statistics differ")
    if tables and ours.episodes != theirs.episodes:
        found += _of_tables(*tables)
    elif ours.episodes != theirs.episodes:
        found.append("the episodes differ")
    return found


def _of_sources(ours: LockedSource, theirs: LockedSource) -> Iterator[str]:
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


def _normalized(lock: Lock, name: str) -> Any:
    return lock.statistics[lock.sources[name].statistics]["xxh3_128"]


def _of_tables(ours: pa.Table, theirs: pa.Table) -> list[str]:
    """Count the episodes that only one of them has, and those that are not the same in both."""
    keys = ["source", "id"]
    frames = [
        pl.DataFrame(table.to_pydict(), schema_overrides={"ranges": pl.List(pl.Int32)}) for table in (ours, theirs)
    ]
    only = [a.join(b, on=keys, how="anti").height for a, b in (frames, frames[::-1])]
    both = frames[0].join(frames[1], on=keys, suffix="_other")
    told = [("content", "content_hash"), ("part", "part"), ("kept steps", "ranges"), ("stratum", "stratum")]
    changed = [(word, both.filter(pl.col(key) != pl.col(f"{key}_other")).height) for word, key in told]
    out = [
        f"{count} episodes are only in the {which}"
        for which, count in zip(("first", "second"), only, strict=True)
        if count
    ]
    return out + [f"{count} episodes have another {word}" for word, count in changed if count]
