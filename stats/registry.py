"""Statistics by name and digest, in a folder here or behind any fsspec URI.

A record is the file `URI/<name>/<digest>.json`, in the native form; the listing of the folder is the index. Its name
says its content, so publishing twice changes nothing and two writers cannot disagree.
"""

import json
import re
from typing import Any

from schemas.errors import StatsError, UsageError, did_you_mean
from schemas.files.folder import open_folder
from stats.formats import encode, label
from stats.record import Statistics

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
DIGEST = re.compile(r"[0-9a-f]{4,32}")


def publish(found: Statistics, uri: str) -> str:
    """Add a record to the registry at `uri`, unless it is there; returns `name@digest`."""
    if not NAME.fullmatch(found.name):
        raise StatsError(f"'{found.name}' cannot name a record: letters, digits, '_', '.' and '-' only")
    registry, digest = open_folder(uri, for_writing=True), found.digest()
    place = _place(found.name, digest)
    try:
        if registry.size(place) is None:
            registry.write(place, encode(found, "native"))
    except OSError as error:
        raise UsageError(f"{uri}: cannot be written ({error})") from error
    return f"{found.name}@{digest}"


def listing(uri: str) -> dict[str, tuple[str, ...]]:
    """List the digests under each name."""
    registry = open_folder(uri)
    try:
        files = {name: registry.names(name) for name in registry.names() if NAME.fullmatch(name)}
    except OSError as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error
    stems = {
        name: [file.removesuffix(".json") for file in found if file.endswith(".json")] for name, found in files.items()
    }
    digests = {name: tuple(filter(DIGEST.fullmatch, found)) for name, found in stems.items()}
    return {name: found for name, found in digests.items() if found}


def fetch(target: str, uri: str) -> Statistics:
    """Read `NAME` or `NAME@digest`; the beginning of a digest is enough, and none if the name has one record.

    Content that does not have the digest it is stored under is a StatsError.
    """
    name, _, wanted = target.partition("@")
    known = listing(uri)
    if not known:
        raise UsageError(f"{uri}: no registry, or an empty one")
    if name not in known:
        raise UsageError(f"{uri}: no statistics of '{name}'{did_you_mean(name, known)}")
    digests = [digest for digest in known[name] if digest.startswith(wanted)]
    if len(digests) != 1:
        choice = "; ".join(_told(_read(uri, name, digest), digest) for digest in known[name])
        raise UsageError(f"{uri}: {len(digests)} records are '{target}'; name one of: {choice}")
    return _read(uri, name, digests[0])


def _told(found: Statistics, digest: str) -> str:
    about = label(f"{found.name}@{digest[:12]}", view=found.view, split=found.split, filters=found.filters)
    return f"{about}, {found.steps} steps"


def _read(uri: str, name: str, digest: str) -> Statistics:
    registry, place = open_folder(uri), _place(name, digest)
    where = registry.place(place)
    try:
        found = Statistics.from_json(_parsed(registry.read(place), where), where=where)
    except OSError as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error
    if found.digest() != digest:
        raise StatsError(f"{where}: its content has the digest {found.digest()}, not that of its name")
    return found


def _place(name: str, digest: str) -> str:
    return f"{name}/{digest}.json"


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise StatsError(f"{where}: cannot be read as statistics ({error})") from error
