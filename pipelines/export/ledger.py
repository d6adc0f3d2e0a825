"""How an export goes on after a crash, says that it is whole, and tells later where it came from.

While it is under way, `oxe_ledger/` holds which export this is, and a record of each finished shard; a shard's files
come first and its record last. `oxe_export.json` is written last of all: a folder that has one is a whole export.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.beam.shards import FAILURE, StatusFolder, clear_failures
from pipelines.convert.folders import check_no_foreign_files
from schemas.errors import DatasetError, UsageError
from schemas.files.folder import Folder, LocalFolder
from schemas.views.digests import outdated

RECORD, RUNS = "oxe_export.json", "oxe_runs.jsonl"
BELOW = "oxe_ledger"
LOCK, IDENTITY = f"{BELOW}/lock", f"{BELOW}/identity.json"
OURS = rf"oxe_spec\.toml|{RECORD}|{RUNS}|{BELOW}/[^/]+|([^/]+/)*tmp-[0-9a-f]+"


@dataclass(frozen=True, slots=True)
class ExportLedger(StatusFolder):
    """The records of one export."""

    BELOW = BELOW
    RECORD = ".json"

    def write(self, name: str, files: Iterable[str], about: Mapping[str, Any]) -> None:
        """Say that a shard is done, which files it is, and what of it the description of the whole needs."""
        record = {"files": self.out.sizes(files), "about": about}
        self.out.write(self.place(name + self.RECORD), json.dumps(record).encode())
        self.out.remove(self.place(name + FAILURE))

    def read(self, name: str) -> dict[str, Any] | None:
        """Give what a finished shard says; None where it is not done, or its files are not what they were."""
        place = self.place(name + self.RECORD)
        content = self.out.read_many([place]).get(place)
        if content is None:
            return None
        record = json.loads(content)
        return record["about"] if self.out.sizes(record["files"]) == record["files"] else None


def begin(out: LocalFolder, identity: Mapping[str, Any], *, holds: str, overwrite: bool) -> dict[str, Any] | None:
    """Start an export at `out`, or go on with it; gives the record of one that is finished.

    What is there and something else is a UsageError, or is removed with `overwrite` if all of it is ours.
    """
    if overwrite:
        _clear(out, holds)
    finished, under_way = read_record(out), out.read_many([IDENTITY]).get(IDENTITY)
    found = finished["identity"] if finished else json.loads(under_way) if under_way else None
    if found is None and (strangers := set(out.names()) - {BELOW}):
        raise UsageError(
            f"{out.uri}: exists and is no export that could go on ({min(strangers)}); name an empty folder"
        )
    if found is not None and found != identity:
        if why := cannot_compare(found, identity):
            raise UsageError(f"{out.uri}: {why}")
        here, there = ({**which, **which.get("asked", {})} for which in (found, identity))
        differing = [key for key in {**here, **there} if key != "asked" and here.get(key) != there.get(key)]
        what = f"holds an export with another {', '.join(differing)}"
        raise UsageError(f"{out.uri}: {what}; give --overwrite or another --out")
    if not finished:
        out.write(IDENTITY, json.dumps(identity).encode())
        clear_failures(out, BELOW)
        _sweep(out)
    return finished


def cannot_compare(found: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Why nobody can say whether an export is the one of `identity`, if its view digest is all that differs."""
    if {**found, "view_digest": identity["view_digest"]} != identity:
        return None
    return outdated(found.get("view_digest"), "the export", fix="run 'oxe export' again with --overwrite")


def _clear(out: LocalFolder, holds: str) -> None:
    strangers = set(out.names()) - {BELOW}
    if not strangers:
        return
    if out.size(RECORD) is None and out.size(IDENTITY) is None:
        raise UsageError(f"{out.uri}: was not written by this command; --overwrite will not remove it")
    check_no_foreign_files(out.root, pattern=holds)
    out.write(IDENTITY, b"{}")  # one that is removed in part never passes for a whole one
    for name in (RECORD, *sorted(strangers)):
        out.remove(name)
    for name in out.names(BELOW):
        if f"{BELOW}/{name}" != LOCK:
            out.remove(f"{BELOW}/{name}")


def _sweep(out: LocalFolder) -> None:
    """Remove what killed workers were writing."""
    out.sweep(sorted({path.parent.relative_to(out.root).as_posix() for path in out.root.rglob("tmp-*")}))


def finish(out: Folder, record: Mapping[str, Any]) -> None:
    """Say that the export is whole; its ledger is gone from then on."""
    out.write(RECORD, json.dumps(record, indent=1).encode() + b"\n")
    for name in out.names(BELOW):
        if f"{BELOW}/{name}" != LOCK:
            out.remove(f"{BELOW}/{name}")


def read_record(out: Folder) -> dict[str, Any] | None:
    """Read what a whole export says of itself; None where there is none."""
    content = out.read_many([RECORD]).get(RECORD)
    try:
        record = None if content is None else json.loads(content)
        if record is not None:
            _ = record["identity"]["asked"], record["identity"]["manifest"], record["report"]
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{out.place(RECORD)}: damaged ({error!r})") from error
    return None if record is None else dict(record)
