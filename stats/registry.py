"""Statistics by name and digest, in a folder on any file system that fsspec knows.

A record is the file `URI/<name>/<digest>.json`, in the native form; the listing of the folder is the index. Its name
says its content, so publishing twice changes nothing and two writers cannot disagree.
"""

import json
import re
import uuid
from typing import Any

import fsspec

from schemas.errors import StatsError, UsageError, did_you_mean
from stats.formats import encode
from stats.record import Statistics

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
DIGEST = re.compile(r"[0-9a-f]{4,32}")


def publish(found: Statistics, uri: str) -> str:
    """Add a record to the registry at `uri`, unless it is there; returns `name@digest`."""
    system, root = _opened(uri)
    digest = found.digest()
    if not NAME.fullmatch(found.name):
        raise StatsError(f"'{found.name}' cannot name a record: letters, digits, '_', '.' and '-' only")
    folder = f"{root}/{found.name}"
    path = f"{folder}/{digest}.json"
    try:
        if not system.exists(path):
            system.makedirs(folder, exist_ok=True)
            tmp = "/".join((folder, f"tmp-{uuid.uuid4().hex}"))  # on a disk a file grows; a rename shows it whole
            system.pipe_file(tmp, encode(found, "native"))
            system.mv(tmp, path)
    except (OSError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{uri}: cannot be written ({error})") from error
    return f"{found.name}@{digest}"


def listing(uri: str) -> dict[str, tuple[str, ...]]:
    """List the digests under each name."""
    system, root = _opened(uri)
    out: dict[str, list[str]] = {}
    for path in _found(system, root, uri):
        name, file = path.split("/")[-2:]
        digest = file.removesuffix(".json")
        if file.endswith(".json") and DIGEST.fullmatch(digest):
            out.setdefault(name, []).append(digest)
    return {name: tuple(sorted(digests)) for name, digests in sorted(out.items())}


def fetch(target: str, uri: str) -> Statistics:
    """Read `NAME` or `NAME@digest`; the beginning of a digest is enough, and none if the name has one record.

    Content that does not have the digest it is stored under is a StatsError.
    """
    name, _, wanted = target.partition("@")
    known = listing(uri)
    if name not in known:
        raise UsageError(f"{uri}: no statistics of '{name}'{did_you_mean(name, known)}")
    digests = [digest for digest in known[name] if digest.startswith(wanted)]
    if len(digests) != 1:
        choice = ", ".join(f"{name}@{digest[:12]}" for digest in known[name])
        raise UsageError(f"{uri}: {len(digests)} records are '{target}'; name one of {choice}")
    system, root = _opened(uri)
    where = f"{root}/{name}/{digests[0]}.json"
    try:
        found = Statistics.from_json(_parsed(system.cat_file(where), where), where=where)
    except OSError as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error
    if found.digest() != digests[0]:
        raise StatsError(f"{where}: its content has the digest {found.digest()}, not that of its name")
    return found


def _opened(uri: str) -> tuple[Any, str]:
    try:
        system, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{uri}: cannot be opened ({error})") from error
    return system, str(root).rstrip("/")


def _found(system: Any, root: str, uri: str) -> list[str]:
    try:
        system.invalidate_cache()
        return [str(path) for path in system.glob(f"{root}/*/*.json")]
    except (OSError, ValueError) as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise StatsError(f"{where}: cannot be read as statistics ({error})") from error
