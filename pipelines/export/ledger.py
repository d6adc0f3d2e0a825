"""The ledger that resumes an export after a crash, and the record of a finished one.

During an export, `oxe_ledger/` contains the identity of the export and a record of each finished shard, written after
the shard's files. `oxe_export.json` is written last: a folder that contains it is a complete export.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.beam.shards import FAILURE, StatusFolder, clear_failures
from pipelines.convert.folders import check_no_foreign_files
from schemas.errors import DatasetError, UsageError
from schemas.files import durable
from schemas.files.folder import Folder, LocalFolder
from schemas.parsing import parse_json
from schemas.views.digests import outdated

RECORD, RUNS = "oxe_export.json", "oxe_runs.jsonl"
BELOW = "oxe_ledger"
LOCK, IDENTITY = f"{BELOW}/lock", f"{BELOW}/identity.json"
OURS = rf"oxe_spec\.toml|{RECORD}|{RUNS}|{BELOW}/[^/]+|([^/]+/)*{durable.NAME.pattern}"


@dataclass(frozen=True, slots=True)
class ExportLedger(StatusFolder):
    """The shard records of one export."""

    BELOW = BELOW
    RECORD = ".json"

    def write(self, name: str, files: Iterable[str], about: Mapping[str, Any]) -> None:
        """Record that a shard is finished, with the sizes of its files; `about` is the data for `Target.describe`."""
        record = {"files": self.out.sizes(files), "about": about}
        self.out.write(self.place(name + self.RECORD), json.dumps(record).encode(), sync=False)
        self.out.remove(self.place(name + FAILURE))

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the `about` of a shard; None if the shard is not finished or its files have changed size."""
        place = self.place(name + self.RECORD)
        content = self.out.read_many([place]).get(place)
        if content is None:
            return None
        record = parse_json(content)
        return record["about"] if self.out.sizes(record["files"]) == record["files"] else None


def begin(out: LocalFolder, identity: Mapping[str, Any], *, pattern: str, overwrite: bool) -> dict[str, Any] | None:
    """Start or resume an export at `out`; returns its record if it is already finished, otherwise None.

    With `overwrite`, first removes the files in `out`, but only if all of them match `pattern`. Raises UsageError if
    `out` contains other files or a different export.
    """
    if overwrite:
        _clear(out, pattern)
    finished, unfinished = read_record(out), out.read_many([IDENTITY]).get(IDENTITY)
    existing = finished["identity"] if finished else parse_json(unfinished) if unfinished else None
    if existing is None and (others := set(out.names()) - {BELOW}):
        raise UsageError(
            f"{out.uri}: contains '{min(others)}', and no export that could be resumed; use an empty folder"
        )
    if existing is not None and existing != identity:
        if why := why_not_comparable(existing, identity):
            raise UsageError(f"{out.uri}: {why}")
        old, new = ({**which, **which.get("asked", {})} for which in (existing, identity))
        differing = [key for key in {**old, **new} if key != "asked" and old.get(key) != new.get(key)]
        what = f"contains an export with a different {', '.join(differing)}"
        raise UsageError(f"{out.uri}: {what}; pass --overwrite or another --out")
    if finished:
        _remove_ledger(out)  # left by a process that was killed after it wrote the record
    else:
        out.write(IDENTITY, json.dumps(identity).encode())
        clear_failures(out, BELOW)
    out.sweep(_folders(out))
    return finished


def why_not_comparable(existing: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Return why an export cannot be compared with `identity`: an older version computed its view digest.

    Returns None if this is not the reason, or not the only difference.
    """
    if {**existing, "view_digest": identity["view_digest"]} != identity:
        return None
    return outdated(existing.get("view_digest"), "the export", fix="run 'oxe export' again with --overwrite")


def _clear(out: LocalFolder, pattern: str) -> None:
    names = set(out.names()) - {BELOW}
    if out.size(RECORD) is None and out.size(IDENTITY) is None:
        if not names:
            return
        raise UsageError(f"{out.uri}: was not written by this command; --overwrite will not remove it")
    check_no_foreign_files(out.root, pattern=pattern)
    out.write(IDENTITY, b"{}")  # so that a partly removed export is never mistaken for a complete one
    out.remove(RECORD)
    out.sync(("",))
    for name in sorted(names):
        out.remove(name)
    out.sync(("",))  # until here, the remaining files are known to be ours
    _remove_ledger(out)
    out.sync((BELOW,))


def _remove_ledger(out: LocalFolder) -> None:
    for name in out.names(BELOW):
        if f"{BELOW}/{name}" != LOCK:
            out.remove(f"{BELOW}/{name}")


def _folders(out: LocalFolder) -> list[str]:
    """List the folders of an export, with the folder itself."""
    return ["", *sorted(path.relative_to(out.root).as_posix() for path in out.root.rglob("*") if path.is_dir())]


def finish(out: LocalFolder, record: Mapping[str, Any]) -> None:
    """Write the record of a complete export, once all its files are durable, and remove its ledger."""
    out.sync(_folders(out))
    out.write(RECORD, json.dumps(record, indent=1).encode() + b"\n")
    _remove_ledger(out)


def read_record(out: Folder) -> dict[str, Any] | None:
    """Read the record of a complete export; None if there is none.

    Raises DatasetError if the record is damaged.
    """
    content = out.read_many([RECORD]).get(RECORD)
    try:
        record = None if content is None else parse_json(content)
        if record is not None:
            _ = record["identity"]["asked"], record["identity"]["manifest"], record["report"]
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{out.place(RECORD)}: damaged ({error!r})") from error
    return None if record is None else dict(record)
