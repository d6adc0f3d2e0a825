"""A registry of statistics by name and digest, in a local folder or behind an fsspec URI.

A record is the file `URI/<name>/<digest>.json`, in the native JSON form. There is no index besides the file names. The
digest in the name depends on the content, so publishing twice changes nothing, and concurrent writers cannot conflict.
"""

import re
from typing import Any

from schemas.errors import StatsError, UsageError, did_you_mean
from schemas.files.folder import open_folder
from schemas.parsing import parse_json
from stats.formats import encode, label
from stats.record import Statistics

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
DIGEST = re.compile(r"[0-9a-f]{4,32}")


def publish(statistics: Statistics, uri: str) -> str:
    """Add a record to the registry at `uri`, unless it is already there. Returns `name@digest`."""
    if not NAME.fullmatch(statistics.name):
        raise StatsError(f"'{statistics.name}' is not a valid record name: use letters, digits, '_', '.' and '-'")
    registry, digest = open_folder(uri, for_writing=True), statistics.digest()
    place = _place(statistics.name, digest)
    try:
        if registry.size(place) is None:
            registry.write(place, encode(statistics, "native"))
    except OSError as error:
        raise UsageError(f"{uri}: cannot be written ({error})") from error
    return f"{statistics.name}@{digest}"


def listing(uri: str) -> dict[str, tuple[str, ...]]:
    """List the digests under each name."""
    registry = open_folder(uri)
    try:
        files = {name: registry.names(name) for name in registry.names() if NAME.fullmatch(name)}
    except OSError as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error
    stems = {
        name: [file.removesuffix(".json") for file in names if file.endswith(".json")] for name, names in files.items()
    }
    digests = {name: tuple(filter(DIGEST.fullmatch, words)) for name, words in stems.items()}
    return {name: records for name, records in digests.items() if records}


def fetch(target: str, uri: str) -> Statistics:
    """Read the record `NAME` or `NAME@DIGEST`, where DIGEST may be a unique prefix of the digest.

    Raises StatsError if the content does not match the digest in the file name.
    """
    name, _, wanted = target.partition("@")
    known = listing(uri)
    if not known:
        raise UsageError(f"{uri}: is not a registry, or is empty")
    if name not in known:
        raise UsageError(f"{uri}: no statistics of '{name}'{did_you_mean(name, known)}")
    digests = [digest for digest in known[name] if digest.startswith(wanted)]
    if len(digests) != 1:
        choice = "; ".join(_description(_read(uri, name, digest), digest) for digest in known[name])
        raise UsageError(f"{uri}: {len(digests)} records match '{target}'; choose one of: {choice}")
    return _read(uri, name, digests[0])


def _description(statistics: Statistics, digest: str) -> str:
    about = label(
        f"{statistics.name}@{digest[:12]}", view=statistics.view, split=statistics.split, filters=statistics.filters
    )
    return f"{about}, {statistics.steps} steps"


def _read(uri: str, name: str, digest: str) -> Statistics:
    registry, place = open_folder(uri), _place(name, digest)
    where = registry.place(place)
    try:
        statistics = Statistics.from_json(_parsed(registry.read(place), where), where=where)
    except OSError as error:
        raise UsageError(f"{uri}: cannot be read ({error})") from error
    if statistics.digest() != digest:
        raise StatsError(f"{where}: has the digest {statistics.digest()}, which does not match its file name")
    return statistics


def _place(name: str, digest: str) -> str:
    return f"{name}/{digest}.json"


def _parsed(content: bytes, where: str) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        raise StatsError(f"{where}: cannot be read as statistics ({error})") from error
